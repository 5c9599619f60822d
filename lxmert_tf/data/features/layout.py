"""The layout of region features in HDF5 and npz files: our own, and those of other projects.

A file holds the boxes of all images one after the other, with the rows of each image in `pos_boxes`, as the adaptive
(10 to 100 boxes) files of bottom-up attention do; or, where every image has equally many, a third axis. docs/data.md
has the whole layout.

Shapes: M images, R boxes of all images, N boxes of one image, D feature dimension.
"""

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lxmert_tf.data.features.arrays import NAMES, PER_IMAGE, Arrays
from lxmert_tf.data.features.regions import LABELS
from lxmert_tf.data.features.rows import Rows, hdf5_rows, npz_rows, read_at

PIXELS, NORMALIZED = "x1 y1 x2 y2 in pixels", "x1 y1 x2 y2 in 0..1"


@dataclass
class Layout:
    """The content of a feature file.

    Attributes:
        img_ids: of the M images.
        starts, ends: `int64[M]`, the rows of each image.
        features: R rows of D values.
        boxes: R rows of at least 4 values, x1 y1 x2 y2.
        sizes: `float64[M, 2]`, width and height in pixels, or None where the boxes are in 0..1 already.
        labels: "objects_id", "objects_conf", "attrs_id", "attrs_conf" -> R rows of 1 value; may lack some.
        provenance: extractor and sources, as far as the file has them.
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
        ValueError: the file is neither, lacks an array, or its arrays disagree.
    """
    start = bytearray(8)
    read_at(descriptor, start, 0)
    if start[:4] == b"PK\x03\x04":
        try:
            stored = npz_rows(path, descriptor)
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, RuntimeError) as error:
            raise ValueError(f"cannot read {path} as npz: {error}") from error
        return _layout(Arrays(path, stored), {})
    if start == b"\x89HDF\r\n\x1a\n":
        return _hdf5_layout(path, descriptor)
    if start.count(b"\t") or path.endswith(".tsv"):
        raise ValueError(
            f"{path} is a TSV file, which has no random access; "
            f"build a file that has: lxmert-tf features build {path} {path.removesuffix('.tsv')}.h5"
        )
    raise ValueError(f"{path} is neither an HDF5 nor an npz file of region features")


def _hdf5_layout(path: str, descriptor: int) -> Layout:
    import h5py

    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"cannot read {path} as HDF5: {error}") from error
    with file:
        stored: dict[str, Any] = {}
        for what, aliases in NAMES.items():
            for name in aliases:
                dataset = file.get(name)
                if not isinstance(dataset, h5py.Dataset):
                    continue
                if what in PER_IMAGE or not dataset.ndim:
                    stored[name] = np.asarray(dataset[()])
                else:
                    stored[name] = hdf5_rows(dataset, descriptor)
        return _layout(Arrays(path, stored), dict(file.attrs))


def _layout(arrays: Arrays, attributes: Mapping[str, Any]) -> Layout:
    features = arrays.features()
    axes = features.shape[:-1]
    img_ids = arrays.names()
    spans = (_stored_spans if arrays.name("spans") else _even_spans)(arrays, img_ids, features)
    normalized = arrays.name("normalized") is not None
    return Layout(
        img_ids=img_ids,
        starts=spans[:, 0],
        ends=spans[:, 1],
        features=features,
        boxes=arrays.boxes("normalized" if normalized else "boxes", axes),
        sizes=None if normalized else _sizes(arrays, img_ids),
        labels={name: rows for name in LABELS if (rows := arrays.labels(name, axes)) is not None},
        provenance=_provenance(attributes),
    )


def _even_spans(arrays: Arrays, img_ids: list[str], features: Rows) -> np.ndarray:
    """The rows of each image, `int64[M, 2]`, where every image has equally many."""
    images, name, shape = len(img_ids), arrays.name("features"), list(features.shape)
    if len(shape) != 3:
        raise ValueError(
            f"{arrays.path}: {name} of shape {shape} needs pos_boxes [M, 2], the first row of each image and the row "
            "after its last"
        )
    if shape[0] != images:
        raise ValueError(f"{arrays.path}: {name} must have the shape [{images}, N, D], one for each image, got {shape}")
    counts = arrays.counts(images)
    if counts is None:
        counts = np.full(images, shape[1])
    if (row := _first((counts < 1) | (counts > shape[1]))) is not None:
        raise ValueError(
            f"{arrays.path}: {arrays.name('num_boxes')} must lie in 1..{shape[1]}, since {name} has the shape "
            f"{shape}, got {counts[row]} for {img_ids[row]!r}"
        )
    starts = np.arange(images) * shape[1]
    return np.stack([starts, starts + counts], axis=1)


def _stored_spans(arrays: Arrays, img_ids: list[str], features: Rows) -> np.ndarray:
    """The rows of each image, `int64[M, 2]`, from `pos_boxes`; none is shared."""
    images, name, shape = len(img_ids), arrays.name("features"), list(features.shape)
    spans = arrays.spans(images)
    if len(shape) != 2:
        raise ValueError(
            f"{arrays.path}: beside pos_boxes {name} must have the shape [R, D], the boxes of all images one after the "
            f"other, got {shape}"
        )
    starts, ends = spans.T
    if (row := _first((starts < 0) | (ends <= starts))) is not None:
        raise ValueError(
            f"{arrays.path}: every one of the {images} images must have at least one box, but pos_boxes has rows "
            f"{starts[row]} to {ends[row]} for {img_ids[row]!r}"
        )
    if images and ends.max() > shape[0]:
        raise ValueError(
            f"{arrays.path}: the images have boxes up to row {ends.max()}, but features has {shape[0]} rows: pos_boxes "
            f"does not fit {name} of shape {shape}"
        )
    order = np.argsort(starts)
    if (place := _first(starts[order][1:] < ends[order][:-1])) is not None:
        one, other = (img_ids[row] for row in order[place : place + 2])
        raise ValueError(f"{arrays.path}: the rows of {one!r} and {other!r} in pos_boxes overlap")
    counts = arrays.counts(images)
    if counts is not None and (row := _first(counts != ends - starts)) is not None:
        raise ValueError(
            f"{arrays.path}: {arrays.name('num_boxes')} must agree with pos_boxes, {ends[row] - starts[row]} boxes for "
            f"{img_ids[row]!r}, got {counts[row]}"
        )
    return spans


def _sizes(arrays: Arrays, img_ids: list[str]) -> np.ndarray | None:
    """`float64[M, 2]`, width and height of each image in pixels, or None."""
    path, images = arrays.path, len(img_ids)
    width, height = arrays.column("img_w", images), arrays.column("img_h", images)
    if width is None and height is None:
        return None
    if width is None or height is None:
        raise ValueError(f"{path} has only one of img_w and img_h; boxes in pixels need both")
    sizes = np.stack([width, height], axis=1).astype(np.float64)
    positive = (sizes > 0) & (sizes < np.inf)
    if (row := _first(~np.all(positive, axis=1))) is not None:
        got = " x ".join(f"{side:g}" for side in sizes[row])
        raise ValueError(
            f"{path}: img_w and img_h must be above 0 for each of the {images} images, got {got} for {img_ids[row]!r}"
        )
    return sizes


def _first(wrong: np.ndarray) -> int | None:
    """The index of the first True, or None."""
    return int(np.argmax(wrong)) if wrong.any() else None


def _provenance(attributes: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(json.loads(attributes["provenance"]))
    except (KeyError, TypeError, ValueError):
        return {}
