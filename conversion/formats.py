"""Readers and writers of every checkpoint format; whatever the file, tensors have PyTorch names and layouts.

| format | files |
|---|---|
| hf-pt | model.safetensors, or shards with model.safetensors.index.json |
| hf-pt-bin | pytorch_model.bin, or shards with pytorch_model.bin.index.json |
| hf-tf | tf_model.h5, or model.safetensors with TensorFlow names |
| keras | model.weights.h5, or a `.keras` archive (read only) |
| original | `.pth` files of the original code (read only) |

The format is told by what a file holds, not by its name. Reading is lazy and never runs code from a file.
"""

import json
import logging
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from conversion.names import (
    ARCHITECTURES,
    LAYOUTS,
    Row,
    Shape,
    canonical,
    find_task,
    infer_config,
    lookup,
    match,
    task_of,
)
from lxmert_tf.configuration import CONFIG_NAME, LxmertConfig
from lxmert_tf.files import replacing, write_text

logger = logging.getLogger("lxmert_tf")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
SAFETENSORS_TYPES = {
    np.dtype("float64"): "F64",
    np.dtype("float32"): "F32",
    np.dtype("float16"): "F16",
    BFLOAT16: "BF16",
}
TIED = ("cls.predictions.decoder.weight", "lxmert.embeddings.word_embeddings.weight")

# What a directory is searched for, first to last, and the format each is written in.
WEIGHT_FILES = {
    "model.safetensors": "hf-pt",
    "model.safetensors.index.json": "hf-pt",
    "model.weights.h5": "keras",
    "pytorch_model.bin": "hf-pt-bin",
    "pytorch_model.bin.index.json": "hf-pt-bin",
    "tf_model.h5": "hf-tf",
}
SUFFIXES = (".safetensors", ".h5", ".keras", ".bin", ".pth", ".pt")


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: its shape, and how to read it."""

    shape: Shape
    read: Callable[[], np.ndarray]


class Tensors(Mapping[str, np.ndarray]):
    """Tensors by PyTorch name, each read when it is asked for."""

    def __init__(self, stored: Mapping[str, Stored]):
        self._stored = dict(stored)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._stored[name].read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name to shape, without reading any tensor."""
        return {name: tensor.shape for name, tensor in self._stored.items()}

    def renamed(self, rename: Callable[[str], str]) -> "Tensors":
        """The same tensors under other names.

        Raises:
            ValueError: two tensors would have the same name.
        """
        stored: dict[str, Stored] = {}
        for name, tensor in self._stored.items():
            if rename(name) in stored:
                raise ValueError(f"Two tensors are called {rename(name)}, one of them as {name}.")
            stored[rename(name)] = tensor
        return Tensors(stored)


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Args:
        path: the file read; the index file of a sharded checkpoint.
        format: "hf-pt", "hf-pt-bin", "hf-tf", "keras" or "original".
        tensors: by upstream's PyTorch names, in PyTorch layout; a bare backbone has no `lxmert.` prefix.
        config: from the config.json beside the file or in it, else inferred from the shapes.
        task: "model", "pretraining", "qa" or "visual-reasoning", told by the heads.
    """

    path: Path
    format: str
    tensors: Tensors
    config: LxmertConfig
    task: str


# Opening


def open_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Opens a checkpoint file, or the preferred one of a directory (see `WEIGHT_FILES`).

    Raises:
        FileNotFoundError: there is no such path, no checkpoint in the directory, or no shard an index names.
        ValueError: the file is damaged, or holds no LXMERT weights; the message names it.
    """
    path = find_weights(Path(path))
    format, tensors, config = read_file(path)
    config_file = path.parent / CONFIG_NAME
    if config is None and config_file.is_file():
        config = LxmertConfig.from_json_file(config_file)
    if config is None:
        with _reading(path):
            config = infer_config(tensors.shapes)
        logger.warning(
            "There is no %s beside %s: the config is inferred from the tensors, with num_attention_heads=%d assumed; "
            "if that is not right, pass config=.",
            CONFIG_NAME,
            path,
            config.num_attention_heads,
        )
    return Checkpoint(path, format, tensors, config, find_task(tensors.shapes))


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
    others = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and file.is_file())
    if len(others) == 1:
        return others[0]
    found = f"found {', '.join(file.name for file in others)}; name one of them" if others else "found none"
    raise FileNotFoundError(f"{path} must hold one of {', '.join(WEIGHT_FILES)} or a single other checkpoint, {found}.")


def read_file(path: Path) -> tuple[str, Tensors, LxmertConfig | None]:
    """The format, the tensors, and the config if it is in the file itself."""
    with _reading(path):
        with open(path, "rb") as file:
            start = file.read(9)
        if start.startswith(b"PK"):
            with zipfile.ZipFile(path) as archive:
                is_keras = "model.weights.h5" in archive.namelist()
            return _read_keras_archive(path) if is_keras else _read_pickle(path, mmap=True)
        if start.startswith(b"\x89HDF"):
            return _read_h5(h5py.File(path, "r"), path)
        if start.startswith(b"\x80"):
            return _read_pickle(path, mmap=False)
        if start[8:] == b"{":
            return _read_safetensors(path)
        if start.startswith(b"{"):
            return _read_index(path)
        raise ValueError("it is of no known format")


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever a library says of a damaged file into one ValueError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is damaged or holds more than tensors, which is refused: {_first_line(error)}"
        ) from error
    except (
        ValueError,
        LookupError,
        TypeError,
        OSError,
        EOFError,
        RuntimeError,
        AttributeError,
        ArithmeticError,
        AssertionError,
        struct.error,
        zipfile.BadZipFile,
        SafetensorError,
    ) as error:
        raise ValueError(f"{path} cannot be read as an LXMERT checkpoint: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _lazy(path: Path, shape: Shape, read: Callable[[], np.ndarray]) -> Stored:
    def read_or_tell() -> np.ndarray:
        with _reading(path):
            return read()

    return Stored(tuple(shape), read_or_tell)


# Each format


def _read_safetensors(path: Path) -> tuple[str, Tensors, None]:
    file = safe_open(path, "numpy")
    stored = {
        name: _lazy(path, file.get_slice(name).get_shape(), lambda name=name: file.get_tensor(name))
        for name in file.keys()  # noqa: SIM118 (not a dict)
    }
    if (file.metadata() or {}).get("format") == "tf":
        return "hf-tf", _from_keras_layout(stored, "tf"), None
    return "hf-pt", Tensors(stored).renamed(canonical), None


def _read_pickle(path: Path, mmap: bool) -> tuple[str, Tensors, None]:
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError("it must hold a dict from names to tensors")
    stored = {
        str(name): _lazy(path, value.shape, lambda value=value: from_torch(value)) for name, value in state.items()
    }
    tensors = Tensors(stored).renamed(canonical)
    return "hf-pt-bin" if set(tensors) == set(stored) else "original", tensors, None


def _read_h5(file: h5py.File, path: Path) -> tuple[str, Tensors, None]:
    datasets: dict[str, h5py.Dataset] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise ValueError(f"its dataset {name} lies in another file, which is refused")
            datasets[name] = item

    file.visititems(visit)  # follows neither soft nor external links
    stored = {name: _lazy(path, item.shape, lambda item=item: _from_h5(item)) for name, item in datasets.items()}
    if "layer_names" not in file.attrs:
        return "keras", _from_keras_layout(stored, "h5_path"), None
    # Keras 2: the group of a top layer, the root model, then the name.
    return "hf-tf", _from_keras_layout({name.split("/", 2)[-1]: item for name, item in stored.items()}, "tf"), None


def _from_h5(dataset: h5py.Dataset) -> np.ndarray:
    array = dataset[()]
    return array.view(BFLOAT16) if dataset.attrs.get("dtype") == "bfloat16" else array


def _read_keras_archive(path: Path) -> tuple[str, Tensors, LxmertConfig]:
    archive = zipfile.ZipFile(path)
    saved = json.loads(archive.read("config.json"))
    task_of(saved["class_name"])
    config = LxmertConfig.from_dict(saved["config"]["config"])
    return *_read_h5(h5py.File(archive.open("model.weights.h5"), "r"), path)[:2], config


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
    shape = item.shape[::-1] if row.layout == "transpose" else item.shape
    return Stored(shape, lambda: LAYOUTS[row.layout].inverse(item.read()))


def _read_index(path: Path) -> tuple[str, Tensors, None]:
    """A sharded checkpoint: an index from tensor names to files beside it."""
    index = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(index, dict) or not isinstance(index.get("weight_map"), dict):
        raise ValueError("it has no weight_map from tensors to files")
    names = sorted(set(index["weight_map"].values()))
    for name in names:
        if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\:\0"):
            raise ValueError(f"its weight_map must name files beside it, got {name!r}")
        if not (path.parent / name).is_file():
            raise FileNotFoundError(f"{path} names the file {name}, which is not beside it.")
    stored: dict[str, Stored] = {}
    formats = set()
    for name in names:
        if name.endswith(".json"):
            raise ValueError(f"its weight_map must name files with tensors, got {name!r}")
        format, tensors, _ = read_file(path.parent / name)
        formats.add(format)
        stored.update(tensors._stored)
    if formats not in ({"hf-pt"}, {"hf-pt-bin"}):
        raise ValueError(f"its files must all be of one PyTorch format, got {', '.join(sorted(formats)) or 'none'}")
    lost = sorted({canonical(name) for name in index["weight_map"]} - set(stored))
    if lost:
        raise ValueError(f"its files lack {len(lost)} tensors of its weight_map, first {lost[0]}")
    return formats.pop(), Tensors(stored), None


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

    array = np.array(array, order="C")
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


# Writing


def write_checkpoint(
    directory: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    config: LxmertConfig,
    task: str,
    format: str,
    max_shard_size: int | None = None,
) -> Path:
    """Writes weights and config.json, each file whole or not at all.

    Args:
        directory: made if missing.
        tensors: all of the model's, by PyTorch names and in PyTorch layout: float16, bfloat16, float32 or float64.
        config: the model's config.
        task: "model", "pretraining", "qa" or "visual-reasoning".
        format: "hf-pt", "hf-pt-bin", "keras" or "hf-tf".
        max_shard_size: bytes; PyTorch formats larger than this are split into several files with an index.

    Returns:
        The weights file, or the index of a sharded one.

    Raises:
        ValueError: an unknown format, a dtype that it cannot hold, or tensors that are not the model's.
        FileExistsError: the directory holds another format that would be read instead of this one.
    """
    if format not in WRITERS:
        raise ValueError(f"format must be one of {', '.join(WRITERS)}, got {format!r}.")
    if max_shard_size is not None and (format not in ("hf-pt", "hf-pt-bin") or max_shard_size < 1):
        raise ValueError(
            f"max_shard_size must be a positive number of bytes for hf-pt or hf-pt-bin, got {max_shard_size}."
        )
    config_text = _config_text(config, task, tensors)
    shapes = tensors.shapes if isinstance(tensors, Tensors) else {k: np.shape(v) for k, v in tensors.items()}
    matched = match(shapes, task, config)
    if matched.missing:
        raise ValueError(
            f"A whole {ARCHITECTURES[task]} must be written, but {', '.join(matched.missing)} are missing."
        )

    name = next(name for name, written_as in WEIGHT_FILES.items() if written_as == format)
    path = Path(directory) / name
    _refuse_to_be_hidden(path, format)
    if max_shard_size is None:
        with replacing(path) as temporary:
            WRITERS[format](temporary, tensors, matched.loaded, task)
        _remove_shards(path)
    else:
        index = _write_shards(path, tensors, matched.loaded, task, format, max_shard_size)
        path.unlink(missing_ok=True)
        path = index
    write_text(Path(directory) / CONFIG_NAME, config_text)
    return path


def _refuse_to_be_hidden(path: Path, format: str) -> None:
    """Refuses to write where older weights of another format would go on being read."""
    for name, written_as in WEIGHT_FILES.items():
        if written_as == format:
            return
        if (path.parent / name).is_file():
            raise FileExistsError(
                f"{path.parent} holds {name}, which would be read instead of {path.name}: "
                f"remove it, save as {written_as!r}, or save to another directory."
            )


def _config_text(config: LxmertConfig, task: str, tensors: Mapping[str, np.ndarray]) -> str:
    """config.json with the class it belongs to and, where it names one, the dtype of the tensors."""
    values = {**config.to_dict(), "architectures": [ARCHITECTURES[task]]}
    dtype = np.dtype(next(iter(tensors.values())).dtype).name
    values.update({key: dtype for key in ("dtype", "torch_dtype") if key in values})
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _write_safetensors(path: Path, tensors: Mapping[str, np.ndarray], table: list[Row], task: str) -> None:
    """The safetensors format, tensor by tensor: length of the header, the header in JSON, the bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for row in table:
        array = tensors[row.torch]
        begin, end = end, end + array.nbytes
        kind = _dtype_code(row.torch, array.dtype)
        header[row.torch] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for row in table:
            file.write(np.ascontiguousarray(tensors[row.torch]).reshape(-1).view(np.uint8).data)


def _dtype_code(name: str, dtype: np.dtype) -> str:
    if dtype not in SAFETENSORS_TYPES:
        kinds = ", ".join(kind.name for kind in SAFETENSORS_TYPES)
        raise ValueError(f"{name} must be one of {kinds}, got {dtype}.")
    return SAFETENSORS_TYPES[dtype]


def _write_pickle(path: Path, tensors: Mapping[str, np.ndarray], table: list[Row], task: str) -> None:
    import torch

    state = {row.torch: to_torch(tensors[row.torch]) for row in table}
    decoder, words = TIED
    if task == "pretraining" and words in state:
        state[decoder] = state[words]
    torch.save(state, path)


def _write_keras(path: Path, tensors: Mapping[str, np.ndarray], table: list[Row], task: str) -> None:
    with h5py.File(path, "w") as file:
        for row in table:
            array = LAYOUTS[row.layout].forward(tensors[row.torch])
            dataset = file.create_dataset(row.h5_path, data=array)
            if array.dtype == BFLOAT16:
                dataset.attrs["dtype"] = "bfloat16"


def _write_tf(path: Path, tensors: Mapping[str, np.ndarray], table: list[Row], task: str) -> None:
    """Keras 2's layout: a group per top layer with the list of its weights, embeddings under `cls` too."""
    root = _snake(f"TF{ARCHITECTURES[task]}")
    groups: dict[str, list[str]] = {}
    with h5py.File(path, "w") as file:
        for row in table:
            array = LAYOUTS[row.layout].forward(tensors[row.torch])
            if array.dtype == BFLOAT16:
                raise ValueError("tf_model.h5 cannot hold bfloat16; cast to float32 first.")
            top, name = row.tf.split("/")[0], f"{root}/{row.tf}"
            file.create_dataset(f"{top}/{name}", data=array)
            groups.setdefault(top, []).append(name)
            if task == "pretraining" and row.tf.startswith("lxmert/embeddings/"):
                file[f"cls/{name}"] = file[f"{top}/{name}"]  # a second name, not a copy
                groups.setdefault("cls", []).append(name)
        for top, names in groups.items():
            file[top].attrs["weight_names"] = np.array(names, dtype="S")
        file.create_group("top_level_model_weights").attrs["weight_names"] = np.array([], dtype="S1")
        file.attrs["layer_names"] = np.array(list(groups), dtype="S")
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.15.0"


def _snake(name: str) -> str:
    """Keras' name of a class: TFLxmertForPreTraining -> tf_lxmert_for_pre_training."""
    words = "".join(f" {letter}" if letter.isupper() else letter for letter in name.removeprefix("TF")).split()
    return "_".join(["tf", *(word.lower() for word in words)])


WRITERS = {"hf-pt": _write_safetensors, "hf-pt-bin": _write_pickle, "keras": _write_keras, "hf-tf": _write_tf}


def _write_shards(
    path: Path, tensors: Mapping[str, np.ndarray], table: list[Row], task: str, format: str, limit: int
) -> Path:
    """Shards of at most `limit` bytes (one tensor may be more), then their index, whose path is returned."""
    sizes = {row.torch: tensors[row.torch].nbytes for row in table}
    shards: list[list[Row]] = [[]]
    for row in table:
        if shards[-1] and sum(sizes[r.torch] for r in shards[-1]) + sizes[row.torch] > limit:
            shards.append([])
        shards[-1].append(row)
    weight_map = {}
    for number, shard in enumerate(shards, start=1):
        file = path.with_name(f"{path.stem}-{number:05}-of-{len(shards):05}{path.suffix}")
        with replacing(file) as temporary:
            WRITERS[format](temporary, tensors, shard, task)
        weight_map.update({row.torch: file.name for row in shard})
    if format == "hf-pt-bin" and task == "pretraining":
        weight_map[TIED[0]] = weight_map[TIED[1]]
    index = _index(path)
    _remove_shards(path, keep=set(weight_map.values()))
    write_text(index, json.dumps({"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}, indent=2))
    return index


def _index(path: Path) -> Path:
    return path.with_name(f"{path.name}.index.json")


def _remove_shards(path: Path, keep: set[str] = frozenset()) -> None:
    """Removes an older sharded checkpoint of the same name, which would otherwise be found beside the new one."""
    if _index(path).exists():
        for shard in path.parent.glob(f"{path.stem}-*-of-*{path.suffix}"):
            if shard.name not in keep:
                shard.unlink()
        _index(path).unlink()
