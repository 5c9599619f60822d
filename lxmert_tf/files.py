"""Files and directories that appear whole or not at all: written beside their place, then renamed; their content."""

import hashlib
import json
import os
import reprlib
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from lxmert_tf.locks import locked

PARTIAL = ".partial-"  # what the names of unfinished files and directories begin with
LOCK, OLD = ".lock", ".old"  # in an unfinished directory: its lock, and the suffix of what is being replaced
ENTRY_HEADER = 30  # bytes that every entry of a zip archive begins with


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary path beside `path`; on success it takes `path`'s place, on any error it is removed.

    The temporary name keeps `path`'s suffixes, which some writers insist on. Missing directories are made.

    Raises:
        FileExistsError: `path` is a directory, a device or a pipe, which no file takes the place of.
    """
    path = Path(path)
    _check_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle, name = tempfile.mkstemp(prefix=PARTIAL, suffix="-" + path.name, dir=path.parent)
    except OSError as error:
        error.filename = os.fspath(path)  # nobody asked for the temporary one
        raise
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        flush(temporary)
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_replaceable(path: Path) -> None:
    if path.exists() and not path.is_file():
        kind = "a directory" if path.is_dir() else "a device or a pipe"
        raise FileExistsError(f"{path} is {kind}, which is not replaced by a file; choose another file.")


def remove_partial(directory: str | os.PathLike) -> None:
    """Removes the unfinished files that killed processes have left below a directory, at any depth."""
    for path in Path(directory).glob(f"**/{PARTIAL}*"):
        if path.is_file():
            path.unlink(missing_ok=True)


@contextmanager
def staged(destination: str | os.PathLike) -> Iterator[Path]:
    """Yields a path on the same disk; the file or directory written there takes `destination`'s place on success.

    On any error it is removed. A directory that is replaced is moved aside first, since that cannot be one step.
    """
    destination = Path(destination)
    with staging(destination.parent) as folder:
        new = folder / destination.name
        yield new
        if destination.is_dir():
            _swap(new, destination, new.with_name(new.name + OLD))
        else:
            os.replace(new, destination)


@contextmanager
def staging(parent: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty directory in `parent`, to write something in and move it elsewhere; it is removed afterwards.

    What killed processes have left of theirs is removed first, except for what they were replacing.
    """
    parent = Path(parent)
    parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(parent)
    with ExitStack() as stack:
        folder = _lock_new_directory(parent, stack)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _lock_new_directory(parent: Path, stack: ExitStack) -> Path:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PARTIAL, dir=parent))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)  # once unlocked: Windows keeps files that are open
        try:
            stack.enter_context(locked(folder / LOCK))
        except FileNotFoundError:  # another process took it for an abandoned one before it was locked
            continue
        except OSError:  # a file system without locks: the directory of a killed process then stays
            pass
        return folder


def _remove_abandoned(parent: Path) -> None:
    """Removes the unfinished directories whose lock nobody holds."""
    for lock in parent.glob(f"{PARTIAL}*/{LOCK}"):
        folder = lock.parent
        with suppress(OSError):
            with locked(lock, wait=False):
                abandoned = not any(folder.glob(f"*{OLD}"))
                if abandoned:
                    shutil.rmtree(folder, ignore_errors=True)
            if abandoned:  # Windows keeps files that are open
                shutil.rmtree(folder, ignore_errors=True)


def _swap(new: Path, place: Path, old: Path) -> None:
    os.replace(place, old)
    try:
        os.replace(new, place)
    except BaseException:  # an interrupt, too
        os.replace(old, place)
        raise


def flush(path: str | os.PathLike) -> None:
    """Waits until the content of a file is on disk."""
    with open(path, "r+b") as file:
        os.fsync(file.fileno())


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` to `path` in UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file in UTF-8.

    Raises:
        OSError: it cannot be opened.
        ValueError: as `parse_json`; the message does not name the file.
    """
    return parse_json(Path(path).read_text(encoding="utf-8"))


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: it is not JSON, or an object has a key twice, of which Python would silently drop one.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def read_json_as(path: str | os.PathLike, kind: type | tuple[type, ...], expected: str) -> Any:
    """The content of a JSON file, of one of these Python types.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is not JSON, or not what is `expected`; the message names the file.
    """
    try:
        value = read_json(path)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: not json: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{os.fspath(path)}: expected {expected}, got {json_kind(value)}")
    return value


def json_kind(value: Any) -> str:
    """What JSON calls a value of this type."""
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), "null")


def check_apart(output: str | os.PathLike, inputs: Iterable[str | os.PathLike | None]) -> None:
    """Checks that an output is none of the inputs; inputs that are None or do not exist are skipped.

    Raises:
        ValueError: `output` is one of `inputs`, by whatever name.
    """
    if not os.path.exists(output):
        return
    for path in inputs:
        if path is not None and os.path.exists(path) and os.path.samefile(output, path):
            raise ValueError(
                f"{os.fspath(output)} would be overwritten, but it is also an input; choose another output."
            )


def check_place(path: str | os.PathLike) -> None:
    """Checks, before the work is done, that a file can be written; directories are not made.

    Raises:
        FileNotFoundError: there is no directory to write it in.
        OSError: the directory takes no file, or `path` is something that no file takes the place of.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no directory {os.fspath(path.parent)!r} to write {path.name} in.")
    _check_replaceable(path)
    try:
        tempfile.TemporaryFile(prefix=PARTIAL, dir=path.parent).close()
    except OSError as error:
        raise type(error)(f"{path} cannot be written: {error.strerror or error}.") from error


def absent(path: str | os.PathLike) -> str:
    """The message for a path at which there is nothing."""
    path = os.fspath(path)
    if os.path.islink(path):
        return f"{path!r} is a link to {os.readlink(path)!r}, where there is nothing."
    return f"There is no file or directory {path!r}."


def content_offset(header: bytes | bytearray, offset: int) -> int:
    """The offset of the content of an entry of a zip archive, to read it directly if it is not compressed.

    Args:
        header: the first `ENTRY_HEADER` bytes of the entry.
        offset: of the entry, `header_offset` of its `ZipInfo`.
    """
    name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    return offset + ENTRY_HEADER + name + extra


def sha256(*paths: str | os.PathLike) -> str:
    """The SHA-256 of files, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"an object has the key {reprlib.repr(twice)} twice")
    return values


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
