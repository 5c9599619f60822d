"""What several layers are made of: dense, dropout, normalisation and activations, set up from the config."""

import math
from collections.abc import Callable

import keras
from keras import ops

from lxmert_tf.configuration import LxmertConfig


class Block(keras.layers.Layer):
    """Base of the layers made of other layers.

    It leaves its inputs' dtypes alone, unlike Keras' own layers: attention biases must stay float32 in half precision,
    where the minimum they hold would become infinite.
    """

    def __init__(self, config: LxmertConfig, **kwargs):
        super().__init__(autocast=False, **kwargs)
        self.config = config


# Outside TensorFlow, Keras computes matrix products, means and variances of float64 in float32; these three do not.


def keeps_float64(x) -> bool:
    """Whether Keras' own products and normalisation compute `x` in its dtype."""
    return keras.backend.backend() == "tensorflow" or keras.backend.standardize_dtype(x.dtype) != "float64"


def matmul(x, y):
    """The matrix product, in float64 where the operands are."""
    return ops.matmul(x, y) if keeps_float64(x) else x @ y


class Dense(keras.layers.Dense):
    """Keras' dense layer, in float64 where the input is."""

    def call(self, inputs, training=None):
        if keeps_float64(inputs):
            return super().call(inputs, training=training)
        return inputs @ ops.convert_to_tensor(self.kernel) + self.bias


class LayerNormalization(keras.layers.LayerNormalization):
    """Keras' layer normalisation over the last axis, in float64 where the input is."""

    def call(self, inputs):
        if keeps_float64(inputs):
            return super().call(inputs)
        centred = inputs - ops.sum(inputs, axis=-1, keepdims=True) / inputs.shape[-1]
        variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / inputs.shape[-1]
        return centred / ops.sqrt(variance + self.epsilon) * self.gamma + self.beta


def dense(units: int, config: LxmertConfig, name: str, dtype) -> Dense:
    """A Dense layer with the config's truncated normal initialiser."""
    return Dense(units, kernel_initializer=initializer(config), name=name, dtype=dtype)


def dropout(rate: float, name: str, dtype) -> keras.layers.Dropout:
    """A Dropout layer; it holds no weights, so checkpoints are the same at any rate."""
    return keras.layers.Dropout(rate, name=name, dtype=dtype)


def layer_norm(config: LxmertConfig, name: str, dtype) -> LayerNormalization:
    """Layer normalisation over the last axis with the config's epsilon."""
    return LayerNormalization(epsilon=config.layer_norm_eps, name=name, dtype=dtype)


def initializer(config: LxmertConfig) -> keras.initializers.Initializer:
    """The initialiser of every kernel and embedding table."""
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


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
