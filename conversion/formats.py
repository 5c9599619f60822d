"""Readers of every checkpoint format; whatever the file, tensors have PyTorch names and layouts.

| format | files |
|---|---|
| hf-pt | model.safetensors, or shards with model.safetensors.index.json |
| hf-pt-bin | pytorch_model.bin, or shards with pytorch_model.bin.index.json |
| hf-tf | tf_model.h5, or model.safetensors with TensorFlow names |
| keras | model.weights.h5, or a `.keras` archive |
| original | `.pth` files of the original code |

The format is told by what a file holds, not by its name. Reading is lazy and never runs code from a file.
"""

import json
import os
import pickle
import reprlib
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors import SafetensorError, safe_open

from conversion.names import LAYOUTS, Row, Shape, canonical, find_task, infer_config, lookup, task_of
from conversion.tensors import BFLOAT16, SAFETENSORS_TYPES, Stored, Tensors, from_torch, torch_dtype
from lxmert_tf.configuration import CONFIG_NAME, LxmertConfig

TIED = ("cls.predictions.decoder.weight", "lxmert.embeddings.word_embeddings.weight")

# What a directory is searched for, first to last, and the format each is written in.
WEIGHT_FILES = {
    "model.safetensors": "hf-pt",
    "model.safetensors.index.json": "hf-pt",
    "model.weights.h5": "keras",
    "pytorch_model.bin": "hf-pt-bin",
    "pytorch_model.bin.index.json": "hf-pt-bin",
    "tf_model.h5": "hf-tf",
    "tf_model.h5.index.json": "hf-tf",  # found, to be refused by name
}
SUFFIXES = (".safetensors", ".h5", ".keras", ".bin", ".pth", ".pt")

# What is refused because it would fill the memory: more than this many bytes, and this many times its size in the file.
LARGE, EXPANSION = 2**20, 100
MAX_HEADER = 100_000_000  # bytes, as in the safetensors library


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Args:
        path: the file read; the index file of a sharded checkpoint.
        format: "hf-pt", "hf-pt-bin", "hf-tf", "keras" or "original".
        tensors: by upstream's PyTorch names, in PyTorch layout; a bare backbone has no `lxmert.` prefix.
        config: from the config.json beside the file or in it, else inferred from the shapes.
        task: "model", "pretraining", "qa" or "visual-reasoning", told by the heads.
        inferred: whether the config is told from the shapes, with a guess for what they do not tell.
    """

    path: Path
    format: str
    tensors: Tensors
    config: LxmertConfig
    task: str
    inferred: bool = False


# Opening


def open_checkpoint(path: str | os.PathLike, config: LxmertConfig | None = None) -> Checkpoint:
    """Opens a checkpoint file, or the preferred one of a directory (see `WEIGHT_FILES`).

    Args:
        path: a file or a directory.
        config: in place of the checkpoint's own, which is not read then.

    Raises:
        FileNotFoundError: there is no such path, no checkpoint in the directory, or no shard an index names.
        ValueError: the file is damaged, or holds no LXMERT weights; the message names it.
    """
    path = find_weights(Path(path))
    format, tensors, own_config = read_file(path)
    config_file = path.parent / CONFIG_NAME
    config = config or own_config
    if config is None and config_file.is_file():
        config = LxmertConfig.from_json_file(config_file)
    return checkpoint_of(path, format, tensors, config)


def checkpoint_of(path: Path, format: str, tensors: Tensors, config: LxmertConfig | None) -> Checkpoint:
    """A checkpoint of tensors; without a config, one is inferred from their shapes."""
    task = find_task(tensors.shapes)
    if config is not None:
        return Checkpoint(path, format, tensors, config, task)
    with _reading(path):
        config = infer_config(tensors.shapes)
    return Checkpoint(path, format, tensors, config, task, inferred=True)


def find_weights(path: Path) -> Path:
    """`path` itself if it is a file, else the checkpoint in that directory.

    Raises:
        FileNotFoundError: there is none, or there are several of unknown names.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"There is no file or directory {str(path)!r}.")
    for name in WEIGHT_FILES:
        if (path / name).is_file():
            return path / name
    # Hidden files are not weights: a run that was killed leaves some that look whole.
    files = (file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    others = sorted(file for file in files if file.suffix in SUFFIXES)
    if len(others) == 1:
        return others[0]
    found = f"found {', '.join(file.name for file in others)}; name one of them" if others else "found none"
    raise FileNotFoundError(f"{path} must hold one of {', '.join(WEIGHT_FILES)} or a single other checkpoint, {found}.")


def read_file(path: Path) -> tuple[str, Tensors, LxmertConfig | None]:
    """The format, the tensors, and the config if it is in the file itself."""
    with _reading(path):
        with open(path, "rb") as file:
            start = file.read(40)
        if start[4:9] == b"\0\0\0\0{":  # first: the length of a header may look like the start of another format
            return _read_safetensors(path)
        if start.startswith(b"PK"):
            return _read_zip(path)
        if start.startswith(b"\x89HDF"):
            return _read_h5(h5py.File(path, "r"), path, _mapped(path))
        if start.startswith(b"\x80"):
            return _read_pickle(path, mmap=False)
        if start.startswith(b"{"):
            return _read_index(path)
        raise ValueError(_no_checkpoint(start))


def _no_checkpoint(start: bytes) -> str:
    """What a file that starts like this may be instead, and what to do."""
    if not start:
        return "it is empty; download or copy it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the weights themselves; fetch them with `git lfs pull`"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        return "it is a web page, not a checkpoint; download the file itself, not the page that shows it"
    return "it is of no known format; expected safetensors, HDF5, a PyTorch pickle, .keras or an index in JSON"


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever a library says of a damaged file into one ValueError that names it."""
    try:
        yield
    except (FileNotFoundError, ImportError):
        raise
    except Exception as error:  # of whatever type: the libraries that parse the file raise nearly all there are
        refused = isinstance(error, RuntimeError) and "weights_only" in str(error)
        if refused or isinstance(error, pickle.UnpicklingError):  # PyTorch's own words advise to run the code
            reason = "is damaged or holds more than tensors, which is refused: loading it would run code from it"
        else:
            reason = f"cannot be read as an LXMERT checkpoint: {_first_line(error)}"
        raise ValueError(f"{path} {reason}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:500]


def _lazy(path: Path, shape: Shape, dtype: np.dtype, read: Callable[[], np.ndarray]) -> Stored:
    def read_or_tell() -> np.ndarray:
        with _reading(path):
            array = read()
            if (array.shape, array.dtype) != (tuple(shape), dtype):
                raise ValueError(
                    f"a tensor of shape {list(shape)}, {dtype}, was read as {list(array.shape)}, {array.dtype}"
                )
            return array

    return Stored(tuple(shape), dtype, read_or_tell)


# Each format


def _refuse_bomb(name: str, size: int, stored: int) -> None:
    if size > LARGE and size > EXPANSION * stored:
        raise ValueError(f"{name} would expand from {stored:,} to {size:,} bytes, which is refused")


def _mapped(path: Path) -> np.ndarray:
    """All bytes of a file, read when they are used and never kept as memory of this process."""
    return np.asarray(np.memmap(path, np.uint8, "r"))


def _read_safetensors(path: Path) -> tuple[str, Tensors, None]:
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
        stored[name] = _lazy(path, shape, dtype, lambda view=view: view)
    if metadata.get("format") == "tf":
        return "hf-tf", _from_keras_layout(stored, "tf"), None
    return "hf-pt", Tensors(stored).renamed(canonical), None


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
        return json.loads(file.read(length), object_pairs_hook=_without_duplicates), 8 + length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in pairs:
        if name in values:
            raise ValueError(f"its header has two entries called {name!r}")
        values[name] = value
    return values


def _read_zip(path: Path) -> tuple[str, Tensors, LxmertConfig | None]:
    """A `.keras` archive or a pickle; nothing is ever extracted to disk, whatever its entries are called."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(set(names)) < len(names):
            raise ValueError("it has two entries of the same name")
        for entry in entries:
            _refuse_bomb(entry.filename, entry.file_size, entry.compress_size)
        if "model.weights.h5" in names:
            return _read_keras_archive(path)
        pickles = [name for name in names if name.endswith("data.pkl")]
        if not pickles:
            raise ValueError("it is a zip archive without model.weights.h5 (Keras) or data.pkl (PyTorch)")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ValueError("its entries are compressed, as PyTorch never saves them; unpack it, or save it again")
        for name in pickles:
            archive.read(name)  # compares its checksum, which PyTorch does not
    return _read_pickle(path, mmap=True)


def _read_pickle(path: Path, mmap: bool) -> tuple[str, Tensors, None]:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as those of TorchScript, which is refused anyway
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in state.items()
    ):
        raise ValueError("it must hold a dict from names to tensors")
    for name, value in state.items():
        if value.layout != torch.strided or value.is_quantized or value.is_meta or value.is_nested:
            raise ValueError(f"{name} is a sparse, quantized, nested or meta tensor; save it as a plain one")
        _refuse_bomb(name, value.numel() * value.element_size(), value.untyped_storage().nbytes())
    stored = {
        name: _lazy(path, value.shape, torch_dtype(value), lambda value=value: from_torch(value))
        for name, value in state.items()
    }
    tensors = Tensors(stored).renamed(canonical)
    return "hf-pt-bin" if set(tensors) == set(stored) else "original", tensors, None


def _read_h5(file: h5py.File, path: Path, data: np.ndarray) -> tuple[str, Tensors, None]:
    """Of an opened file; `data` is all its bytes, none if they are not at hand."""
    datasets: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise ValueError(f"its dataset {name} lies in another file, which is refused")
            if item.shape is None or item.dtype.kind not in "fiubV" or item.dtype.fields or item.dtype.subdtype:
                raise ValueError(f"its dataset {name} must hold numbers, got {item.dtype}")
            _refuse_bomb(f"its dataset {name}", item.nbytes, item.id.get_storage_size())
            datasets[name] = item

    file.visititems(visit)  # follows neither soft nor external links
    stored = {
        name: _lazy(path, item.shape, _h5_dtype(item), lambda item=item: _from_h5(item, data))
        for name, item in datasets.items()
    }
    if "layer_names" not in file.attrs:
        return "keras", _from_keras_layout(stored, "h5_path"), None
    # Keras 2: the group of a top layer, the root model, then the name.
    return "hf-tf", _from_keras_layout({name.split("/", 2)[-1]: item for name, item in stored.items()}, "tf"), None


def _h5_dtype(dataset: h5py.Dataset) -> np.dtype:
    return BFLOAT16 if dataset.attrs.get("dtype") == "bfloat16" else dataset.dtype.newbyteorder("=")


def _from_h5(dataset: h5py.Dataset, data: np.ndarray) -> np.ndarray:
    dtype, start = _h5_dtype(dataset), dataset.id.get_offset()  # None unless its values lie side by side
    is_plain = dataset.dtype.isnative and dataset.id.get_type() == h5py.h5t.py_create(dataset.dtype)
    if start is not None and is_plain and start + dataset.nbytes <= data.size:
        return data[start : start + dataset.nbytes].view(dtype).reshape(dataset.shape)
    array = dataset[()]
    return array.view(dtype) if dtype == BFLOAT16 else array.astype(dtype, copy=False)


def _read_keras_archive(path: Path) -> tuple[str, Tensors, LxmertConfig]:
    archive = zipfile.ZipFile(path)
    saved = json.loads(archive.read("config.json"))
    if not isinstance(saved, dict) or not isinstance(saved.get("config"), dict):
        raise ValueError("its config.json is not that of a saved Keras model")
    task_of(str(saved.get("class_name")))
    config = LxmertConfig.from_dict(saved["config"].get("config"))
    return *_read_h5(h5py.File(archive.open("model.weights.h5"), "r"), path, np.empty(0, np.uint8))[:2], config


def _from_keras_layout(stored: Mapping[str, Stored], spelling: str) -> Tensors:
    """Tensors under PyTorch names and in PyTorch layout; unknown names stay as they are."""
    table = lookup(stored, spelling)
    return Tensors(
        {
            table[name].torch if name in table else name: _inverse(table[name], item) if name in table else item
            for name, item in stored.items()
        }
    )


def _inverse(row: Row, item: Stored) -> Stored:
    layout = LAYOUTS[row.layout]
    return Stored(layout.shape(item.shape), item.dtype, lambda: layout.inverse(item.read()))


def _read_index(path: Path) -> tuple[str, Tensors, None]:
    """A sharded checkpoint: an index from tensor names to files beside it."""
    index = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        raise ValueError("it has no weight_map from tensors to files")
    for name in index["weight_map"].values():
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\:\0") or len(name) > 255:
            raise ValueError(f"its weight_map must name files beside it, got {reprlib.repr(name)}")
        if not (path.parent / name).is_file():
            raise FileNotFoundError(f"{path} names the file {name}, which is not beside it.")
    stored: dict[str, Stored] = {}
    formats: set[str] = set()
    twice: list[str] = []
    for name in sorted(set(index["weight_map"].values())):
        if name.endswith(".json"):
            raise ValueError(f"its weight_map must name files with tensors, got {name!r}")
        format, tensors, _ = read_file(path.parent / name)
        formats.add(format)
        if format == "hf-tf":
            raise ValueError("TensorFlow weights in several files are not read; save them as one, or from PyTorch")
        twice += [f"{tensor}, again in {name}" for tensor in sorted(set(tensors) & set(stored))]
        stored.update(tensors.stored)
    if formats not in ({"hf-pt"}, {"hf-pt-bin"}):
        raise ValueError(f"its files must all be of one PyTorch format, got {', '.join(sorted(formats)) or 'none'}")
    lost = sorted({canonical(name) for name in index["weight_map"]} - set(stored))
    if lost:
        raise ValueError(f"its files lack {len(lost)} tensors of its weight_map, first {lost[0]}")
    if twice:
        raise ValueError(f"two of its files hold the same tensor: {twice[0]}")
    return formats.pop(), Tensors(stored), None
