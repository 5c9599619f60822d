"""Arrays out of files that NumPy and pickle have written, without running what else a pickle may ask for.

A pickle is a program. Only its instructions for numbers, text, lists, dicts and NumPy's arrays are followed, and the
arrays are built here from their bytes, so that neither their sizes nor their types are taken on trust.
"""

import io
import math
import pickle
import pickletools
import re
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from lxmert_tf.data.features.rows import npy_header

LARGEST = 1 << 28  # bytes of one image's arrays: 16,000 boxes of float32[4096]
STEPS = 100_000  # instructions of one pickle; an array takes about thirty
DEPTH = 8
PLAIN_TYPE = re.compile(r"[?]|b1|[iuf][1248]|[SU][0-9]{1,4}")
ORDERS = ("=", "<", ">", "|")  # of bytes
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OverflowError, MemoryError)


def parse_npz(data: bytes) -> dict[str, Any]:
    """The arrays of an npz file by name.

    Raises:
        ValueError: it is damaged, unpacks to more than `LARGEST`, or holds something else than arrays.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            _check_size(sum(member.file_size for member in members))
            return {each.filename.removesuffix(".npy"): parse_npy(_content(archive, each)) for each in members}
    except DAMAGED as error:
        raise ValueError(f"it is no npz file, or damaged: {error}") from error


def parse_npy(data: bytes) -> Any:
    """The array of an npy file; of one that holds Python's objects, what they are.

    Raises:
        ValueError: as `parse_npz`.
    """
    _check_size(len(data))
    file = io.BytesIO(data)
    try:
        shape, fortran, dtype = npy_header(file)
    except (EOFError, OverflowError, RecursionError, SyntaxError, TypeError) as error:
        raise ValueError(f"it is no npy file, or damaged: {error}") from error
    content = data[file.tell() :]
    return parse_pickle(content) if dtype.hasobject else _array(shape, dtype, fortran, content)


def parse_pickle(data: bytes) -> Any:
    """What a pickle holds: numbers, text, lists, dicts and arrays, nested up to eight deep.

    Raises:
        ValueError: it holds something else, or is damaged.
    """
    _check_size(len(data))
    _check_steps(data)
    try:
        value = _Unpickler(io.BytesIO(data), encoding="latin1").load()  # Python 2 wrote bytes as text
    except ValueError:
        raise
    except Exception as error:  # a damaged pickle calls anything with anything
        raise ValueError(f"its pickle is damaged ({type(error).__name__}: {error})") from error
    return _finished(value, {}, DEPTH)


def _check_size(size: int) -> None:
    if size > LARGEST:
        raise ValueError(f"it holds {size:,} bytes, but one image has at most {LARGEST:,}")


def _content(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    """What a member holds, never more than it says."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others are unpacked without a limit
        raise ValueError(f"{member.filename!r} is compressed in a way that NumPy does not write")
    with archive.open(member) as file:
        return file.read(member.file_size)


def _check_steps(data: bytes) -> None:
    """Checks the instructions one by one before any is followed: unpickling allocates what they say."""
    steps = pickletools.genops(data)
    for count in range(1, STEPS + 1):
        try:
            instruction, argument, _ = next(steps)
        except StopIteration:
            return
        except Exception as error:  # a damaged pickle takes anything for a number
            raise ValueError(f"it is no pickle, or damaged: {error}") from error
        if instruction.name in ("PUT", "LONG_BINPUT") and isinstance(argument, int) and argument > count:
            raise ValueError("its pickle is damaged: it counts more objects than it has")
    raise ValueError(f"its pickle has more than {STEPS:,} instructions; expected arrays")


class _Call:
    """Something that a pickle may call, and nothing more."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]):
        self.function = function

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __setstate__(self, state: Any) -> None:
        raise ValueError("its pickle changes a function")


class _Type:
    """A dtype as a pickle describes it."""

    def __init__(self, name: str, *_: Any):
        self.name, self.order = name, "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1]

    def dtype(self) -> np.dtype:
        if not isinstance(self.name, str) or not PLAIN_TYPE.fullmatch(self.name) or self.order not in ORDERS:
            raise ValueError(f"its arrays must hold numbers or text, got the type {str(self.name)[:20]!r}")
        return np.dtype(f"{self.order}{self.name}")


class _Array:
    """An array as a pickle describes it."""

    def __init__(self, shape: Any = (), kind: Any = None, fortran: Any = False, data: Any = b""):
        self.shape, self.kind, self.fortran, self.data = shape, kind, fortran, data

    def __setstate__(self, state: tuple) -> None:
        self.shape, self.kind, self.fortran, self.data = state[-4:]


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"its pickle encodes bytes as {str(encoding)[:20]!r}")
    return text.encode("latin1")


def _no_call(*_: Any) -> None:
    raise ValueError("its pickle makes arrays in a way that NumPy does not write")


# What Python and NumPy 1 and 2 write, under any protocol
CALLS: dict[str, Callable[..., Any]] = {
    "codecs.encode": _encode,
    "builtins.bytes": lambda: b"",
    "multiarray._reconstruct": lambda *_: _Array(),
    "multiarray.scalar": lambda kind, data=b"": _Array((), kind, False, data),
    "numeric._frombuffer": lambda data, kind, shape, order: _Array(shape, kind, order == "F", data),
    "ndarray": _no_call,
    "dtype": _Type,
}
# The modules that those are in, in one version or another
PLACES = {
    "_codecs": "codecs.",
    "builtins": "builtins.",
    "__builtin__": "builtins.",
    "numpy": "",
    **{f"numpy.{core}.{module}": f"{module}." for core in ("core", "_core") for module in ("multiarray", "numeric")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> _Call:
        place = f"{PLACES.get(module, '?')}{name}"
        if place not in CALLS:
            raise ValueError(f"its pickle runs code ({module}.{name}), which is not followed; expected arrays")
        return _Call(CALLS[place])


def _finished(value: Any, done: dict[int, Any], depth: int) -> Any:
    """A value with its arrays built, each object once however often it is there."""
    if not depth:
        raise ValueError(f"its pickle is nested more than {DEPTH} deep")
    if id(value) in done:
        return done[id(value)]
    result = value
    if isinstance(value, _Array):
        result = _built(value, done, depth)
    elif isinstance(value, dict):
        result = {key: _finished(each, done, depth - 1) for key, each in value.items() if isinstance(key, str)}
    elif isinstance(value, list | tuple):
        result = [_finished(each, done, depth - 1) for each in value]
    elif not isinstance(value, bool | int | float | str | bytes | None):
        raise ValueError(f"its pickle holds something else than arrays ({type(value).__name__.strip('_')})")
    done[id(value)] = result
    return result


def _built(array: _Array, done: dict[int, Any], depth: int) -> Any:
    if not isinstance(array.kind, _Type):
        raise ValueError("its pickle has an array without a type")
    if array.kind.name in ("O", "O8") and isinstance(array.data, list):
        values = [_finished(each, done, depth - 1) for each in array.data]
        return values[0] if array.shape == () and len(values) == 1 else values
    data = array.data.encode("latin1") if isinstance(array.data, str) else array.data
    if not isinstance(data, bytes | bytearray):
        raise ValueError("its pickle has an array without bytes")
    return _array(array.shape, array.kind.dtype(), bool(array.fortran), bytes(data))


def _array(shape: Any, dtype: np.dtype, fortran: bool, data: bytes) -> np.ndarray:
    if dtype.kind not in "biufSU":
        raise ValueError(f"its arrays must hold numbers or text, got {dtype}")
    if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError(f"an array must have a shape, got {str(shape)[:40]}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {list(shape)} and {dtype} does not have {len(data):,} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
