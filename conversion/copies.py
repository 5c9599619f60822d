"""Tensors that a checkpoint holds more than once: copies of the same bits count as one, others are refused."""

from collections.abc import Iterable

from conversion.compare import identical
from conversion.names import fit_prefix
from conversion.tensors import Stored


def merged(entries: Iterable[tuple[str, str, Stored]]) -> dict[str, Stored]:
    """Tensors by name, each once; only those of several copies are read, two at a time.

    Args:
        entries: name, place and tensor. Names with and without `lxmert.` are the same; the place is for people.

    Raises:
        ValueError: two copies of a tensor are not the same, bit for bit; it names both places.
    """
    kept: dict[str, tuple[str, str, Stored]] = {}
    for name, place, item in entries:
        _, first, copy = kept.setdefault(fit_prefix(name, "qa"), (name, place, item))
        if copy is not item and not _same(copy, item):
            raise ValueError(f"Two tensors are called {name} but differ, {first} and {place}; keep only the right one.")
    return {name: item for name, _, item in kept.values()}


def _same(a: Stored, b: Stored) -> bool:
    return (a.shape, a.dtype) == (b.shape, b.dtype) and identical(a.read(), b.read())
