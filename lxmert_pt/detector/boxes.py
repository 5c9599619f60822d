"""Geometry of boxes x1, y1, x2, y2, in at least float32."""

import math

import torch

from lxmert_tf.detector.configuration import STRIDE

LARGEST_GROWTH = math.log(1000 / 16)  # of the logarithm of a side


def box_dtype(x: torch.Tensor) -> torch.dtype:
    """The dtype that boxes are computed in where tensors are of the dtype of `x`."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def grid_of_anchors(cells: torch.Tensor, height: int, width: int, offset: float) -> torch.Tensor:
    """float[height * width * A, 4], the anchors of all cells of a feature map, row by row.

    Args:
        cells: float[A, 4], those of the first cell.
        height, width: of the feature map.
        offset: of all anchors, in cells.
    """
    shift_x = (torch.arange(width, device=cells.device) + offset) * STRIDE
    shift_y = (torch.arange(height, device=cells.device) + offset) * STRIDE
    y, x = torch.meshgrid(shift_y, shift_x, indexing="ij")
    shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4).to(cells.dtype)
    return (shifts + cells).reshape(-1, 4)


def decode(boxes: torch.Tensor, deltas: torch.Tensor, weights: tuple[float, ...], is_caffe: bool) -> torch.Tensor:
    """float[..., 4], boxes moved and stretched by regressed deltas.

    Args:
        boxes: float[..., 4].
        deltas: float[..., 4]: of the centre, in sides, and of the logarithm of the sides.
        weights: what the deltas are divided by.
        is_caffe: sides are counted in pixels, and may grow without bound.
    """
    sides = boxes[..., 2:] - boxes[..., :2] + (1.0 if is_caffe else 0.0)
    centres = boxes[..., :2] + 0.5 * sides
    deltas = deltas / deltas.new_tensor(weights)
    growth = deltas[..., 2:] if is_caffe else deltas[..., 2:].clamp(max=LARGEST_GROWTH)
    centres, halves = deltas[..., :2] * sides + centres, 0.5 * growth.exp() * sides
    return torch.cat([centres - halves, centres + halves], dim=-1)


def clip(boxes: torch.Tensor, size: tuple[int, int], is_caffe: bool) -> torch.Tensor:
    """float[..., 4], the part of boxes inside a picture of this height and width; Caffe's ends at its last pixel."""
    largest = boxes.new_tensor([size[1], size[0], size[1], size[0]]) - (1.0 if is_caffe else 0.0)
    return torch.minimum(boxes.clamp(min=0.0), largest)


def overlaps(a: torch.Tensor, b: torch.Tensor, is_caffe: bool) -> torch.Tensor:
    """float[G, N], the intersection over union of each of a: float[G, 4] with each of b: float[N, 4].

    Sides are x2 - x1, or one pixel more for Caffe. It is not a number for two boxes without area.
    """
    extra = 1.0 if is_caffe else 0.0
    a, b = a[:, None], b[None]
    sides = torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2]) + extra
    shared = sides.clamp(min=0.0).prod(dim=-1)
    return shared / ((a[..., 2:] - a[..., :2] + extra).prod(-1) + (b[..., 2:] - b[..., :2] + extra).prod(-1) - shared)
