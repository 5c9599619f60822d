"""Region features of many images, read at random from one file without holding them in memory.

Shapes: B images asked for, N boxes of the one with the most, D feature dimension.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from lxmert_tf.data.features.layout import NORMALIZED, PIXELS, read_layout
from lxmert_tf.data.features.regions import LABELS, ROUNDING
from lxmert_tf.data.features.rows import BINARY


class UnknownImageError(KeyError, ValueError):
    """An image has no region features."""

    __str__ = Exception.__str__  # KeyError's puts the message in quotes


def open_features(path: str | os.PathLike) -> "FeatureStore":
    """Opens region features for random access.

    Args:
        path: an HDF5 or npz file in the layout of docs/data.md, such as `lxmert-tf features build` writes.

    Raises:
        FileNotFoundError: there is no such file.
        IsADirectoryError: `path` is a directory.
        ValueError: the file is a TSV, is damaged, or has another layout.
    """
    return FeatureStore(path)


class FeatureStore:
    """The region features of one file.

    Only the names and offsets of the images are in memory. Threads, forked processes and several programs may read at
    once; unpickled, it opens its file anew.

    Attributes:
        path: of the file.
        img_ids: the images' names, in the order of the file.
        feat_dim: D.
        min_boxes, max_boxes: boxes of the images with the fewest and the most.
        has_labels: whether there are object and attribute classes, as pretraining needs.
        box_format: as stored, "x1 y1 x2 y2 in pixels" or "... in 0..1"; `read` returns the latter.
        provenance: extractor, sources with their sha256, and more, as stored.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        if not os.path.exists(self.path) and os.path.exists(self.path + ".partial"):
            raise FileNotFoundError(
                f"{self.path} is not finished: run the same lxmert-tf features command again, which resumes from "
                f"{self.path}.partial"
            )
        if os.path.isdir(self.path):
            raise IsADirectoryError(
                f"{self.path} is a directory, which has no fast access; build a file that has: "
                f"lxmert-tf features build {self.path} FILE.h5"
            )
        self._descriptor = os.open(self.path, os.O_RDONLY | BINARY)
        try:
            layout = read_layout(self.path, self._descriptor)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._layout = layout
        self._row = {name: row for row, name in enumerate(layout.img_ids)}
        counts = layout.ends - layout.starts
        self.img_ids: tuple[str, ...] = tuple(layout.img_ids)
        self.feat_dim: int = layout.features.width
        self.dtype = layout.features.dtype
        self.num_boxes: int = int(counts.sum())
        self.min_boxes, self.max_boxes = (int(counts.min()), int(counts.max())) if len(counts) else (0, 0)
        self.has_labels: bool = set(layout.labels) == set(LABELS)
        self.box_format: str = NORMALIZED if layout.sizes is None else PIXELS
        self.provenance: dict[str, Any] = layout.provenance

    def __len__(self) -> int:
        return len(self.img_ids)

    def __contains__(self, img_id: str) -> bool:
        return img_id in self._row

    def __reduce__(self) -> tuple:
        return FeatureStore, (self.path,)

    def __del__(self) -> None:
        if hasattr(self, "_layout"):
            os.close(self._descriptor)

    def rows(self, img_ids: Sequence[str]) -> np.ndarray:
        """`int64[B]`, the index of each image in the file; UnknownImageError if one has no features."""
        if isinstance(img_ids, str):
            raise TypeError(f"img_ids must be a list of names, got the text {img_ids!r}; give [{img_ids!r}].")
        try:
            return np.array([self._row[img_id] for img_id in img_ids], np.int64)
        except KeyError as error:
            raise UnknownImageError(
                f"image {error.args[0]!r} has no region features in {self.path}, which has {len(self):,} images"
            ) from None

    def size(self, img_id: str) -> tuple[int, int] | None:
        """Height and width of an image in pixels; None where the file does not tell.

        Raises:
            UnknownImageError: the image has no region features.
        """
        row = int(self.rows([img_id])[0])
        if self._layout.sizes is None:
            return None
        width, height = self._layout.sizes[row]
        return int(height), int(width)

    def read(self, img_ids: Sequence[str], labels: bool = True) -> dict[str, np.ndarray]:
        """The features of these images, padded with zeros to the one with the most boxes.

        Args:
            img_ids: B names; the same one may come several times.
            labels: also the detector's classes, where the file has them.

        Returns:
            visual_feats `float32[B, N, D]`, visual_pos `float32[B, N, 4]` in 0..1, visual_attention_mask `int32[B, N]`
            (1 for boxes, 0 for padding); objects_id, attrs_id `int32[B, N]`, objects_conf, attrs_conf
            `float32[B, N]`.

        Raises:
            UnknownImageError: an image has no region features.
            ValueError: a box is outside its image, or a class is not an integer of int32.
        """
        return self.read_rows(self.rows(img_ids), labels)

    def read_rows(self, rows: np.ndarray, labels: bool = True) -> dict[str, np.ndarray]:
        """`read` for images by their index in the file, as `rows` returns it."""
        layout, rows = self._layout, np.asarray(rows, np.int64)
        starts = layout.starts[rows]
        counts = layout.ends[rows] - starts
        boxes = int(counts.max()) if len(counts) else 0
        shape = len(rows), boxes
        arrays = {
            "visual_feats": np.empty((*shape, self.feat_dim), np.float32),
            "visual_pos": np.zeros((*shape, layout.boxes.width), np.float32),
            "visual_attention_mask": (np.arange(boxes) < counts[:, None]).astype(np.int32),
        }
        sources = {"visual_feats": layout.features, "visual_pos": layout.boxes}
        for name, found in layout.labels.items() if labels else ():
            sources[name] = found
            arrays[name] = np.zeros((*shape, 1), found.dtype if name.endswith("_id") else np.float32)
        for index in np.argsort(starts):  # in the order of the file, which is fast on disks
            start, count = starts[index], counts[index]
            for name, source in sources.items():
                source.read(start, arrays[name][index, :count])
            arrays["visual_feats"][index, count:] = 0
        arrays["visual_pos"] = self._normalized(arrays["visual_pos"][..., :4], rows)
        for name in layout.labels if labels else ():
            values = arrays[name][..., 0]
            arrays[name] = self._classes(name, values, rows) if name.endswith("_id") else values
        return arrays

    def boxes_in_pixels(self, row: int) -> np.ndarray:
        """float32[N, 4], x1 y1 x2 y2 of the boxes of one image, as stored.

        Raises:
            ValueError: they are in 0..1.
        """
        if self._layout.sizes is None:
            raise ValueError(f"{self.path} has boxes in 0..1, not in pixels, and not the sizes of the images.")
        start, end = self._layout.starts[row], self._layout.ends[row]
        boxes = np.empty((end - start, self._layout.boxes.width), np.float32)
        self._layout.boxes.read(start, boxes)
        return boxes[:, :4]

    def read_boxes(self, rows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """The features of single boxes.

        Args:
            rows: `int[K]`, indices of images.
            boxes: `float[K]` in 0..1, which of the image's boxes: 0 the first, just below 1 the last.

        Returns:
            `float32[K, D]`.
        """
        starts, counts = self._layout.starts[rows], (self._layout.ends - self._layout.starts)[rows]
        out = np.empty((len(starts), self.feat_dim), np.float32)
        for index, row in enumerate(starts + (boxes * counts).astype(np.int64)):
            self._layout.features.read(row, out[index : index + 1])
        return out

    def _normalized(self, boxes: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Boxes `[B, N, 4]` of these images, in 0..1."""
        if self._layout.sizes is not None:
            sizes = self._layout.sizes[rows].astype(np.float32)
            divided = (boxes.max(axis=(1, 2), initial=0) <= 1) & (sizes.min(axis=1) > 1)
            if divided.any():
                img_id = self.img_ids[rows[np.argmax(divided)]]
                raise ValueError(
                    f"{self.path}, image {img_id!r}: all boxes lie within the first pixel. If they are already divided "
                    "by img_w and img_h, the file must not have these"
                )
            boxes = boxes / np.tile(sizes, 2)[:, None]
        inside = ((boxes >= -ROUNDING) & (boxes <= 1 + ROUNDING)).all(axis=(1, 2))  # NaN fails too
        if not inside.all():
            bad = int(np.argmin(inside))
            img_id = self.img_ids[rows[bad]]
            if self._layout.sizes is None:
                raise ValueError(
                    f"{self.path}, image {img_id!r}: boxes must lie in 0..1, got {boxes[bad].max():g}; for boxes in "
                    "pixels the file must have img_w and img_h"
                )
            raise ValueError(f"{self.path}, image {img_id!r}: a box is outside the image's width and height")
        return np.clip(boxes, 0, 1)

    def _classes(self, name: str, stored: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Classes `[B, N]` of these images as int32."""
        with np.errstate(invalid="ignore"):
            classes = stored.astype(np.int32)
        if (wrong := classes != stored).any():  # NaN fails too
            bad, box = np.argwhere(wrong)[0]
            raise ValueError(
                f"{self.path}, image {self.img_ids[rows[bad]]!r}: {name} must be integers of int32, "
                f"got {stored[bad, box]}"
            )
        return classes
