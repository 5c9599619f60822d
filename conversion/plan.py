"""What a conversion will write: a checkpoint's tensors mapped to a model of a task, nothing read yet."""

import zlib
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from conversion.formats import Checkpoint
from conversion.matching import nearest
from conversion.names import Row, rows
from conversion.report import counted, some
from conversion.tensors import DTYPES, SAFETENSORS_TYPES, Stored, Tensors
from lxmert_tf.command_line import option
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.tasks import ARCHITECTURES


class Incomplete(ValueError):
    """The source lacks tensors that the target's model needs."""

    exit_code = 1


@dataclass(frozen=True)
class Plan:
    """What will be written: a model's tensors, all of them, in the order of the table.

    Args:
        table: the model's rows.
        tensors: by PyTorch name, in PyTorch layout, each read or made when it is asked for.
        source: the same before they are cast.
        config, task: the model's.
        dropped: PyTorch names of the source that are left out, each with the reason.
        initialised: PyTorch names that the source lacks, which get fresh values.
        notes: what else the user should know of the source, such as which file was read.
    """

    table: list[Row]
    tensors: Tensors
    source: Tensors
    config: LxmertConfig
    task: str
    dropped: dict[str, str]
    initialised: list[str]
    notes: list[str]


def check_choice(name: str, value: str | None, choices: Collection[str]) -> None:
    """Refuses a value that is neither None nor one of the choices.

    Raises:
        ValueError: naming the argument, the choices and the value.
    """
    if value is not None and value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}.")


def make_plan(checkpoint: Checkpoint, task: str, dtype: str | None, allow_missing: bool) -> Plan:
    """Maps a checkpoint to a model of `task`.

    Raises:
        Incomplete: it lacks tensors, and that is not allowed.
        ValueError: it has unexpected or misshapen tensors, or `dtype` is not one of `DTYPES`.
    """
    check_choice("dtype", dtype, DTYPES)
    config = checkpoint.config
    table = rows(config, task)
    matched = checkpoint.match(task, allow_missing=True)
    missing = matched.missing
    if missing and not allow_missing:
        near = nearest(missing[0], checkpoint.outside)
        found = f"nearest to the first are {', '.join(near)}; " if near else ""
        contradiction = f"{checkpoint.contradiction}; " if checkpoint.contradiction else found
        raise Incomplete(
            f"{checkpoint.path} lacks {counted(missing, 'tensor')} of {ARCHITECTURES[task]}: {some(missing)}; "
            f"{contradiction}choose another task, or have them initialised with {option('allow_missing=True')}."
        )
    source = _model_tensors(checkpoint, task, table, missing, DTYPES.get(dtype))
    tensors = source if dtype is None else source.cast(DTYPES[dtype])
    return Plan(table, tensors, source, config, task, matched.unused, missing, [*checkpoint.notes])


def _model_tensors(
    checkpoint: Checkpoint, task: str, table: list[Row], missing: list[str], dtype: np.dtype | None
) -> Tensors:
    """The model's tensors, fresh in `dtype` where the checkpoint lacks them."""
    source = checkpoint.named_for(task).stored
    known = (source[row.torch].dtype for row in table if row.torch in source)
    fresh_dtype = next((dtype for dtype in known if dtype in SAFETENSORS_TYPES), np.dtype("float32"))

    def prepared(row: Row) -> Stored:
        shape = row.shape(checkpoint.config)
        if row.torch in missing:
            kind = dtype or fresh_dtype
            return Stored(shape, kind, lambda: initial(row, checkpoint.config).astype(kind))
        item = source[row.torch]
        if item.dtype not in SAFETENSORS_TYPES:
            kinds = ", ".join(DTYPES)
            raise ValueError(f"{checkpoint.path}: {row.torch} must be one of {kinds}, got {item.dtype}.")
        return item

    return Tensors({row.torch: prepared(row) for row in table})


def initial(row: Row, config: LxmertConfig) -> np.ndarray:
    """A fresh tensor, the same at each call: scales 1, shifts and biases 0, others truncated normal.

    Returns:
        float32 in the PyTorch shape; normal values lie within two standard deviations of `initializer_range`.
    """
    shape = row.shape(config)
    kind = row.keras.rpartition("/")[2]
    if kind in ("gamma", "beta", "bias"):
        return np.full(shape, kind == "gamma", "float32")
    generator = np.random.default_rng(zlib.crc32(row.torch.encode()))
    values = generator.standard_normal(shape, "float32")
    while (outside := np.abs(values) > 2).any():
        values[outside] = generator.standard_normal(int(outside.sum()), "float32")
    return values * np.float32(config.initializer_range)
