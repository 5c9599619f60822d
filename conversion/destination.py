"""Where a conversion writes to: what it is, and that it may be replaced."""

import os
from pathlib import Path
from typing import Any

from conversion.detector.writers import FILE_FORMATS as DETECTOR_FILE_FORMATS
from conversion.formats import Checkpoint
from conversion.report import some
from conversion.writers import DIRECTORY_FORMATS, FILE_FORMATS
from lxmert_tf.command_line import option
from lxmert_tf.configuration import CONFIG_NAME
from lxmert_tf.detector.configuration import VOCABULARIES, YAML_NAME
from lxmert_tf.hub import TOKENIZER_FILES

# The file formats by what their names end in, and the suffixes that no directory should have.
FORMATS_BY_SUFFIX = {
    ".weights.h5": "keras-weights",
    ".keras": "keras",
    ".pth": "original",  # or milvlg, of a detector
    ".pkl": "detectron2",
    ".caffemodel": "caffe",
}
FILE_SUFFIXES = (".safetensors", ".bin", ".h5", ".keras", ".pth", ".pt")


def format_of_name(destination: Path) -> str:
    """The format that a destination's name stands for."""
    return next((to for suffix, to in FORMATS_BY_SUFFIX.items() if destination.name.endswith(suffix)), "hf-pt")


def file_format(to: str, destination: Path) -> str | None:
    """The format of the single file that is written, or None for a directory."""
    if to == "keras" and destination.suffix == ".keras":
        return "keras-archive"
    if to == "keras-weights" and not destination.name.endswith(".weights.h5"):
        raise ValueError(f"Keras loads only files named *.weights.h5, got {destination.name}; rename the destination.")
    if to == "original" and destination.suffix in (".safetensors", ".h5", ".keras"):
        raise ValueError(f"{destination.name} is the name of a file of another format than original; name it *.pth.")
    if to in DIRECTORY_FORMATS and destination.suffix in FILE_SUFFIXES:
        raise ValueError(
            f"{to} is written as a directory, but {destination.name} is the name of a file; choose another."
        )
    return to if to in (*FILE_FORMATS, *DETECTOR_FILE_FORMATS) else None


def check_replaceable(destination: Path, to: str, is_file: bool, overwrite: bool) -> None:
    """Refuses a destination that is there and may not be replaced.

    Raises:
        FileExistsError: it exists and `overwrite` is not given, is of another kind, or holds more than a checkpoint.
    """
    empty = not is_file and destination.is_dir() and not any(destination.iterdir())
    if empty or not destination.exists():
        return
    if not (destination.is_dir() or destination.is_file()):
        raise FileExistsError(f"{destination} exists but is not a regular file; choose another destination.")
    if not overwrite:
        replace = option("overwrite=True")
        raise FileExistsError(f"{destination} exists; choose another destination, or replace it with {replace}.")
    if destination.is_dir() == is_file:
        kind = "a file" if is_file else "a directory"
        raise FileExistsError(f"{destination} exists and is not {kind}, as {to} is; choose another destination.")
    if destination.is_dir():
        others = sorted(path.name for path in destination.iterdir() if not _is_checkpoint_file(path))
        if others:
            raise FileExistsError(f"{destination} also holds {some(others)}; only a checkpoint alone is overwritten.")


def _is_checkpoint_file(path: Path) -> bool:
    """Whether a checkpoint's directory has such a file."""
    patterns = ("model*.safetensors", "pytorch_model*.bin", "*.index.json", "model*.weights.*", "tf_model*.h5")
    known = path.name in (CONFIG_NAME, YAML_NAME, *VOCABULARIES.values(), *TOKENIZER_FILES) or any(
        path.match(pattern) for pattern in patterns
    )
    return known and path.is_file()


def check_apart(source: Any, checkpoint: Checkpoint, destination: Path) -> None:
    """Refuses a destination that holds the source or lies inside it: writing it would change or remove the source.

    Raises:
        ValueError: one holds the other.
    """
    paths = [source] if isinstance(source, str | os.PathLike) else []
    paths += [] if checkpoint.format == "memory" else [checkpoint.path]
    for path in (Path(os.path.realpath(path)) for path in paths):
        if path == destination:
            raise ValueError(f"The destination {destination} is the source itself; choose another one.")
        if path in destination.parents:
            raise ValueError(f"The destination {destination} lies inside the source {path}; choose one outside it.")
        if path.exists() and destination in path.parents:
            raise ValueError(f"The destination {destination} holds the source {path}; choose another one.")
