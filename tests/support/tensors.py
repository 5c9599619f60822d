"""TensorProto and TF Serving's JSON to arrays and back, without TensorFlow. Import `c_api` first."""

import base64
import math

import numpy as np
from support.c_api import DTYPES, INVALID_ARGUMENT, NUMBERS, STRING, RuntimeFailure
from tensorflow.core.framework import tensor_pb2

VALUES = {1: "float_val", 2: "double_val", 3: "int_val", 7: "string_val", 9: "int64_val", 10: "bool_val"}


def to_array(proto: tensor_pb2.TensorProto) -> np.ndarray:
    """The array of a TensorProto; its last value fills what is not written out."""
    shape = [axis.size for axis in proto.tensor_shape.dim]
    dtype = object if proto.dtype == STRING else DTYPES[proto.dtype]
    if proto.tensor_content:
        return np.frombuffer(proto.tensor_content, dtype).reshape(shape)
    values, size = list(getattr(proto, VALUES[proto.dtype])), math.prod(shape)
    if not values and size:
        raise RuntimeFailure(INVALID_ARGUMENT, "Invalid TensorProto: no values for a tensor that is not empty")
    array = np.empty(size, dtype)
    array[: len(values)] = values
    array[len(values) :] = values[-1] if values else 0
    return array.reshape(shape)


def to_proto(array: np.ndarray) -> tensor_pb2.TensorProto:
    """The TensorProto of an array."""
    proto = tensor_pb2.TensorProto(dtype=STRING if array.dtype == object else NUMBERS[array.dtype])
    for size in array.shape:
        proto.tensor_shape.dim.add(size=size)
    if array.dtype == object:
        proto.string_val.extend(array.ravel())
    else:
        proto.tensor_content = array.tobytes()
    return proto


def from_json(values, dtype: int, name: str) -> np.ndarray:
    """An array of a signature's dtype, as TF Serving reads it: no fraction for an integer, {"b64": ...} for bytes."""
    if dtype == STRING:
        return np.vectorize(_text, otypes=[object])(np.array(values, object))
    try:
        array = np.array(values)
    except ValueError:
        raise RuntimeFailure(INVALID_ARGUMENT, f"JSON list of {name} is ragged") from None
    if array.dtype.kind not in "fiu" or (array.dtype.kind == "f" and DTYPES[dtype] == np.int32):
        raise RuntimeFailure(INVALID_ARGUMENT, f"JSON value of {name} is not of type {np.dtype(DTYPES[dtype]).name}")
    return array.astype(DTYPES[dtype])


def _text(value) -> bytes:
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else str(value).encode()


def to_json(array: np.ndarray) -> list:
    return np.vectorize(bytes.decode, otypes=[object])(array).tolist() if array.dtype == object else array.tolist()
