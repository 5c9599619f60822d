"""Pickles that ask for what they must not get: code, other types, more memory than they have bytes."""

import codecs
import pickle
import struct

import numpy as np


class Call:
    """Is pickled as a call, and then maybe as a state to set."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


CODE = Call(print, "run")
SETTER = Call(np.dtype, "f4", state=(None, {"__defaults__": ()}))  # of a function that unpickling hands out


def with_memo(index):
    return b"\x80\x02K\x01r" + struct.pack("<I", index) + b"."


def nested(depth):
    value = 1
    for _ in range(depth):
        value = [value, value]
    return pickle.dumps(value)


def lying(shape):
    """A pickled array that says to have another shape than its bytes."""
    array = np.zeros(4, np.float32)
    return pickle.dumps(array, protocol=2).replace(b"K\x04\x85", b"J" + struct.pack("<i", shape) + b"\x85")


HOSTILE = {
    "code": (pickle.dumps({"x": CODE}), "its pickle runs code .*print.*, which is not followed"),
    "code of numpy": (b"\x80\x02cnumpy.f2py\nrun_main\nK\x01\x85R.", "its pickle runs code"),
    "code by a path": (b"\x80\x04\x8c\x05numpy\x8c\x11f2py.compile.exec\x93.", "its pickle runs code"),
    "an array of its own": (b"\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85\x85R.", "in a way that NumPy does not"),
    "objects": (pickle.dumps(np.array([1, CODE], object)), "its pickle runs code"),
    "a type of fields": (pickle.dumps(np.zeros(3, "i4,f4")), "must hold numbers or text|damaged"),
    "dates": (pickle.dumps(np.zeros(3, "M8[s]")), "must hold numbers or text"),
    "a lie about the shape": (lying(2**31 - 1), r"an array of shape \[2147483647\] and float32 does not have 16 bytes"),
    "a negative shape": (lying(-4), "an array must have a shape"),
    "a lie about a length": (
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"a.",
        "expected 1099511627776 bytes|pickle",
    ),
    "a lie about its memory": (with_memo(2**32 - 1), "it counts more objects than it has"),
    "nested": (nested(40), "nested more than 8 deep"),
    "many instructions": (b"]" + b"K\x010" * 60_000 + b".", "more than 100,000 instructions"),
    "changed functions": (
        pickle.dumps(SETTER),
        r"its pickle holds something else than arrays \(Type\)",
    ),
    "cut short": (pickle.dumps({"x": np.zeros(9)})[:-20], "pickle"),
    "nothing": (b"", "pickle"),
    "noise": (b"\x80\x04" + bytes(range(256)), "pickle"),
}


def repeated_text(length: int, times: int) -> bytes:
    """A long text, written once and encoded again and again."""
    text = "a" * length
    return pickle.dumps({"x": [Call(codecs.encode, text, "latin1") for _ in range(times)]}, protocol=2)


def repeated_text_of_arrays(length: int, times: int) -> bytes:
    """Arrays whose bytes are one and the same text."""
    return arrays_of("a" * length, np.dtype("u1"), length, times)


def repeated_bytes(length: int, times: int) -> bytes:
    """Arrays whose bytes can be changed, and are one and the same."""
    return arrays_of(bytearray(length), np.dtype("u1"), length, times)


def repeated_list(length: int, times: int) -> bytes:
    """Arrays of Python's objects, all of them those of one list."""
    return arrays_of([1] * length, np.dtype(object), length, times)


def arrays_of(data: object, dtype: np.dtype, length: int, times: int) -> bytes:
    make = np.zeros(1).__reduce_ex__(5)[0]
    return pickle.dumps({"x": [Call(make, data, dtype, (length,), "C") for _ in range(times)]}, protocol=5)


# Each would fill hundreds of times its own size.
BOMBS = {
    "text": repeated_text(1 << 20, 200),
    "text of arrays": repeated_text_of_arrays(1 << 20, 200),
    "bytes": repeated_bytes(1 << 20, 200),
    "lists": repeated_list(20_000, 1000),
}
