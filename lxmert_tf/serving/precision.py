"""What precision may cost, and which one is chosen where that is left to the processor: `--precision auto`."""

from collections.abc import Mapping, Sequence

from lxmert_tf.processor import features, instructions

# Of each format, what its runtime has kernels for, the fastest first. OpenVINO's int8 needs inputs to calibrate with.
REDUCED: Mapping[str, tuple[str, ...]] = {
    "saved_model": ("bfloat16",),
    "openvino": ("bfloat16", "int8"),
    "onnx": ("int8",),
    "litert": ("int8",),
}
CALIBRATED = ("openvino",)
SUFFICIENT: Mapping[str, tuple[str, ...]] = {"onnx": ("avx2",), "litert": ("avx2",)}  # for int8 to be faster, too
MAX_LOSS = 0.3  # points of accuracy


class PrecisionError(ValueError):
    """A precision that loses more accuracy than is allowed."""


def check_limit(max_loss: float, data: Sequence[str], features: str | None) -> None:
    """ValueError where accuracy could not be measured, or the limit of what may be lost is none."""
    if data and not features:
        raise ValueError("--data needs the region features of its images: give --features, too.")
    if not max_loss >= 0:
        raise ValueError(f"--max-loss must be at least 0 points of accuracy, got {max_loss:g}.")


def choose(format: str, calibrated: bool) -> tuple[str, str]:
    """The fastest precision of a format on this machine's processor.

    Args:
        format: "saved_model", "openvino", "onnx" or "litert".
        calibrated: whether there are features of real images to calibrate with.

    Returns:
        "float32", "bfloat16" or "int8", and the reason, as a sentence's end.
    """
    if not features():
        return "float32", "what this processor has is not known here"
    absent, uncalibrated = [], ""
    for precision in REDUCED[format]:
        found = [*instructions(precision), *(name for name in SUFFICIENT.get(format, ()) if name in features())]
        if not found:
            absent.append(precision)
        elif precision == "int8" and format in CALIBRATED and not calibrated:
            uncalibrated = ", and int8 needs --features to calibrate with"
        else:
            return precision, f"it is faster than float32 on this processor ({found[0]})"
    return "float32", f"this processor has no products in {' or '.join(absent)}{uncalibrated}"
