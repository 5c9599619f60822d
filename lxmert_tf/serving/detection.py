"""From the bytes of pictures to what a model takes of them, in a graph: decoding, resizing and the detector."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import tensorflow as tf

from lxmert_tf.detector.image_processor import MAX_PIXELS
from lxmert_tf.detector.layers.primitives import Block, NormalizedConvolution
from lxmert_tf.detector.pipelines import Pipeline
from lxmert_tf.serving.image_decoding import checked_image, decode_image
from lxmert_tf.serving.image_resizing import resize_image

if TYPE_CHECKING:
    from lxmert_tf.detector import FasterRCNN


class Detection:
    """A detector as signatures use it.

    Args:
        detector: in float32, whatever the precision of the model: half of it changes which boxes are found. Its
            normalisations are folded, and it can only compute from here on.
        pipeline: from picture to boxes.
        num_images: pictures of an example.
        max_pixels: larger pictures are refused.

    Attributes:
        spec: of the images: string[B], or string[B, num_images].
        find: a traced function of them, which gives `visual_feats`, `visual_pos` and `visual_attention_mask`.
        weights: the detector's.
    """

    def __init__(self, detector: "FasterRCNN", pipeline: Pipeline, num_images: int = 1, max_pixels: int = MAX_PIXELS):
        self.detector, self.pipeline, self.max_pixels, self.num_images = detector, pipeline, max_pixels, num_images
        self.weights = fold_normalizations(detector)
        shape = (None,) if num_images == 1 else (None, num_images)
        self.spec = tf.TensorSpec(shape, tf.string, "images")
        self.find = tf.function(self._find, input_signature=[self.spec], autograph=False)

    def _find(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The visual inputs of string[B] or string[B, images]: one picture after the other, equal ones once."""
        different, place = tf.unique(tf.reshape(images, [-1]))
        first = tf.math.unsorted_segment_min(tf.range(tf.size(place)), place, tf.size(different))
        indices = tf.transpose(tf.unravel_index(first, tf.shape(images)))
        named = tf.strings.reduce_join(tf.strings.as_string(indices), axis=1, separator=", ")
        boxes, width = self.pipeline.max_boxes, self.detector.config.feature_size
        specs = {
            "visual_feats": tf.TensorSpec((boxes, width), tf.float32),
            "visual_pos": tf.TensorSpec((boxes, 4), tf.float32),
            "visual_attention_mask": tf.TensorSpec((boxes,), tf.int32),
        }
        found = tf.map_fn(self._regions, (different, named), fn_output_signature=specs, parallel_iterations=1)
        place = tf.reshape(place, tf.shape(images))
        return {name: tf.gather(value, place) for name, value in found.items()}

    def _regions(self, picture: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The regions of a picture, string[] and its place, filled up to as many as there can be."""
        content, place = picture
        decoded = decode_image(content, self.max_pixels, place)
        image = resize_image(decoded, self.detector.config, self.pipeline, place)
        found = self.detector.call(*image, pipeline=self.pipeline)
        boxes = self.pipeline.max_boxes
        number = tf.shape(found["boxes"])[0]
        none = "must have something that the detector finds, but it proposes no boxes"
        number = checked_image(number, number > 0, place, none)
        padding = [[0, boxes - number], [0, 0]]
        width = self.detector.config.feature_size
        return {
            "visual_feats": tf.ensure_shape(tf.pad(found["features"], padding), (boxes, width)),
            "visual_pos": tf.ensure_shape(tf.pad(found["normalized_boxes"], padding), (boxes, 4)),
            "visual_attention_mask": tf.cast(tf.range(boxes) < number, tf.int32),
        }


class FoldedConvolution:
    """`NormalizedConvolution.fold` of a layer, computed once instead of in every call.

    Args:
        layer: whose weights are replaced.
    """

    def __init__(self, layer: NormalizedConvolution):
        kernel, bias = layer.fold()
        self.replaced = layer.weights
        self.kernel = tf.Variable(kernel, name="folded/kernel")
        self.bias = tf.Variable(bias, name="folded/bias")

    def __call__(self) -> tuple[tf.Variable, tf.Variable]:
        return self.kernel, self.bias


def convolutions(block: Block) -> Iterator[NormalizedConvolution]:
    """The convolutions with a normalisation in a block."""
    for layer in (getattr(block, name) for name in block.parts):
        if isinstance(layer, NormalizedConvolution):
            yield layer
        elif isinstance(layer, Block):
            yield from convolutions(layer)


def fold_normalizations(detector: "FasterRCNN") -> list[tf.Variable]:
    """Folds the normalisations of a detector that from here on only computes; returns all its weights."""
    layers = [*convolutions(detector.backbone), *convolutions(detector.roi_heads)]
    folded = [FoldedConvolution(layer) for layer in layers]
    for layer, convolution in zip(layers, folded, strict=True):
        layer.fold = convolution  # type: ignore[method-assign]
    replaced = {id(weight) for convolution in folded for weight in convolution.replaced}
    weights = [weight.value for weight in detector.weights if id(weight) not in replaced]
    return weights + [weight for convolution in folded for weight in (convolution.kernel, convolution.bias)]
