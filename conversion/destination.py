"""Where a conversion writes to: what it is, that it may be replaced, and how it takes its place whole or not at all."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from conversion.formats import Checkpoint
from conversion.report import some
from conversion.writers import DIRECTORY_FORMATS, FILE_FORMATS
from lxmert_tf.command_line import option
from lxmert_tf.configuration import CONFIG_NAME
from lxmert_tf.hub import TOKENIZER_FILES

LOCK, OLD = ".lock", ".old"  # in the folder of a run: its lock, and the end of the name of what is replaced
# The file formats by what their names end in, and the suffixes that no directory should have.
FORMATS_BY_SUFFIX = {".weights.h5": "keras-weights", ".keras": "keras", ".pth": "original"}
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
    return to if to in FILE_FORMATS else None


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
    known = path.name in (CONFIG_NAME, *TOKENIZER_FILES) or any(path.match(pattern) for pattern in patterns)
    return known and path.is_file()


def check_apart(source: Any, checkpoint: Checkpoint, destination: Path) -> None:
    """Refuses a destination that holds the source or lies inside it: writing it would change or remove the source.

    Raises:
        ValueError: one holds the other.
    """
    paths = [source] if isinstance(source, str | os.PathLike) else []
    paths += [] if checkpoint.format == "memory" else [checkpoint.path]
    for path in (Path(os.path.realpath(path)) for path in paths):
        if path == destination or path in destination.parents:
            raise ValueError(f"The destination {destination} lies inside the source {path}; choose one outside it.")
        if path.exists() and destination in path.parents:
            raise ValueError(f"The destination {destination} holds the source {path}; choose another one.")


@contextmanager
def staged(destination: Path) -> Iterator[Path]:
    """Yields a path on the same disk that takes the destination's place on success and is removed on any error.

    What runs that were killed have left beside the destination is removed, too.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(destination.parent)
    folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=destination.parent))
    try:
        with _locked(folder):
            yield folder / destination.name
            _put(folder / destination.name, destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds a lock in the folder that ends with this process, however it ends."""
    new = folder / f"{LOCK}.new"
    with open(new, "wb") as file:
        with suppress(OSError):  # a file system without locks: the folder of a killed run then stays
            fcntl.flock(file, fcntl.LOCK_EX)
            new.rename(folder / LOCK)  # only now others may try it
        yield


def _remove_abandoned(parent: Path) -> None:
    """Removes the folders of runs that are over: nobody holds their locks. What they were replacing is kept."""
    for lock in parent.glob(f".partial-*/{LOCK}"):
        with suppress(OSError), open(lock, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not any(lock.parent.glob(f"*{OLD}")):
                shutil.rmtree(lock.parent, ignore_errors=True)


def _put(new: Path, destination: Path) -> None:
    """Puts what is in the folder of a run in the destination's place."""
    if destination.is_dir():  # a directory cannot be replaced in one step, unless it is empty
        _swap(new, destination, new.with_name(f"{new.name}{OLD}"))
    else:
        os.replace(new, destination)


def _swap(new: Path, place: Path, old: Path) -> None:
    os.replace(place, old)
    try:
        os.replace(new, place)
    except OSError:
        os.replace(old, place)
        raise
