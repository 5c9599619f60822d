"""RoI pooling: the maxima of a feature map in the bins of regions, exactly as Caffe and torchvision draw them."""

import itertools
import math

import torch
import torch.nn.functional as F

from lxmert_pt.detector.boxes import box_dtype
from lxmert_tf.detector.anchors import roi_bins
from lxmert_tf.detector.configuration import STRIDE


class RoiPooling:
    """Regions of one feature map, pooled: boxes float[R, 4] -> float[R, C, bins, bins].

    The maxima over all windows of 1, 2, 4, ... rows and columns are made once; any bin is then the maximum of four of
    them, which may overlap.

    Args:
        feature_map: float[C, H, W], at least 0.
        bins: into which the sides of a region are divided.
    """

    def __init__(self, feature_map: torch.Tensor, bins: int):
        self.bins, (_, self.height, self.width) = bins, feature_map.shape
        self.longest = max(self.height, self.width)
        self.levels = int(math.log2(-(-(self.longest + 1) // bins) + 1)) + 1
        windows = [columns for rows in self._doubled(feature_map, 1) for columns in self._doubled(rows, 2)]
        self.windows = torch.stack(windows).permute(0, 2, 3, 1).flatten(0, 2)  # [windows, C]

    def _doubled(self, x: torch.Tensor, axis: int) -> list[torch.Tensor]:
        """x: [C, H, W], and the maxima of 2, 4, ... cells along an axis from each on; beyond the map they are 0."""
        maxima = [x]
        for level in range(self.levels - 1):
            step, size = 1 << level, x.shape[axis]
            padding = (0, 0, 0, step) if axis == 1 else (0, step)
            maxima.append(torch.maximum(maxima[-1], F.pad(maxima[-1], padding).narrow(axis, step, size)))
        return maxima

    def __call__(self, boxes: torch.Tensor) -> torch.Tensor:
        edges = boxes.to(box_dtype(boxes)) / STRIDE
        edges = (edges.floor() + (edges - edges.floor() >= 0.5)).int()  # C's rounding, from 0 on
        row_level, top, bottom, no_rows = self._bins(edges[:, 1], edges[:, 3], self.height, boxes)
        column_level, left, right, no_columns = self._bins(edges[:, 0], edges[:, 2], self.width, boxes)
        plane = row_level[:, :, None] * self.levels + column_level[:, None]
        places = [
            (plane * self.height + row[:, :, None]) * self.width + column[:, None]
            for row, column in itertools.product((top, bottom), (left, right))
        ]
        pooled = torch.stack([self.windows[place] for place in places]).amax(dim=0)
        empty = no_rows[:, :, None] | no_columns[:, None]
        return pooled.masked_fill(empty[..., None], 0).permute(0, 3, 1, 2)

    def _bins(
        self, first: torch.Tensor, last: torch.Tensor, size: int, boxes: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Of the bins [R, bins] between cells first and last: int32[R]: level, starts of the two windows, emptiness."""
        cells = (last - first + 1).clamp(1, self.longest + 1)
        kind = str(box_dtype(boxes)).removeprefix("torch.")
        starts, ends = (
            (torch.from_numpy(table).to(boxes.device)[cells] + first[:, None]).clamp(0, size)
            for table in roi_bins(self.longest + 1, self.bins, kind)
        )
        length = ends - starts
        level = torch.stack([length >= (1 << each) for each in range(1, self.levels + 1)]).sum(dim=0)
        level = level.clamp(max=self.levels - 1)
        return level, starts.clamp(max=size - 1), (ends - (1 << level)).clamp(min=0), length <= 0
