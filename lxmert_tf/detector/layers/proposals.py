"""The region proposal network: a score and an offset for every anchor."""

from typing import Any

from keras import ops

from lxmert_tf.detector.configuration import DetectorConfig
from lxmert_tf.detector.layers.primitives import Block, Convolution


class RpnHead(Block):
    """Scores and offsets of the anchors in every cell of a feature map.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig, **kwargs: Any):
        super().__init__(**kwargs)
        hidden, anchors = config.rpn_hidden_channels, config.num_anchors
        self.add(Convolution, config.stage_channels(4)[1], hidden, 3, name="conv")
        self.add(Convolution, hidden, anchors, 1, name="objectness_logits")
        self.add(Convolution, hidden, 4 * anchors, 1, name="anchor_deltas")

    def call(self, x):
        """float[B, H, W, C] -> logits float[B, H, W, A], deltas float[B, H, W, 4A], the four of an anchor together"""
        x = ops.relu(self.conv(x))
        return self.objectness_logits(x), self.anchor_deltas(x)


class ProposalGenerator(Block):
    """The region proposal network; `lxmert_tf.detector.selection.propose` makes boxes of what it gives.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.add(RpnHead, config, name="rpn_head")

    def call(self, x):
        """As `RpnHead`."""
        return self.rpn_head(x)
