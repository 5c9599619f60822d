"""LiteRT and ONNX files through Keras' own export, with a plain error where its converters fail."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras

from lxmert_tf.files import replacing
from lxmert_tf.input_table import IMAGE_INPUTS
from lxmert_tf.serving.checkpoint import load

SUFFIXES = {"litert": ".tflite", "onnx": ".onnx"}


def export_file(
    source: str | os.PathLike,
    path: str | os.PathLike,
    format: str,
    sizes: Sequence[int],
    config: str | os.PathLike | None = None,
) -> Path:
    """Writes a checkpoint as one file, with the inputs and outputs of the model and fixed sizes.

    With free sizes Keras' LiteRT converter makes a graph that only TensorFlow's own operations can run.

    Args:
        source: checkpoint of any format.
        path: the file, ending in .tflite or .onnx.
        format: "litert" or "onnx".
        sizes: examples, tokens and boxes.
        config: config.json in place of the checkpoint's own.

    Raises:
        ValueError: a size is below 1 or there are too many tokens, the name does not fit the format, or the converter
            cannot convert the model.
        ImportError: a converter is not installed.
    """
    path = Path(path)
    if path.suffix != SUFFIXES[format]:
        raise ValueError(f"A file of format {format} must end in {SUFFIXES[format]}, got {path.name!r}.")
    if len(sizes) != 3 or min(sizes) < 1:
        raise ValueError(f"--sizes must be examples, tokens and boxes, each at least 1, got {list(sizes)}.")
    if format == "onnx":
        _require_onnx()
    model = load(source, config=config).model
    longest = model.config.max_position_embeddings
    if sizes[1] > longest:
        raise ValueError(
            f"--sizes: the model takes at most {longest} tokens (max_position_embeddings), got {sizes[1]}."
        )
    with replacing(path) as temporary:
        try:
            signature = _fixed(model, *sizes)
            model.export(os.fspath(temporary), format=format, verbose=False, input_signature=[signature])
        except Exception as error:
            first = str(error).strip().splitlines()[0]
            raise ValueError(f"Keras cannot export this model to {format}: {type(error).__name__}: {first}") from error
    return path


def _fixed(model: keras.Model, examples: int, tokens: int, boxes: int) -> dict[str, keras.InputSpec]:
    specs = {}
    for name, spec in model.input_signature.items():
        free = iter((examples, boxes if name in IMAGE_INPUTS else tokens))
        shape = tuple(next(free) if size is None else size for size in spec.shape)
        specs[name] = keras.InputSpec(shape=shape, dtype=spec.dtype, name=name)
    return specs


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
        import tf2onnx  # noqa: F401
    except ImportError as error:
        raise ImportError("--format onnx needs Keras' converters for it: pip install tf2onnx onnx.") from error
