"""What is computed for each region: the fifth stage of the ResNet, and classes, attributes and boxes from its mean."""

from typing import Any

from keras import ops

from lxmert_tf.detector.configuration import DetectorConfig
from lxmert_tf.detector.layers.primitives import Block, Dense, Embedding
from lxmert_tf.detector.layers.resnet import Stage

REGION_OUTPUTS = ("features", "class_logits", "box_deltas", "attribute_logits")


class Predictor(Block):
    """Logits of classes and attributes, and deltas of boxes, from the features of regions.

    The attribute head reads the features and an embedding of the likeliest class, background among them.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig, **kwargs: Any):
        super().__init__(**kwargs)
        classes, features = config.num_classes + 1, config.feature_size
        self.has_attributes = config.num_attributes > 0
        self.add(Dense, features, classes, name="cls_score")
        self.add(Dense, features, 4 * config.num_box_classes, name="bbox_pred")
        if self.has_attributes:
            embedding, hidden = config.class_embedding_size, config.attribute_hidden_size
            self.add(Embedding, classes, embedding, name="cls_embedding")
            self.add(Dense, features + embedding, hidden, name="fc_attr")
            self.add(Dense, hidden, config.num_attributes + 1, name="attr_score")

    def call(self, features) -> dict:
        """float[R, F] -> a dict of class_logits float[R, classes + 1], box_deltas float[R, 4 * classes] and perhaps
        attribute_logits float[R, attributes + 1]; backgrounds are last
        """
        logits = self.cls_score(features)
        output = {"class_logits": logits, "box_deltas": self.bbox_pred(features)}
        if self.has_attributes:
            embedded = self.cls_embedding(ops.argmax(logits, axis=-1))
            hidden = ops.relu(self.fc_attr(ops.concatenate([features, embedded], axis=-1)))
            output["attribute_logits"] = self.attr_score(hidden)
        return output


class RoiHeads(Block):
    """The features of pooled regions, and what `Predictor` makes of them.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.add(Stage, config, 5, name="res5", dilation=2)
        self.add(Predictor, config, name="box_predictor")

    def call(self, pooled) -> dict:
        """float[R, bins, bins, C] -> a dict of features float[R, F] and those of `Predictor`"""
        features = ops.mean(self.res5(pooled), axis=(1, 2))
        return {"features": features, **self.box_predictor(features)}
