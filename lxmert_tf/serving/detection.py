"""From the bytes of pictures to what a model takes of them, in a graph: decoding, resizing and the detector."""

from typing import TYPE_CHECKING

import tensorflow as tf

from lxmert_tf.detector.image_processor import MAX_PIXELS
from lxmert_tf.detector.pipelines import Pipeline
from lxmert_tf.serving.image_decoding import decode_image
from lxmert_tf.serving.image_resizing import resize_image

if TYPE_CHECKING:
    from lxmert_tf.detector import FasterRCNN


class Detection:
    """A detector as signatures use it.

    Args:
        detector: in float32, whatever the precision of the model: half of it changes which boxes are found.
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
        self.weights = [weight.value for weight in detector.weights]
        shape = (None,) if num_images == 1 else (None, num_images)
        self.spec = tf.TensorSpec(shape, tf.string, "images")
        self.find = tf.function(self._find, input_signature=[self.spec], autograph=False)

    def _find(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """The visual inputs of string[B] or string[B, images]: one picture after the other, equal ones once."""
        different, place = tf.unique(tf.reshape(images, [-1]))
        boxes, width = self.pipeline.max_boxes, self.detector.config.feature_size
        specs = {
            "visual_feats": tf.TensorSpec((boxes, width), tf.float32),
            "visual_pos": tf.TensorSpec((boxes, 4), tf.float32),
            "visual_attention_mask": tf.TensorSpec((boxes,), tf.int32),
        }
        found = tf.map_fn(self._regions, different, fn_output_signature=specs, parallel_iterations=1)
        place = tf.reshape(place, tf.shape(images))
        return {name: tf.gather(value, place) for name, value in found.items()}

    def _regions(self, content: tf.Tensor) -> dict[str, tf.Tensor]:
        """The regions of a picture, string[], filled up to as many as there can be."""
        image = resize_image(decode_image(content, self.max_pixels), self.detector.config, self.pipeline)
        found = self.detector.call(*image, pipeline=self.pipeline)
        boxes = self.pipeline.max_boxes
        number = tf.shape(found["boxes"])[0]
        padding = [[0, boxes - number], [0, 0]]
        width = self.detector.config.feature_size
        return {
            "visual_feats": tf.ensure_shape(tf.pad(found["features"], padding), (boxes, width)),
            "visual_pos": tf.ensure_shape(tf.pad(found["normalized_boxes"], padding), (boxes, 4)),
            "visual_attention_mask": tf.cast(tf.range(boxes) < number, tf.int32),
        }
