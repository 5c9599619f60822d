"""Version folders, BASE/NAME/<integer>: TF Serving serves the highest, and takes no other name for a version."""

import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_INTEGER = re.compile(r"[0-9]+")
LARGEST_VERSION = 2**63 - 1


def check_name(name: str, what: str = "A model's name") -> str:
    """`name`, if it can stand in TF Serving's URLs and for a folder; ValueError otherwise."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{what} must be letters, digits, '.', '_' and '-', beginning with a letter or digit; got {name!r}."
        )
    return name


def versions(folder: str | os.PathLike) -> list[int]:
    """The versions in BASE/NAME, ascending; ValueError for two folders of one version, such as 1 and 01."""
    folder = Path(folder)
    names = (
        sorted(p.name for p in folder.iterdir() if p.is_dir() and _INTEGER.fullmatch(p.name)) if folder.is_dir() else []
    )
    odd = [name for name in names if name != str(int(name))]
    if odd:
        raise ValueError(
            f"{folder / odd[0]} has leading zeros, which TF Serving takes for version {int(odd[0])}: rename it."
        )
    return sorted(map(int, names))


def next_version(folder: str | os.PathLike, wanted: int | None = None) -> int:
    """The version that an export gets: `wanted`, or one more than the highest.

    Raises:
        ValueError: TF Serving would not serve `wanted`.
    """
    highest = max(versions(folder), default=0)
    if highest >= LARGEST_VERSION:
        raise ValueError(f"{folder} has version {highest}, after which TF Serving knows none: export to another name.")
    if wanted is None:
        return highest + 1
    if not 1 <= wanted <= LARGEST_VERSION:
        raise ValueError(f"A version must be an integer from 1 to {LARGEST_VERSION}, got {wanted}.")
    if wanted <= highest:
        raise ValueError(
            f"{folder} has version {highest} already, and TF Serving serves the highest: version {wanted} would not be "
            f"served; choose {highest + 1} or more, or let the export choose."
        )
    return wanted


@contextmanager
def staged(folder: str | os.PathLike) -> Iterator[Path]:
    """Yields a folder beside the versions, to write and then to `publish`; if that does not happen, it is removed.

    Its name begins with a full stop, so that no server takes it for a version while it is written. What exports of
    this machine left that were killed is removed.

    Raises:
        OSError: `folder` cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        temporary = Path(tempfile.mkdtemp(prefix=f".partial-{_host()}-{os.getpid()}-", dir=folder))
    except OSError as error:
        raise type(error)(f"Cannot write to {folder}: {error.strerror}.") from error
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish(temporary: Path, version: int | None = None) -> Path:
    """Makes a `staged` folder the next version, or `version`, and returns its place.

    Raises:
        ValueError: TF Serving would not serve `version`.
    """
    _sync(temporary)
    temporary.chmod(0o755)  # mkdtemp makes private folders
    while True:
        place = temporary.parent / str(next_version(temporary.parent, version))
        try:
            return temporary.rename(place)
        except OSError:
            if not place.exists():  # not that another export was faster
                raise


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(f".partial-{_host()}-*-*"):
        owner = path.name.removeprefix(f".partial-{_host()}-").partition("-")[0]
        if owner.isdigit() and not _runs(int(owner)):
            shutil.rmtree(path, ignore_errors=True)


def _host() -> str:
    """This machine's name without hyphens: a process's id means nothing on another one that shares the folder."""
    return re.sub(r"[^A-Za-z0-9]", "", platform.node()) or "unknown"


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # it is another user's
        return True
    return True


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
