"""The region proposal network: a score and an offset for every anchor."""

import torch
from torch import nn

from lxmert_tf.detector.anchors import cell_anchors
from lxmert_tf.detector.configuration import DetectorConfig


class RpnHead(nn.Module):
    """Scores and offsets of the anchors in every cell of a feature map.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig):
        super().__init__()
        hidden, anchors = config.rpn_hidden_channels, config.num_anchors
        self.conv = nn.Conv2d(config.stage_channels(4)[1], hidden, 3, padding=1)
        self.objectness_logits = nn.Conv2d(hidden, anchors, 1)
        self.anchor_deltas = nn.Conv2d(hidden, 4 * anchors, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """float[B, C, H, W] -> logits float[B, A, H, W], deltas float[B, 4A, H, W], the four of an anchor together"""
        x = self.conv(x).relu()
        return self.objectness_logits(x), self.anchor_deltas(x)


class ProposalGenerator(nn.Module):
    """The region proposal network; `lxmert_pt.detector.selection.propose` makes boxes of what it gives.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.anchor_generator = nn.Module()  # upstream's checkpoints hold its anchors
        self.anchor_generator.cell_anchors = nn.Module()
        self.anchor_generator.cell_anchors.register_buffer("0", torch.from_numpy(cell_anchors(config, False)))
        self.rpn_head = RpnHead(config)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As `RpnHead`."""
        return self.rpn_head(x)
