"""Two checkpoints side by side: names, shapes, dtypes, values and configs, whatever their formats; neither is run."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from conversion.compare import Error, error_between, identical, nonfinite_notes, nonfinite_values
from conversion.formats import Checkpoint
from conversion.names import fit_prefix
from conversion.naming import OUTSIDE
from conversion.report import counted, grouped, progress_bar, some
from conversion.source import open_pair
from conversion.tensors import Stored


@dataclass(frozen=True)
class Side:
    """One of two checkpoints: its weights file, format and task."""

    path: str
    format: str
    task: str

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Side":
        """The side that a checkpoint is."""
        return cls(str(checkpoint.path), checkpoint.format, checkpoint.task)

    def __str__(self) -> str:
        return f"{self.path} ({self.format}, {self.task})"


@dataclass(frozen=True)
class Difference:
    """How two checkpoints differ; tensors by PyTorch names, all with `lxmert.`, in the order of the table of names.

    Args:
        a, b: the checkpoints.
        only_a, only_b: tensors that the other lacks; last those of other models, under the names that they have.
        shapes, dtypes: name to those in a and in b, where they differ.
        values: name to the error, where any bit differs, or any value if the dtypes do.
        config: field to its values in a and in b, where they differ.
        compared: how many tensors are in both in the same shape.
        notes: what was not compared, with the reason, which file was read, and what is not finite.
        nonfinite: name to the number of places where a, b or both hold a value that is not finite.
    """

    a: Side
    b: Side
    only_a: list[str]
    only_b: list[str]
    shapes: dict[str, tuple[list[int], list[int]]]
    dtypes: dict[str, tuple[str, str]]
    values: dict[str, Error]
    config: dict[str, tuple[Any, Any]]
    compared: int
    notes: list[str]
    nonfinite: dict[str, int]

    @property
    def same(self) -> bool:
        """Whether nothing differs; values that are not finite are the same if their bits are."""
        return not (self.only_a or self.only_b or self.shapes or self.dtypes or self.values or self.config)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one key per field but `nonfinite`, which is among the notes, and "same"."""
        values = {name: error.to_dict() for name, error in self.values.items()}
        plain = {**asdict(self), "values": values, "same": self.same}
        return {key: value for key, value in plain.items() if key != "nonfinite"}

    def lines(self) -> list[str]:
        """The difference for people."""
        return [
            f"a: {self.a}",
            f"b: {self.b}",
            *self.tensor_lines(),
            *(f"config: {name}: {first!r}, {second!r}" for name, (first, second) in self.config.items()),
            *(f"note: {note}" for note in self.notes),
            "the same" if self.same else "different",
        ]

    def tensor_lines(self) -> list[str]:
        """What differs between the tensors, for people."""
        width = max(map(len, self.values), default=0)
        return [
            f"{counted(self.compared, 'tensor')} compared, {self.compared - len(self.values)} of equal values",
            *(f"{len(names)} only in {side}: {some(names)}" for side, names in self._unshared().items() if names),
            *(f"shape: {name}: {first}, {second}" for name, (first, second) in self.shapes.items()),
            *(
                f"dtype of {len(names)}: {', '.join(pair)}: {some(names)}"
                for pair, names in grouped(self.dtypes).items()
            ),
            *(f"values: {name:{width}}  max {e.max:.1e}  mean {e.mean:.1e}" for name, e in self.values.items()),
        ]

    def _unshared(self) -> dict[str, list[str]]:
        return {"a": self.only_a, "b": self.only_b}


def diff(a: Any, b: Any, progress: bool = False, prefix: str | None = None) -> Difference:
    """Compares two checkpoints, one tensor of each in memory at a time.

    Args:
        a, b: files, directories or Hub ids of any format; or models or state dicts in memory.
        progress: show a bar on stderr, if that is a terminal and it takes longer than a second.
        prefix: what the names of the model's tensors begin with, in one or both; by default it is found.

    Returns:
        The difference, in which tensors beside an LXMERT that is not inside a larger model are those of its checkpoint.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: no name begins with `prefix`; one is damaged, or without a config and so incomplete that none can be
            inferred.
    """
    first, second = open_pair(a, b, prefix=prefix)
    found = difference(first, second, progress)
    strangers, others = _strangers(first), _strangers(second)
    only_a = [*found.only_a, *(name for name in strangers if name not in others)]
    only_b = [*found.only_b, *(name for name in others if name not in strangers)]
    return replace(found, only_a=only_a, only_b=only_b)


def difference(a: Checkpoint, b: Checkpoint, progress: bool = False) -> Difference:
    """Compares two opened checkpoints."""
    if type(a.config) is not type(b.config):
        raise ValueError(f"{a.path} and {b.path} are a detector and an LXMERT model, which have nothing in common.")
    order = {fit_prefix(row.torch, "qa"): i for i, row in enumerate(a.rows())}
    first, second = _named_tensors(a), _named_tensors(b)
    names = sorted(set(first) | set(second), key=lambda name: (order.get(name, len(order)), name))
    both = [name for name in names if name in first and name in second]
    shapes = {n: (list(first[n].shape), list(second[n].shape)) for n in both if first[n].shape != second[n].shape}
    same_shape = [name for name in both if name not in shapes]
    values, nonfinite = {}, {}
    with progress_bar(sum(side[name].nbytes for name in same_shape for side in (first, second)), progress) as update:
        for name in same_shape:
            error, count = _compare(first[name].read(), second[name].read())
            if error is not None:
                values[name] = error
            if count:
                nonfinite[name] = count
            update(first[name].nbytes + second[name].nbytes)
    return Difference(
        a=Side.of(a),
        b=Side.of(b),
        only_a=[name for name in names if name not in second],
        only_b=[name for name in names if name not in first],
        shapes=shapes,
        dtypes={n: (first[n].dtype.name, second[n].dtype.name) for n in both if first[n].dtype != second[n].dtype},
        values=values,
        config={} if a.inferred or b.inferred else _config_difference(a.config, b.config),
        compared=len(same_shape),
        notes=[*_notes(a, b), *nonfinite_notes(nonfinite)],
        nonfinite=nonfinite,
    )


def _named_tensors(checkpoint: Checkpoint) -> dict[str, Stored]:
    """The stored tensors by their names in a model with heads, without those that no model loads."""
    stored = checkpoint.named_for("qa").stored
    return {name: item for name, item in stored.items() if not checkpoint.skip_reason(name)}


def _strangers(checkpoint: Checkpoint) -> list[str]:
    """The names beside an LXMERT that is not inside a larger model."""
    return [] if checkpoint.prefix else [name for name, reason in checkpoint.outside.items() if reason == OUTSIDE]


def _config_difference(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    """Field to its values in a and in b, where they differ."""
    pairs = {field.name: (getattr(a, field.name), getattr(b, field.name)) for field in fields(a)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _compare(a: np.ndarray, b: np.ndarray) -> tuple[Error | None, int]:
    """The error if two arrays are not the same, and at how many places they are not finite."""
    if identical(a, b):
        return None, nonfinite_values(a)
    error = error_between(a, b)
    return error if error.max or a.dtype == b.dtype else None, error.nonfinite


def _notes(a: Checkpoint, b: Checkpoint) -> list[str]:
    sides = {"a": a, "b": b}
    return [
        *(
            f"of {name}: {checkpoint.inferred}, so configs are not compared"
            for name, checkpoint in sides.items()
            if checkpoint.inferred
        ),
        *(f"in {name}, {note}" for name, checkpoint in sides.items() for note in checkpoint.notes),
    ]
