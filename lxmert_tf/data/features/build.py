"""Building a file of region features out of sources: TSV files, those of other extractors, or pictures (extract.py).

The space of the whole HDF5 file is allocated first, by its library, and more where compressed files turn out larger.
The rows are written directly to their offsets, and a journal beside the file records the progress, so that a build that
was killed can be resumed. At the end the library writes again: the images' names and rows.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tqdm import tqdm

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.data.features.layout import PIXELS, read_layout
from lxmert_tf.data.features.provenance import check_extracted_alike, common_record, sources_of
from lxmert_tf.data.features.regions import LABELS, RegionFeatures, Series, class_counts
from lxmert_tf.data.features.rows import BINARY
from lxmert_tf.data.features.sources import Record, Source, open_sources, sample
from lxmert_tf.data.features.writers import Hdf5Writer, Image, TsvWriter, Writer
from lxmert_tf.files import check_apart, flush
from lxmert_tf.locks import locked

logger = logging.getLogger("lxmert_tf")

FORMAT = "lxmert-tf region features 1"
CHECKPOINT = 256_000_000  # bytes of sources between entries of the journal: about a second of work
GROWTH = 1.25  # what a file grows by where its sources hold more than it has space for
TSV = "tsv"  # the "layout" of a plan to write this instead of HDF5
RESIZING = {"resizing": True}  # in the journal while the library writes: nothing can be resumed from then
DTYPES = ("float32", "float16")

# After these a build may be resumed; after any other Exception, which is a bug, nothing is kept.
EXPECTED = (ValueError, OSError, MemoryError)


@dataclass
class BuildReport:
    """What a build has done.

    Attributes:
        images, boxes: in the whole file.
        added: images that this build added.
        skipped: a message for each bad line or image, with the file, the line and the image.
        resumed: images that an interrupted build had already written.
    """

    images: int = 0
    boxes: int = 0
    added: int = 0
    skipped: list[str] = field(default_factory=list)
    resumed: int = 0


def build_features(
    sources: Sequence[str | os.PathLike] | str | os.PathLike,
    out: str | os.PathLike,
    *,
    dtype: str = "float32",
    append: bool = False,
    overwrite: bool = False,
    skip_bad: bool = False,
    config: LxmertConfig | None = None,
    extractor: str | None = None,
    progress: bool = False,
) -> BuildReport:
    """Builds `out` from region features in the formats that extractors write.

    It is written beside `out`, as `OUT.partial`, and renamed at the end. After an interruption the same call resumes.
    Memory does not grow with the features.

    Args:
        sources: TSV files of the original or of bottom-up attention, .npz or .npy files of one image each, directories
            and LMDB files of such; in any mixture. Where one has no object and attribute classes, `out` has none.
        out: the HDF5 file to write, in the layout of docs/data.md.
        dtype: of the stored features: "float32", or "float16" for half the space.
        append: add to the images of an existing `out`, whose dtype is kept. It is copied first, and stays as it is
            until the end.
        overwrite: replace an existing `out`.
        skip_bad: leave out lines and images that cannot be read, and report them.
        config: of the model, whose `num_object_labels` and `num_attr_labels` say which classes there are. Default:
            `LxmertConfig()`.
        extractor: what made the features, for the record.
        progress: show a bar.

    Raises:
        ValueError: a line is bad and not to be skipped, `out` is one of the sources, sources were extracted with
            different options, as is recorded beside them, or an option is bad.
        FileExistsError: `out` exists, and is neither to be replaced nor to be appended to.
        FileNotFoundError: a source does not exist, or `out` when appending.
        OSError: `out` cannot be written.
        BlockingIOError: another process is building the same file.
    """
    paths = [Path(source) for source in ([sources] if isinstance(sources, str | os.PathLike) else sources)]
    out, config = Path(out), config or LxmertConfig()
    if not paths:
        raise ValueError("give at least one file of region features to build from")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    check_apart(out, paths)
    if append and not out.exists():
        raise FileNotFoundError(f"{out} does not exist, so nothing can be appended to it; build it without --append")
    if out.exists() and not (append or overwrite):
        raise FileExistsError(f"{out} already exists; append to it (--append) or overwrite it (--overwrite)")
    opened = open_sources(paths)
    plan = {
        "format": FORMAT,
        "sources": [source.fingerprint for source in opened],
        "labels": _have_labels(opened),
        "base": _fingerprint(out) if append else None,
        "dtype": dtype,
        "classes": [count for count, _ in class_counts(config).values()],
    }
    size = sum(source.size for source in opened)
    record = {"extractor": extractor} if extractor else {}
    with locked_journal(out) as journal:
        build = Build(out, journal, plan, opened, config, lambda width: _boxes(size, width), skip_bad, overwrite)
        return build.run(record, progress)


@contextmanager
def locked_journal(out: Path) -> Iterator[IO[bytes]]:
    """Yields the journal beside `out`, which no other process writes to meanwhile."""
    path = out.with_name(out.name + ".partial.journal")
    if out.exists() and not out.is_file():
        raise FileExistsError(f"{out} is not a regular file, so it cannot be replaced; choose another file")
    with ExitStack() as stack:
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(out.with_name(out.name + ".partial.lock"), wait=False))
            stack.callback(_remove_if_empty, path)
            journal = stack.enter_context(open(path, "a+b"))
        except BlockingIOError:
            raise BlockingIOError(f"another process is building {out.name}") from None
        except OSError as error:
            code = errno.ENOTDIR if error.errno == errno.EEXIST else error.errno or errno.EIO  # mkdir met a file
            raise OSError(code, f"Cannot write this file ({os.strerror(code)})", os.fspath(out)) from error
        yield journal


def _remove_if_empty(path: Path) -> None:
    if path.exists() and not path.stat().st_size:
        path.unlink()


def _have_labels(sources: Sequence[Source]) -> bool:
    """Whether all sources have object and attribute classes; tells what each is."""
    samples = [sample(source) for source in sources]
    have = [each is None or bool(each.labels()) for each in samples]
    for source, first, labels in zip(sources, samples, have, strict=True):
        if first:
            text = f"{source.path}: {source.kind}, {first.features.shape[1]:,} features for each box, "
            logger.info(text + ("with classes" if labels else "without classes"), extra={"note": True})
    if not all(have) and any(first and first.labels() for first in samples):
        logger.info("classes are left out, since not all sources have them", extra={"note": True})
    return all(have)


def _fingerprint(path: Path) -> list:
    status = path.stat()
    return [str(path.resolve()), status.st_size, status.st_mtime_ns]


@dataclass
class _Position:
    """How far the sources have been read."""

    source: int = 0
    offset: int = 0
    done: int = 0


class Build:
    """One build, new or resumed from its journal.

    Args:
        out: the file to write.
        journal: of `locked_journal`.
        plan: all that decides what is written, as JSON: only a build of the same plan is resumed. One with
            "extraction" takes hours: it is kept after any error, and replaced only with `overwrite`.
        sources, config, skip_bad, overwrite: as of `build_features`.
        space: from the feature dimension to the number of boxes that there will probably be.
        checkpoint: how much of the sources' sizes there is between entries of the journal. Default: `CHECKPOINT`.

    Raises:
        ValueError: another extraction of the same file is not finished, or sources were extracted differently.
    """

    def __init__(
        self,
        out: Path,
        journal: IO[bytes],
        plan: dict,
        sources: Sequence[Source],
        config: LxmertConfig,
        space: Callable[[int], int],
        skip_bad: bool,
        overwrite: bool,
        checkpoint: int | None = None,
    ):
        self.out, self.journal, self.plan, self.sources, self.skip_bad = out, journal, plan, sources, skip_bad
        self.space, self.overwrite, self.checkpoint = space, overwrite, checkpoint or CHECKPOINT
        self.partial = out.with_name(out.name + ".partial")
        self.report = BuildReport()
        self.position = _Position()
        self.images: list[Image] = []
        self.series = Series(config)
        self.recorded = 0, 0  # images and skipped lines in the journal
        self.file: Writer | None = None
        self.base_provenance: dict[str, Any] = {}
        self.bounds = [source.size for source in sources]
        if plan["base"]:
            self._read_base()
        before = [(out, source) for source in sources_of(self.base_provenance)]
        check_extracted_alike([*before, *((source.path, source.record) for source in sources)])
        self.series.labels = plan["labels"]
        self.base_images = len(self.images)
        if not self._resume():
            self._start()

    def run(self, record: Mapping[str, Any], progress: bool) -> BuildReport:
        """Writes all that is missing; after an error keeps what is done, or nothing.

        Args:
            record: what made the features, for the provenance.
            progress: show a bar.
        """
        try:
            self._run(record, progress)
        except BaseException as error:
            if isinstance(error, EXPECTED) or not isinstance(error, Exception) or "extraction" in self.plan:
                self.keep_progress()
            else:
                self.discard()
            raise
        finally:
            self.close()
        return self.report

    def _run(self, record: Mapping[str, Any], progress: bool) -> None:
        unit = self.sources[0].unit
        bar = tqdm(
            total=sum(self.bounds),
            initial=sum(self.bounds[: self.position.source]) + self.position.offset,
            desc=self.out.name,
            unit=unit,
            unit_scale=unit == "B",
            disable=not progress or None,
        )
        digests = []
        with bar:
            for index, source in enumerate(self.sources):
                digests.append(self._read(index, source, bar))
        if not self.images:
            raise ValueError(f"no images in {', '.join(str(source.path) for source in self.sources)}")
        self._checkpoint()
        self._finish(digests, record)

    def close(self) -> None:
        """Closes the file that is being built."""
        if self.file:
            self.file.close()
            self.file = None

    def keep_progress(self) -> None:
        """After an error: keeps what was written if resuming from it saves work, and removes it otherwise."""
        try:
            if self.file and self.position.offset + sum(self.bounds[: self.position.source]) >= self.checkpoint:
                self._checkpoint()
                return
        except OSError:  # a full disk: the last checkpoint stays
            return
        if self.recorded == (self.base_images, 0):
            self.discard()

    def _read_base(self) -> None:
        descriptor = os.open(self.out, os.O_RDONLY | BINARY)
        try:
            layout = read_layout(os.fspath(self.out), descriptor)
        finally:
            os.close(descriptor)
        if layout.provenance.get("format") != FORMAT or layout.sizes is None:
            raise ValueError(
                f"{self.out} was not written by lxmert-tf features build; only such a file can be appended to"
            )
        if len(layout.labels) == len(LABELS) and not self.plan["labels"]:
            raise ValueError(
                f"{self.out} has object and attribute classes, which not all of the sources have, so they cannot be "
                "appended; build one file of all sources, which then has none"
            )
        self.plan["labels"] = bool(layout.labels)
        counts = (layout.ends - layout.starts).tolist()
        sizes = layout.sizes.astype(int).tolist()
        self.images = [(name, h, w, n) for name, (w, h), n in zip(layout.img_ids, sizes, counts, strict=True)]
        self.series.img_ids.update(layout.img_ids)
        self.series.feat_dim = layout.features.width
        self.base_provenance = layout.provenance
        self.report.boxes = sum(counts)

    def _resume(self) -> bool:
        """Resumes an interrupted build of the same plan; False if there is none.

        Raises:
            ValueError: there is one of another plan, which took hours.
        """
        entries = self._journal_entries()
        if not entries or not self.partial.exists():
            return False
        if entries[0] != self.plan and "extraction" in entries[0] and not self.overwrite:
            raise ValueError(_other_plan(self.partial, entries[0], self.plan))
        if entries[0] != self.plan or entries[-1] == RESIZING:
            return False
        try:
            self.file = self._open(entries[-1].get("written", self.report.boxes))
        except (OSError, KeyError):  # killed while the library was writing
            return False
        for entry in entries[1:]:
            if entry == RESIZING:
                continue
            self.position = _Position(**entry["place"])
            self.images += [tuple(image) for image in entry["images"]]
            self.report.skipped += entry["skipped"]
        added = self.images[self.base_images :]
        self.series.img_ids.update(image[0] for image in added)
        self.series.feat_dim = self.file.feat_dim
        self.report.boxes += sum(image[3] for image in added)
        self.report.resumed = len(added)
        self.recorded = len(self.images), len(self.report.skipped)
        return True

    def _journal_entries(self) -> list[dict]:
        """The entries of the journal; a last line that is cut short is removed."""
        self.journal.seek(0)
        entries, size = [], 0
        for line in self.journal:
            try:
                entries.append(json.loads(line))
            except ValueError:
                break
            size += len(line)
        self.journal.truncate(size)
        return entries

    def _start(self) -> None:
        self.partial.unlink(missing_ok=True)
        self.journal.truncate(0)
        if self.plan["base"]:
            import h5py

            shutil.copyfile(self.out, self.partial)
            try:
                with h5py.File(self.partial) as file:
                    boxes = self.report.boxes + _boxes(sum(self.bounds), file["image_features"].shape[1])
                self.file = Hdf5Writer.extend(self.partial, boxes, self.plan["labels"], self.report.boxes)
            except (TypeError, ValueError) as error:
                self.partial.unlink()
                raise ValueError(
                    f"{self.out} is compressed or laid out otherwise than lxmert-tf features build writes it, "
                    "so nothing can be appended to it; build it again from its sources"
                ) from error
        self.recorded = len(self.images), 0
        self._record(self.plan)

    def _read(self, index: int, source: Source, bar: tqdm) -> str:
        """Writes the rest of one source; returns the SHA-256 of all that it has."""
        digest = hashlib.sha256()
        if index > self.position.source:
            self.position = _Position(index)
        done, last = self.position.done, self.position.offset
        if index < self.position.source:
            done, last = sys.maxsize, self.bounds[index]
        for record in source.records(done, last, digest.update):
            self._add(record)
            self.position.done = record.number
            self.position.offset += record.size
            bar.update(record.size)
            if self.position.offset - last >= self.checkpoint:
                self._checkpoint()
                last = self.position.offset
        return digest.hexdigest()

    def _add(self, record: Record) -> None:
        try:
            regions = record.read(self.series)
            self._file_with_space(regions).write(regions)
        except ValueError as error:
            if not self.skip_bad:
                raise
            self.report.skipped.append(str(error))
            return
        self.images.append((regions.img_id, regions.img_h, regions.img_w, len(regions.boxes)))
        self.series.add(regions)
        self.report.boxes += len(regions.boxes)

    def _file_with_space(self, regions: RegionFeatures) -> Writer:
        """The file: created for the first image, and enlarged for one that has no space any more."""
        needed = self.report.boxes + len(regions.boxes)
        if self.file is None:
            self.file = self._create(needed, regions.features.shape[1])
        elif not self.file.has_space(regions):
            self._record(RESIZING)
            self.file = self.file.grow(int(needed * GROWTH))
            self._checkpoint()
        return self.file

    def _create(self, needed: int, feat_dim: int) -> Writer:
        if self.plan.get("layout") == TSV:
            return TsvWriter(self.partial)
        boxes = max(self.space(feat_dim), needed)
        return Hdf5Writer.create(self.partial, boxes, feat_dim, self.plan["dtype"], self.plan["labels"])

    def _open(self, written: int) -> Writer:
        if self.plan.get("layout") == TSV:
            return TsvWriter(self.partial, written)
        return Hdf5Writer(self.partial, self.plan["labels"], written)

    def _checkpoint(self) -> None:
        """Flushes what is written so far, and records it in the journal."""
        if self.file:
            self.file.flush()
        images, skipped = self.recorded
        entry = {"images": self.images[images:], "skipped": self.report.skipped[skipped:], "place": vars(self.position)}
        self._record(entry | {"written": self.file.written if self.file else 0})
        self.recorded = len(self.images), len(self.report.skipped)

    def _record(self, entry: dict) -> None:
        self.journal.write(json.dumps(entry).encode() + b"\n")
        self.journal.flush()
        os.fsync(self.journal.fileno())

    def _finish(self, digests: list[str], record: Mapping[str, Any]) -> None:
        sources = [source.provenance(digest) for source, digest in zip(self.sources, digests, strict=True)]
        sources = [*sources_of(self.base_provenance), *sources]
        provenance = {
            "format": FORMAT,
            "extractor": self.base_provenance.get("extractor"),
            **common_record(sources),
            "box_format": PIXELS,
            "sources": sources,
            "skipped": self.base_provenance.get("skipped", 0) + len(self.report.skipped),
            **record,
        }
        assert self.file is not None  # there are images
        self.file.finish(self.out, self.images, provenance)
        self.file = None
        flush(self.partial)
        os.replace(self.partial, self.out)
        self.report.images = len(self.images)
        self.report.added = len(self.images) - self.base_images
        self.discard()

    def discard(self) -> None:
        """Removes the unfinished file and the journal."""
        self.close()
        self.partial.unlink(missing_ok=True)
        self.journal.close()
        Path(self.journal.name).unlink(missing_ok=True)


def _boxes(size: int, feat_dim: int) -> int:
    """How many boxes sources of so many bytes have: at most that many in a TSV, whose base64 writes 3 bytes as 4."""
    return size * 3 // (4 * 4 * feat_dim) + 1


def _other_plan(partial: Path, begun: dict, plan: dict) -> str:
    """The message that an unfinished file is of another plan."""
    before, now = (each.get("extraction", {}) | {"layout": each.get("layout")} for each in (begun, plan))
    difference = "other pictures"
    for name in before:
        if before[name] != now.get(name):
            difference = f"{name} {json.dumps(before[name])} instead of {json.dumps(now.get(name))}"
            break
    return (
        f"{partial} was begun with {difference}: finish it with the command that began it, or begin anew (--overwrite)."
    )
