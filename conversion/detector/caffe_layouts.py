"""What tells tensors of Caffe and MILVLG from those of Hugging Face and detectron2, beyond their names.

They count the background first, order anchors by ratio and then by size, give each anchor a score of the background
too, and divide regressed boxes by nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from conversion.names import Shape
from lxmert_tf.detector.configuration import DetectorConfig


class Change(NamedTuple):
    """How a Caffe array becomes a detectron2 one, and back; and the first axis of the Caffe array."""

    forward: Callable[[np.ndarray, DetectorConfig], np.ndarray]
    inverse: Callable[[np.ndarray, DetectorConfig], np.ndarray]
    rows: Callable[[int], int]

    def shape(self, shape: Shape) -> Shape:
        """Of the Caffe array, of that of the other."""
        return (self.rows(shape[0]), *shape[1:])


def _order(config: DetectorConfig) -> np.ndarray:
    """The place of each of detectron2's anchors among Caffe's."""
    sizes, ratios = len(config.anchor_sizes), len(config.anchor_ratios)
    return np.arange(sizes * ratios).reshape(ratios, sizes).T.reshape(-1)


def _objectness(array: np.ndarray, config: DetectorConfig) -> np.ndarray:
    background, foreground = np.split(array, 2)
    return (foreground - background)[_order(config)]


def _two_scores(array: np.ndarray, config: DetectorConfig) -> np.ndarray:
    foreground = array[np.argsort(_order(config))]
    return np.concatenate([np.zeros_like(foreground), foreground])


def _anchors(array: np.ndarray, config: DetectorConfig) -> np.ndarray:
    return _of_each(array)[_order(config)].reshape(array.shape)


def _anchors_by_ratio(array: np.ndarray, config: DetectorConfig) -> np.ndarray:
    return _of_each(array)[np.argsort(_order(config))].reshape(array.shape)


def _boxes(array: np.ndarray, config: DetectorConfig) -> np.ndarray:
    boxes = _of_each(array)[1:]
    scaled = boxes.astype("float64") * _weights(boxes, config)
    return scaled.reshape(-1, *array.shape[1:])


def _plain_boxes(array: np.ndarray, config: DetectorConfig) -> np.ndarray:
    """In float64, from which float32 comes back bit for bit; half of float32's quotients would not."""
    boxes = _of_each(array).astype("float64")
    boxes /= _weights(boxes, config)
    return np.concatenate([np.zeros_like(boxes[:1]), boxes]).reshape(-1, *array.shape[1:])


def _of_each(array: np.ndarray) -> np.ndarray:
    """[4n, ...] -> [n, 4, ...], the four numbers of a box together."""
    return array.reshape(-1, 4, *array.shape[1:])


def _weights(boxes: np.ndarray, config: DetectorConfig) -> np.ndarray:
    return np.array(config.box_weights).reshape(4, *[1] * (boxes.ndim - 2))


CHANGES = {
    "as_is": Change(lambda array, config: array, lambda array, config: array, lambda rows: rows),
    "background": Change(
        lambda array, config: np.roll(array, -1, axis=0),
        lambda array, config: np.roll(array, 1, axis=0),
        lambda rows: rows,
    ),
    "objectness": Change(_objectness, _two_scores, lambda rows: 2 * rows),
    "anchors": Change(_anchors, _anchors_by_ratio, lambda rows: rows),
    "boxes": Change(_boxes, _plain_boxes, lambda rows: rows + 4),
}
