"""Where region features lie inside HDF5 and npz files: our own, and those of other projects.

A file holds the boxes of all images one after the other, with the rows of each image in `pos_boxes`, as the adaptive
(10 to 100 boxes) files of bottom-up attention do; or, where every image has as many, a third axis. docs/data.md has the
whole layout.

Shapes: M images, R boxes of all images, N boxes of one image, D feature dimension.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lxmert_tf.data.stored_rows import ArrayRows, Rows, hdf5_rows, npz_rows

LABELS = {"objects_id": "int64", "objects_conf": "float32", "attrs_id": "int64", "attrs_conf": "float32"}
PIXELS, NORMALIZED = "x1 y1 x2 y2 in pixels", "x1 y1 x2 y2 in 0..1"

# The first name is what we write.
NAMES = {
    "features": ("image_features", "features"),
    "boxes": ("image_bb", "boxes"),
    "normalized": ("spatial_features", "normalized_boxes"),
    "spans": ("pos_boxes",),
    "num_boxes": ("num_boxes", "num_bbox"),
    "img_ids": ("image_ids", "img_ids", "image_id", "img_id"),
    "img_w": ("img_w", "image_w"),
    "img_h": ("img_h", "image_h"),
    "objects_id": ("objects_id", "obj_id"),
    "objects_conf": ("objects_conf", "obj_conf"),
    "attrs_id": ("attrs_id", "attr_id"),
    "attrs_conf": ("attrs_conf", "attr_conf"),
}


@dataclass
class Layout:
    """What a feature file holds, and where.

    Attributes:
        img_ids: of the M images.
        starts, ends: `int64[M]`, the rows of each image.
        features: R rows of D values.
        boxes: R rows of at least 4 values, x1 y1 x2 y2.
        sizes: `float32[M, 2]`, width and height in pixels, or None where the boxes are in 0..1 already.
        labels: "objects_id", "objects_conf", "attrs_id", "attrs_conf" -> R rows of 1 value; may lack some.
        provenance: what is known of where the features come from.
    """

    img_ids: list[str]
    starts: np.ndarray
    ends: np.ndarray
    features: Rows
    boxes: Rows
    sizes: np.ndarray | None
    labels: dict[str, Rows] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


def read_layout(path: str, descriptor: int) -> Layout:
    """Finds the arrays of a feature file.

    Args:
        path: an HDF5 or npz file.
        descriptor: of the same file, to read rows from; it must stay open.

    Raises:
        ValueError: the file is neither, lacks an array, or its arrays do not fit together.
    """
    start = os.pread(descriptor, 8, 0)
    if start[:4] == b"PK\x03\x04":
        try:
            arrays, attributes = npz_rows(path, descriptor), {}
        except (zipfile.BadZipFile, ValueError, EOFError) as error:
            raise ValueError(f"{path} is no readable npz file: {error}") from error
        return _layout(path, arrays, attributes)
    if start == b"\x89HDF\r\n\x1a\n":
        return _hdf5_layout(path, descriptor)
    if start.count(b"\t") or path.endswith(".tsv"):
        raise ValueError(
            f"{path} is a TSV file, which can only be read from its beginning; "
            f"make a file for random access first: lxmert-tf features build {path} {path.removesuffix('.tsv')}.h5"
        )
    raise ValueError(f"{path} is neither an HDF5 nor an npz file of region features")


def _hdf5_layout(path: str, descriptor: int) -> Layout:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} is no readable HDF5 file: {error}") from error
    with file:
        arrays: dict[str, Any] = {}
        known = {alias for aliases in NAMES.values() for alias in aliases}
        for name in known & set(file):
            dataset = file[name]
            if not isinstance(dataset, h5py.Dataset):
                continue
            if dataset.ndim == 1 and (name in _names("img_ids", "img_w", "img_h", "num_boxes")):
                arrays[name] = dataset.asstr()[:] if h5py.check_string_dtype(dataset.dtype) else dataset[:]
            elif name in NAMES["spans"]:
                arrays[name] = dataset[:]
            elif dataset.ndim in (1, 2, 3):
                arrays[name] = hdf5_rows(dataset, descriptor)
        return _layout(path, arrays, dict(file.attrs))


def _names(*fields: str) -> set[str]:
    return {name for each in fields for name in NAMES[each]}


def _layout(path: str, arrays: Mapping[str, Any], attributes: Mapping[str, Any]) -> Layout:
    def find(name: str) -> Any:
        return next((arrays[alias] for alias in NAMES[name] if alias in arrays), None)

    def need(name: str, what: str) -> Any:
        if (found := find(name)) is None:
            raise ValueError(f"{path} has no {what}: expected an array named {' or '.join(NAMES[name])}")
        return found

    def rows(name: str) -> Rows | None:
        found = find(name)
        return ArrayRows(found) if isinstance(found, np.ndarray) else found

    need("features", "features")
    img_ids = [_text(name) for name in need("img_ids", "names of images")]
    features, boxes, normalized = rows("features"), rows("boxes"), rows("normalized")
    starts, ends = _spans(path, len(img_ids), find("spans"), find("num_boxes"), features.shape)
    sizes = None
    if normalized is None:
        need("boxes", "boxes")
        width, height = find("img_w"), find("img_h")
        if width is not None and height is not None:
            sizes = np.stack([_column(width), _column(height)], axis=1).astype(np.float32)
    layout = Layout(
        img_ids=img_ids,
        starts=starts,
        ends=ends,
        features=features,
        boxes=boxes if normalized is None else normalized,
        sizes=sizes,
        labels={name: found for name in LABELS if (found := rows(name)) is not None},
        provenance=_provenance(attributes),
    )
    _check(path, layout)
    return layout


def _spans(path: str, images: int, spans, num_boxes, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    if spans is not None:
        spans = _column(spans, 2)
        if spans.shape != (images, 2):
            raise ValueError(f"{path}: pos_boxes must have the shape [{images}, 2], got {list(spans.shape)}")
        return spans[:, 0].astype(np.int64), spans[:, 1].astype(np.int64)
    if len(shape) != 3:
        raise ValueError(
            f"{path}: features of the shape {list(shape)} need pos_boxes [M, 2], the first row of each image and the "
            "row after its last"
        )
    starts = np.arange(images, dtype=np.int64) * shape[1]
    counts = np.full(images, shape[1]) if num_boxes is None else _column(num_boxes)
    return starts, starts + counts


def _check(path: str, layout: Layout) -> None:
    images, rows = len(layout.img_ids), layout.features.count
    if len(set(layout.img_ids)) != images:
        raise ValueError(f"{path} names an image twice; every image must be there once")
    counts = layout.ends - layout.starts
    if images and not (len(counts) == images and (counts > 0).all() and layout.starts.min() >= 0):
        raise ValueError(f"{path}: every one of the {images} images must have at least one box")
    if images and layout.ends.max() > rows:
        raise ValueError(f"{path}: the images have boxes up to row {layout.ends.max()}, but features has {rows} rows")
    if layout.features.dtype.kind != "f":
        raise ValueError(f"{path}: features must be float32 or float16, got {layout.features.dtype}")
    for name, found in {"boxes": layout.boxes, **layout.labels}.items():
        if images and found.count < layout.ends.max():
            raise ValueError(f"{path}: {name} has {found.count} rows, but features has {rows}")
    if layout.boxes.width < 4:
        raise ValueError(f"{path}: boxes must have 4 values x1 y1 x2 y2, got {layout.boxes.width}")
    if layout.sizes is not None and (len(layout.sizes) != images or not (layout.sizes > 0).all()):
        raise ValueError(f"{path}: img_w and img_h must be above 0 for each of the {images} images")


def _provenance(attributes: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(attributes["provenance"]))
    except (KeyError, TypeError, ValueError):
        return {}


def _column(array: Any, width: int = 1) -> np.ndarray:
    """A whole array in memory, `[rows]` or `[rows, width]`."""
    if not isinstance(array, np.ndarray):
        out = np.empty((array.count, array.width), array.dtype)
        array.read(0, out)
        array = out
    return array.reshape(-1) if width == 1 else array


def _text(name: Any) -> str:
    return name.decode("utf-8") if isinstance(name, bytes) else str(name)
