"""What reports are made of: counts, short lists of names, groups by reason, and a progress bar."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

Key = TypeVar("Key", bound=Hashable)


def some(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(name if name.isprintable() and name else repr(name) for name in names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def counted(things: Sized | int, noun: str, plural: str | None = None) -> str:
    """How many there are of what: "1 tensor", "2,000 tensors"; `plural` where that is not the noun with an s."""
    count = things if isinstance(things, int) else len(things)
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def grouped(reasons: Mapping[str, Key]) -> dict[Key, list[str]]:
    """The names of each reason, in their order."""
    groups: dict[Key, list[str]] = {}
    for name, reason in reasons.items():
        groups.setdefault(reason, []).append(name)
    return groups


@contextmanager
def progress_bar(total: int, shown: bool, unit: str = "B") -> Iterator[Callable[[int], object]]:
    """Yields what moves the bar on by a number of units; nothing is drawn in the first second, or off a terminal."""
    disable = None if shown else True  # None: unless stderr is a terminal
    with tqdm(total=total, unit=unit, unit_scale=unit == "B", delay=1, disable=disable, leave=False) as drawn:
        yield drawn.update
