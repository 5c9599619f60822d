"""Version folders, BASE/NAME/<integer>: TF Serving serves the highest, and ignores folders with other names."""

import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from lxmert_tf.files import flush, staging

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_INTEGER = re.compile(r"[0-9]+")
LARGEST_VERSION = 2**63 - 1


def check_name(name: str, what: str = "A model's name") -> str:
    """`name`, if it is valid in TF Serving's URLs and as a folder; ValueError otherwise."""
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
            f"{folder / odd[0]} has leading zeros, and TF Serving reads it as version {int(odd[0])}: rename it."
        )
    return sorted(map(int, names))


def next_version(folder: str | os.PathLike, wanted: int | None = None) -> int:
    """The version of the next export: `wanted`, or one more than the highest.

    Raises:
        ValueError: TF Serving would not serve `wanted`.
    """
    highest = max(versions(folder), default=0)
    if highest >= LARGEST_VERSION:
        raise ValueError(f"{folder} has version {highest}, the highest that TF Serving allows: export to another name.")
    if wanted is None:
        return highest + 1
    if not 1 <= wanted <= LARGEST_VERSION:
        raise ValueError(f"A version must be an integer from 1 to {LARGEST_VERSION}, got {wanted}.")
    if wanted <= highest:
        raise ValueError(
            f"{folder} already has version {highest}, and TF Serving serves the highest: version {wanted} would not be "
            f"served; choose {highest + 1} or more, or let the export choose."
        )
    return wanted


@contextmanager
def staged(folder: str | os.PathLike) -> Iterator[Path]:
    """Yields an empty directory on the versions' disk, to fill and then to `publish`; otherwise it is removed.

    It is not in BASE/NAME itself, where servers look for versions, but in an unfinished directory there.

    Raises:
        OSError: `folder` cannot be created or written to.
    """
    with ExitStack() as stack:
        stack.callback(_remove_empty, Path(folder))
        try:
            temporary = stack.enter_context(staging(folder)) / "version"
            temporary.mkdir()
        except OSError as error:
            raise type(error)(f"Cannot write to {os.fspath(folder)}: {error.strerror}.") from error
        yield temporary


def _remove_empty(folder: Path) -> None:
    """Removes a folder without versions, which a server would take for a model that fails to load."""
    with suppress(OSError):
        folder.rmdir()


def publish(temporary: Path, version: int | None = None) -> Path:
    """Makes a `staged` directory the next version, or `version`, and returns its path.

    Raises:
        ValueError: TF Serving would not serve `version`.
    """
    for path in temporary.rglob("*"):
        if path.is_file():
            flush(path)
    folder = temporary.parent.parent
    while True:
        place = folder / str(next_version(folder, version))
        try:
            return temporary.rename(place)
        except OSError:
            if not place.exists():  # else another export was faster
                raise
