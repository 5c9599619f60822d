"""One lock between processes: it is held on a file, and ends with the process that holds it, however that ends."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

PAUSE = 0.05  # seconds between attempts on Windows, whose own waiting gives up after ten seconds


@contextmanager
def locked(path: str | os.PathLike, wait: bool = True) -> Iterator[None]:
    """Holds an exclusive lock, against other processes and other threads.

    The lock file is created for it and removed afterwards. One that a killed process has left is free to be locked.

    Args:
        path: the lock file; its directory must exist.
        wait: whether to wait for the present holder.

    Raises:
        BlockingIOError: it is held elsewhere, and `wait` is False.
        OSError: the file cannot be created, or its file system does not support locks.
    """
    file = _acquire(path, wait)
    try:
        yield
    finally:
        _release(file, path)


def _acquire(path: str | os.PathLike, wait: bool) -> BinaryIO:
    while True:
        file = open(path, "ab")  # noqa: SIM115 (open as long as the lock is held)
        try:
            _lock(file.fileno(), wait)
            if _is_at(file, path):
                return file
        except BlockingIOError:
            file.close()
            raise
        except OSError as error:
            _release(file, path)
            raise OSError(error.errno, f"Cannot lock this file ({error.strerror})", os.fspath(path)) from error
        except BaseException:
            file.close()
            raise
        file.close()  # the holder before has removed it


def _is_at(file: BinaryIO, path: str | os.PathLike) -> bool:
    """Whether the path still leads to this open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _release(file: BinaryIO, path: str | os.PathLike) -> None:
    """Removes the file before others can lock it; Windows removes only files that nobody has open."""
    removed = False
    with suppress(OSError):
        os.unlink(path)
        removed = True
    file.close()
    if not removed and os.name == "nt":
        with suppress(OSError):
            os.unlink(path)


def _lock(descriptor: int, wait: bool) -> None:
    try:
        import fcntl
    except ImportError:
        _lock_on_windows(descriptor, wait)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _lock_on_windows(descriptor: int, wait: bool) -> None:
    import msvcrt

    while True:
        try:
            os.lseek(descriptor, 0, os.SEEK_SET)  # a lock is of the bytes from here on
            # The checker looks at Linux, where this module has no names.
            return msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError as error:
            if not wait:
                raise BlockingIOError(*error.args) from error
        time.sleep(PAUSE)
