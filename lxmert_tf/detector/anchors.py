"""Anchors: the boxes that the region proposal network moves, in every cell of a feature map."""

import itertools

import numpy as np

from lxmert_tf.detector.configuration import STRIDE, DetectorConfig


def cell_anchors(config: DetectorConfig, is_caffe: bool) -> np.ndarray:
    """float32[A, 4], x1, y1, x2, y2 of the anchors of the first cell; all ratios of a size before the next size.

    Caffe's are rounded and off the centre: of a square of 16 pixels whose corners are pixels, sides are drawn for each
    ratio, rounded, and then multiplied.
    """
    pairs = itertools.product(config.anchor_sizes, config.anchor_ratios)
    if not is_caffe:
        sides = [(np.sqrt(size**2 / ratio), ratio * np.sqrt(size**2 / ratio)) for size, ratio in pairs]
        return np.array([(-w / 2, -h / 2, w / 2, h / 2) for w, h in sides], "float32")
    boxes, centre = [], (STRIDE - 1) / 2
    for size, ratio in pairs:
        width = np.round(np.sqrt(STRIDE**2 / ratio))
        half = (np.array([width, np.round(width * ratio)]) * size / STRIDE - 1) / 2
        boxes.append([*(centre - half), *(centre + half)])
    return np.array(boxes, "float32")


def roi_bins(longest: int, bins: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Where the bins of a pooled region start and end.

    A table, since it has to be computed in a floating dtype exactly as upstream does: for 57 or 62 cells, say, the
    integers' bins are others, and compilers turn a division by 14 into a multiplication, which moves them as well.

    Args:
        longest: cells of the longest region.
        bins: into which a side is divided.
        dtype: "float32" or "float64".

    Returns:
        int32[longest + 1, bins] each: the first cell of a bin and that after its last one, by the cells of the region.
    """
    share = np.arange(longest + 1).astype(dtype) / np.array(bins, dtype)
    numbers = np.arange(bins + 1).astype(dtype)
    edges = numbers[None] * share[:, None]
    return np.floor(edges[:, :-1]).astype("int32"), np.ceil(edges[:, 1:]).astype("int32")
