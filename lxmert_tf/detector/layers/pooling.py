"""RoI pooling: the maxima of a feature map in the bins of regions, exactly as Caffe and torchvision draw them."""

import math

from keras import ops

from lxmert_tf.detector.anchors import roi_bins
from lxmert_tf.detector.boxes import box_dtype
from lxmert_tf.detector.configuration import STRIDE


class RoiPooling:
    """Regions of one feature map, pooled: boxes float[R, 4] -> float[R, bins, bins, C].

    The maxima over all windows of 1, 2, 4, ... rows and columns are made once; any bin is then the maximum of four of
    them, which may overlap.

    Args:
        feature_map: float[H, W, C], at least 0.
        bins: into which the sides of a region are divided.
        longest: an upper bound of H and W, which may be unknown where the program is compiled.
    """

    def __init__(self, feature_map, bins: int, longest: int):
        self.bins, self.longest = bins, longest
        widest = -(-(longest + 1) // bins) + 1  # cells of a bin
        self.levels = int(math.log2(widest)) + 1
        height, width, channels = ops.shape(feature_map)
        self.height, self.width, self.dtype = height, width, feature_map.dtype
        windows = [columns for rows in self._doubled(feature_map, 0) for columns in self._doubled(rows, 1)]
        self.windows = ops.reshape(ops.stack(windows), (-1, channels))

    def _doubled(self, x, axis: int) -> list:
        """x: [H, W, C], and the maxima of 2, 4, ... cells along an axis from each on; beyond the map they are 0."""
        maxima = [x]
        for level in range(self.levels - 1):
            step = 1 << level
            padding = [[0, step] if each == axis else [0, 0] for each in range(3)]
            shifted = ops.pad(maxima[-1], padding)
            shifted = shifted[step:] if axis == 0 else shifted[:, step:]
            maxima.append(ops.maximum(maxima[-1], shifted))
        return maxima

    def __call__(self, boxes):
        kind = box_dtype(boxes)
        edges = ops.cast(boxes, kind) / STRIDE  # exact: a power of 2
        edges = ops.floor(edges) + ops.cast(edges - ops.floor(edges) >= 0.5, kind)  # C's rounding, from 0 on
        edges = ops.cast(edges, "int32")
        rows = self._bins(edges[:, 1], edges[:, 3], self.height, kind)
        columns = self._bins(edges[:, 0], edges[:, 2], self.width, kind)
        (row_level, top, bottom, rows_empty), (column_level, left, right, columns_empty) = rows, columns
        plane = ops.expand_dims(row_level, 2) * self.levels + ops.expand_dims(column_level, 1)
        pooled = None
        for row in (top, bottom):
            for column in (left, right):
                place = (plane * self.height + ops.expand_dims(row, 2)) * self.width + ops.expand_dims(column, 1)
                window = ops.take(self.windows, place, axis=0)
                pooled = window if pooled is None else ops.maximum(pooled, window)
        empty = ops.logical_or(ops.expand_dims(rows_empty, 2), ops.expand_dims(columns_empty, 1))
        return ops.where(ops.expand_dims(empty, 3), ops.zeros((), self.dtype), pooled)

    def _bins(self, first, last, size, kind: str):
        """Of the bins [R, bins] between cells first and last: int32[R]: level, starts of the two windows, emptiness."""
        cells = ops.clip(last - first + 1, 1, self.longest + 1)
        starts, ends = (
            ops.clip(ops.take(table, cells, axis=0) + ops.expand_dims(first, 1), 0, size)
            for table in map(ops.convert_to_tensor, roi_bins(self.longest + 1, self.bins, kind))
        )
        length = ends - starts
        level = sum(
            (ops.cast(length >= (1 << each), "int32") for each in range(1, self.levels)), ops.zeros_like(length)
        )
        window = ops.take(ops.convert_to_tensor([1 << each for each in range(self.levels)], "int32"), level, axis=0)
        starts = ops.minimum(starts, size - 1)
        return level, starts, ops.maximum(ends - window, 0), length <= 0
