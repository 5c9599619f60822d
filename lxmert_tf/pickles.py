"""Arrays out of pickles, without running what else a pickle may ask for.

A pickle is a program. Only its instructions for numbers, text, lists, dicts and NumPy's arrays are followed, and the
arrays are built here from their bytes, so that neither their sizes nor their types are taken on trust. What is made
takes about as much memory as the pickle.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

STEPS = 100_000  # instructions of one pickle; an array takes about thirty
DEPTH = 8
PLAIN_TYPE = re.compile(r"[?]|b1|[iuf][1248]|[SU][0-9]{1,4}")
ORDERS = ("=", "<", ">", "|")  # of bytes


class RunsCode(pickle.UnpicklingError, ValueError):
    """A pickle asks for something else than arrays."""


def parse_pickle(data: bytes) -> Any:
    """What a pickle holds: numbers, text, lists, dicts and arrays, nested up to eight deep.

    Raises:
        ValueError: it holds something else, or is damaged.
    """
    _check_steps(data)
    encode = cache(_encode)  # each text once: a pickle can name one again and again
    try:
        value = _Unpickler(data, encode).load()
    except ValueError:
        raise
    except Exception as error:  # a damaged pickle calls anything with anything
        raise ValueError(f"its pickle is damaged ({type(error).__name__}: {error})") from error
    return _Builder(encode).finished(value, DEPTH)


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


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"its pickle encodes bytes as {str(encoding)[:20]!r}")
    return text.encode("latin1")


def _no_call(*_: Any) -> None:
    raise ValueError("its pickle makes arrays in a way that NumPy does not write")


ENCODE = "codecs.encode"
# What Python and NumPy 1 and 2 write, under any protocol, beside that
CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": dict,
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
    "collections": "collections.",
    "builtins": "builtins.",
    "__builtin__": "builtins.",
    "numpy": "",
    **{f"numpy.{core}.{module}": f"{module}." for core in ("core", "_core") for module in ("multiarray", "numeric")},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, encode: Callable[..., bytes]):
        super().__init__(io.BytesIO(data), encoding="latin1")  # Python 2 wrote bytes as text
        self.calls = {**CALLS, ENCODE: encode}

    def find_class(self, module: str, name: str) -> _Call:
        place = f"{PLACES.get(module, '?')}{name}"
        if place not in self.calls:
            raise RunsCode(f"its pickle runs code ({module}.{name}), which is not followed; expected arrays")
        return _Call(self.calls[place])


class _Builder:
    """Builds the arrays in a value, each object once however often it is there."""

    def __init__(self, encode: Callable[..., bytes]):
        self.encode = encode
        self.done: dict[int, Any] = {}

    def finished(self, value: Any, depth: int) -> Any:
        if not depth:
            raise ValueError(f"its pickle is nested more than {DEPTH} deep")
        if id(value) in self.done:
            return self.done[id(value)]
        result = value
        if isinstance(value, _Array):
            result = self.built(value, depth)
        elif isinstance(value, dict):
            result = {key: self.finished(each, depth - 1) for key, each in value.items() if isinstance(key, str)}
        elif isinstance(value, list | tuple):
            result = [self.finished(each, depth - 1) for each in value]
        elif not isinstance(value, bool | int | float | str | bytes | None):
            raise ValueError(f"its pickle holds something else than arrays ({type(value).__name__.strip('_')})")
        self.done[id(value)] = result
        return result

    def built(self, array: _Array, depth: int) -> Any:
        if not isinstance(array.kind, _Type):
            raise ValueError("its pickle has an array without a type")
        if array.kind.name in ("O", "O8") and isinstance(array.data, list):
            values = self.finished(array.data, depth)
            return values[0] if array.shape == () and len(values) == 1 else values
        data = self.encode(array.data) if isinstance(array.data, str) else array.data
        if not isinstance(data, bytes | bytearray):
            raise ValueError("its pickle has an array without bytes")
        return make_array(array.shape, array.kind.dtype(), bool(array.fortran), data)


def make_array(shape: Any, dtype: np.dtype, fortran: bool, data: bytes | bytearray) -> np.ndarray:
    """The array of these bytes, which it shares.

    Raises:
        ValueError: it would hold something else than numbers or text, or have another size.
    """
    if dtype.kind not in "biufSU":
        raise ValueError(f"its arrays must hold numbers or text, got {dtype}")
    if not isinstance(shape, tuple) or not all(isinstance(side, int) and side >= 0 for side in shape):
        raise ValueError(f"an array must have a shape, got {str(shape)[:40]}")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {list(shape)} and {dtype} does not have {len(data):,} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if fortran else "C")
