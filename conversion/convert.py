"""Any LXMERT checkpoint into any format: mapped to a task, written, reread and compared, and only then put in place."""

import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from conversion.formats import (
    SAFETENSORS_TYPES,
    TIED,
    WRITERS,
    Checkpoint,
    Stored,
    Tensors,
    find_weights,
    read_file,
    to_torch,
    write_checkpoint,
)
from conversion.inspect import has_config
from conversion.names import HEAD_NAMES, HEADS, Row, find_task, fit_prefix, match, rows
from lxmert_tf.configuration import CONFIG_NAME, LxmertConfig
from lxmert_tf.files import replacing
from lxmert_tf.weights import open_source

DIRECTORY_FORMATS = ("hf-pt", "hf-pt-bin", "hf-tf", "keras")
FILE_FORMATS = ("keras-weights", "original")  # one file, without a config.json
FORMATS = (*DIRECTORY_FORMATS, *FILE_FORMATS)
SHARDED_FORMATS = ("hf-pt", "hf-pt-bin")
DTYPES = {dtype.name: dtype for dtype in SAFETENSORS_TYPES}
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class Incomplete(ValueError):
    """The source lacks tensors that the target's model needs."""


class Differs(ValueError):
    """What was written is not what was read."""


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Args:
        source, destination: the weights file read; the path written.
        source_format, format: formats before and after.
        source_task, task: tasks before and after.
        dtypes: of the tensors written.
        tensors, bytes: how many were written, and their size.
        dropped: PyTorch names that were left out, each with the reason.
        initialised: PyTorch names the source lacks, which have fresh values.
        nonfinite: PyTorch name to its number of NaN and infinite values; only counted while verifying.
        notes: what else the user should know.
        verified: whether the written tensors were reread and found identical.
    """

    source: str
    destination: str
    source_format: str
    format: str
    source_task: str
    task: str
    dtypes: list[str]
    tensors: int
    bytes: int
    dropped: dict[str, str]
    initialised: list[str]
    nonfinite: dict[str, int]
    notes: list[str]
    verified: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one key per field."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for people."""
        reasons: dict[str, list[str]] = {}
        for name, reason in self.dropped.items():
            reasons.setdefault(reason, []).append(name)
        verified = "reread and identical" if self.verified else "not reread"
        return [
            f"{self.source} ({self.source_format}, {self.source_task})",
            f"-> {self.destination} ({self.format}, {self.task}): {self.tensors} tensors, {', '.join(self.dtypes)}, "
            f"{self.bytes:,} bytes, {verified}",
            *(f"dropped {len(names)}: {some(names)}: {reason}" for reason, names in reasons.items()),
            *([f"initialised {len(self.initialised)}: {some(self.initialised)}"] if self.initialised else []),
            *(f"warning: {name} holds {count} values that are not finite" for name, count in self.nonfinite.items()),
            *(f"note: {note}" for note in self.notes),
        ]


def some(names: list[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


@dataclass(frozen=True)
class Plan:
    """What will be written: a model's tensors, all of them, in the order of the table.

    Args:
        table: the model's rows.
        tensors: by PyTorch name, in PyTorch layout, each read or made when it is asked for.
        dtypes: of the tensors read so far; after writing, of all.
        config, task: the model's.
        dropped, initialised: as in `Report`.
    """

    table: list[Row]
    tensors: Tensors
    dtypes: dict[str, np.dtype]
    config: LxmertConfig
    task: str
    dropped: dict[str, str]
    initialised: list[str]


def convert(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    to: str = "hf-pt",
    task: str | None = None,
    dtype: str | None = None,
    config: LxmertConfig | str | os.PathLike | None = None,
    shard_size: int | str | None = None,
    verify: bool = True,
    overwrite: bool = False,
    allow_missing: bool = False,
) -> Report:
    """Converts a checkpoint; the destination appears whole, after it was compared, or not at all.

    Args:
        source: a file, a directory or a Hub id, in any format that `conversion.formats` reads.
        destination: a directory or, for "keras-weights" (`.weights.h5`) and "original" (`.pth`), a file.
        to: "hf-pt", "hf-pt-bin", "hf-tf", "keras", "keras-weights" or "original".
        task: "model", "pretraining", "qa" or "visual-reasoning"; by default the source's own.
        dtype: "float16", "bfloat16", "float32" or "float64"; by default each tensor keeps its own.
        config: a config or its JSON file, in place of the source's.
        shard_size: bytes, or a text such as "2GB"; larger "hf-pt" and "hf-pt-bin" weights are split.
        verify: reread what was written and compare every tensor bit for bit.
        overwrite: replace an existing destination, if it holds nothing but a checkpoint.
        allow_missing: initialise what the source lacks instead of refusing it.

    Raises:
        Incomplete: the source lacks tensors of the target's model.
        Differs: what was reread is not what was written.
        FileExistsError: the destination exists and may not be replaced.
        FileNotFoundError: there is no such source.
        ValueError: a bad argument, a damaged source, or one of another model than its config's.
    """
    limit = _check_options(to, task, dtype, shard_size)
    destination = Path(os.path.realpath(destination))
    _check_destination(destination, to, overwrite)
    checkpoint = _open(source, config)
    _check_apart(source, checkpoint.path, destination)
    plan = _plan(checkpoint, task or checkpoint.task, dtype, allow_missing)
    with _staged(destination) as staged:
        _write(staged, plan, to, limit)
        nonfinite = _compare(staged, plan, to) if verify else {}
    notes = _notes(checkpoint, plan, to, inferred=config is None and not has_config(checkpoint))
    sizes = [np.prod(shape, dtype=int) * plan.dtypes[name].itemsize for name, shape in plan.tensors.shapes.items()]
    return Report(
        source=str(checkpoint.path),
        destination=str(destination),
        source_format=checkpoint.format,
        format=to,
        source_task=checkpoint.task,
        task=plan.task,
        dtypes=sorted({kind.name for kind in plan.dtypes.values()}),
        tensors=len(sizes),
        bytes=int(sum(sizes)),
        dropped=plan.dropped,
        initialised=plan.initialised,
        nonfinite=nonfinite,
        notes=notes,
        verified=verify,
    )


def parse_size(text: int | str) -> int:
    """Bytes of "2GB", "500MB", "1GiB" or a plain number.

    Raises:
        ValueError: it is none of these, or not above 0.
    """
    digits = str(text).strip().upper()
    number = digits.rstrip("KMGIB ")
    unit = digits.removeprefix(number).strip()
    try:
        size = int(float(number) * UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size < 1:
        raise ValueError(f"shard_size must be a number of bytes such as 2GB or 500MB, got {text!r}.")
    return size


# Checks before anything is read or written


def _check_options(to: str, task: str | None, dtype: str | None, shard_size: int | str | None) -> int | None:
    """The shard size in bytes, if all options are valid."""
    for name, value, known in (("to", to, FORMATS), ("task", task, tuple(HEADS)), ("dtype", dtype, tuple(DTYPES))):
        if value not in known and not (value is None and name != "to"):
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}.")
    if shard_size is None:
        return None
    if to not in SHARDED_FORMATS:
        raise ValueError(f"shard_size splits only {' and '.join(SHARDED_FORMATS)}, not {to}; leave it out.")
    return parse_size(shard_size)


def _check_destination(destination: Path, to: str, overwrite: bool) -> None:
    if to == "keras-weights" and not destination.name.endswith(".weights.h5"):
        raise ValueError(f"Keras loads only files named *.weights.h5, got {destination.name}; rename the destination.")
    if not destination.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{destination} exists; choose another destination, or overwrite it.")
    if destination.is_dir() != (to in DIRECTORY_FORMATS):
        kind = "a directory" if to in DIRECTORY_FORMATS else "a file"
        raise FileExistsError(f"{destination} exists and is not {kind}, as {to} is; choose another destination.")
    if destination.is_dir():
        others = sorted(path.name for path in destination.iterdir() if not _is_ours(path))
        if others:
            raise FileExistsError(f"{destination} also holds {some(others)}; only a checkpoint alone is overwritten.")


def _is_ours(path: Path) -> bool:
    """Whether a checkpoint's directory has such a file."""
    patterns = ("model*.safetensors", "pytorch_model*.bin", "*.index.json", "model.weights.h5", "tf_model.h5")
    return path.is_file() and (path.name == CONFIG_NAME or any(path.match(pattern) for pattern in patterns))


def _check_apart(source: str | os.PathLike, weights: Path, destination: Path) -> None:
    """Neither path may hold the other: writing one would change or remove the other."""
    for path in (Path(os.path.realpath(source)), Path(os.path.realpath(weights))):
        if path == destination or path in destination.parents:
            raise ValueError(f"The destination {destination} lies inside the source {path}; choose one outside it.")
        if path.exists() and destination in path.parents:
            raise ValueError(f"The destination {destination} holds the source {path}; choose another one.")


# Reading


def _open(source: str | os.PathLike, config: LxmertConfig | str | os.PathLike | None) -> Checkpoint:
    """The source with `config` or, if None, with its own."""
    if config is not None and not isinstance(config, LxmertConfig):
        config = LxmertConfig.from_json_file(config)
    if config is None:
        return open_source(source)
    if not Path(source).exists():
        return replace(open_source(source), config=config)
    path = find_weights(Path(source))
    format, tensors, _ = read_file(path)  # whatever config lies beside it
    return Checkpoint(path, format, tensors, config, find_task(tensors.shapes))


def _plan(checkpoint: Checkpoint, task: str, dtype: str | None, allow_missing: bool) -> Plan:
    """Maps a checkpoint to a model of `task`.

    Raises:
        Incomplete: it lacks tensors, and that is not allowed.
        ValueError: it has unexpected or misshapen tensors.
    """
    config = checkpoint.config
    table = rows(config, task)
    shapes = checkpoint.tensors.renamed(lambda name: fit_prefix(name, task)).shapes
    heads = {_head(name) for name in shapes if _head(name) in HEAD_NAMES}
    holes = {
        row.torch: row.shape(config)
        for row in table
        if row.torch not in shapes and (_head(row.torch) in heads or _head(row.torch) not in HEAD_NAMES)
    }
    try:
        matched = match({**shapes, **holes}, task, config)
    except ValueError as error:
        raise ValueError(f"{checkpoint.path}: {error}") from None
    missing = sorted({*holes, *matched.missing})
    if missing and not allow_missing:
        raise Incomplete(
            f"{checkpoint.path} lacks {len(missing)} tensors of a {task} model: {some(missing)}; "
            "choose another task, or allow missing tensors to have them initialised."
        )
    dtypes: dict[str, np.dtype] = {}
    tensors = _prepared(checkpoint, task, table, missing, DTYPES.get(dtype), dtypes)
    return Plan(table, tensors, dtypes, config, task, matched.unused, missing)


def _head(name: str) -> str:
    return name.split(".")[0]


def _prepared(
    checkpoint: Checkpoint,
    task: str,
    table: list[Row],
    missing: list[str],
    dtype: np.dtype | None,
    dtypes: dict[str, np.dtype],
) -> Tensors:
    """The model's tensors, in `dtype` if given, fresh where the checkpoint lacks them; `dtypes` notes each read."""
    source = checkpoint.tensors.renamed(lambda name: fit_prefix(name, task))
    fresh_dtype = dtype or next(iter(source.values())).dtype

    def read(row: Row) -> np.ndarray:
        if row.torch in missing:
            array = initial(row, checkpoint.config).astype(fresh_dtype)
        else:
            array = _cast(row.torch, source[row.torch], dtype)
        dtypes[row.torch] = array.dtype
        return array

    return Tensors({row.torch: Stored(row.shape(checkpoint.config), partial(read, row)) for row in table})


def _cast(name: str, array: np.ndarray, dtype: np.dtype | None) -> np.ndarray:
    if array.dtype not in SAFETENSORS_TYPES:
        raise ValueError(f"{name} must be one of {', '.join(DTYPES)}, got {array.dtype}: the source is damaged.")
    with np.errstate(over="ignore", invalid="ignore"):  # values beyond the range become inf, which is reported
        return array if dtype is None else array.astype(dtype, copy=False)


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


# Writing


@contextmanager
def _staged(destination: Path) -> Iterator[Path]:
    """Yields a path on the same disk that takes the destination's place on success and is removed on any error."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".partial-", dir=destination.parent))
    try:
        staged = folder / destination.name
        yield staged
        if destination.is_dir():  # a directory cannot be replaced in one step, unless it is empty
            _swap(staged, destination, folder / f"{destination.name}.old")
        else:
            os.replace(staged, destination)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(new: Path, place: Path, old: Path) -> None:
    os.replace(place, old)
    try:
        os.replace(new, place)
    except OSError:
        os.replace(old, place)
        raise


def _write(path: Path, plan: Plan, to: str, shard_size: int | None) -> None:
    if to in DIRECTORY_FORMATS:
        write_checkpoint(path, plan.tensors, plan.config, plan.task, to, shard_size)
        return
    with replacing(path) as temporary:
        if to == "original":
            _write_original(temporary, plan)
        else:
            WRITERS["keras"](temporary, plan.tensors, plan.table, plan.task)


def _write_original(path: Path, plan: Plan) -> None:
    """A bare state dict with the original code's names, serialised as the PyTorch of its time reads it."""
    import torch

    state = {original_name(row.torch, plan.task): to_torch(plan.tensors[row.torch]) for row in plan.table}
    if plan.task == "pretraining":
        decoder, words = (original_name(name, plan.task) for name in TIED)
        state[decoder] = state[words]
    torch.save(state, path, _use_new_zipfile_serialization=False)


def original_name(name: str, task: str) -> str:
    """The original code's name for upstream's PyTorch name: as its pretraining or its fine-tuning saves it."""
    full = fit_prefix(name, "qa")
    if task in ("qa", "visual-reasoning"):
        head = full.removeprefix("answer_head.")
        return f"lxrt_encoder.model.bert.{full.removeprefix('lxmert.')}" if head == full else head
    return f"module.bert.{full.removeprefix('lxmert.')}" if full.startswith("lxmert.") else f"module.{full}"


# Proof


def _compare(path: Path, plan: Plan, to: str) -> dict[str, int]:
    """Rereads what was written; returns how many values are not finite, by PyTorch name.

    Raises:
        Differs: naming the first tensor that is absent, too much, or not identical.
    """
    _, written, _ = read_file(find_weights(path))
    written = written.renamed(lambda name: fit_prefix(name, plan.task))
    strange = (set(written) ^ set(plan.tensors)) - {TIED[0]}
    if strange:
        raise Differs(f"What was written has other tensors than the model: {some(sorted(strange))}; nothing is kept.")
    nonfinite = {}
    for row in plan.table:
        array = plan.tensors[row.torch]
        if not identical(array, written[row.torch]):
            raise Differs(f"{row.torch} was reread with other values than were written; nothing is kept.")
        if count := array.size - int(np.isfinite(array).sum()):
            nonfinite[row.torch] = count
    if to in DIRECTORY_FORMATS:
        _compare_configs(LxmertConfig.from_json_file(path / CONFIG_NAME), plan.config)
    return nonfinite


def _compare_configs(written: LxmertConfig, config: LxmertConfig) -> None:
    for field in fields(LxmertConfig):
        if getattr(written, field.name) != getattr(config, field.name):
            raise Differs(f"{CONFIG_NAME} was reread with another {field.name} than was written; nothing is kept.")


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same dtype, shape and bits; NaN equals the same NaN."""
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(_bits(a), _bits(b))


def _bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _notes(checkpoint: Checkpoint, plan: Plan, to: str, inferred: bool) -> list[str]:
    notes = []
    heads = plan.config.num_attention_heads
    if untied(checkpoint.tensors):
        notes.append(f"{TIED[0]} is not {TIED[1]}, as it must be in LXMERT; the latter is used for both")
    if inferred:
        notes.append(
            f"the source has no config, which was inferred from shapes; num_attention_heads={heads} is a guess"
        )
    elif to in FILE_FORMATS:
        notes.append(f"a single file holds no config; its reader must know num_attention_heads={heads}")
    return notes


def untied(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether a decoder has weights of its own, though LXMERT ties it to the word embeddings."""
    return all(name in tensors for name in TIED) and not identical(tensors[TIED[0]], tensors[TIED[1]])
