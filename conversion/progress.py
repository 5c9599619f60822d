"""The progress bar of long work."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm


@contextmanager
def bar(total: int, shown: bool, unit: str = "B") -> Iterator[Callable[[int], object]]:
    """Yields what moves the bar on by a number of units; nothing is drawn in the first second, or off a terminal."""
    hidden = None if shown else True  # None: tqdm looks whether stderr is a terminal
    with tqdm(total=total, unit=unit, unit_scale=unit == "B", delay=1, disable=hidden, leave=False) as drawn:
        yield drawn.update
