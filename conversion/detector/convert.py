"""A detector's checkpoint into any format: written, reread and compared, and only then put in place."""

from pathlib import Path
from typing import NamedTuple

from conversion.compare import Differs, identical, nonfinite_values
from conversion.destination import check_replaceable
from conversion.detector.formats import DetectorCheckpoint
from conversion.detector.writers import DIRECTORY_FORMATS, FILE_FORMATS, FORMATS, write_detector, write_detector_file
from conversion.report import progress_bar
from conversion.source import open_detector_source
from conversion.tensors import DTYPES, SAFETENSORS_TYPES, Tensors
from lxmert_tf.files import staged


class Written(NamedTuple):
    """What was written: its format, its tensors, those left out with the reason, and how many are not finite."""

    format: str
    tensors: Tensors
    dropped: dict[str, str]
    nonfinite: dict[str, int]


def convert_detector(
    checkpoint: DetectorCheckpoint,
    destination: Path,
    to: str | None,
    dtype: str | None,
    verify: bool,
    overwrite: bool,
    progress: bool,
) -> Written:
    """Writes a detector; the arguments are those of `conversion.convert.convert`.

    Raises:
        ValueError: an unknown format, a file with the suffix of another, or tensors that do not fit the config.
        Differs: what was written is not what was read.
    """
    to = to or next((format for format, suffix in FILE_FORMATS.items() if destination.name.endswith(suffix)), "keras")
    if to not in FORMATS:
        raise ValueError(f"A detector is written as one of {', '.join(FORMATS)}, not as {to}.")
    if (suffix := FILE_FORMATS.get(to)) and not destination.name.endswith(suffix):
        raise ValueError(
            f"A file of the format {to} is named *{suffix}, got {destination.name}; rename the destination."
        )
    check_replaceable(destination, to, to in FILE_FORMATS, overwrite)
    matched = checkpoint.match()
    tensors = Tensors({row.torch: checkpoint.tensors.stored[row.torch] for row in matched.loaded})
    if odd := [name for name, item in tensors.stored.items() if item.dtype not in SAFETENSORS_TYPES]:
        raise ValueError(f"{checkpoint.path}: {odd[0]} must be one of {', '.join(DTYPES)}.")
    tensors = tensors if dtype is None else tensors.cast(DTYPES[dtype])
    with progress_bar(tensors.nbytes * (2 if verify else 1), progress) as update, staged(destination) as place:
        read = tensors.with_progress(update)
        if to in DIRECTORY_FORMATS:
            write_detector(place, read, checkpoint.config, to)
        else:
            write_detector_file(place, read, checkpoint.config, to)
        nonfinite = _compare(place, read, checkpoint, to) if verify else {}
    return Written(to, tensors, matched.unused, nonfinite)


def _compare(place: Path, tensors: Tensors, checkpoint: DetectorCheckpoint, to: str) -> dict[str, int]:
    """Rereads what was written; returns how many values are not finite, by name.

    Raises:
        Differs: naming the first tensor that is not identical.
    """
    config = None if to in DIRECTORY_FORMATS else checkpoint.config
    written = open_detector_source(place, config)
    nonfinite = {}
    for name, array in tensors.items():
        if name not in written.tensors or not identical(array, written.tensors[name]):
            raise Differs(f"{name} was reread with other values than were written; nothing is kept.")
        if count := nonfinite_values(array):
            nonfinite[name] = count
    if written.config != checkpoint.config:
        raise Differs("The config was reread with other values than were written; nothing is kept.")
    return nonfinite
