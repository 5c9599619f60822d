"""Geometry of boxes x1, y1, x2, y2, in at least float32."""

import math

import keras
from keras import ops

from lxmert_tf.detector.configuration import STRIDE

LARGEST_GROWTH = math.log(1000 / 16)  # of the logarithm of a side


def box_dtype(x) -> str:
    """The dtype that boxes are computed in where tensors are of the dtype of `x`."""
    return "float64" if keras.backend.standardize_dtype(x.dtype) == "float64" else "float32"


def grid_of_anchors(cells, height, width, offset: float, dtype: str):
    """float[height * width * A, 4], the anchors of all cells of a feature map, row by row.

    Args:
        cells: float32[A, 4], those of the first cell.
        height, width: of the feature map.
        offset: of all anchors, in cells.
        dtype: of the result.
    """
    shift_x = (ops.cast(ops.arange(width), dtype) + offset) * STRIDE
    shift_y = (ops.cast(ops.arange(height), dtype) + offset) * STRIDE
    y, x = ops.meshgrid(shift_y, shift_x, indexing="ij")
    shifts = ops.reshape(ops.stack([x, y, x, y], axis=-1), (-1, 1, 4))
    return ops.reshape(shifts + ops.cast(cells, dtype), (-1, 4))


def decode(boxes, deltas, weights: tuple[float, ...], is_caffe: bool):
    """float[..., 4], boxes moved and stretched by regressed deltas.

    Args:
        boxes: float[..., 4].
        deltas: float[..., 4], in the dtype of the boxes: of the centre, in sides, and of the logarithm of the sides.
        weights: what the deltas are divided by.
        is_caffe: sides are counted in pixels, and may grow without bound.
    """
    sides = boxes[..., 2:] - boxes[..., :2] + (1.0 if is_caffe else 0.0)
    centres = boxes[..., :2] + 0.5 * sides
    deltas = deltas / ops.convert_to_tensor(weights, deltas.dtype)
    growth = deltas[..., 2:] if is_caffe else ops.minimum(deltas[..., 2:], LARGEST_GROWTH)
    centres, halves = deltas[..., :2] * sides + centres, 0.5 * ops.exp(growth) * sides
    return ops.concatenate([centres - halves, centres + halves], axis=-1)


def clip(boxes, size, is_caffe: bool):
    """float[..., 4], the part of boxes inside a picture; Caffe's ends at its last pixel.

    Args:
        boxes: float[..., 4].
        size: int[2], its height and width.
    """
    height, width = size[0], size[1]
    largest = ops.cast(ops.stack([width, height, width, height]), boxes.dtype) - (1.0 if is_caffe else 0.0)
    return ops.minimum(ops.maximum(boxes, 0.0), largest)


def overlaps(a, b, is_caffe: bool):
    """float[G, N], the intersection over union of each of a: float[G, 4] with each of b: float[N, 4].

    Sides are x2 - x1, or one pixel more for Caffe. It is not a number for two boxes without area.
    """
    extra = 1.0 if is_caffe else 0.0
    a, b = ops.expand_dims(a, 1), ops.expand_dims(b, 0)
    sides = ops.maximum(ops.minimum(a[..., 2:], b[..., 2:]) - ops.maximum(a[..., :2], b[..., :2]) + extra, 0.0)
    shared = sides[..., 0] * sides[..., 1]
    return shared / (_area(a, extra) + _area(b, extra) - shared)


def _area(boxes, extra: float):
    sides = boxes[..., 2:] - boxes[..., :2] + extra
    return sides[..., 0] * sides[..., 1]
