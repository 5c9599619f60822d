"""What several layers are made of: dense, dropout, normalisation and activations, set up from the config."""

import math
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar

import keras
from keras import ops

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.layers.dropout import Dropout


class Block(keras.layers.Layer):
    """Base of the layers made of other layers.

    It leaves its inputs' dtypes alone, unlike Keras' own layers: attention biases must stay float32 in half precision,
    where the minimum they hold would become infinite.
    """

    def __init__(self, config: LxmertConfig, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.config = config


# Outside TensorFlow, Keras computes matrix products, means and variances of float64 in float32; what follows does not.


def keeps_float64(x) -> bool:
    """Whether Keras' own products compute `x` in its dtype."""
    return keras.backend.backend() == "tensorflow" or keras.backend.standardize_dtype(x.dtype) != "float64"


def matmul(x, y):
    """The matrix product, in float64 where the operands are."""
    return ops.matmul(x, y) if keeps_float64(x) else x @ y


def rows(x):
    """x[..., H] -> [rows, H]. TensorFlow fuses product, bias, GELU and residual into one kernel in this shape only."""
    return ops.reshape(x, (-1, x.shape[-1]))


class Dense(keras.layers.Dense):
    """Keras' dense layer, in float64 where the input is."""

    def call(self, inputs, training=None):
        if keeps_float64(inputs):
            return super().call(inputs, training=training)
        return inputs @ ops.convert_to_tensor(self.kernel) + self.bias


class LayerNormalization(keras.layers.LayerNormalization):
    """Layer normalisation over the last axis, in at least float32; fewer passes over the data than Keras' own."""

    def call(self, inputs):
        wide = keras.backend.standardize_dtype(inputs.dtype) == "float64"
        x = ops.cast(inputs, "float64" if wide else "float32")
        centred = x - ops.sum(x, axis=-1, keepdims=True) / x.shape[-1]
        variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / x.shape[-1]
        gamma, beta = ops.cast(self.gamma, x.dtype), ops.cast(self.beta, x.dtype)
        return ops.cast(ops.add(centred * ops.rsqrt(variance + self.epsilon) * gamma, beta), self.compute_dtype)


def dense(units: int, config: LxmertConfig, name: str, dtype) -> Dense:
    """A Dense layer with the config's truncated normal initialiser."""
    return Dense(units, kernel_initializer=initializer(config), name=name, dtype=dtype)


def dropout(rate: float, name: str, dtype) -> Dropout:
    """A Dropout layer; it holds no weights, so checkpoints are the same at any rate."""
    return Dropout(rate, name=name, dtype=dtype)


def layer_norm(config: LxmertConfig, name: str, dtype) -> LayerNormalization:
    """Layer normalisation over the last axis with the config's epsilon."""
    return LayerNormalization(epsilon=config.layer_norm_eps, name=name, dtype=dtype)


class Normal(keras.initializers.TruncatedNormal):
    """A truncated normal distribution; inside `weights_to_come`, whatever is made there."""

    def __call__(self, shape, dtype=None):
        make = _to_come.get()
        return super().__call__(shape, dtype) if make is None else make(shape, dtype)


_to_come = ContextVar("weights_to_come", default=None)


@contextmanager
def weights_to_come(make: Callable):
    """For building a model whose weights are assigned next: drawing 228 million numbers takes seconds.

    Args:
        make: (shape, dtype) -> a tensor, which is not read.
    """
    token = _to_come.set(make)
    try:
        yield
    finally:
        _to_come.reset(token)


def initializer(config: LxmertConfig) -> Normal:
    """The initialiser of every kernel and embedding table, with the config's deviation."""
    return Normal(stddev=config.initializer_range)


def activation(hidden_act: str | Callable) -> Callable:
    """The function a config's `hidden_act` names."""
    if callable(hidden_act):
        return hidden_act
    return {"gelu": gelu, "relu": keras.activations.relu, "silu": keras.activations.silu, "gelu_new": gelu_new}[
        hidden_act
    ]


# Written out, since TensorFlow's own GELU rounds its constants to float32 and is off by 1e-8 in float64.
def gelu(x):
    """GELU in its exact form, with erf."""
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def gelu_new(x):
    """GELU in its tanh form."""
    return 0.5 * x * (1.0 + ops.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))
