"""What a checkpoint is: format, class, sizes, and every tensor, compared with the table of names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from conversion.names import ARCHITECTURES, Shape, fit_prefix, rows, skip_reason
from conversion.tensors import Stored
from conversion.text import grouped, some
from lxmert_tf.weights import open_source

SIZES = (
    "l_layers",
    "r_layers",
    "x_layers",
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "vocab_size",
    "max_position_embeddings",
    "type_vocab_size",
    "visual_feat_dim",
    "visual_pos_dim",
    "num_qa_labels",
    "num_object_labels",
    "num_attr_labels",
)


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
        format: "hf-pt", "hf-pt-bin", "hf-tf", "keras" or "original".
        class_name: the PyTorch class of its model.
        task: "model", "pretraining", "qa" or "visual-reasoning".
        config: "file" if it is in or beside the checkpoint, "inferred" if it is told from the shapes.
        sizes: depths and widths, by config field. Inferred ones of absent heads are defaults.
        tensors: the table, in the order of the file.
        unknown: PyTorch names its model does not have.
        missing: PyTorch names of its model that it lacks.
        misshapen: PyTorch name to the shape found and the shape expected.
        skipped: PyTorch names it has that are never loaded, each with the reason.
    """

    path: str
    format: str
    class_name: str
    task: str
    config: str
    sizes: dict[str, int]
    tensors: list[Tensor]
    unknown: list[str]
    missing: list[str]
    misshapen: dict[str, list[list[int]]]
    skipped: dict[str, str]

    @property
    def complete(self) -> bool:
        """Whether the model has all its tensors, each in its shape, and no others."""
        return not (self.unknown or self.missing or self.misshapen)

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.bytes for tensor in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: one key per field, and "complete" and "bytes"."""
        return {**asdict(self), "complete": self.complete, "bytes": self.bytes}

    def lines(self) -> list[str]:
        """The inspection for people."""
        width = max(len(tensor.name) for tensor in self.tensors)
        return [
            f"{self.path}: {self.format}, {self.class_name} ({self.task})",
            f"config ({self.config}): {', '.join(f'{name}={size}' for name, size in self.sizes.items())}",
            *(f"  {t.name:{width}}  {t.dtype:8}  {t.bytes:>12,}  {t.shape}" for t in self.tensors),
            f"{len(self.tensors)} tensors, {self.bytes:,} bytes",
            *(f"skipped {len(names)}: {some(names)}: {reason}" for reason, names in grouped(self.skipped).items()),
            *(f"unknown: {name}" for name in self.unknown),
            *(f"missing: {name}" for name in self.missing),
            *(f"misshapen: {name} {found}, expected {wanted}" for name, (found, wanted) in self.misshapen.items()),
        ]


def inspect(source: Any) -> Inspection:
    """Inspects a checkpoint, without reading its tensors.

    Args:
        source: a file, a directory or a Hub id; or a model or a state dict in memory.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is damaged, or without a config and so incomplete that none can be inferred.
    """
    checkpoint = open_source(source)
    config, task = checkpoint.config, checkpoint.task
    wanted = {row.torch: row.shape(config) for row in rows(config, task)}
    shapes = {fit_prefix(name, task): shape for name, shape in checkpoint.tensors.shapes.items()}
    skipped = {name: reason for name in shapes if (reason := skip_reason(name))}
    return Inspection(
        path=str(checkpoint.path),
        format=checkpoint.format,
        class_name=ARCHITECTURES[task],
        task=task,
        config="inferred" if checkpoint.inferred else "file",
        sizes={name: getattr(config, name) for name in SIZES},
        tensors=[_describe(fit_prefix(name, task), item) for name, item in checkpoint.tensors.stored.items()],
        unknown=sorted(set(shapes) - set(wanted) - set(skipped)),
        missing=sorted(set(wanted) - set(shapes)),
        misshapen=_misshapen(shapes, wanted),
        skipped=skipped,
    )


def _describe(name: str, item: Stored) -> Tensor:
    return Tensor(name, list(item.shape), item.dtype.name, item.nbytes)


def _misshapen(shapes: Mapping[str, Shape], wanted: Mapping[str, Shape]) -> dict[str, list[list[int]]]:
    both = sorted(set(shapes) & set(wanted))
    return {name: [list(shapes[name]), list(wanted[name])] for name in both if tuple(shapes[name]) != wanted[name]}
