"""Tensors that stay in their file until they are asked for, by upstream's PyTorch names and in PyTorch layout."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np

from conversion.names import Shape

CHUNK = 2**21  # bytes: small enough for a processor's cache, large enough for one write
STRIP = 32  # columns that are transposed at once
ALIGNMENT = 64  # bytes

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SAFETENSORS_TYPES = {
    np.dtype("float64"): "F64",
    np.dtype("float32"): "F32",
    np.dtype("float16"): "F16",
    BFLOAT16: "BF16",
}
DTYPES = {dtype.name: dtype for dtype in SAFETENSORS_TYPES}


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its shape, its dtype, and how to read it."""

    shape: Shape
    dtype: np.dtype
    read: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        """Size when read."""
        return int(np.prod(self.shape, dtype=int)) * self.dtype.itemsize


class Tensors(Mapping[str, np.ndarray]):
    """Tensors by name, each read when it is asked for; `stored` has their shapes and dtypes without reading."""

    def __init__(self, stored: Mapping[str, Stored]):
        self.stored = dict(stored)

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> "Tensors":
        """Arrays or torch tensors that are in memory; `arrays` itself if it is a `Tensors`."""
        if isinstance(arrays, cls):
            return arrays
        return cls({name: _in_memory(value) for name, value in arrays.items()})

    def __getitem__(self, name: str) -> np.ndarray:
        return self.stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self.stored)

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name to shape, without reading any tensor."""
        return {name: tensor.shape for name, tensor in self.stored.items()}

    @property
    def nbytes(self) -> int:
        """Size of all tensors when read."""
        return sum(tensor.nbytes for tensor in self.stored.values())

    def renamed(self, rename: Callable[[str], str]) -> "Tensors":
        """The same tensors under other names.

        Raises:
            ValueError: two tensors would have the same name.
        """
        stored: dict[str, Stored] = {}
        for name, tensor in self.stored.items():
            if rename(name) in stored:
                raise ValueError(f"Two tensors are called {rename(name)}, one of them as {name}.")
            stored[rename(name)] = tensor
        return Tensors(stored)

    def cast(self, dtype: np.dtype) -> "Tensors":
        """The same tensors in another dtype; values beyond its range become infinite."""

        def read(item: Stored) -> np.ndarray:
            with np.errstate(over="ignore", invalid="ignore"):
                return item.read().astype(dtype, copy=False)

        stored = self.stored.items()
        return Tensors({name: Stored(item.shape, dtype, partial(read, item)) for name, item in stored})

    def with_progress(self, update: Callable[[int], Any]) -> "Tensors":
        """The same tensors; `update` is called with the bytes of each one that is read."""

        def read(item: Stored) -> np.ndarray:
            update(item.nbytes)
            return item.read()

        return Tensors({name: replace(item, read=partial(read, item)) for name, item in self.stored.items()})


def contiguous(array: np.ndarray) -> np.ndarray:
    """The array itself if it is C-contiguous, else a copy that is.

    A transposed matrix is copied strip by strip, which is several times faster than as a whole.
    """
    if array.flags.c_contiguous or array.ndim != 2:
        return np.asarray(array, order="C")
    return _copied(array, np.empty(array.shape, array.dtype))


def aligned(array: np.ndarray) -> np.ndarray:
    """A C-contiguous copy that begins at a cache line, as frameworks want memory that they take without a copy."""
    memory = np.empty(array.nbytes + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return _copied(array, memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape))


def _copied(array: np.ndarray, copy: np.ndarray) -> np.ndarray:
    if array.ndim == 2 and not array.flags.c_contiguous:
        for start in range(0, array.shape[1], STRIP):
            copy[:, start : start + STRIP] = array[:, start : start + STRIP]
    else:
        copy[...] = array
    return copy


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """An array's values in C order: flat contiguous arrays of whole rows, of about `CHUNK` bytes each."""
    rows = array if array.ndim else array.reshape(1)
    step = max(1, CHUNK * len(rows) // max(1, rows.nbytes))
    for start in range(0, len(rows), step):
        yield contiguous(rows[start : start + step]).reshape(-1)


def from_torch(tensor: Any) -> np.ndarray:
    """A torch tensor as an array of the same bits, bfloat16 too."""
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:
        return tensor.contiguous().view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


def to_torch(array: np.ndarray) -> Any:
    """An array as a torch tensor of the same bits, bfloat16 too, with memory of its own."""
    import torch

    array = array.copy() if array.flags.c_contiguous else contiguous(array)
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def torch_dtype(tensor: Any) -> np.dtype:
    """The dtype that `from_torch` gives a torch tensor."""
    name = str(tensor.dtype).removeprefix("torch.")
    return BFLOAT16 if name == "bfloat16" else np.dtype(name)


def _in_memory(value: Any) -> Stored:
    if hasattr(value, "detach"):
        return Stored(tuple(value.shape), torch_dtype(value), lambda: from_torch(value))
    array = np.asarray(value)
    return Stored(array.shape, array.dtype, lambda: array)
