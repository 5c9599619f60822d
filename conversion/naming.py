"""What a file holds by upstream's names: the LXMERT in it, whatever wraps or surrounds it, each tensor once."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from conversion.compare import identical
from conversion.copies import merged
from conversion.matching import LANDMARK, find_prefixes, inside, is_whole
from conversion.names import LAYOUTS, Row, canonical, lookup, skip_reason, unwrapped
from conversion.parametrized import combined
from conversion.report import counted, some
from conversion.tensors import Stored, Tensors
from lxmert_tf.command_line import option


class UnknownPrefix(ValueError):
    """No name begins with the prefix that is given."""


OUTSIDE = "it is no part of the LXMERT"


@dataclass(frozen=True)
class Named:
    """The LXMERT in a file.

    Args:
        tensors: by upstream's PyTorch names, in PyTorch layout; unknown ones under the names that they have.
        prefix: what all their names in the file begin with, besides wrappers; mostly "".
        outside: the other names in the file, each with the reason why it is left out.
        is_original: whether their names are those of the original code.
    """

    tensors: Tensors
    prefix: str = ""
    outside: Mapping[str, str] = field(default_factory=dict)
    is_original: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the LXMERT was found, and what was found beside it."""
        if not any(name.endswith(LANDMARK) for name in self.tensors):
            return ()
        others = [name for name, reason in self.outside.items() if reason == OUTSIDE]
        if not self.prefix and not others:
            return ()
        place = f"the LXMERT is under {self.prefix[:-1]}" if self.prefix else "the LXMERT is not alone"
        rest = f"; {counted(others, 'tensor')} beside it {'is' if len(others) == 1 else 'are'} left out"
        return (place + (rest if others else ""),)


def named(stored: Mapping[str, Stored], spelling: str, prefix: str | None = None) -> Named:
    """The LXMERT among the tensors of a file.

    Args:
        stored: the tensors by the names that the file has for them.
        spelling: as of `conversion.readers.Content`.
        prefix: what the names of the LXMERT begin with, or of what holds one; "" is the one that nothing holds. By
            default it is found.

    Raises:
        ValueError: there are several, and `prefix` does not say which; no name begins with `prefix`; or two tensors
            have the same name but differ.
    """
    if spelling == "torch":
        stored = combined(stored)
    spelled = {name: _plain(name, spelling) for name in stored}
    start = "" if prefix is None else _given(prefix, spelling, spelled)
    scope = {name.removeprefix(start) for name in spelled.values() if name.startswith(start)}
    places = [_under(start + each, spelled, stored, spelling) for each in find_prefixes(scope, spelling)]
    places = [each for each in places if is_whole(each.tensors.shapes)] or places
    if prefix is not None and (given := [each for each in places if each.prefix == start]):
        return given[0]
    for other in places[1:]:
        if not _same(places[0].tensors, other.tensors):
            raise ValueError(_several(places))
    return places[0] if places else _under(start, spelled, stored, spelling)


def _plain(name: str, spelling: str) -> str:
    """A name without wrappers; BERT's of TensorFlow as LXMERT's, which `canonical` does for PyTorch's."""
    if spelling == "torch":
        return unwrapped(name)
    return f"lxmert/{name.removeprefix('bert/')}" if spelling == "tf" and name.startswith("bert/") else name


def _given(prefix: str, spelling: str, spelled: Mapping[str, str]) -> str:
    """A prefix as a user gives it, with a separator at its end."""
    separator = "." if spelling == "torch" else "/"
    plain = _plain(prefix.rstrip("./"), spelling)
    start = plain and plain + separator
    if not any(name.startswith(start) for name in spelled.values()):
        tops = sorted({name.partition(separator)[0] for name in spelled.values()})
        raise UnknownPrefix(f"no name in it begins with {prefix!r}; the names begin with {some(tops, 8)}")
    return start


def _under(prefix: str, spelled: Mapping[str, str], stored: Mapping[str, Stored], spelling: str) -> Named:
    """The tensors whose names begin with a prefix."""
    names = inside(set(spelled.values()), prefix, spelling)
    kept = {place: names[name] for place, name in spelled.items() if name in names}
    outside = {place: skip_reason(place) or OUTSIDE for place in stored if place not in kept}
    if spelling == "torch":
        entries = [(canonical(name), place, stored[place]) for place, name in kept.items()]
        is_original = any(canonical(name) != name for name in kept.values())
        return Named(Tensors(merged(entries)), prefix, outside, is_original)
    table = lookup(kept.values(), spelling)
    return Named(
        Tensors(
            merged(
                (table[name].torch, place, _inverse(table[name], stored[place]))
                if name in table
                else (name, place, stored[place])
                for place, name in kept.items()
            )
        ),
        prefix,
        outside,
    )


def _inverse(row: Row, item: Stored) -> Stored:
    layout = LAYOUTS[row.layout]
    return Stored(layout.inverse_shape(item.shape), item.dtype, lambda: layout.inverse(item.read()))


def _same(a: Tensors, b: Tensors) -> bool:
    return a.shapes == b.shapes and all(identical(a[name], b[name]) for name in a)


def _several(places: list[Named]) -> str:
    found = ", ".join(f"under {each.prefix[:-1] or 'no prefix'} ({counted(each.tensors, 'tensor')})" for each in places)
    which = min(each.prefix[:-1] for each in places)
    choose = option(f"prefix={which!r}", f"--prefix {which or repr('')}, here or of lxmert-convert")
    return f"it holds {len(places)} LXMERT models, {found}; say which one, for example with {choose}"
