"""The precision of an export where it is left to the processor: `--precision auto`."""

from collections.abc import Mapping

from lxmert_tf.processor import features, instructions

# Of each format, what its runtime has kernels for, the fastest first. OpenVINO's int8 needs inputs to calibrate with.
REDUCED: Mapping[str, tuple[str, ...]] = {
    "saved_model": ("bfloat16",),
    "openvino": ("bfloat16", "int8"),
    "onnx": ("int8",),
    "litert": ("int8",),
}
CALIBRATED = ("openvino",)


def choose(format: str, calibrated: bool) -> tuple[str, str]:
    """The fastest precision of a format on this machine's processor.

    Args:
        format: "saved_model", "openvino", "onnx" or "litert".
        calibrated: whether there are features of real images to calibrate with.

    Returns:
        "float32", "bfloat16" or "int8", and the reason, as a sentence's end.
    """
    lacking = []
    for precision in REDUCED[format]:
        found = instructions(precision)
        if found and precision == "int8" and format in CALIBRATED and not calibrated:
            lacking.append("int8 needs --features to calibrate with")
        elif found:
            return precision, f"this processor has products in {precision} ({found[0]})"
        else:
            lacking.append(f"it has no products in {precision}")
    if not features():
        return "float32", "what this processor has is not known here"
    return "float32", f"on this processor nothing is faster: {', and '.join(lacking)}"
