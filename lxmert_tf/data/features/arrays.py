"""The arrays of a feature file by purpose, each checked to have the shape that matches its boxes to images.

Shapes: M images. The features say how boxes are laid out: `[R, D]`, the R boxes of all images one after the other, or
`[M, N, D]`, N places for each image. Every other array of boxes has the same axes before its last, or R = M * N rows.
"""

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np

from lxmert_tf.data.features.rows import ArrayRows, Rows

# The first name is the one that we write.
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
PER_IMAGE = ("spans", "num_boxes", "img_ids", "img_w", "img_h")  # small enough for memory


class Arrays:
    """The arrays of one file.

    Args:
        path: of the file, for errors.
        stored: name in the file -> rows, or an array in memory.

    Every method raises ValueError, with the array's name in the file, where an array has a wrong shape or type.
    """

    def __init__(self, path: str, stored: Mapping[str, Rows | np.ndarray]):
        self.path, self._stored = path, stored

    def name(self, what: str) -> str | None:
        """The name under which the file has it, or None."""
        return next((alias for alias in NAMES[what] if alias in self._stored), None)

    def names(self) -> list[str]:
        """The images' names, all different."""
        name = self._require("img_ids", "names of images")
        array = self._stored[name]
        if not isinstance(array, np.ndarray) or array.ndim != 1:
            raise self._shape_error(name, "[M]")
        if array.dtype.kind not in "SUOiu":
            raise ValueError(f"{self.path}: {name} must hold text or whole numbers, got {array.dtype}")
        try:
            texts = [each.decode("utf-8") if isinstance(each, bytes) else str(each) for each in array]
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: {name} is not UTF-8: {error}") from error
        if len(set(texts)) < len(texts):
            twice = Counter(texts).most_common(1)[0][0]
            raise ValueError(f"{self.path} has the image {twice!r} twice")
        return texts

    def features(self) -> Rows:
        """`[R, D]` or `[M, N, D]`."""
        name = self._require("features", "features")
        array = self._stored[name]
        if array.dtype.kind != "f":
            raise ValueError(f"{self.path}: features must be float32 or float16, got {array.dtype} in {name}")
        if len(array.shape) not in (2, 3) or 0 in array.shape[1:]:
            raise self._shape_error(name, "[R, D] or [M, N, D], N and D above 0")
        return _rows(array)

    def boxes(self, what: str, axes: tuple[int, ...]) -> Rows:
        """`[*axes, 4 or more]` or `[R, 4 or more]`, x1 y1 x2 y2; `axes` are those of the features."""
        name = self._require(what, "boxes")
        array = self._numbers(name)
        expected = f"[{', '.join(map(str, axes))}, 4]"
        if len(array.shape) > 1 and array.shape[-1] < 4:
            complaint = f"{name} must have 4 values x1 y1 x2 y2, got {array.shape[-1]}"
            raise ValueError(f"{self.path}: {complaint}: expected the shape {expected}, got {list(array.shape)}")
        if array.shape[:-1] not in (axes, (math.prod(axes),)):
            raise self._layout_error(name, axes, expected)
        return _rows(array)

    def labels(self, what: str, axes: tuple[int, ...]) -> Rows | None:
        """`[*axes]` or `[R]`, with or without an axis of 1, as rows of one value, or None."""
        if (name := self.name(what)) is None:
            return None
        array = self._numbers(name)
        if not {array.shape, (*array.shape, 1)} & {(*axes, 1), (math.prod(axes), 1)}:
            raise self._layout_error(name, axes, f"{list(axes)} or {[*axes, 1]}")
        return _rows(array).flattened()

    def column(self, what: str, images: int) -> np.ndarray | None:
        """Numbers `[M]` or `[M, 1]`, or one for all images, as `[M]`; or None."""
        if (name := self.name(what)) is None:
            return None
        array = self._numbers(name)
        if array.shape not in ((images,), (images, 1), ()):
            raise self._shape_error(name, f"[{images}]")
        return np.broadcast_to(_in_memory(array).reshape(-1), images)

    def counts(self, images: int) -> np.ndarray | None:
        """`int64[M]`, the boxes of each image, or None."""
        counts = self.column("num_boxes", images)
        return None if counts is None else self._integers("num_boxes", counts)

    def spans(self, images: int) -> np.ndarray:
        """`int64[M, 2]`, the first row of each image and the row after its last."""
        name = self._require("spans", "rows of images")
        array = self._numbers(name)
        if array.shape != (images, 2):
            raise self._shape_error(name, f"[{images}, 2]")
        return self._integers("spans", _in_memory(array))

    def _integers(self, what: str, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind == "f":
            raise ValueError(f"{self.path}: {self.name(what)} must hold integers, got {array.dtype}")
        return array.astype(np.int64)

    def _require(self, what: str, noun: str) -> str:
        if (name := self.name(what)) is None:
            raise ValueError(f"{self.path} has no {noun}: expected an array named {' or '.join(NAMES[what])}")
        return name

    def _numbers(self, name: str) -> Rows | np.ndarray:
        array = self._stored[name]
        if array.dtype.kind not in "iuf":
            raise ValueError(f"{self.path}: {name} must hold numbers, got {array.dtype}")
        return array

    def _shape_error(self, name: str, expected: str) -> ValueError:
        got = list(self._stored[name].shape)
        return ValueError(f"{self.path}: {name} must have the shape {expected}, got {got}")

    def _layout_error(self, name: str, axes: tuple[int, ...], expected: str) -> ValueError:
        shape, features = self._stored[name].shape, self.name("features")
        got, wanted = math.prod(shape[: len(axes)]), math.prod(axes)
        difference = (
            f"has {got} rows, but features has {wanted}" if got != wanted else f"has other axes than {features}"
        )
        return ValueError(f"{self.path}: {name} {difference}: expected the shape {expected}, got {list(shape)}")


def _rows(array: Rows | np.ndarray) -> Rows:
    return ArrayRows(array) if isinstance(array, np.ndarray) else array


def _in_memory(array: Rows | np.ndarray) -> np.ndarray:
    """The whole array."""
    if isinstance(array, np.ndarray):
        return array
    out = np.empty((array.count, array.width), array.dtype)
    array.read(0, out)
    return out
