"""Arrays inside HDF5 and npz files, read a few rows at a time by several threads and processes at once.

The HDF5 library admits one thread at a time, so what is stored uncompressed is read past it, by its offset in the file.
"""

import math
import os
import threading
import zipfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from lxmert_tf.files import ENTRY_HEADER, content_offset

if TYPE_CHECKING:
    import h5py

BINARY = getattr(os, "O_BINARY", 0)  # Windows translates line ends otherwise
_position = threading.Lock()  # of open files, where reading and writing move it


def read_at(descriptor: int, buffer: bytearray | memoryview, offset: int) -> int:
    """Fills a buffer from `offset` on; returns the number of bytes, less than asked for at the end of the file."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [buffer], offset)
    with _position:  # Windows
        os.lseek(descriptor, offset, os.SEEK_SET)
        data = os.read(descriptor, len(buffer))
    buffer[: len(data)] = data
    return len(data)


def write_at(descriptor: int, data: memoryview, offset: int) -> int:
    """Writes at `offset`; returns the number of bytes written."""
    if hasattr(os, "pwrite"):
        return os.pwrite(descriptor, data, offset)
    with _position:  # Windows
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)


class Rows(Protocol):
    """An array whose rows can be read into another.

    Attributes:
        shape: as stored: `[R]`, `[R, W]`, or `[M, N, W]`, which is M * N rows.
        count: number of rows.
        width: values per row.
        dtype: of the values in the file.
    """

    shape: tuple[int, ...]
    count: int
    width: int
    dtype: np.dtype

    def read(self, start: int, out: np.ndarray) -> None:
        """Fills `out`, `[rows, width]` of any dtype, with the rows from `start` on."""

    def flattened(self) -> "Rows":
        """The same values as rows of one: `[M, N]` is then M * N rows, not M."""


class FileRows:
    """Rows that are stored uncompressed: in blocks of a fixed number of rows, at known offsets.

    Args:
        descriptor: of the open file; positions are never moved, so threads and forked processes may share it.
        name: the file's name, for errors.
        offsets: `int64[blocks]`, where each block begins, in bytes.
        block: rows per block.
        shape, dtype: of the array.
    """

    def __init__(
        self, descriptor: int, name: str, offsets: np.ndarray, block: int, shape: tuple[int, ...], dtype: DTypeLike
    ):
        self.descriptor, self.name, self.offsets, self.block = descriptor, name, offsets, block
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.count, self.width = _rows_and_width(shape)

    def read(self, start: int, out: np.ndarray) -> None:
        if out.dtype == self.dtype and out.flags.c_contiguous:
            self._read(start, out)
        else:
            plain = np.empty((len(out), self.width), self.dtype)
            self._read(start, plain)
            out[...] = plain

    def flattened(self) -> "FileRows":
        block, shape = self.block * self.width, (self.count * self.width,)
        return FileRows(self.descriptor, self.name, self.offsets, block, shape, self.dtype)

    def write(self, start: int, rows: np.ndarray) -> None:
        """Writes `rows`, `[rows, width]`, from row `start` on."""
        data = np.ascontiguousarray(rows, self.dtype).data.cast("B")
        for offset, piece in self._pieces(start, len(rows), data):
            while piece:
                written = write_at(self.descriptor, piece, offset)
                piece, offset = piece[written:], offset + written

    def _read(self, start: int, out: np.ndarray) -> None:
        for offset, piece in self._pieces(start, len(out), out.data.cast("B")):
            while piece:
                got = read_at(self.descriptor, piece, offset)
                if not got:
                    raise OSError(f"{self.name} is cut short, or still being written")
                piece, offset = piece[got:], offset + got

    def _pieces(self, start: int, rows: int, data: memoryview) -> Iterator[tuple[int, memoryview]]:
        """(offset in the file, bytes) of each block that the rows touch."""
        size = self.width * self.dtype.itemsize
        done = 0
        while done < rows:
            block, inside = divmod(start + done, self.block)
            number = min(rows - done, self.block - inside)
            yield int(self.offsets[block]) + inside * size, data[done * size : (done + number) * size]
            done += number


class ArrayRows:
    """Rows of an array in memory."""

    def __init__(self, array: np.ndarray):
        self.shape, self.dtype = array.shape, array.dtype
        self.count, self.width = _rows_and_width(array.shape)
        self.array = array.reshape(self.count, self.width)

    def read(self, start: int, out: np.ndarray) -> None:
        out[...] = self.array[start : start + len(out)]

    def flattened(self) -> "ArrayRows":
        return ArrayRows(self.array.reshape(-1))


class LibraryRows:
    """Rows that only the HDF5 library can read, such as compressed ones: one thread at a time."""

    lock = threading.Lock()  # one for all files, as the library's own

    def __init__(self, path: str, name: str, shape: tuple[int, ...], dtype: DTypeLike, width: int | None = None):
        self.path, self.name, self.shape, self.dtype = path, name, shape, np.dtype(dtype)
        self.width = _rows_and_width(shape)[1] if width is None else width
        self.count = math.prod(shape) // max(self.width, 1)
        self.per_item = math.prod(shape[1:]) // max(self.width, 1)
        self._opened: tuple[int, object] | None = None

    def read(self, start: int, out: np.ndarray) -> None:
        first, last = start // self.per_item, -(-(start + len(out)) // self.per_item)
        with self.lock:
            rows = self._dataset()[first:last].reshape(-1, self.width)
        out[...] = rows[start - first * self.per_item :][: len(out)]

    def flattened(self) -> "LibraryRows":
        return LibraryRows(self.path, self.name, self.shape, self.dtype, width=1)

    def _dataset(self):
        """The dataset, opened anew in every process: HDF5 does not survive a fork."""
        import h5py

        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), h5py.File(self.path, "r")[self.name]
        return self._opened[1]


def hdf5_rows(dataset: "h5py.Dataset", descriptor: int) -> Rows:
    """The rows of an HDF5 dataset `[R]`, `[R, W]` or `[M, N, W]` (M * N rows).

    Args:
        dataset: a `h5py.Dataset`; it may be closed afterwards.
        descriptor: of the file in which it was found, opened apart, to stay open.
    """
    shape, chunks = dataset.shape, dataset.chunks
    name, per_item = dataset.file.filename, math.prod(shape[1:-1])
    plain = dataset.dtype.isnative and not dataset.external and not dataset.is_virtual and dataset.size
    plain = plain and os.path.samestat(os.stat(name), os.fstat(descriptor))  # not behind a link to another file
    if plain and chunks is None and (offset := dataset.id.get_offset()) is not None:
        return FileRows(descriptor, name, np.array([offset]), shape[0] * per_item, shape, dataset.dtype)
    if plain and chunks is not None and chunks[1:] == shape[1:] and not dataset.id.get_create_plist().get_nfilters():
        offsets = np.full(-(-shape[0] // chunks[0]), -1, np.int64)

        def record(chunk: Any) -> None:
            if chunk.chunk_offset[0] < shape[0]:
                offsets[chunk.chunk_offset[0] // chunks[0]] = chunk.byte_offset

        dataset.id.chunk_iter(record)
        if (offsets >= 0).all():
            return FileRows(descriptor, name, offsets, chunks[0] * per_item, shape, dataset.dtype)
    return LibraryRows(name, dataset.name, shape, dataset.dtype)


def npz_rows(path: str, descriptor: int) -> dict[str, Rows | np.ndarray]:
    """The arrays of an npz file: rows where they are uncompressed, as `np.savez` writes them, else whole arrays.

    Raises:
        ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error: it is damaged, or not all of it are arrays.
    """
    arrays: dict[str, Rows | np.ndarray] = {}
    with zipfile.ZipFile(path) as archive, np.load(path, allow_pickle=False) as loaded:
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            with archive.open(info) as member:
                shape, fortran, dtype = npy_header(member)
                header = member.tell()
            if header + math.prod(shape) * dtype.itemsize > info.file_size and not dtype.hasobject:
                raise ValueError(f"the array {name} of shape {list(shape)} is cut short")
            if info.compress_type == zipfile.ZIP_STORED and not fortran and dtype.isnative and len(shape) in (2, 3):
                local = bytearray(ENTRY_HEADER)
                read_at(descriptor, local, info.header_offset)
                start = content_offset(local, info.header_offset) + header
                block = max(_rows_and_width(shape)[0], 1)
                arrays[name] = FileRows(descriptor, path, np.array([start]), block, shape, dtype)
            else:
                arrays[name] = loaded[name]
    return arrays


def npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether in Fortran's order, and dtype of the array in an npy file, which is then read up to its values."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(file)


def _rows_and_width(shape: tuple[int, ...]) -> tuple[int, int]:
    return (math.prod(shape[:-1]), shape[-1]) if len(shape) > 1 else (math.prod(shape), 1)
