"""What a file of region features is built from: TSV files, files of one image each, and LMDB files of such."""

import errno
import itertools
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from lxmert_tf.data.features.arrays import NAMES
from lxmert_tf.data.features.image import NPY, NPZ, image_name, parse_image
from lxmert_tf.data.features.lmdb import Lmdb, is_lmdb
from lxmert_tf.data.features.npz import LARGEST, check_bytes
from lxmert_tf.data.features.provenance import RECORDED, read_provenance
from lxmert_tf.data.features.regions import RegionFeatures, Series
from lxmert_tf.data.features.rows import npy_header
from lxmert_tf.data.features.tsv import BOTTOM_UP_FIELDS, FIELDS, numbered_lines, parse_line, plain_field

INFO = "_info.npy"  # beside NAME.npy: what else is known of the image
SAMPLES = 100  # images of which one must be readable to tell what a source has
HDF5 = b"\x89HDF\r\n\x1a\n"
ALL_KEYS = b"keys"  # of the entry in which some extractors list the others
Update = Callable[[bytes], object]  # of a digest


def _ignore(data: bytes) -> None:
    """No digest."""


@dataclass(frozen=True)
class Record:
    """One image in a source, not read yet.

    Attributes:
        number: how many images, or lines of a TSV, there are up to this one.
        size: its bytes.
        read: what gives the image, after those of a series.
    """

    number: int
    size: int
    read: Callable[[Series], RegionFeatures]


class Source(Protocol):
    """One or several files.

    Attributes:
        path: of the file, or of the directory of all.
        kind: what it is, in words.
        size: bytes, of all files; or images, where `unit` says so.
        unit: of the size: "B" or " images".
        fingerprint: what changes when a file changes, as JSON.
        record: what is recorded of how its features were made, as JSON.
    """

    path: Path
    kind: str
    size: int
    unit: str
    fingerprint: list
    record: dict[str, Any]

    def records(self, done: int = 0, offset: int = 0, update: Update = _ignore) -> Iterator[Record]:
        """The images in order, but for the `done` first, which take up `offset` bytes.

        Everything read, that of the images left out too, goes into `update`.
        """

    def provenance(self, digest: str) -> dict[str, Any]:
        """What is recorded of it, as JSON, once its records have had this SHA-256."""


def open_sources(paths: Sequence[Path]) -> list[Source]:
    """What there is at some paths; files of one image each that follow one another are one source.

    Raises:
        FileNotFoundError: there is nothing at a path.
        ValueError: it is no source of region features.
    """
    sources: list[Source] = []
    for images, group in itertools.groupby(paths, _is_image):
        found = list(group)
        sources += [ImageFiles(found)] if images else [_open(path) for path in found]
    return sources


def is_store(path: str | os.PathLike) -> bool:
    """Whether a file is of many images and read at random, HDF5 or npz, so that it needs no building."""
    path = Path(path)
    start = b""
    if path.is_file():
        with open(path, "rb") as file:
            start = file.read(len(HDF5))
    if start.startswith(NPZ):
        return _is_layout(path)
    return start == HDF5 or path.suffix in (".h5", ".hdf5", ".npz")


def sample(source: Source) -> RegionFeatures | None:
    """The first image that can be read, of the first hundred."""
    for record in itertools.islice(source.records(), SAMPLES):
        with suppress(ValueError):
            return record.read(Series())
    return None


def _is_image(path: Path) -> bool:
    """Whether this is a file of one image."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(len(NPY))
    if start.startswith(NPZ):
        return not _is_layout(path)
    return start == NPY


def _is_layout(path: Path) -> bool:
    """Whether an npz file is of many images, in the layout that needs no building."""
    with suppress(zipfile.BadZipFile, ValueError, EOFError, OSError, RuntimeError), zipfile.ZipFile(path) as archive:
        for name in {f"{name}.npy" for name in NAMES["img_ids"]} & set(archive.namelist()):
            with archive.open(name) as file:
                return len(npy_header(file)[0]) == 1
    return False


def _open(path: Path) -> Source:
    if path.is_dir():
        if (path / "data.mdb").is_file():
            return Database(path / "data.mdb")
        files = sorted(each for each in path.rglob("*.np[yz]") if each.is_file() and not each.name.endswith(INFO))
        if not files:
            raise ValueError(f"{path} has no region features: expected .npz or .npy files of one image, or data.mdb")
        return ImageFiles(files, path)
    if is_store(path):
        raise ValueError(
            f"{path} is not a TSV file; HDF5 and npz files of many images need no building, and shards that "
            "are to be put together are extracted as .tsv files"
        )
    if not path.exists():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    return Database(path) if is_lmdb(path) else TsvFile(path)


class TsvFile:
    """A TSV file of ten or six columns."""

    unit = "B"

    def __init__(self, path: Path):
        self.path = path
        status = path.stat()
        self.size = status.st_size
        self.fingerprint = [str(path.resolve()), status.st_size, status.st_mtime_ns]
        made = read_provenance(path)
        self.record = {name: made[name] for name in RECORDED if name in made}
        with open(path, "rb") as file:
            fields = file.readline().rstrip(b"\r\n").split(b"\t")
        authors = {len(FIELDS): "the original LXMERT", len(BOTTOM_UP_FIELDS): "bottom-up attention"}.get(len(fields))
        quoted = " written as b'...'" if plain_field(fields[-1]) != fields[-1] else ""
        self.kind = f"TSV of {len(fields)} columns{quoted}" + (f", as {authors} has" if authors else "")

    def records(self, done: int = 0, offset: int = 0, update: Update = _ignore) -> Iterator[Record]:
        with open(self.path, "rb", buffering=1 << 20) as file:
            _skip(file, update, offset)
            for number, line in numbered_lines(_told(file, update), done + 1):
                yield Record(number, len(line), self._reader(line, number))

    def provenance(self, digest: str) -> dict[str, Any]:
        return _of_files(self, digest) | self.record

    def _reader(self, line: bytes, number: int) -> Callable[[Series], RegionFeatures]:
        return lambda series: parse_line(line, os.fspath(self.path), number, series)


class ImageFiles:
    """Files of one image each: NAME.npz, or NAME.npy with NAME_info.npy beside it."""

    unit = "B"

    def __init__(self, files: Sequence[Path], folder: Path | None = None):
        self.files = [file for file in files if not file.name.endswith(INFO)]
        self.path = folder or Path(os.path.commonpath([file.parent for file in files]))
        status = [part.stat() for file in self.files for part in _parts(file)]
        self.size = sum(each.st_size for each in status)
        newest = max((each.st_mtime_ns for each in status), default=0)
        self.fingerprint = [str(self.path.resolve()), self.size, newest, len(self.files)]
        suffixes = " and ".join(sorted({file.suffix for file in self.files}))
        self.record: dict[str, Any] = {}
        self.kind = f"{len(self.files):,} files {suffixes} of one image each"

    def records(self, done: int = 0, offset: int = 0, update: Update = _ignore) -> Iterator[Record]:
        for number, file in enumerate(self.files, 1):
            parts = _parts(file)
            size = sum(part.stat().st_size for part in parts)
            data = [part.read_bytes() for part in parts] if size <= LARGEST else []
            for part in data:
                update(part)
            if number > done:
                yield Record(number, size, self._reader(file, size, data))

    def provenance(self, digest: str) -> dict[str, Any]:
        return _of_files(self, digest)

    def _reader(self, file: Path, size: int, data: list[bytes]) -> Callable[[Series], RegionFeatures]:
        def read() -> RegionFeatures:
            check_bytes(size)
            if file.suffix == ".npy" and len(data) == 1:
                raise ValueError(f"it has features alone; expected {file.stem}{INFO} beside it, with boxes and sizes")
            return parse_image(name, *data)

        name = image_name(file.name)
        return lambda series: _checked(read, os.fspath(file), name, series)


def _parts(file: Path) -> list[Path]:
    info = file.with_name(file.stem + INFO)
    return [file, info] if file.suffix == ".npy" and info.is_file() else [file]


class Database:
    """An LMDB file of one image for each key: a pickle, or the content of an npz or npy file."""

    unit = "B"

    def __init__(self, path: Path):
        self.path = path
        status = path.stat()
        self.size = status.st_size
        self.fingerprint = [str(path.resolve()), status.st_size, status.st_mtime_ns]
        self.record: dict[str, Any] = {}
        self.kind = f"LMDB of {len(Lmdb(path)):,} entries"

    def records(self, done: int = 0, offset: int = 0, update: Update = _ignore) -> Iterator[Record]:
        entries = ((key, value) for key, value in Lmdb(self.path).items() if key != ALL_KEYS)
        for number, (key, value) in enumerate(entries, 1):
            update(key)
            update(value)
            if number > done:
                yield Record(number, len(value), self._reader(key, value))

    def provenance(self, digest: str) -> dict[str, Any]:
        return _of_files(self, digest)

    def _reader(self, key: bytes, value: bytes) -> Callable[[Series], RegionFeatures]:
        name = image_name(key.decode("utf-8", "replace"))
        return lambda series: _checked(lambda: parse_image(name, value), os.fspath(self.path), name, series)


def _of_files(source: Source, digest: str) -> dict[str, Any]:
    return {"name": source.path.name, "bytes": source.size, "sha256": digest, "kind": source.kind}


def _checked(read: Callable[[], RegionFeatures], where: str, name: str, series: Series) -> RegionFeatures:
    try:
        regions = read()
        series.check(regions)
    except ValueError as error:
        raise ValueError(f"{where}, image {name[:80]!r}: {error}") from error
    return regions


def _told(file: IO[bytes], update: Update) -> Iterator[bytes]:
    for line in file:
        update(line)
        yield line


def _skip(file: IO[bytes], update: Update, size: int) -> None:
    """Reads `size` bytes for their digest only."""
    while size:
        piece = file.read(min(size, 1 << 20))
        if not piece:
            raise ValueError(f"{file.name} became shorter while it was being read")
        update(piece)
        size -= len(piece)
