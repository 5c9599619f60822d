"""Writers of every checkpoint format, tensor by tensor, each file whole or not at all."""

import io
import json
import os
import time
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from conversion.formats import TIED, WEIGHT_FILES
from conversion.matching import match
from conversion.names import LAYOUTS, Row, original_name
from conversion.tensors import BFLOAT16, SAFETENSORS_TYPES, Tensors, pieces, to_torch
from lxmert_tf.configuration import CONFIG_NAME, LxmertConfig
from lxmert_tf.files import replacing, write_text
from lxmert_tf.tasks import ARCHITECTURES, keras_class

DIRECTORY_FORMATS = ("hf-pt", "hf-pt-bin", "hf-tf", "keras")
FILE_FORMATS = ("keras-weights", "original")  # one file, without a config
SHARDED_FORMATS = ("hf-pt", "hf-pt-bin")
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
HEADER = 64512  # bytes of an attribute that HDF5 stores beside its group


def write_checkpoint(
    directory: str | os.PathLike,
    tensors: Mapping[str, np.ndarray],
    config: LxmertConfig,
    task: str,
    format: str,
    max_shard_size: int | str | None = None,
) -> Path:
    """Writes weights and config.json, each file whole or not at all.

    Args:
        directory: made if missing.
        tensors: all of the model's, by PyTorch names and in PyTorch layout: float16, bfloat16, float32 or float64.
        config: the model's config.
        task: "model", "pretraining", "qa" or "visual-reasoning".
        format: "hf-pt", "hf-pt-bin", "keras" or "hf-tf".
        max_shard_size: bytes, or a text such as "5GB"; PyTorch formats larger than this are split into several files
            with an index.

    Returns:
        The weights file, or the index of a sharded one.

    Raises:
        ValueError: an unknown format, one that is not split for tensors larger than `max_shard_size`, a dtype that it
            cannot hold, or tensors that are not the model's.
        FileExistsError: the directory holds another format that would be read instead of this one.
    """
    if format not in DIRECTORY_FORMATS:
        raise ValueError(f"format must be one of {', '.join(DIRECTORY_FORMATS)}, got {format!r}.")
    limit = None if max_shard_size is None else parse_size(max_shard_size, "max_shard_size")
    tensors = Tensors.of(tensors)
    if limit is not None and tensors.nbytes > limit and format not in SHARDED_FORMATS:
        raise ValueError(
            f"{format} is a single file, and the tensors take {tensors.nbytes:,} bytes, more than "
            f"max_shard_size={max_shard_size}; leave it out, or use one of {', '.join(SHARDED_FORMATS)}."
        )
    config_text = _config_text(config, task, tensors)
    table = _complete_table(tensors, config, task)
    name = next(name for name, kept_format in WEIGHT_FILES.items() if kept_format == format)
    path = Path(directory) / name
    _check_precedence(path, format)
    if limit is None or tensors.nbytes <= limit:
        with replacing(path) as temporary:
            WRITERS[format](temporary, tensors, table, task)
        _remove_shards(path)
    else:
        index = _write_shards(path, tensors, table, task, format, limit)
        path.unlink(missing_ok=True)
        path = index
    write_text(Path(directory) / CONFIG_NAME, config_text)
    return path


def checkpoint_format(format: str | None, safe_serialization: bool | None, default: str) -> str:
    """The format that `save_pretrained` writes.

    Args:
        format: one of `DIRECTORY_FORMATS`, or None.
        safe_serialization: upstream's argument: True for model.safetensors, False for anything else.
        default: where neither says.

    Raises:
        ValueError: one contradicts the other.
    """
    if format is None:
        if safe_serialization is None or safe_serialization == (default == "hf-pt"):
            return default
        return "hf-pt" if safe_serialization else "hf-pt-bin"
    if safe_serialization not in (None, format == "hf-pt"):
        raise ValueError(f"format={format!r} contradicts safe_serialization={safe_serialization}; leave one out.")
    return format


def parse_size(text: int | str, name: str) -> int:
    """Bytes of "2GB", "500MB", "1GiB" or a plain number; `name` is the argument's, for the message.

    Raises:
        ValueError: it is none of these, or not above 0.
    """
    digits = str(text).strip().upper()
    number = digits.rstrip("KMGIB ")
    unit = digits.removeprefix(number).strip()
    try:
        size = int(float(number) * UNITS[unit])
    except (KeyError, ValueError, OverflowError):
        size = 0
    if size < 1:
        raise ValueError(f"{name} must be a number of bytes such as 2GB or 500MB, got {text!r}.")
    return size


def write_file(
    path: str | os.PathLike, tensors: Mapping[str, np.ndarray], config: LxmertConfig, task: str, format: str
) -> None:
    """Writes a single file, whole or not at all.

    Args:
        path: the file; its directory is made if missing.
        tensors, config, task: as for `write_checkpoint`.
        format: "keras-weights" (`.weights.h5`), "keras-archive" (`.keras`, with the config) or "original" (`.pth`).

    Raises:
        ValueError: a dtype that the format cannot hold, or tensors that are not the model's.
    """
    tensors = Tensors.of(tensors)
    table = _complete_table(tensors, config, task)
    with replacing(path) as temporary:
        if format == "keras-archive":
            _write_archive(temporary, tensors, table, task, config)
        else:
            WRITERS[format](temporary, tensors, table, task)


def _complete_table(tensors: Tensors, config: LxmertConfig, task: str) -> list[Row]:
    """The rows of the model that the tensors are, none missing."""
    matched = match(tensors.shapes, task, config)
    if matched.missing:
        raise ValueError(
            f"{ARCHITECTURES[task]} must be written with all its tensors, but lacks {', '.join(matched.missing)}."
        )
    return matched.loaded


def _check_precedence(path: Path, format: str) -> None:
    """Refuses to write where older weights of another format would go on being read."""
    for name, kept_format in WEIGHT_FILES.items():
        if kept_format == format:
            return
        if (path.parent / name).is_file():
            raise FileExistsError(
                f"{path.parent} holds {name}, which would be read instead of {path.name}: "
                f"remove it, save as {kept_format!r}, or save to another directory."
            )


def _config_text(config: LxmertConfig, task: str, tensors: Tensors) -> str:
    """config.json with the class it belongs to and, where it names one, the dtype of the tensors."""
    values = {**config.to_dict(), "architectures": [ARCHITECTURES[task]]}
    dtype = next(iter(tensors.stored.values())).dtype.name
    values.update({key: dtype for key in ("dtype", "torch_dtype") if key in values})
    return json.dumps(values, indent=2, sort_keys=True) + "\n"


def _write_safetensors(path: Path, tensors: Tensors, table: list[Row], task: str) -> None:
    """The safetensors format, tensor by tensor: length of the header, the header in JSON, the bytes."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for row in table:
        item = tensors.stored[row.torch]
        begin, end = end, end + item.nbytes
        kind = _dtype_code(row.torch, item.dtype)
        header[row.torch] = {"dtype": kind, "shape": list(item.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for row in table:
            _write_bytes(file, tensors[row.torch])


def _write_bytes(file: BinaryIO, array: np.ndarray) -> None:
    for piece in pieces(array):
        file.write(piece.view(np.uint8).data)


def _dtype_code(name: str, dtype: np.dtype) -> str:
    if dtype not in SAFETENSORS_TYPES:
        kinds = ", ".join(kind.name for kind in SAFETENSORS_TYPES)
        raise ValueError(f"{name} must be one of {kinds}, got {dtype}.")
    return SAFETENSORS_TYPES[dtype]


def _write_pickle(path: Path, tensors: Tensors, table: list[Row], task: str) -> None:
    import torch

    state = {row.torch: to_torch(tensors[row.torch]) for row in table}
    decoder, words = TIED
    if task == "pretraining" and words in state:
        state[decoder] = state[words]
    torch.save(state, path)


def _write_original(path: Path, tensors: Tensors, table: list[Row], task: str) -> None:
    """A bare state dict with the original code's names, serialised as the PyTorch of its time reads it."""
    import torch

    state = {original_name(row.torch, task): to_torch(tensors[row.torch]) for row in table}
    if task == "pretraining":
        decoder, words = (original_name(name, task) for name in TIED)
        state[decoder] = state[words]
    torch.save(state, path, _use_new_zipfile_serialization=False)


class _Disk(io.RawIOBase):
    """A new file for HDF5, which crashes where it cannot write: keeps the first error, and plays along after it."""

    def __init__(self, path: Path):
        self._file = open(path, "w+b", buffering=0)  # noqa: SIM115 (closed in `close`)
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        data = memoryview(data).cast("B")
        done = 0
        try:
            while done < len(data) and self.error is None:
                done += self._file.write(data[done:])
        except OSError as error:
            self.error = error
        return len(data)

    def readinto(self, buffer: Any) -> int:
        return self._file.readinto(buffer)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def _new_h5(path: Path) -> Iterator[h5py.File]:
    disk = _Disk(path)
    try:
        with disk, h5py.File(disk, "w") as file:
            yield file
    finally:
        if disk.error is not None:
            raise OSError(disk.error.errno, disk.error.strerror, str(path)) from disk.error


def _reserve(file: h5py.File, name: str, row: Row, tensors: Tensors) -> h5py.Dataset:
    """A dataset for a tensor in Keras layout, with a place in the file but without values."""
    item = tensors.stored[row.torch]
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plan.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return file.create_dataset(name, LAYOUTS[row.layout].shape(item.shape), item.dtype, dcpl=plan)


def _fill(path: Path, tensors: Tensors, table: list[Row], places: Mapping[str, int]) -> None:
    """Writes the tensors to their places, past HDF5: in pieces, without holding any tensor."""
    with open(path, "r+b") as file:
        for row in table:
            file.seek(places[row.torch])
            _write_bytes(file, LAYOUTS[row.layout].forward(tensors[row.torch]))


def _write_keras(path: Path, tensors: Tensors, table: list[Row], task: str) -> None:
    places = {}
    with _new_h5(path) as file:
        for row in table:
            dataset = _reserve(file, row.h5_path, row, tensors)
            places[row.torch] = dataset.id.get_offset()
            if tensors.stored[row.torch].dtype == BFLOAT16:
                dataset.attrs["dtype"] = "bfloat16"
    _fill(path, tensors, table, places)


def _write_archive(path: Path, tensors: Tensors, table: list[Row], task: str, config: LxmertConfig) -> None:
    """What Keras' `model.save` writes: the weights, and the config of the class that `lxmert_tf` registers."""
    dtypes = {item.dtype.name for item in tensors.stored.values()}
    policy = {"name": dtypes.pop() if len(dtypes) == 1 else "float32"}
    class_name = keras_class(task)
    model = {
        "module": "lxmert_tf.modeling",
        "class_name": class_name,
        "registered_name": f"lxmert_tf>{class_name}",
        "config": {
            "config": config.to_dict(),
            "name": _snake(class_name),
            "trainable": True,
            "dtype": {"module": "keras", "class_name": "DTypePolicy", "config": policy, "registered_name": None},
        },
        "build_config": {"shapes_dict": {}},
        "compile_config": {},
    }
    metadata = {"keras_version": version("keras"), "date_saved": time.strftime("%Y-%m-%d@%H:%M:%S")}
    weights = path.with_name(f"{path.name}.weights.h5")
    try:
        _write_keras(weights, tensors, table, task)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("metadata.json", json.dumps(metadata))
            archive.writestr("config.json", json.dumps(model))
            archive.write(weights, "model.weights.h5")
    finally:
        weights.unlink(missing_ok=True)


def _write_tf(path: Path, tensors: Tensors, table: list[Row], task: str) -> None:
    """Keras 2's layout: a group per top layer with the list of its weights, embeddings under `cls` too."""
    root = _snake(keras_class(task))
    groups: dict[str, list[str]] = {}
    places = {}
    with _new_h5(path) as file:
        for row in table:
            if tensors.stored[row.torch].dtype == BFLOAT16:
                raise ValueError("tf_model.h5 cannot hold bfloat16; cast to float32 first.")
            top, name = row.tf.split("/")[0], f"{root}/{row.tf}"
            places[row.torch] = _reserve(file, f"{top}/{name}", row, tensors).id.get_offset()
            groups.setdefault(top, []).append(name)
            if task == "pretraining" and row.tf.startswith("lxmert/embeddings/"):
                file[f"cls/{name}"] = file[f"{top}/{name}"]  # a second name, not a copy
                groups.setdefault("cls", []).append(name)
        for top, names in groups.items():
            _set_names(file[top], "weight_names", names)
        file.create_group("top_level_model_weights").attrs["weight_names"] = np.array([], dtype="S1")
        file.attrs["layer_names"] = np.array(list(groups), dtype="S")
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.15.0"
    _fill(path, tensors, table, places)


def _set_names(group: h5py.Group, attribute: str, names: list[str]) -> None:
    """An attribute with a list of names or, beyond what HDF5 stores in one, several with a number: so does Keras 2."""
    array = np.array(names, dtype="S")
    pieces = np.array_split(array, -(-array.nbytes // (HEADER - array.itemsize)))  # some have one name more
    for number, piece in enumerate(pieces):
        group.attrs[attribute if len(pieces) == 1 else f"{attribute}{number}"] = piece


def _snake(name: str) -> str:
    """Keras' name of a class: TFLxmertForPreTraining -> tf_lxmert_for_pre_training."""
    words = "".join(f" {letter}" if letter.isupper() else letter for letter in name.removeprefix("TF")).split()
    return "_".join(["tf", *(word.lower() for word in words)])


WRITERS = {
    "hf-pt": _write_safetensors,
    "hf-pt-bin": _write_pickle,
    "keras": _write_keras,
    "keras-weights": _write_keras,
    "hf-tf": _write_tf,
    "original": _write_original,
}


def _write_shards(path: Path, tensors: Tensors, table: list[Row], task: str, format: str, limit: int) -> Path:
    """Shards of at most `limit` bytes (one tensor may be more), then their index, whose path is returned."""
    sizes = {row.torch: tensors.stored[row.torch].nbytes for row in table}
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


def _remove_shards(path: Path, keep: Collection[str] = frozenset()) -> None:
    """Removes an older sharded checkpoint of the same name, which would otherwise be found beside the new one."""
    if _index(path).exists():
        for shard in path.parent.glob(f"{path.stem}-*-of-*{path.suffix}"):
            if shard.name not in keep:
                shard.unlink()
        _index(path).unlink()
