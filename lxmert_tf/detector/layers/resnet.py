"""The ResNet: the stem, bottlenecks, and the backbone up to its fourth stage."""

from typing import Any

from keras import ops

from lxmert_tf.detector.configuration import DetectorConfig
from lxmert_tf.detector.layers.primitives import Block, NormalizedConvolution


class Stem(Block):
    """A convolution over 7x7 pixels and a maximum over 3x3, each with stride 2.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.caffe_max_pool = config.caffe_max_pool
        self.add(NormalizedConvolution, 3, config.stem_out_channels, 7, name="conv1", strides=2)

    def call(self, x):
        """float[B, H, W, 3] -> float[B, H / 4, W / 4, C]"""
        x = ops.pad(x, [[0, 0], [3, 3], [3, 3], [0, 0]])
        return max_pool(ops.relu(self.conv1(x)), self.caffe_max_pool)


def max_pool(x, is_caffe: bool):
    """The maximum of x: float[B, H, W, C], at least 0, over 3x3 cells with stride 2.

    Caffe's is not padded, but its last windows may reach beyond the map, which a row or column of zeros stands for; the
    other has one cell of padding on every side.
    """
    padding = [0 if is_caffe else 1, 1]  # where the size is odd, no window reaches Caffe's
    x = ops.pad(x, [[0, 0], padding, padding, [0, 0]])
    return ops.max_pool(x, 3, 2, "valid", data_format="channels_last")


class Bottleneck(Block):
    """Three convolutions beside a shortcut.

    Args:
        channels, filters: of its input and output.
        inner: channels between its convolutions.
        strides: of its first convolution and of the shortcut.
        dilation: of its second.
        projected: whether the shortcut is a convolution.
    """

    def __init__(
        self,
        channels: int,
        inner: int,
        filters: int,
        strides: int = 1,
        dilation: int = 1,
        projected: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.projected = projected
        if projected:
            self.add(NormalizedConvolution, channels, filters, 1, name="shortcut", strides=strides)
        self.add(NormalizedConvolution, channels, inner, 1, name="conv1", strides=strides)
        self.add(NormalizedConvolution, inner, inner, 3, name="conv2", dilation=dilation)
        self.add(NormalizedConvolution, inner, filters, 1, name="conv3")

    def call(self, x):
        """float[B, H, W, channels] -> float[B, H / strides, W / strides, filters]"""
        inner = self.conv3(ops.relu(self.conv2(ops.relu(self.conv1(x)))))
        return ops.relu(ops.add(inner, self.shortcut(x) if self.projected else x))


class Stage(Block):
    """The bottlenecks of a stage.

    Args:
        config: of the detector.
        stage: its number, 2 to 5.
        strides: of its first bottleneck.
        dilation: of all.
    """

    def __init__(self, config: DetectorConfig, stage: int, strides: int = 1, dilation: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        inner, filters = config.stage_channels(stage)
        channels = config.stem_out_channels if stage == 2 else filters // 2
        self.add(Bottleneck, channels, inner, filters, strides, dilation, projected=True, name="block_0")
        for i in range(1, config.blocks[stage - 2]):
            self.add(Bottleneck, filters, inner, filters, dilation=dilation, name=f"block_{i}")

    def call(self, x):
        """float[B, H, W, C] -> float[B, H / strides, W / strides, filters]"""
        for name in self.parts:
            x = getattr(self, name)(x)
        return x


class Backbone(Block):
    """The ResNet up to its fourth stage.

    Args:
        config: of the detector.
    """

    def __init__(self, config: DetectorConfig, **kwargs: Any):
        super().__init__(**kwargs)
        self.add(Stem, config, name="stem")
        self.add(Stage, config, 2, name="res2")
        self.add(Stage, config, 3, name="res3", strides=2)
        self.add(Stage, config, 4, name="res4", strides=2)

    def call(self, pixels):
        """Pictures float[B, H, W, 3] -> a feature map float[B, H / 16, W / 16, C]"""
        return self.res4(self.res3(self.res2(self.stem(ops.cast(pixels, self.compute_dtype)))))
