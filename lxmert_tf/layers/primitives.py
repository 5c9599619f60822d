"""What several layers are made of: dense, dropout, normalisation and activations, set up from the config."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.layers.dropout import Dropout
from lxmert_tf.layers.quantization import InFloat


class Block(keras.layers.Layer):
    """Base of the layers made of other layers.

    It leaves its inputs' dtypes alone, unlike Keras' own layers: attention biases must stay float32 in half precision,
    where the minimum they hold would become infinite.

    Args:
        config: sizes and rates.
        initializer: of every kernel and embedding table. Default: the config's truncated normal.
    """

    def __init__(self, config: LxmertConfig, initializer: keras.initializers.Initializer | None = None, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.config, self.initializer = config, initializer or truncated_normal(config)

    def options(self) -> dict:
        """What its parts are made with: its dtype policy and initializer."""
        return {"dtype": self.dtype_policy, "initializer": self.initializer}

    def get_config(self) -> dict:
        return {**super().get_config(), "config": self.config.to_dict()}

    @classmethod
    def from_config(cls, config: dict) -> "Block":
        config = dict(config)
        return cls(LxmertConfig.from_dict(config.pop("config")), **config)

    def compute_output_spec(self, *args: Any, **kwargs: Any):
        """As of any layer without `compute_output_shape`: what `call` makes of symbolic inputs."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_output_shape(self, *input_shapes: tuple[int | None, ...] | None):
        """The shapes of what `call` returns for inputs of these shapes, in its order; None for one left out."""
        inputs = [None if shape is None else keras.KerasTensor(shape, self.compute_dtype) for shape in input_shapes]
        return keras.tree.map_structure(lambda spec: spec.shape, self.compute_output_spec(*inputs))

    def quantized_call(self, *args: Any, **kwargs: Any):
        """As `call`: a quantized policy is for the layers inside."""
        return self.call(*args, **kwargs)


@keras.saving.register_keras_serializable("lxmert_tf")
class Normal(keras.initializers.TruncatedNormal):
    """A truncated normal distribution that draws anew at each call; one of Keras' own always gives the same numbers."""

    def __call__(self, shape, dtype=None):
        return keras.initializers.TruncatedNormal(self.mean, self.stddev)(shape, dtype)


def truncated_normal(config: LxmertConfig) -> keras.initializers.Initializer:
    """The initializer of kernels and embedding tables, with the config's deviation."""
    return Normal(stddev=config.initializer_range)


# Outside TensorFlow, Keras computes matrix products, means and variances of float64 in float32, and on JAX tanh;
# what follows does not.


def preserves_float64(x) -> bool:
    """Whether Keras' own products compute `x` in its dtype."""
    return keras.backend.backend() == "tensorflow" or keras.backend.standardize_dtype(x.dtype) != "float64"


def matmul(x, y):
    """The matrix product, in float64 where the operands are."""
    return ops.matmul(x, y) if preserves_float64(x) else x @ y


def tanh(x):
    """The hyperbolic tangent, in float64 where `x` is."""
    return ops.tanh(x) if preserves_float64(x) else 2.0 * ops.sigmoid(2.0 * x) - 1.0


# TensorFlow fuses product, bias, GELU and residual into one kernel over [rows, H], and not over [B, L, H].


def join_rows(*streams):
    """The rows of streams float[B, L, H], one after the other, and what parts such rows again.

    Returns:
        float[rows, H], and a function: [rows, C] -> a list of [B, L, C], one for each stream.
    """
    rows = [ops.reshape(stream, (-1, stream.shape[-1])) for stream in streams]
    ends = list(itertools.accumulate(ops.shape(each)[0] for each in rows[:-1]))

    def split(joined):
        starts, stops = [0, *ends], [*ends, None]
        parts = [joined] if len(rows) == 1 else [joined[a:b] for a, b in zip(starts, stops, strict=True)]
        return [
            ops.reshape(part, (*ops.shape(stream)[:-1], joined.shape[-1]))
            for part, stream in zip(parts, streams, strict=True)
        ]

    return rows[0] if len(rows) == 1 else ops.concatenate(rows), split


def on_rows(compute: Callable, *inputs):
    """What `compute` gives for the rows of inputs [B, L, ...], as [B, L, ...]."""
    joined, splits = zip(*map(join_rows, inputs), strict=True)
    return splits[0](compute(*joined))[0]


@keras.saving.register_keras_serializable("lxmert_tf")
class Dense(keras.layers.Dense):
    """Keras' dense layer, in float64 where the input is."""

    def quantize(self, mode: str | None = None, type_check: bool = True, **kwargs: Any) -> None:
        """As of Keras' own layer; it leaves subclasses alone, which may compute something else."""
        super().quantize(mode, type_check=False, **kwargs)

    def call(self, inputs, training: bool | None = None):
        if preserves_float64(inputs):
            return super().call(inputs, training=training)
        return inputs @ ops.convert_to_tensor(self.kernel) + self.bias


@keras.saving.register_keras_serializable("lxmert_tf")
class LayerNormalization(InFloat, keras.layers.LayerNormalization):
    """Layer normalisation over the last axis, in at least float32; fewer passes over the data than Keras' own."""

    def call(self, inputs):
        wide = keras.backend.standardize_dtype(inputs.dtype) == "float64"
        x = ops.cast(inputs, "float64" if wide else "float32")
        centred = x - ops.sum(x, axis=-1, keepdims=True) / x.shape[-1]
        variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / x.shape[-1]
        gamma, beta = ops.cast(self.gamma, x.dtype), ops.cast(self.beta, x.dtype)
        return ops.cast(ops.add(centred * ops.rsqrt(variance + self.epsilon) * gamma, beta), self.compute_dtype)


def dense(units: int, name: str, initializer: Any, dtype: Any) -> Dense:
    """A Dense layer whose kernel comes from `initializer`."""
    return Dense(units, kernel_initializer=initializer, name=name, dtype=dtype)


def dropout(rate: float, name: str, dtype: Any) -> Dropout:
    """A Dropout layer; it holds no weights, so checkpoints are the same at any rate."""
    return Dropout(rate, name=name, dtype=dtype)


def layer_norm(config: LxmertConfig, name: str, dtype: Any) -> LayerNormalization:
    """Layer normalisation over the last axis with the config's epsilon."""
    return LayerNormalization(epsilon=config.layer_norm_eps, name=name, dtype=dtype)


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
    return 0.5 * x * (1.0 + tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))
