"""Writers of a detector's checkpoints, each file whole or not at all."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from conversion.detector.caffe_layouts import CHANGES
from conversion.detector.names import Row, rows
from conversion.detector.readers import caffemodel_bytes
from conversion.tensors import Tensors, to_torch
from conversion.writers import WRITERS
from lxmert_tf.detector.anchors import cell_anchors
from lxmert_tf.detector.configuration import CONFIG_NAME, VOCABULARIES, YAML_NAME, DetectorConfig
from lxmert_tf.files import replacing, write_text

# The files of a directory of each format, and the formats of one file with the suffix it should have.
DIRECTORY_FORMATS = {"keras": "model.weights.h5", "hf-pt-bin": "pytorch_model.bin"}
FILE_FORMATS = {"keras-weights": ".weights.h5", "detectron2": ".pkl", "milvlg": ".pth", "caffe": ".caffemodel"}
FORMATS = (*DIRECTORY_FORMATS, *FILE_FORMATS)
AUTHOR = "lxmert-tf"  # without an author, detectron2 takes the names for Caffe2's


def write_detector(directory: Path, tensors: Mapping[str, np.ndarray], config: DetectorConfig, format: str) -> Path:
    """Writes weights and config into a directory, made if missing.

    Args:
        directory: where to.
        tensors: all of the detector's, by Hugging Face's names and in PyTorch layout.
        config: the detector's.
        format: "keras" (model.weights.h5, config.json) or "hf-pt-bin" (pytorch_model.bin, config.yaml, vocabularies).

    Returns:
        The weights file.

    Raises:
        ValueError: an unknown format, or tensors that are not the detector's.
        FileExistsError: the directory holds the other format, which would go on being read.
    """
    if format not in DIRECTORY_FORMATS:
        raise ValueError(f"format must be one of {', '.join(DIRECTORY_FORMATS)}, got {format!r}.")
    other = next(name for kept, name in DIRECTORY_FORMATS.items() if kept != format)
    if (directory / other).exists():
        raise FileExistsError(f"{directory} holds {other}, of another format; remove it, or save to another directory.")
    path = directory / DIRECTORY_FORMATS[format]
    write_detector_file(path, tensors, config, format)
    if format == "keras":
        write_text(directory / CONFIG_NAME, config.to_json_string())
        return path
    write_text(directory / YAML_NAME, config.to_yaml_string())
    for field, name in VOCABULARIES.items():
        if names := getattr(config, field):
            write_text(directory / name, "\n".join(names))
    return path


def write_detector_file(path: Path, tensors: Mapping[str, np.ndarray], config: DetectorConfig, format: str) -> None:
    """Writes the weights as one file.

    Args:
        path, tensors, config: as of `write_detector`.
        format: one of `FORMATS`.

    Raises:
        ValueError: tensors that are not the detector's, or that the format cannot hold.
    """
    table, tensors = rows(config), Tensors.of(tensors)
    found = tensors.shapes
    if wrong := [row.torch for row in table if found.get(row.torch) != row.sizes]:
        raise ValueError(f"A detector must be written with all its tensors, but {wrong[0]} is not there in its shape.")
    with replacing(path) as temporary:
        _WRITERS[format](temporary, tensors, table, config)


def _write_keras(path: Path, tensors: Tensors, table: list[Row], config: DetectorConfig) -> None:
    WRITERS["keras"](path, tensors, table, "detector")  # type: ignore[arg-type]  # rows of the same fields


def _write_bin(path: Path, tensors: Tensors, table: list[Row], config: DetectorConfig) -> None:
    """With the constants that Hugging Face's code insists on finding."""
    import torch

    state = {}
    for row in table:
        state[row.torch] = to_torch(tensors[row.torch])
        if row.torch.endswith("running_var"):
            state[row.torch.replace("running_var", "num_batches_tracked")] = torch.tensor(0)
    state["proposal_generator.anchor_generator.cell_anchors.0"] = to_torch(cell_anchors(config, False))
    torch.save(state, path)


def _write_pickle(path: Path, tensors: Tensors, table: list[Row], config: DetectorConfig) -> None:
    state = {row.torch: np.ascontiguousarray(tensors[row.torch]) for row in table}
    for name, array in state.items():
        if array.dtype.kind != "f":
            raise ValueError(
                f"A .pkl file of detectron2 cannot hold {array.dtype}, as {name} is; cast to float32 first."
            )
    with open(path, "wb") as file:
        pickle.dump({"model": state, "__author__": AUTHOR}, file, protocol=2)


def _write_milvlg(path: Path, tensors: Tensors, table: list[Row], config: DetectorConfig) -> None:
    import torch

    state = {row.milvlg: to_torch(_as_caffe(row, tensors, config)) for row in table}
    torch.save({"model": state}, path)


def _write_caffe(path: Path, tensors: Tensors, table: list[Row], config: DetectorConfig) -> None:
    layers: dict[str, tuple[str, list[np.ndarray]]] = {}
    for row in table:
        layer, _, number = row.caffe.rpartition("/")
        array = _as_caffe(row, tensors, config)
        if array.dtype not in (np.float32, np.float64):
            raise ValueError(f"A .caffemodel cannot hold {array.dtype}, as {row.torch} is; cast to float32 first.")
        blobs = layers.setdefault(layer, (_caffe_type(layer, array), []))[1]
        assert len(blobs) == int(number)  # the table is in the order of the numbers
        blobs.append(array)
    for kind, blobs in layers.values():
        if kind == "BatchNorm":
            blobs.append(np.ones(1, "float32"))  # the factor of its means and variances
    with open(path, "wb") as file:
        for piece in caffemodel_bytes("lxmert-tf", layers):
            file.write(piece)


def _caffe_type(layer: str, first: np.ndarray) -> str:
    if layer.startswith(("bn", "scale")):
        return "BatchNorm" if layer.startswith("bn") else "Scale"
    if first.ndim == 4:
        return "Convolution"
    return "Embed" if layer == "cls_embedding" else "InnerProduct"


def _as_caffe(row: Row, tensors: Tensors, config: DetectorConfig) -> np.ndarray:
    return CHANGES[row.change].inverse(tensors[row.torch], config)


_WRITERS: dict[str, Callable[[Path, Tensors, list[Row], DetectorConfig], Any]] = {
    "keras": _write_keras,
    "keras-weights": _write_keras,
    "hf-pt-bin": _write_bin,
    "detectron2": _write_pickle,
    "milvlg": _write_milvlg,
    "caffe": _write_caffe,
}
