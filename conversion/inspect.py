"""What a checkpoint is: format, class, sizes, and every tensor, compared with the table of names."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from conversion.formats import Checkpoint
from conversion.names import Shape
from conversion.report import counted, grouped, some
from conversion.source import open_source
from conversion.tensors import DTYPES, SAFETENSORS_TYPES, Stored
from lxmert_tf.configuration import LxmertConfig


@dataclass(frozen=True)
class Tensor:
    """One tensor: its PyTorch name, its shape in PyTorch layout, its dtype and its size in bytes."""

    name: str
    shape: list[int]
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint is.

    Args:
        path: the weights file; the index of a sharded checkpoint.
        format: one of `conversion.formats`, or of `conversion.detector.formats`.
        class_name: the PyTorch class of its model.
        task: "model", "pretraining", "qa", "visual-reasoning" or "detector".
        config: "file" if it was read from one, "inferred" if it is from the shapes, "given" if it was passed.
        config_file: where it was read from, if it was.
        sizes: depths and widths, by config field. Inferred ones of absent heads are defaults.
        tensors: the table, in the order of the file.
        unknown: PyTorch names its model does not have.
        missing: PyTorch names of its model that it lacks.
        misshapen: PyTorch name to the shape found and the shape expected.
        unusable: PyTorch name of its model to a dtype that is not converted.
        skipped: names it has that are never loaded, each with the reason.
        notes: what else the user should know.
    """

    path: str
    format: str
    class_name: str
    task: str
    config: str
    config_file: str | None
    sizes: dict[str, int]
    tensors: list[Tensor]
    unknown: list[str]
    missing: list[str]
    misshapen: dict[str, list[list[int]]]
    unusable: dict[str, str]
    skipped: dict[str, str]
    notes: list[str]

    @property
    def complete(self) -> bool:
        """Whether the model has all its tensors, each in its shape and of a dtype that is converted, and no others."""
        return not (self.unknown or self.missing or self.misshapen or self.unusable)

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.bytes for tensor in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: one key per field, and "complete" and "bytes"."""
        return {**asdict(self), "complete": self.complete, "bytes": self.bytes}

    def lines(self) -> list[str]:
        """The inspection for people."""
        width = max((len(tensor.name) for tensor in self.tensors), default=0)
        config = f"{self.config} {self.config_file}" if self.config_file else self.config
        return [
            f"{self.path}: {self.format}, {self.class_name} ({self.task})",
            f"config ({config}): {', '.join(f'{name}={size}' for name, size in self.sizes.items())}",
            *(f"  {t.name:{width}}  {t.dtype:8}  {t.bytes:>12,}  {t.shape}" for t in self.tensors),
            f"{counted(self.tensors, 'tensor')}, {self.bytes:,} bytes",
            *(f"skipped {len(names)}: {some(names)}: {reason}" for reason, names in grouped(self.skipped).items()),
            *(f"unknown: {name}" for name in self.unknown),
            *(f"missing: {name}" for name in self.missing),
            *(f"misshapen: {name} {found}, expected {wanted}" for name, (found, wanted) in self.misshapen.items()),
            *(f"unusable: {name} is {dtype}, not one of {', '.join(DTYPES)}" for name, dtype in self.unusable.items()),
            *(f"note: {note}" for note in self.notes),
        ]


def inspect(
    source: Any,
    config: LxmertConfig | str | os.PathLike | None = None,
    prefix: str | None = None,
    adapter: str | os.PathLike | None = None,
) -> Inspection:
    """Inspects a checkpoint; of its tensors it reads at most a decoder's, to see whether it is tied.

    Args:
        source: a file, a directory or a Hub id; or a model or a state dict in memory.
        config: a config or its JSON file, in place of the checkpoint's own.
        prefix, adapter: as of `conversion.open_checkpoint`.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged, or without a config and so incomplete that none can be inferred.
    """
    checkpoint = open_source(source, config, prefix, adapter)
    wanted = {row.torch: row.shape(checkpoint.config) for row in checkpoint.rows()}
    tensors = checkpoint.named_for(checkpoint.task).stored
    shapes = {name: item.shape for name, item in tensors.items()}
    skipped = {name: reason for name in shapes if (reason := checkpoint.skip_reason(name))}
    left_out = {**skipped, **checkpoint.outside}
    return Inspection(
        path=str(checkpoint.path),
        format=checkpoint.format,
        class_name=checkpoint.class_name,
        task=checkpoint.task,
        config=checkpoint.config_origin,
        config_file=str(checkpoint.config_file) if checkpoint.config_file else None,
        sizes=checkpoint.sizes,
        tensors=[_describe(name, item) for name, item in tensors.items()],
        unknown=sorted(set(shapes) - set(wanted) - set(skipped)),
        missing=sorted(set(wanted) - set(shapes)),
        misshapen=_misshapen(shapes, wanted),
        unusable={
            name: item.dtype.name
            for name, item in tensors.items()
            if name in wanted and item.dtype not in SAFETENSORS_TYPES
        },
        skipped=left_out,
        notes=_notes(checkpoint),
    )


def _notes(checkpoint: Checkpoint) -> list[str]:
    return [
        *checkpoint.notes,
        *([checkpoint.contradiction] if checkpoint.contradiction else []),
        *([f"{checkpoint.inferred}, so the config is inferred from shapes"] if checkpoint.inferred else []),
    ]


def _describe(name: str, item: Stored) -> Tensor:
    return Tensor(name, list(item.shape), item.dtype.name, item.nbytes)


def _misshapen(shapes: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> dict[str, list[list[int]]]:
    both = sorted(set(shapes) & set(wanted))
    return {name: [list(shapes[name]), list(wanted[name])] for name in both if tuple(shapes[name]) != wanted[name]}
