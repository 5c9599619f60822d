"""What is computed for each region: the fifth stage of the ResNet, and classes, attributes and boxes from its mean."""

import torch
from torch import nn

from lxmert_pt.detector.layers.resnet import Stage
from lxmert_tf.detector.configuration import DetectorConfig


class Predictor(nn.Module):
    """Logits of classes and attributes, and deltas of boxes, from the features of regions.

    The attribute head reads the features and an embedding of the likeliest class, background among them.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig):
        super().__init__()
        classes, features = config.num_classes + 1, config.feature_size
        self.has_attributes = config.num_attributes > 0
        self.cls_score = nn.Linear(features, classes)
        self.bbox_pred = nn.Linear(features, 4 * config.num_box_classes)
        if self.has_attributes:
            embedding, hidden = config.class_embedding_size, config.attribute_hidden_size
            self.cls_embedding = nn.Embedding(classes, embedding)
            self.fc_attr = nn.Linear(features + embedding, hidden)
            self.attr_score = nn.Linear(hidden, config.num_attributes + 1)

    def forward(self, features: torch.Tensor) -> dict[str, torch.Tensor]:
        """float[R, F] -> a dict of class_logits float[R, classes + 1], box_deltas float[R, 4 * classes] and perhaps
        attribute_logits float[R, attributes + 1]; backgrounds are last
        """
        logits = self.cls_score(features)
        output = {"class_logits": logits, "box_deltas": self.bbox_pred(features)}
        if self.has_attributes:
            embedded = self.cls_embedding(logits.argmax(dim=-1))
            output["attribute_logits"] = self.attr_score(self.fc_attr(torch.cat([features, embedded], dim=-1)).relu())
        return output


class RoiHeads(nn.Module):
    """The features of pooled regions, and what `Predictor` makes of them.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.res5 = Stage(config, 5, dilation=2)
        self.box_predictor = Predictor(config)

    def forward(self, pooled: torch.Tensor) -> dict[str, torch.Tensor]:
        """float[R, C, bins, bins] -> a dict of features float[R, F] and those of `Predictor`"""
        features = self.res5(pooled).mean(dim=(2, 3))
        return {"features": features, **self.box_predictor(features)}
