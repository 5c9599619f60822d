"""What the detector's layers are made of: convolutions and their normalisation."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


class FrozenBatchNorm(nn.BatchNorm2d):
    """Batch normalisation with fixed statistics, in training too: x: float[B, C, H, W] -> float[B, C, H, W]."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)


class NormalizedConvolution(nn.Conv2d):
    """A convolution without bias and its normalisation: float[B, C, H, W] -> float[B, F, H', W'].

    Where the stride is 1 the map keeps its size; else it is not padded.

    Args:
        channels, filters: C and F.
        kernel_size: side of the kernel.
        strides, dilation: as usual.
    """

    def __init__(self, channels: int, filters: int, kernel_size: int, strides: int = 1, dilation: int = 1):
        padding = dilation * (kernel_size // 2) if strides == 1 else 0
        options: dict[str, Any] = {"stride": strides, "padding": padding, "dilation": dilation, "bias": False}
        super().__init__(channels, filters, kernel_size, **options)
        self.norm = FrozenBatchNorm(filters)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(super().forward(x))
