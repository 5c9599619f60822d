"""Readers of single files: whatever is in them, by the names and in the layout they have there."""

import argparse
import io
import json
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open

from conversion.copies import merged
from conversion.names import Shape
from conversion.tensors import BFLOAT16, SAFETENSORS_TYPES, Stored, from_torch, torch_dtype
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.files import ENTRY_HEADER, content_offset, parse_json
from lxmert_tf.tasks import task_of

# What is refused because it would fill the memory: more than this many bytes, and this many times its size in the file.
LARGE, EXPANSION = 2**20, 100
MAX_HEADER = 100_000_000  # bytes, as in the safetensors library
ENCRYPTED = 1  # flag of an entry of a zip archive
NESTING = 8  # of the dicts that training code keeps its state dict in

DAMAGED = "cut short or damaged; download or copy it again"


@dataclass(frozen=True)
class Content:
    """What is in a file.

    Args:
        format: "hf-pt", "hf-pt-bin" (or that of the original code), "hf-tf" or "keras".
        spelling: the field of `conversion.names.Row` that its names are spelled as: "torch", "tf" or "h5_path".
        stored: the tensors.
        config: if there is one in the file.
    """

    format: str
    spelling: str
    stored: dict[str, Stored]
    config: LxmertConfig | None = None


class Unreadable(ValueError):
    """A file is damaged or holds no LXMERT weights; the message begins with its path."""


@contextmanager
def reading(path: Path, what: str = "an LXMERT checkpoint") -> Iterator[None]:
    """Turns any error of a library over a damaged file into one `Unreadable` that names it, and what it should be."""
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except Unreadable as error:
        if str(error).startswith(f"{path} "):
            raise
        raise Unreadable(f"{path}: {error}") from error  # of a shard
    except Exception as error:  # of whatever type: the libraries that parse the file raise nearly all there are
        raise Unreadable(f"{path} {_reason(error, what)}") from error


def _reason(error: Exception, what: str) -> str:
    """Why a file is not read; where a library met what it did not expect, not in its own words."""
    text = _first_line(error)
    if "truncated" in text:
        return f"is {DAMAGED}"
    refused = isinstance(error, RuntimeError) and "weights_only" in str(error)
    if refused or isinstance(error, pickle.UnpicklingError):  # PyTorch's own words advise to run the code
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({found[1]}); save the model's state_dict() alone" if found else ""
        return f"is damaged or holds more than tensors, which is refused: loading it would run code from it{what}"
    of_the_system = isinstance(error, OSError) and error.errno is not None
    if of_the_system or isinstance(error, ValueError | TypeError | MemoryError):
        return f"cannot be read as {what}: {text}"
    return f"is {DAMAGED}"


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]


def _lazy(path: Path, shape: Shape, dtype: np.dtype, read: Callable[[], np.ndarray]) -> Stored:
    def read_checked() -> np.ndarray:
        with reading(path):
            array = read()
            if (array.shape, array.dtype) != (tuple(shape), dtype):
                raise ValueError(
                    f"a tensor of shape {list(shape)}, {dtype}, was read as {list(array.shape)}, {array.dtype}"
                )
            return array

    return Stored(tuple(shape), dtype, read_checked)


def _check_expansion(name: str, size: int, stored: int) -> None:
    if size > LARGE and size > EXPANSION * stored:
        raise ValueError(f"{name} would expand from {stored:,} to {size:,} bytes, which is refused")


def _mapped(path: Path) -> np.ndarray:
    """All bytes of a file, read when they are used and never kept as memory of this process."""
    return np.asarray(np.memmap(path, np.uint8, "r"))


# Each format


def read_safetensors(path: Path) -> Content:
    """PyTorch's or, if its metadata say so, TensorFlow's names."""
    try:
        header, start = _read_header(path)
        with safe_open(path, "numpy"):  # checks that the tensors lie in the file, side by side
            pass
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"it is cut short or damaged ({_first_line(error)}); download or copy it again") from error
    data = _mapped(path)[start:]
    metadata = header.pop("__metadata__", None) or {}
    stored = {}
    for name, entry in header.items():
        shape, dtype, (begin, end) = tuple(entry["shape"]), _dtype(name, entry["dtype"]), entry["data_offsets"]
        view = data[begin:end].view(dtype).reshape(shape)
        stored[name] = _lazy(path, shape, dtype, partial(np.asanyarray, view))
    if metadata.get("format") == "tf":
        return Content("hf-tf", "tf", stored)
    return Content("hf-pt", "torch", stored)


def _dtype(name: str, code: str) -> np.dtype:
    """Of a code in a safetensors header, such as F32, BF16, I64 or BOOL."""
    for dtype, known in SAFETENSORS_TYPES.items():
        if code == known:
            return dtype
    letter, bits = code[:1], code[1:]
    if letter in ("I", "U") and bits in ("8", "16", "32", "64"):
        return np.dtype(f"{'u' if letter == 'U' else ''}int{bits}")
    if code == "BOOL":
        return np.dtype(bool)
    raise ValueError(f"{name} has the dtype {code}, which is not read; save it as float32")


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its data starts.

    Refuses a header longer than the file, and a name given twice, of which readers drop one without a word.
    """
    with open(path, "rb") as file:
        length, size = int.from_bytes(file.read(8), "little"), path.stat().st_size
        if length > min(size - 8, MAX_HEADER):
            raise ValueError(f"it is cut short or damaged: of its {size:,} bytes, {length:,} should be header")
        return parse_json(file.read(length)), 8 + length


def read_zip(path: Path) -> Content:
    """A `.keras` archive or a pickle; nothing is ever extracted to disk, whatever its entries are called."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(set(names)) < len(names):
            raise ValueError("it has two entries of the same name")
        for entry in entries:
            _check_expansion(entry.filename, entry.file_size, entry.compress_size)
            if entry.flag_bits & ENCRYPTED:
                raise ValueError(f"its entry {entry.filename} is encrypted; unpack it, or save it without a password")
        if "model.weights.h5" in names:
            return _read_keras_archive(path)
        pickles = [name for name in names if name.endswith("data.pkl")]
        if not pickles:
            raise ValueError("it is a zip archive without model.weights.h5 (Keras) or data.pkl (PyTorch)")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed, as PyTorch never saves them; unpack it, or save it again")
        _check_entries(path, pickles)
    names = [entry.filename for entry in entries if entry.filename not in pickles]
    return _checked(read_pickle(path, mmap=True), path, names)


def _checked(content: Content, path: Path, entries: list[str]) -> Content:
    """The same, but compares these entries of the archive with their checksums before the first tensor is read."""
    check = cache(lambda: _check_entries(path, entries))

    def read(item: Stored) -> np.ndarray:
        with reading(path):
            check()
        return item.read()

    stored = {name: replace(item, read=partial(read, item)) for name, item in content.stored.items()}
    return replace(content, stored=stored)


def _check_entries(path: Path, names: list[str]) -> None:
    """Reads entries of an archive in pieces and compares their checksums, which neither PyTorch nor a mapping does.

    Takes about a second per gigabyte. A checksum of 0 is none: `torch.serialization.set_crc32_options` leaves them out.
    """
    with zipfile.ZipFile(path) as archive:
        for entry in map(archive.getinfo, names):
            if not entry.CRC:
                continue
            with archive.open(entry) as content:
                try:
                    while content.read(LARGE):
                        pass
                except zipfile.BadZipFile as error:
                    raise ValueError(f"its entry {entry.filename} is damaged: it fails its checksum (CRC)") from error


def read_pickle(path: Path, mmap: bool = False) -> Content:
    """A state dict, or dicts around it; only tensors are made.

    In dicts a tensor is named as in a module: `{"state_dict": {"a": ...}, "epoch": 1}` has `state_dict.a`.
    """
    import torch

    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):  # holds values, no code
        warnings.simplefilter("ignore")  # such as those of TorchScript, which is refused anyway
        if path.suffix == ".safetensors":  # PyTorch would go by the name
            state = torch.load(io.BytesIO(path.read_bytes()), map_location="cpu", weights_only=True)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    entries = list(flattened(state, lambda value: isinstance(value, torch.Tensor)))
    if not entries and state != {}:
        raise ValueError("it must hold a dict from names to tensors")
    for name, value in entries:
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested:
            raise ValueError(f"{name} is a sparse, quantized, nested or meta tensor; save it as a plain one")
        _check_expansion(name, value.numel() * value.element_size(), value.untyped_storage().nbytes())
    if "ds_version" in state and any(not value.numel() for _, value in entries):
        raise ValueError("ZeRO has its weights in other files; gather them with the zero_to_fp32.py beside it")
    stored = merged(
        (name, name, _lazy(path, value.shape, torch_dtype(value), partial(from_torch, value)))
        for name, value in entries
    )
    return Content("hf-pt-bin", "torch", stored)


def flattened(state: Any, is_tensor: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
    """The tensors in a dict and in the dicts in it, each by the keys that lead to it, joined by dots.

    Only text is a key; each dict is entered once, to a limited depth; what is neither a tensor nor a dict is left.
    """
    seen: set[int] = set()

    def walk(each: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        if not isinstance(each, dict) or id(each) in seen or depth > NESTING:
            return
        seen.add(id(each))
        for key, value in each.items():
            if isinstance(key, str) and is_tensor(value):
                yield prefix + key, value
            elif isinstance(key, str):
                yield from walk(value, f"{prefix}{key}.", depth + 1)

    return walk(state, "", 0)


def read_h5(path: Path) -> Content:
    """Weights of Keras 3, or of Keras 2 with TensorFlow's names."""
    return _read_h5(h5py.File(path, "r"), path, _mapped(path))


def _read_h5(file: h5py.File, path: Path, data: np.ndarray) -> Content:
    """Of an opened file; `data` is all its bytes, none if they are not at hand."""
    datasets: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise ValueError(f"its dataset {name} lies in another file, which is refused")
            if item.shape is None or item.dtype.kind not in "fiubV" or item.dtype.fields or item.dtype.subdtype:
                raise ValueError(f"its dataset {name} must hold numbers, got {item.dtype}")
            if item.dtype == np.int8:  # Keras has no other use for it
                raise ValueError(
                    "it holds a quantized model: load it with keras.saving.load_model, and its save_pretrained writes "
                    "the weights as floats"
                )
            _check_expansion(f"its dataset {name}", item.nbytes, item.id.get_storage_size())
            datasets[name] = item

    file.visititems(visit)  # follows neither soft nor external links
    stored = {
        name: _lazy(path, item.shape, _h5_dtype(item), partial(_from_h5, item, data)) for name, item in datasets.items()
    }
    if not any(attribute.startswith("layer_names") for attribute in file.attrs):
        return Content("keras", "h5_path", stored)
    for name in file:
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"its group {name} is a link, which is refused: it must hold its tensors itself")
    # Keras 2: the group of a top layer, the root model, then the name; or, in a shard of `transformers`, only the name.
    whole = any("weight_names" in attribute for group in file.values() for attribute in group.attrs)
    named = ((name.split("/", 2)[-1] if whole else name, name, item) for name, item in stored.items())
    return Content("hf-tf", "tf", merged(named))


def _h5_dtype(dataset: h5py.Dataset) -> np.dtype:
    return BFLOAT16 if dataset.attrs.get("dtype") == "bfloat16" else dataset.dtype.newbyteorder("=")


def _from_h5(dataset: h5py.Dataset, data: np.ndarray) -> np.ndarray:
    dtype, start = _h5_dtype(dataset), dataset.id.get_offset()  # None unless its values lie side by side
    is_plain = dataset.dtype.isnative and dataset.id.get_type() == h5py.h5t.py_create(dataset.dtype)
    if start is not None and is_plain and start + dataset.nbytes <= data.size:
        return data[start : start + dataset.nbytes].view(dtype).reshape(dataset.shape)
    array = dataset[()]
    return array.view(dtype) if dtype == BFLOAT16 else array.astype(dtype, copy=False)


def _read_keras_archive(path: Path) -> Content:
    archive = zipfile.ZipFile(path)
    saved = json.loads(archive.read("config.json"))
    if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
        raise ValueError("its config.json is not that of a saved Keras model")
    task_of(str(saved.get("class_name")))
    config = LxmertConfig.from_dict(saved["config"].get("config"))
    entry = archive.getinfo("model.weights.h5")
    plain = entry.compress_type == zipfile.ZIP_STORED
    data = _stored(path, entry) if plain else np.frombuffer(archive.read(entry), np.uint8)
    content = replace(_read_h5(h5py.File(_Bytes(data), "r"), path, data), config=config)
    return _checked(content, path, [entry.filename]) if plain else content


def is_quantized(path: Path) -> bool:
    """Whether a file of Keras' has weights in integers of a byte; False for one that cannot be read."""
    found = False

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> bool | None:
        nonlocal found
        found = isinstance(item, h5py.Dataset) and item.dtype.kind in "iu" and item.dtype.itemsize == 1
        return found or None  # True ends the visit

    with suppress(OSError, KeyError, ValueError, zipfile.BadZipFile, NotImplementedError), ExitStack() as stack:
        file: Any = path
        if zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            file = stack.enter_context(archive.open("model.weights.h5"))
        stack.enter_context(h5py.File(file, "r")).visititems(visit)
    return found


def _stored(path: Path, entry: zipfile.ZipInfo) -> np.ndarray:
    """The bytes of an entry that is not compressed, mapped: to seek in a ZipExtFile is to read it again."""
    data, start = _mapped(path), entry.header_offset
    content = data[content_offset(data[start : start + ENTRY_HEADER].tobytes(), start) :][: entry.file_size]
    if bytes(data[start : start + 4]) != b"PK\3\4" or content.size < entry.file_size:
        raise ValueError(f"its entry {entry.filename} is cut short or damaged")
    return content


class _Bytes(io.RawIOBase):
    """Bytes in memory or mapped, as a file to read."""

    def __init__(self, data: np.ndarray):
        self._data, self._place = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._data[self._place :][: len(buffer)]
        memoryview(buffer).cast("B")[: piece.size] = piece.tobytes()
        self._place += piece.size
        return piece.size

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._data.size}[whence]
        self._place = base + offset
        return self._place
