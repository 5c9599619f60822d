"""Any LXMERT checkpoint into any format: mapped to a task, written, reread and compared, and only then put in place."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from conversion.compare import Differs, identical, nonfinite_notes, nonfinite_values
from conversion.destination import check_apart, check_replaceable, file_format, format_of_name
from conversion.detector.convert import Written, convert_detector
from conversion.detector.formats import DetectorCheckpoint
from conversion.formats import TIED, Checkpoint, find_weights, read_file
from conversion.names import HEADS, fit_prefix
from conversion.plan import Plan, check_choice, make_plan
from conversion.report import counted, grouped, progress_bar, some
from conversion.source import open_source
from conversion.tensors import DTYPES
from conversion.writers import (
    DIRECTORY_FORMATS,
    FILE_FORMATS,
    SHARDED_FORMATS,
    parse_size,
    write_checkpoint,
    write_file,
)
from lxmert_tf.command_line import option
from lxmert_tf.configuration import CONFIG_NAME, LxmertConfig
from lxmert_tf.detector.configuration import DetectorConfig
from lxmert_tf.files import staged
from lxmert_tf.hub import TOKENIZER_FILES

FORMATS = ("hf-pt", "hf-pt-bin", "hf-tf", "keras", "keras-weights", "original")
DETECTOR_FORMATS = ("detectron2", "milvlg", "caffe")  # of a detector, besides hf-pt-bin, keras and keras-weights


@dataclass(frozen=True)
class Report:
    """What a conversion did.

    Args:
        source, destination: the weights file read; the path written.
        source_format, format: formats before and after.
        source_task, task: tasks before and after.
        config: "file", "given" or "inferred", as in `conversion.inspect`.
        config_file: where the config was read from, if it was.
        dtypes: of the tensors written.
        tensors, bytes: how many were written, and their size.
        dropped: names that were left out, each with the reason.
        initialised: PyTorch names the source lacks, which have fresh values.
        nonfinite: PyTorch name to its number of NaN and infinite values in the source; only counted while verifying.
        overflowed: PyTorch name to its number of values that only the cast made infinite; likewise.
        notes: what else the user should know.
        verified: whether the written tensors were reread and found identical.
    """

    source: str
    destination: str
    source_format: str
    format: str
    source_task: str
    task: str
    config: str
    config_file: str | None
    dtypes: list[str]
    tensors: int
    bytes: int
    dropped: dict[str, str]
    initialised: list[str]
    nonfinite: dict[str, int]
    overflowed: dict[str, int]
    notes: list[str]
    verified: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one key per field."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for people."""
        verified = "reread and identical" if self.verified else "not reread"
        return [
            f"{self.source} ({self.source_format}, {self.source_task}), config ({self.config_file or self.config})",
            f"-> {self.destination} ({self.format}, {self.task}): {counted(self.tensors, 'tensor')}, "
            f"{', '.join(self.dtypes)}, {self.bytes:,} bytes, {verified}",
            *(f"dropped {len(names)}: {some(names)}: {reason}" for reason, names in grouped(self.dropped).items()),
            *([f"initialised {len(self.initialised)}: {some(self.initialised)}"] if self.initialised else []),
            *(f"warning: {note}" for note in nonfinite_notes(self.nonfinite)),
            *(
                f"warning: {name}: {counted(count, 'value')} overflowed in the cast to {', '.join(self.dtypes)}"
                for name, count in self.overflowed.items()
            ),
            *(f"note: {note}" for note in self.notes),
        ]


def convert(
    source: Any,
    destination: str | os.PathLike,
    to: str | None = None,
    task: str | None = None,
    dtype: str | None = None,
    config: LxmertConfig | DetectorConfig | str | os.PathLike | None = None,
    shard_size: int | str | None = None,
    verify: bool = True,
    overwrite: bool = False,
    allow_missing: bool = False,
    progress: bool = False,
    prefix: str | None = None,
    adapter: str | os.PathLike | None = None,
) -> Report:
    """Converts a checkpoint; the destination appears whole, after it was compared, or not at all.

    Args:
        source: a file, a directory or a Hub id, in any format that `conversion.formats` reads; a model or a state dict
            in memory; or an opened checkpoint.
        destination: a directory; for "keras-weights" (`.weights.h5`) and "original" (`.pth`) a file, and for "keras"
            one if it is named `*.keras`. Vocabulary files beside the source are copied into a directory.
        to: "hf-pt", "hf-pt-bin", "hf-tf", "keras", "keras-weights" or "original"; by default the one of
            the destination's suffix (`.weights.h5`, `.keras`, `.pth`), else "hf-pt".
        task: "model", "pretraining", "qa" or "visual-reasoning"; by default the source's own.
        dtype: "float16", "bfloat16", "float32" or "float64"; by default each tensor keeps its own.
        config: a config or its JSON file, in place of the source's.
        shard_size: bytes, or a text such as "2GB"; larger "hf-pt" and "hf-pt-bin" weights are split.
        verify: reread what was written and compare every tensor bit for bit.
        overwrite: replace an existing destination, if it holds nothing but a checkpoint.
        allow_missing: initialise what the source lacks instead of refusing it.
        progress: show a bar on stderr, if that is a terminal and it takes longer than a second.
        prefix, adapter: which LXMERT of a larger checkpoint, and a LoRA adapter to merge, as of
            `conversion.open_checkpoint`.

    Raises:
        Incomplete: the source lacks tensors of the target's model.
        Differs: what was reread is not what was written.
        FileExistsError: the destination exists and may not be replaced.
        FileNotFoundError: there is no such source.
        ValueError: a bad argument, a damaged source, or one of another model than its config's.
    """
    if not os.fspath(destination):
        raise ValueError("The name of the destination is empty; give a file or a directory.")
    destination = Path(os.path.realpath(destination))
    given, to = to, to or format_of_name(destination)
    limit = _check_options(to, task, dtype, shard_size)
    to_file = file_format(to, destination)
    check_replaceable(destination, to, to_file is not None, overwrite)
    checkpoint = open_source(source, config, prefix, adapter)
    check_apart(source, checkpoint, destination)
    if isinstance(checkpoint, DetectorCheckpoint):
        for name, value in (("task", task), ("shard_size", shard_size), ("allow_missing", allow_missing or None)):
            if value is not None:
                raise ValueError(
                    f"{option(name)} does nothing for a detector, which {checkpoint.path} is; leave it out."
                )
        written = convert_detector(checkpoint, destination, given, dtype, verify, overwrite, progress)
        return _report(checkpoint, destination, written, verify, _detector_notes(checkpoint))
    if to in DETECTOR_FORMATS:
        raise ValueError(f"{to} is a format of detectors, but {checkpoint.path} holds an LXMERT model.")
    plan = make_plan(checkpoint, task or checkpoint.task, dtype, allow_missing)
    copied = [] if to_file else _tokenizer_files(checkpoint)
    with _with_progress(plan, verify, progress) as plan, staged(destination) as place:
        if to_file:
            write_file(place, plan.tensors, plan.config, plan.task, to_file)
        else:
            write_checkpoint(place, plan.tensors, plan.config, plan.task, to, limit)
            for file in copied:
                shutil.copyfile(file, place / file.name)
        nonfinite, overflowed = _compare(place, plan, to in DIRECTORY_FORMATS and not to_file) if verify else ({}, {})
    notes = _notes(checkpoint, plan, to_file, copied)
    return _report(
        checkpoint,
        destination,
        Written(to, plan.tensors, plan.dropped, nonfinite),
        verify,
        notes,
        task=plan.task,
        initialised=plan.initialised,
        overflowed=overflowed,
    )


def _report(
    checkpoint: Checkpoint,
    destination: Path,
    written: Written,
    verified: bool,
    notes: list[str],
    task: str | None = None,
    initialised: Sequence[str] = (),
    overflowed: Mapping[str, int] | None = None,
) -> Report:
    return Report(
        source=str(checkpoint.path),
        destination=str(destination),
        source_format=checkpoint.format,
        format=written.format,
        source_task=checkpoint.task,
        task=task or checkpoint.task,
        config=checkpoint.config_origin,
        config_file=str(checkpoint.config_file) if checkpoint.config_file else None,
        dtypes=sorted({item.dtype.name for item in written.tensors.stored.values()}),
        tensors=len(written.tensors),
        bytes=written.tensors.nbytes,
        dropped=written.dropped,
        initialised=list(initialised),
        nonfinite=written.nonfinite,
        overflowed=dict(overflowed or {}),
        notes=notes,
        verified=verified,
    )


# Checks before anything is read or written


def _check_options(to: str, task: str | None, dtype: str | None, shard_size: int | str | None) -> int | None:
    """The shard size in bytes, if all options are valid."""
    for name, value, known in (
        ("to", to, (*FORMATS, *DETECTOR_FORMATS)),
        ("task", task, HEADS),
        ("dtype", dtype, DTYPES),
    ):
        check_choice(name, value, known)
    if shard_size is None:
        return None
    if to not in SHARDED_FORMATS:
        raise ValueError(f"{option('shard_size')} splits only {' and '.join(SHARDED_FORMATS)}, not {to}; leave it out.")
    return parse_size(shard_size, option("shard_size"))


# Reading


def _tokenizer_files(checkpoint: Checkpoint) -> list[Path]:
    """The vocabulary files in the checkpoint's directory."""
    if checkpoint.format == "memory":
        return []
    return [path for name in TOKENIZER_FILES if (path := checkpoint.path.parent / name).is_file()]


@contextmanager
def _with_progress(plan: Plan, verify: bool, progress: bool) -> Iterator[Plan]:
    """Yields the plan, of which every tensor read moves a bar on."""
    with progress_bar(plan.tensors.nbytes * (2 if verify else 1), progress) as update:
        yield replace(plan, tensors=plan.tensors.with_progress(update))


# Proof


def _compare(path: Path, plan: Plan, with_config: bool) -> tuple[dict[str, int], dict[str, int]]:
    """Rereads what was written; returns how many values are not finite, and overflowed in the cast, by PyTorch name.

    Raises:
        Differs: naming the first tensor that is absent, too much, or not identical.
    """
    _, found, _ = read_file(find_weights(path))
    written = found.tensors.renamed(lambda name: fit_prefix(name, plan.task))
    if unshared := sorted((set(written) ^ set(plan.tensors)) - {TIED[0]}):
        raise Differs(f"What was written has other tensors than the model: {some(unshared)}; nothing is kept.")
    nonfinite, overflowed = {}, {}
    for row in plan.table:
        array = plan.tensors[row.torch]
        if not identical(array, written[row.torch]):
            raise Differs(f"{row.torch} was reread with other values than were written; nothing is kept.")
        if count := nonfinite_values(array):
            before = nonfinite_values(plan.source[row.torch])
            nonfinite.update({row.torch: before} if before else {})
            overflowed.update({row.torch: count - before} if count > before else {})
    if with_config:
        _compare_configs(LxmertConfig.from_json_file(path / CONFIG_NAME), plan.config)
    return nonfinite, overflowed


def _compare_configs(written: LxmertConfig, config: LxmertConfig) -> None:
    for field in fields(LxmertConfig):
        if getattr(written, field.name) != getattr(config, field.name):
            raise Differs(f"{CONFIG_NAME} was reread with another {field.name} than was written; nothing is kept.")


def _notes(checkpoint: Checkpoint, plan: Plan, to_file: str | None, copied: list[Path]) -> list[str]:
    notes = [*plan.notes]
    heads = plan.config.num_attention_heads
    if checkpoint.inferred:
        notes.append(
            f"{checkpoint.inferred}, so the config is inferred from shapes; num_attention_heads={heads} is a guess: "
            f"if it is wrong, {option('pass config=', 'give it with --config')}"
        )
    elif to_file in FILE_FORMATS:
        notes.append(f"a single file holds no config; its reader must know num_attention_heads={heads}")
    if copied:
        notes.append(f"copied {', '.join(path.name for path in copied)}")
    return notes


def _detector_notes(checkpoint: DetectorCheckpoint) -> list[str]:
    notes = [*checkpoint.notes]
    if checkpoint.inferred:
        anchors = ", ".join(f"{size:g}" for size in checkpoint.config.anchor_sizes)
        notes.append(f"{checkpoint.inferred}, so the config is inferred from shapes; anchors of {anchors} are a guess")
    return notes
