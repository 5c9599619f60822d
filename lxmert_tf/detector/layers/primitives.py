"""What the detector's layers are made of: blocks, convolutions, dense layers and tables."""

from typing import Any

import keras
from keras import ops

EPSILON = 1e-5  # of the normalisation


class Block(keras.layers.Layer):
    """Base of the layers made of other layers, whose weights exist once it is built.

    It leaves its inputs' dtypes alone, unlike Keras' own layers: boxes stay float32 in half precision.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.parts: tuple[str, ...] = ()

    def add(self, make: type, *sizes: Any, name: str, **options: Any) -> None:
        """Makes a layer with these arguments the attribute of its name."""
        setattr(self, name, make(*sizes, name=name, dtype=self.dtype_policy, **options))
        self.parts = (*self.parts, name)

    def build(self, input_shape: Any = None) -> None:
        for name in self.parts:
            getattr(self, name).build()


class Weights(keras.layers.Layer):
    """Base of the layers that have weights: they are built without the shape of an input, and cast by `call`."""

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)

    def add(self, name: str, shape: tuple[int, ...], initializer: Any) -> None:
        """Makes a weight the attribute of its name."""
        setattr(self, name, self.add_weight(name=name, shape=shape, initializer=initializer))


class FrozenBatchNorm(Weights):
    """The scale and shift of a batch normalisation with fixed statistics: x: float[..., C] -> float[..., C].

    Args:
        channels: C.
    """

    def __init__(self, channels: int, **kwargs: Any):
        super().__init__(trainable=False, **kwargs)
        self.channels = channels

    def build(self, input_shape: Any = None) -> None:
        for name, value in (
            ("gamma", "ones"),
            ("beta", "zeros"),
            ("moving_mean", "zeros"),
            ("moving_variance", "ones"),
        ):
            self.add(name, (self.channels,), value)

    def scale_and_shift(self) -> tuple[Any, Any]:
        """float[C] each, in the dtype of the weights: gamma / sqrt(variance + epsilon), beta - mean * scale."""
        scale = self.gamma * ops.rsqrt(self.moving_variance + EPSILON)
        return scale, self.beta - self.moving_mean * scale

    def call(self, x):
        scale, shift = (ops.cast(each, x.dtype) for each in self.scale_and_shift())
        return x * scale + shift


class NormalizedConvolution(Weights):
    """A convolution without bias and its normalisation in one: x: float[B, H, W, C] -> float[B, H', W', F].

    The scale of the normalisation is multiplied into the kernel, so that the map is passed over once less. Where the
    stride is 1 the map keeps its size; else it is not padded.

    Args:
        channels, filters: C and F.
        kernel_size: side of the kernel.
        strides, dilation: as usual.
    """

    def __init__(
        self, channels: int, filters: int, kernel_size: int, strides: int = 1, dilation: int = 1, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.kernel_shape, self.strides, self.dilation = (
            (kernel_size, kernel_size, channels, filters),
            strides,
            dilation,
        )
        self.norm = FrozenBatchNorm(filters, name="norm", dtype=self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        self.add("kernel", self.kernel_shape, "he_normal")
        self.norm.build()

    def fold(self) -> tuple[Any, Any]:
        """The kernel and the bias of both together, in the dtype of the weights."""
        scale, shift = self.norm.scale_and_shift()
        return self.kernel * scale, shift

    def call(self, x):
        kernel, bias = (ops.cast(each, x.dtype) for each in self.fold())
        padding = "same" if self.strides == 1 else "valid"
        x = ops.conv(x, kernel, self.strides, padding, data_format="channels_last", dilation_rate=self.dilation)
        return ops.add(x, bias)


class Convolution(Weights):
    """A convolution with bias that keeps the map's size: x: float[B, H, W, C] -> float[B, H, W, F].

    Args:
        channels, filters: C and F.
        kernel_size: side of the kernel.
    """

    def __init__(self, channels: int, filters: int, kernel_size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.kernel_shape = (kernel_size, kernel_size, channels, filters)

    def build(self, input_shape: Any = None) -> None:
        self.add("kernel", self.kernel_shape, keras.initializers.RandomNormal(0, 0.01))
        self.add("bias", self.kernel_shape[-1:], "zeros")

    def call(self, x):
        x = ops.conv(x, ops.cast(self.kernel, x.dtype), 1, "same", data_format="channels_last")
        return ops.add(x, ops.cast(self.bias, x.dtype))


class Dense(Weights):
    """x: float[R, inputs] -> float[R, units].

    Args:
        inputs, units: sizes.
    """

    def __init__(self, inputs: int, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.inputs, self.units = inputs, units

    def build(self, input_shape: Any = None) -> None:
        self.add("kernel", (self.inputs, self.units), keras.initializers.RandomNormal(0, 0.01))
        self.add("bias", (self.units,), "zeros")

    def call(self, x):
        return ops.add(ops.matmul(x, ops.cast(self.kernel, x.dtype)), ops.cast(self.bias, x.dtype))


class Embedding(Weights):
    """The rows of a table: ids int[R] -> float[R, size], in the layer's dtype.

    Args:
        rows, size: of the table.
    """

    def __init__(self, rows: int, size: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.rows, self.size = rows, size

    def build(self, input_shape: Any = None) -> None:
        self.add("embeddings", (self.rows, self.size), keras.initializers.RandomNormal(0, 0.01))

    def call(self, ids):
        return ops.cast(ops.take(self.embeddings, ids, axis=0), self.compute_dtype)
