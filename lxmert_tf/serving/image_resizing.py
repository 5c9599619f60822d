"""Pictures resized as a pipeline's program does, in a graph: what `lxmert_tf.detector.image_processor` does in Python.

The operations are the same, one for one, so that the numbers are.
"""

from typing import NamedTuple

import tensorflow as tf

from lxmert_tf.detector.configuration import DetectorConfig
from lxmert_tf.detector.image_processor import SMALLEST
from lxmert_tf.detector.pipelines import Pipeline
from lxmert_tf.serving.image_decoding import checked_image

BITS = 22  # of the fractions that Pillow resizes with


class Resized(NamedTuple):
    """A picture as `FasterRCNN.call` takes it: float32[h, w, 3], int32[2], int32[2], float32[2]."""

    pixels: tf.Tensor
    size: tf.Tensor
    picture_size: tf.Tensor
    scales: tf.Tensor


def resize_image(image: tf.Tensor, config: DetectorConfig, pipeline: Pipeline, place: tf.Tensor | str = "0") -> Resized:
    """A picture, uint8[h, w, 3] of red, green and blue, as the network takes it; `place` as of `decode_image`.

    Raises:
        tf.errors.InvalidArgumentError: when the graph runs, where the picture is too narrow.
    """
    picture_size = tf.shape(image)[:2]
    size, scales = resized_size(picture_size, pipeline)
    narrow = f"must be wider: resized, it has less than {SMALLEST} pixels in one direction, got "
    sides = picture_size[1], "x", picture_size[0]
    colours = checked_image(image[:, :, ::-1], tf.reduce_min(size) >= SMALLEST, place, narrow, *sides)
    mean, std = tf.constant(config.pixel_mean, tf.float32), tf.constant(config.pixel_std, tf.float32)
    if pipeline.name.startswith("detectron2"):
        pixels = (tf.cast(resize_antialiased(colours, size), tf.float32) - mean) / std
    elif pipeline.is_caffe:
        pixels = resize_bilinear((tf.cast(colours, tf.float32) - mean) / std, size, scales)
    else:
        pixels = (resize_bilinear(tf.cast(colours, tf.float32), size, tf.cast(scales, tf.float32)) - mean) / std
    return Resized(pixels, size, picture_size, tf.cast(scales, tf.float32))


def resized_size(size: tf.Tensor, pipeline: Pipeline) -> tuple[tf.Tensor, tf.Tensor]:
    """int32[2] and float64[2] of int32[2]: the height and width that it is resized to, and the scales from there."""
    sides = tf.cast(size, tf.float64)
    shorter, longer = tf.reduce_min(sides), tf.reduce_max(sides)
    smallest, largest = (tf.constant(number, tf.float64) for number in (pipeline.min_size, pipeline.max_size))
    scale = smallest / shorter
    if pipeline.is_caffe:
        scale = tf.where(tf.round(scale * longer) > largest, largest / longer, scale)
        return tf.cast(tf.round(sides * scale), tf.int32), tf.stack([1 / scale, 1 / scale])
    new = tf.where(sides > shorter, scale * sides, smallest)
    longest = tf.reduce_max(new)
    new = tf.where(longest > largest, new * (largest / longest), new)
    new = tf.maximum(tf.floor(new + 0.5), 1.0)
    return tf.cast(new, tf.int32), sides / new


def resize_bilinear(image: tf.Tensor, size: tf.Tensor, scales: tf.Tensor) -> tf.Tensor:
    """float32[h', w', C] of float32[h, w, C], without antialiasing; in the precision of the scales."""
    rows, row_shares = _sources(size[0], tf.shape(image)[0], scales[0])
    columns, column_shares = _sources(size[1], tf.shape(image)[1], scales[1])
    down = column_shares[:, None]
    halves = []
    for each in rows:
        line = tf.gather(image, each)
        left, right = (tf.gather(line, column, axis=1) for column in columns)
        halves.append((1 - down) * left + down * right)
    across = row_shares[:, None, None]
    return (1 - across) * halves[0] + across * halves[1]


def _sources(new: tf.Tensor, old: tf.Tensor, scale: tf.Tensor) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor]:
    """The two pixels that each new one lies between, and the share of the second: float32[new]."""
    half, last = tf.constant(0.5, scale.dtype), tf.cast(old - 1, scale.dtype)
    places = tf.clip_by_value((tf.cast(tf.range(new), scale.dtype) + half) * scale - half, 0, last)
    first = tf.floor(places)
    rows = tf.cast(first, tf.int32)
    return (rows, tf.minimum(rows + 1, old - 1)), tf.cast(places - first, tf.float32)


def resize_antialiased(image: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """uint8[h', w', C] of uint8[h, w, C], as Pillow does it: first across, then down, each in whole numbers."""
    for axis in (1, 0):
        image = _resize_axis(image, size[axis], axis)
    return image


def _resize_axis(image: tf.Tensor, new: tf.Tensor, axis: int) -> tf.Tensor:
    old = tf.shape(image)[axis]
    scale = tf.cast(old, tf.float64) / tf.cast(new, tf.float64)
    reach = tf.maximum(scale, 1.0)  # of the triangle around a new pixel, in old ones
    centres = (tf.cast(tf.range(new), tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(centres - reach + 0.5, tf.int32), 0)
    last = tf.minimum(tf.cast(centres + reach + 0.5, tf.int32), old)
    places = first[:, None] + tf.range(2 * tf.cast(tf.math.ceil(reach), tf.int32) + 1)
    distances = tf.abs((tf.cast(places, tf.float64) - centres[:, None] + 0.5) / reach)
    weights = tf.where(places < last[:, None], tf.maximum(1.0 - distances, 0.0), tf.zeros([], tf.float64))
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    weights = tf.cast(tf.floor(weights * (1 << BITS) + 0.5), tf.int32)
    places = tf.minimum(places, old - 1)
    along = (-1, 1, 1) if axis == 0 else (1, -1, 1)

    def add(step: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        part = tf.cast(tf.gather(image, places[:, step], axis=axis), tf.int32)
        return step + 1, total + part * tf.reshape(weights[:, step], along)

    shape = tf.tensor_scatter_nd_update(tf.shape(image), [[axis]], [new])
    start = tf.constant(0), tf.fill(shape, 1 << (BITS - 1))
    free = tf.TensorShape([None, None, image.shape[2]])
    start = start[0], tf.ensure_shape(start[1], free)
    total = tf.while_loop(lambda step, _: step < tf.shape(places)[1], add, start, (tf.TensorShape([]), free))[1]
    return tf.cast(tf.clip_by_value(tf.bitwise.right_shift(total, BITS), 0, 255), tf.uint8)
