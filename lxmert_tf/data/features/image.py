"""The region features of one image as other extractors write them: an npz file, a pair of npy files, a pickle.

Shapes: N = boxes in the image, D = feature dimension.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np

from lxmert_tf.data.features.npz import check_bytes, parse_npy, parse_npz
from lxmert_tf.data.features.regions import LABELS, RegionFeatures, check_regions
from lxmert_tf.pickles import parse_pickle

NAMES = {
    "features": ("x", "features", "image_features"),
    "boxes": ("bbox", "boxes", "image_bb"),
    "num_boxes": ("num_bbox", "num_boxes"),
    "img_w": ("image_w", "img_w", "image_width", "width"),
    "img_h": ("image_h", "img_h", "image_height", "height"),
    "objects_id": ("objects_id", "obj_id"),
    "objects_conf": ("objects_conf", "obj_conf"),
    "attrs_id": ("attrs_id", "attr_id"),
    "attrs_conf": ("attrs_conf", "attr_conf"),
}
STORED = {"objects_id": "<i8", "objects_conf": "<f4", "attrs_id": "<i8", "attrs_conf": "<f4"}  # where it is base64
NPZ, NPY, PICKLE = b"PK\x03\x04", b"\x93NUMPY", b"\x80"  # what the files begin with; very old pickles do not
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


def parse_image(img_id: str, data: bytes, more: bytes | None = None) -> RegionFeatures:
    """The region features of one image.

    Args:
        img_id: the image's name.
        data: an npz file, an npy file of features, or a pickle of a dict.
        more: to an npy file, the other (`*_info.npy`), which holds a dict.

    Raises:
        ValueError: they cannot be read, or lack something.
    """
    if data.startswith(NPZ):
        values = parse_npz(data)
    elif data.startswith(NPY):
        values = {**({} if more is None else _dict(parse_npy(more))), "features": parse_npy(data)}
    else:
        check_bytes(len(data))
        try:
            values = _dict(parse_pickle(data))
        except ValueError as error:
            if data.startswith(PICKLE):
                raise
            raise ValueError(f"it is no npz or npy file, and {error}") from error
    if isinstance(values.get("info"), dict):
        values = {**values["info"], **values}
    return _regions(img_id, _Values(values))


def image_name(name: str) -> str:
    """The image's name in that of a file or key: without directories, and suffixes of files of arrays and pictures."""
    stem = name.rpartition("/")[2]
    for suffix in (".npz", ".npy", *PICTURES):
        if stem.lower().endswith(suffix):
            stem = stem[: -len(suffix)]
    return stem


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected a dict of arrays, got {type(value).__name__}")
    return value


def _regions(img_id: str, values: "_Values") -> RegionFeatures:
    count = values.number("num_boxes") if values.has("num_boxes") else None
    features = values.array("features", "<f4", count)
    if features.ndim == 2 and count is not None and len(features) != count == features.shape[1]:
        features = features.T  # OpenVQA's files are [D, N]
    boxes = values.array("boxes", "<f4", count)
    if count is not None and count > len(boxes):
        raise ValueError(f"it says that it has {count} boxes, but there are {len(boxes)}")
    labels = {}
    if all(values.has(name) for name in LABELS):  # some alone are of no use
        labels = {name: values.array(name, STORED[name]).reshape(-1)[:count] for name in LABELS}
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite then, and refused
        regions = RegionFeatures(
            img_id=img_id,
            img_h=values.number("img_h"),
            img_w=values.number("img_w"),
            boxes=np.ascontiguousarray(boxes[:count], np.float32),
            features=np.ascontiguousarray(features[:count], np.float32),
            **{name: labels.get(name) for name in LABELS},
        )
    check_regions(regions)
    return regions


class _Values:
    """What a file has of an image, under the names that extractors give it."""

    def __init__(self, values: Mapping[str, Any]):
        self.values = values

    def has(self, what: str) -> bool:
        return any(name in self.values for name in NAMES[what])

    def number(self, what: str) -> int:
        name, value = self._find(what)
        number = np.asarray(value) if isinstance(value, int | float | np.ndarray) else np.array("")
        if number.size != 1 or number.dtype.kind not in "iuf" or not 1 <= number.item() < 2**31 or number.item() % 1:
            raise ValueError(f"{name} must be a whole number above 0, got {str(value)[:40]}")
        return int(number.item())

    def array(self, what: str, dtype: str, count: int | None = None) -> np.ndarray:
        """An array, also where it is written as base64, then of this dtype and of `count` rows."""
        name, value = self._find(what)
        if isinstance(value, str | bytes):
            try:
                array = np.frombuffer(base64.b64decode(value, validate=True), dtype)
                value = array if count is None else array.reshape(count, -1)
            except (binascii.Error, ValueError) as error:
                raise ValueError(f"{name} is not base64 of {np.dtype(dtype)}: {error}") from error
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf" or not value.ndim:
            raise ValueError(f"{name} must be an array of numbers, got {getattr(value, 'dtype', type(value).__name__)}")
        return value

    def _find(self, what: str) -> tuple[str, Any]:
        for name in NAMES[what]:
            if name in self.values:
                return name, self.values[name]
        have = ", ".join(sorted(self.values)[:12]) or "nothing"
        raise ValueError(f"there is no {' or '.join(NAMES[what])}; it has {have}")
