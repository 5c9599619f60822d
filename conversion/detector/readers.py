"""Readers of the files that only detectors come in: detectron2's pickles of arrays, and Caffe's models."""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from conversion.names import Shape
from conversion.readers import Content
from conversion.tensors import Stored
from lxmert_tf.pickles import parse_pickle

# Pickles of arrays


LARGEST = 1 << 31  # bytes of a detector; the published one has 262 million


def read_array_pickle(path: Path) -> Content:
    """A dict from names to arrays, alone or as the "model" of another dict, as detectron2 saves it."""
    if (size := path.stat().st_size) > LARGEST:
        raise ValueError(f"it has {size:,} bytes, but a detector has at most {LARGEST:,}")
    saved = parse_pickle(path.read_bytes())
    state = saved.get("model", saved) if isinstance(saved, dict) else saved
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, np.ndarray) and value.dtype.kind in "fiub"
        for name, value in state.items()
    ):
        raise ValueError("it must hold a dict from names to arrays of numbers")
    stored = {name: Stored(array.shape, array.dtype, partial(np.asarray, array)) for name, array in state.items()}
    return Content("detectron2", "torch", stored)


# Caffe's models: messages of protocol buffers, read without Caffe

# Numbers of fields in caffe.proto: of a net, a layer and a blob; of layers, those of old files second.
LAYER, OLD_LAYER = 100, 2
NAME, TYPE, BLOBS = (1, 4), (2, 5), (7, 6)
DATA, SHAPE, DOUBLES, OLD_SHAPE = 5, 7, 8, (1, 2, 3, 4)
DIMENSIONS = 1  # of a shape
NUMBER, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5  # kinds of fields
OLD_TYPES = {4: "Convolution", 14: "InnerProduct"}


class Field(NamedTuple):
    """A field of a message: its number, its kind, its value or where its bytes are."""

    number: int
    kind: int
    value: int
    start: int
    end: int


def fields_of(data: np.ndarray, start: int, end: int) -> Iterator[Field]:
    """The fields of the message in these bytes.

    Raises:
        ValueError: the bytes are not a message.
    """
    while start < end:
        tag, start = _varint(data, start, end)
        number, kind = tag >> 3, tag & 7
        value, place = 0, start
        if kind == NUMBER:
            value, start = _varint(data, start, end)
        elif kind in (EIGHT_BYTES, FOUR_BYTES):
            start += 8 if kind == EIGHT_BYTES else 4
        elif kind == LENGTH:
            size, place = _varint(data, start, end)
            start = place + size
        else:
            raise ValueError("it is not a Caffe model, or is damaged")
        if start > end or number == 0:
            raise ValueError("it is cut short: truncated" if number else "it is not a Caffe model, or is damaged")
        yield Field(number, kind, value, place, start)


def _varint(data: np.ndarray, start: int, end: int) -> tuple[int, int]:
    """A number of 7 bits in each byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if start >= end:
            break
        byte = int(data[start])
        start += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, start
    raise ValueError("it is not a Caffe model, or is damaged")


def _bytes_of(path: Path) -> np.ndarray:
    return np.asarray(np.memmap(path, np.uint8, "r"))


def is_caffemodel(path: Path) -> bool:
    """Whether a file is a message with layers, as far as its outermost fields show."""
    data = _bytes_of(path)
    try:
        numbers = {field.number for field in fields_of(data, 0, len(data)) if field.kind == LENGTH}
    except ValueError as error:
        return "truncated" in str(error) and path.suffix == ".caffemodel"
    return bool(numbers & {LAYER, OLD_LAYER})


def read_caffemodel(path: Path) -> Content:
    """The tensors of a Caffe model by layer and number, "conv1/0"; means and variances divided by their factor."""
    data = _bytes_of(path)
    stored: dict[str, Stored] = {}
    for field in fields_of(data, 0, len(data)):
        if field.number not in (LAYER, OLD_LAYER) or field.kind != LENGTH:
            continue
        old = field.number == OLD_LAYER
        name, kind, blobs = "", "", []
        for part in fields_of(data, field.start, field.end):
            if part.number == NAME[old]:
                name = bytes(data[part.start : part.end]).decode()
            elif part.number == TYPE[old]:
                kind = OLD_TYPES.get(part.value, "") if old else bytes(data[part.start : part.end]).decode()
            elif part.number == BLOBS[old]:
                blobs.append(_blob(data, part))
        if kind == "BatchNorm" and len(blobs) == 3:
            blobs = [_divided(blob, blobs[2]) for blob in blobs[:2]]
        for number, blob in enumerate(blobs):
            if (full := f"{name}/{number}") in stored:
                raise ValueError(f"it has two layers called {name}")
            stored[full] = blob
    return Content("caffe", "caffe", stored)


def _blob(data: np.ndarray, place: Field) -> Stored:
    shape: Shape = ()
    old_shape, parts, dtype = [], [], np.dtype("<f4")
    for field in fields_of(data, place.start, place.end):
        if field.number == SHAPE:
            shape = _dimensions(data, field)
        elif field.number in OLD_SHAPE and field.kind == NUMBER:
            old_shape.append(field.value)
        elif field.number in (DATA, DOUBLES) and field.kind == LENGTH:
            dtype = np.dtype("<f4" if field.number == DATA else "<f8")
            parts.append(data[field.start : field.end])
    if old_shape:  # always four numbers, those of a vector last
        first = next((i for i, size in enumerate(old_shape) if size != 1), len(old_shape) - 1)
        shape = tuple(old_shape[first:])
    if sum(part.nbytes for part in parts) != int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise ValueError(f"it holds a tensor of {list(shape)} with another number of values")

    def read() -> np.ndarray:
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return np.frombuffer(values.tobytes(), dtype).reshape(shape)

    return Stored(shape, dtype, read)


def _dimensions(data: np.ndarray, place: Field) -> Shape:
    sizes: list[int] = []
    for field in fields_of(data, place.start, place.end):
        if field.number == DIMENSIONS and field.kind == NUMBER:
            sizes.append(field.value)
        elif field.number == DIMENSIONS:
            start = field.start
            while start < field.end:
                size, start = _varint(data, start, field.end)
                sizes.append(size)
    return tuple(sizes)


def _divided(blob: Stored, factor: Stored) -> Stored:
    def read() -> np.ndarray:
        divisor = factor.read().reshape(-1)[0]
        return blob.read() / divisor if divisor else np.zeros(blob.shape, blob.dtype)

    return Stored(blob.shape, blob.dtype, read)


def caffemodel_bytes(name: str, layers: dict[str, tuple[str, list[np.ndarray]]]) -> Iterator[bytes]:
    """A Caffe model piece by piece: layers by name, each with its type and its tensors, float32 or float64."""
    yield _message(1, name.encode())
    for layer, (kind, tensors) in layers.items():
        file = io.BytesIO()
        file.write(_message(NAME[0], layer.encode()) + _message(TYPE[0], kind.encode()))
        for tensor in tensors:
            number = DOUBLES if tensor.dtype == np.float64 else DATA
            values = np.ascontiguousarray(tensor, "<f8" if number == DOUBLES else "<f4").tobytes()
            sizes = _message(DIMENSIONS, b"".join(map(_varint_bytes, tensor.shape)))
            file.write(_message(BLOBS[0], _message(SHAPE, sizes) + _message(number, values)))
        yield _message(LAYER, file.getvalue())


def _message(number: int, content: bytes) -> bytes:
    return _varint_bytes(number << 3 | LENGTH) + _varint_bytes(len(content)) + content


def _varint_bytes(value: int) -> bytes:
    pieces = bytearray()
    while value > 127:
        pieces.append(value & 127 | 128)
        value >>= 7
    return bytes([*pieces, value])
