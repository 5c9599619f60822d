"""The ResNet: the stem, bottlenecks, and the backbone up to its fourth stage."""

import torch
import torch.nn.functional as F
from torch import nn

from lxmert_pt.detector.layers.primitives import NormalizedConvolution
from lxmert_tf.detector.configuration import DetectorConfig


class Stem(nn.Module):
    """A convolution over 7x7 pixels and a maximum over 3x3, each with stride 2.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.caffe_max_pool = config.caffe_max_pool
        self.conv1 = NormalizedConvolution(3, config.stem_out_channels, 7, strides=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float[B, 3, H, W] -> float[B, C, H / 4, W / 4]"""
        return max_pool(self.conv1(F.pad(x, (3, 3, 3, 3))).relu(), self.caffe_max_pool)


def max_pool(x: torch.Tensor, is_caffe: bool) -> torch.Tensor:
    """The maximum of x: float[B, C, H, W] over 3x3 cells with stride 2; Caffe's windows may reach beyond the map."""
    return F.max_pool2d(x, 3, 2, padding=0 if is_caffe else 1, ceil_mode=is_caffe)


class Bottleneck(nn.Module):
    """Three convolutions beside a shortcut.

    Args:
        channels, filters: of its input and output.
        inner: channels between its convolutions.
        strides: of its first convolution and of the shortcut.
        dilation: of its second.
        projected: whether the shortcut is a convolution.
    """

    def __init__(
        self, channels: int, inner: int, filters: int, strides: int = 1, dilation: int = 1, projected: bool = False
    ):
        super().__init__()
        self.projected = projected
        if projected:
            self.shortcut = NormalizedConvolution(channels, filters, 1, strides)
        self.conv1 = NormalizedConvolution(channels, inner, 1, strides)
        self.conv2 = NormalizedConvolution(inner, inner, 3, dilation=dilation)
        self.conv3 = NormalizedConvolution(inner, filters, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float[B, channels, H, W] -> float[B, filters, H / strides, W / strides]"""
        inner = self.conv3(self.conv2(self.conv1(x).relu()).relu())
        return (inner + (self.shortcut(x) if self.projected else x)).relu()


class Stage(nn.Sequential):
    """The bottlenecks of a stage.

    Args:
        config: of the detector.
        stage: its number, 2 to 5.
        strides: of its first bottleneck.
        dilation: of all.
    """

    def __init__(self, config: DetectorConfig, stage: int, strides: int = 1, dilation: int = 1):
        inner, filters = config.stage_channels(stage)
        channels = config.stem_out_channels if stage == 2 else filters // 2
        super().__init__(
            Bottleneck(channels, inner, filters, strides, dilation, projected=True),
            *(Bottleneck(filters, inner, filters, dilation=dilation) for _ in range(1, config.blocks[stage - 2])),
        )


class Backbone(nn.Module):
    """The ResNet up to its fourth stage.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig):
        super().__init__()
        self.stem = Stem(config)
        self.res2 = Stage(config, 2)
        self.res3 = Stage(config, 3, strides=2)
        self.res4 = Stage(config, 4, strides=2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pictures float[B, 3, H, W] -> a feature map float[B, C, H / 16, W / 16]"""
        return self.res4(self.res3(self.res2(self.stem(pixels))))
