"""From a checkpoint to BASE/NAME/<version> for another runtime than TensorFlow Serving."""

import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lxmert_tf.serving import comparison
from lxmert_tf.serving.checkpoint import load
from lxmert_tf.serving.export import BATCH_SIZES, check_choices, make_options, model_metadata
from lxmert_tf.serving.metadata import check_base, read_metadata, write_metadata
from lxmert_tf.serving.precision import MAX_LOSS
from lxmert_tf.serving.runtimes import server_files
from lxmert_tf.serving.runtimes.base import (
    ANSWER_ENCODED,
    DEFAULT_SIGNATURE,
    ENCODE_IMAGE,
    Loaded,
    Runtime,
    model_name,
    runtime,
    signature_names,
)
from lxmert_tf.serving.runtimes.fallback import quantize_within
from lxmert_tf.serving.server_files import CONFIG_FILE, OVMS_FILE, locked_base
from lxmert_tf.serving.version_folders import check_name, next_version, publish, staged, versions

FORMATS = ("openvino", "onnx", "litert")
PRECISIONS = ("float32", "bfloat16", "int8")
CALIBRATION = 10  # batches


def export(
    source: str | os.PathLike,
    base: str | os.PathLike,
    name: str,
    format: str,
    *,
    precision: str = "float32",
    labels: str | os.PathLike | None = None,
    top_k: int = 5,
    probabilities: str | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    version: int | None = None,
    config: str | os.PathLike | None = None,
    compare: bool = False,
    data: Sequence[str] = (),
    features: str | None = None,
    max_loss: float = MAX_LOSS,
) -> Path:
    """Exports a checkpoint for OpenVINO, ONNX Runtime or LiteRT.

    Args:
        source: checkpoint of any format: directory, file or Hub id.
        base: the server's folder of models.
        name: the model's name there; its further signatures are models NAME_encode_image and NAME_answer_encoded.
        format: "openvino", "onnx" or "litert".
        precision: "float32", "bfloat16" or "int8"; inputs and outputs are float32.
        labels: JSON file of answers, in place of the model directory's own; for the metadata.
        top_k, probabilities, batch_sizes, version, config: as in `lxmert_tf.serving.export.export`.
        compare: whether to compare float32 too with the checkpoint; reduced precision always is.
        data: annotation files with labels, for accuracy.
        features: region features, of the images of `data`, or without that to calibrate and compare with.
        max_loss: points of accuracy that reduced precision may lose on `data`; for int8, layers stay float32 until it
            does not lose more.

    Returns:
        The version folder of NAME. All appear whole or not at all, NAME last.

    Raises:
        FileNotFoundError, ValueError, ImportError: the checkpoint cannot be exported or compared that way.
    """
    base, target = Path(base), runtime(_checked_format(format))
    check_name(name)
    check_choices("float32", (), top_k, probabilities, batch_sizes)
    target.check(precision)
    if base.exists() and not base.is_dir():
        raise NotADirectoryError(f"{base} is not a directory: give the server's directory of models.")
    check_base(base, format)
    if (base / CONFIG_FILE).exists() or (format != "openvino" and (base / OVMS_FILE).exists()):
        raise ValueError(f"{base} is another server's folder of models: choose another one for --format {format}.")
    if format == "openvino":
        server_files.read_ovms(base)
    loaded = load(source, config=config)
    reference = None
    if compare or precision != "float32":
        reference = comparison.Comparison(source, loaded.model, data, features, max_loss)
    options = make_options(loaded, False, (), labels, top_k, probabilities)
    signatures = signature_names(loaded.model)
    for signature in signatures:
        _check_signature(base / model_name(name, signature), signature)
    number = max(next_version(base / model_name(name, signature), version) for signature in signatures)

    with ExitStack() as stack:
        folders = {one: stack.enter_context(staged(base / model_name(name, one))) for one in signatures}
        target.convert(loaded, options, folders)
        kept = _quantize(target, folders, reference) if reference is not None and precision == "int8" else []
        models = {signature: target.load(folders[signature], precision) for signature in signatures}
        costs = {}
        if reference is not None and (precision == "int8" or models[DEFAULT_SIGNATURE].precision == precision):
            costs = _costs(models, reference)
            for cost in costs.values():
                reference.require(cost, precision)
        for signature, model in models.items():
            values = {
                **model_metadata(source, model_name(name, signature), precision, loaded, options),
                "format": format,
                "computed_in": model.precision,
                "batch_sizes": sorted(batch_sizes),
                "kept_in_float32": kept,
                "comparison": costs.get(signature),
                "signatures": {signature: {"inputs": model.inputs, "outputs": model.outputs}},
            }
            write_metadata(folders[signature], values)
        with locked_base(base):
            written = [publish(folders[signature], number) for signature in signatures]
            try:
                for signature, model in models.items():
                    if format == "openvino":
                        server_files.update_ovms(base, model_name(name, signature), precision)
                    elif format == "onnx":
                        server_files.write_triton(base, model_name(name, signature), model, max(batch_sizes))
            except BaseException:
                for folder in written:
                    shutil.rmtree(folder)
                raise
    return written[-1]


def _checked_format(format: str) -> str:
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {format!r}.")
    return format


def _check_signature(folder: Path, signature: str) -> None:
    """ValueError where BASE/NAME has versions of another signature, of a model of another name."""
    for number in versions(folder):
        found = list(read_metadata(folder / str(number))["signatures"])
        if found != [signature]:
            raise ValueError(
                f"{folder / str(number)} is {', '.join(found)} of another model: choose a name without the ending "
                "of a signature, or another base."
            )


def _quantize(target: Runtime, folders: dict[str, Path], reference: comparison.Comparison) -> list[str]:
    """Makes the float32 models in `folders` int8; returns what stays float32."""

    def measure(folder: Path) -> dict[str, Any]:
        return reference.measure(target.load(folder, "int8").run)

    work, batches = folders[DEFAULT_SIGNATURE].parent / "int8", list(reference.examples.batches[:CALIBRATION])
    kept, _ = quantize_within(target, folders[DEFAULT_SIGNATURE], work, batches, measure, reference.max_loss)
    _replace(folders[DEFAULT_SIGNATURE], work)
    for signature in (one for one in folders if one != DEFAULT_SIGNATURE):  # the image is encoded first
        folder = folders[signature]
        layers = target.layers(folder)
        encode = target.load(folder, "float32").run
        encoded = [{**batch, **encode(batch)} for batch in batches]
        work.mkdir()
        target.quantize(folder, work, batches, [node for layer in kept for node in layers.get(layer, ())])
        _replace(folder, work)
        batches = encoded
    return kept


def _costs(models: dict[str, Loaded], reference: comparison.Comparison) -> dict[str, dict[str, Any]]:
    """What serving_default, and the two signatures that answer one after the other, cost."""
    costs = {DEFAULT_SIGNATURE: reference.measure(models[DEFAULT_SIGNATURE].run)}
    if ANSWER_ENCODED in models:
        encode, answer = models[ENCODE_IMAGE].run, models[ANSWER_ENCODED].run
        costs[ANSWER_ENCODED] = reference.measure(lambda inputs: answer({**inputs, **encode(inputs)}))
    return costs


def _replace(folder: Path, new: Path) -> None:
    shutil.rmtree(folder)
    new.rename(folder)
