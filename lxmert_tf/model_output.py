"""ModelOutput: an ordered dict of what a model computed, readable by attribute, name and position. No framework."""

from typing import Any


class ModelOutput(dict):
    """Base of the output types. A subclass lists its `fields` in order; entries that were not computed are absent.

    An absent field is None as an attribute, is not a key, and is skipped by position: `out[2]` is the third present
    entry. Being a dict without the absent ones, an output passes wherever nested structures of tensors do.

    Attributes:
        losses: each loss by name (`{"masked_lm_loss": ...}`), empty without labels. Not an entry, hence not part of
            the structure: it does not survive functions that rebuild structures.
        counts: over how many labels, examples or boxes each of them is the mean; likewise.

    Source: upstream `ModelOutput`.
    """

    fields: tuple[str, ...] = ()

    def __init__(
        self,
        *entries: dict | tuple,
        losses: dict[str, Any] | None = None,
        counts: dict[str, Any] | None = None,
        **values: Any,
    ):
        given = dict(*entries, **values)
        unknown = sorted(set(given) - set(self.fields))
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no field {unknown[0]!r}; its fields are {', '.join(self.fields)}."
            )
        super().__init__((name, given[name]) for name in self.fields if given.get(name) is not None)
        self.__dict__["losses"] = losses or {}
        self.__dict__["counts"] = counts or {}

    def __getattr__(self, name: str) -> Any:
        if name in type(self).fields:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}.")

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __reduce__(self) -> tuple:
        return type(self), (dict(self),), {"losses": self.losses, "counts": self.counts}

    def to_tuple(self) -> tuple:
        """The present entries, in field order."""
        return tuple(self.values())
