"""Arrays out of the files that NumPy writes: npz and npy, of one image."""

import io
import zipfile
import zlib
from typing import Any

from lxmert_tf.data.features.rows import npy_header
from lxmert_tf.pickles import make_array, parse_pickle

LARGEST = 1 << 28  # bytes of one image's arrays: 16,000 boxes of float32[4096]
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError, MemoryError)


def parse_npz(data: bytes) -> dict[str, Any]:
    """The arrays of an npz file by name.

    Raises:
        ValueError: it is damaged, unpacks to more than `LARGEST`, or holds something else than arrays.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            check_bytes(sum(member.file_size for member in members))
            return {each.filename.removesuffix(".npy"): parse_npy(_content(archive, each)) for each in members}
    except DAMAGED as error:
        raise ValueError(f"it is no npz file, or damaged: {error}") from error


def parse_npy(data: bytes) -> Any:
    """The array of an npy file; of one that holds Python's objects, what they are.

    Raises:
        ValueError: as `parse_npz`.
    """
    check_bytes(len(data))
    file = io.BytesIO(data)
    try:
        shape, fortran, dtype = npy_header(file)
    except (EOFError, OverflowError, RecursionError, SyntaxError, TypeError) as error:
        raise ValueError(f"it is no npy file, or damaged: {error}") from error
    content = data[file.tell() :]
    return parse_pickle(content) if dtype.hasobject else make_array(shape, dtype, fortran, content)


def check_bytes(size: int) -> None:
    """Checks that one image has no more than `LARGEST` bytes.

    Raises:
        ValueError: it has.
    """
    if size > LARGEST:
        raise ValueError(f"it holds {size:,} bytes, but one image has at most {LARGEST:,}")


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """What a member holds, never more than it says."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others are unpacked without a limit
        raise ValueError(f"{member.filename!r} is compressed in a way that NumPy does not write")
    with archive.open(member) as file:
        return file.read(member.file_size)
