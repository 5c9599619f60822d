"""Attention of one stream to itself or to the other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.layers.primitives import Block, dense, dropout, join_rows, layer_norm, matmul, on_rows

# Less than any score by so much that nothing is left of the score in the sum; and finite in bfloat16 and times log2(e),
# which is how fused kernels take it, where the minimum of float32 is not.
MASKED = -1e38


def attention_bias(mask, dtype: str):
    """What to add to attention scores so that masked keys get no weight.

    Args:
        mask: bool, int or float [B, K], 0 for masked keys, 1 or any number up to it for the others; or None.
        dtype: floating dtype of the scores, at least float32.

    Returns:
        float[B, 1, 1, K], 0 or `MASKED`, or None; NaN for a number outside 0..1. A row masked throughout spreads its
        weight evenly over all its keys, as upstream's does, and is never NaN.
    """
    if mask is None:
        return None
    mask = ops.expand_dims(ops.cast(mask, dtype), (1, 2))  # by an index, LiteRT has it for fixed sizes only
    bias = ops.where(mask > 0, ops.zeros_like(mask), ops.full_like(mask, MASKED))
    known = ops.logical_and(mask >= 0, mask <= 1)
    return ops.where(known, bias, ops.full_like(mask, float("nan")))


def score_dtype(compute_dtype: str) -> str:
    """The dtype of attention scores and of losses: the compute dtype, but no less than float32."""
    return "float64" if compute_dtype == "float64" else "float32"


def softmax(scores):
    """Softmax over the last axis; a single key gets weight 1 without Keras' warning that this is of little use."""
    return ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)


# What takes every map of attention that is computed, and gives what is used in its place; see `recorded_attention`.
_recorder: ContextVar = ContextVar("attention_recorder", default=None)


@contextmanager
def recorded_attention(probes: Sequence | None = None) -> Iterator[list]:
    """Within it, a list grows by the probabilities float[B, A, Q, K] of every attention, before dropout.

    They come in the order of computation: language layers, vision layers, then of each cross layer language to vision,
    vision to language, language to itself, vision to itself. No fused kernel and no gradient checkpointing is used.

    Args:
        probes: added to the maps, one to each: gradients with respect to zeros here are those with respect to maps,
            on backends that know no gradients of what is computed on the way, too.
    """
    maps: list = []

    def record(probabilities):
        if probes is not None:
            probabilities = probabilities + probes[len(maps)]
        maps.append(probabilities)
        return probabilities

    token = _recorder.set(record)
    try:
        yield maps
    finally:
        _recorder.reset(token)


def records_attention() -> bool:
    """Whether that is so here."""
    return _recorder.get() is not None


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertAttention(Block):
    """Multi-head scaled dot-product attention. Upstream: `LxmertAttention`; paper section 2.2."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = dense(config.hidden_size, "query", **self.options())
        self.key = dense(config.hidden_size, "key", **self.options())
        self.value = dense(config.hidden_size, "value", **self.options())
        self.dropout = dropout(config.attention_probs_dropout_prob, "dropout", dtype)

    def build(self, input_shape: Any = None) -> None:
        hidden = (None, None, self.config.hidden_size)
        self.query.build(hidden)
        self.key.build(hidden)
        self.value.build(hidden)

    def call(
        self, hidden_states, context, bias=None, head_mask=None, training: bool = False, output_attentions: bool = True
    ):
        """float[B, Q, H] attends to float[B, K, H] -> float[B, Q, H] and probabilities float[B, A, Q, K]

        The probabilities of each head are multiplied by `head_mask` float[A]. Where `output_attentions` is False, a
        fused kernel may give None in the place of the probabilities.
        """
        if hidden_states is context:
            [(query, key, value)] = self.project(hidden_states)
        else:
            query = self.split_heads(on_rows(self.query, hidden_states))
            key, value = (self.split_heads(on_rows(layer, context)) for layer in (self.key, self.value))
        return self.attend(query, key, value, bias, head_mask, training, output_attentions)

    def both_ways(
        self,
        one,
        other,
        one_bias=None,
        other_bias=None,
        head_mask=None,
        training: bool = False,
        output_attentions: bool = True,
    ):
        """What `call` returns for `one` attending to `other`, and the other way round; projected together."""
        (query, key, value), (other_query, other_key, other_value) = self.project(one, other)
        return (
            self.attend(query, other_key, other_value, other_bias, head_mask, training, output_attentions),
            self.attend(other_query, key, value, one_bias, head_mask, training, output_attentions),
        )

    def attend(self, query, key, value, bias, head_mask, training: bool, output_attentions: bool):
        """float[B, A, Q, H / A] and float[B, A, K, H / A] twice -> as `call`"""
        record = _recorder.get()
        needs_probabilities = output_attentions or head_mask is not None or record is not None
        if not needs_probabilities and self.has_kernel(training):
            return self.attend_fused(query, key, value, bias), None
        scores = matmul(query, ops.transpose(key, (0, 1, 3, 2))) / self.head_size**0.5  # [B, A, Q, K]
        scores = ops.cast(scores, score_dtype(self.compute_dtype))
        probabilities = softmax(scores if bias is None else scores + bias)
        probabilities = ops.cast(probabilities, self.compute_dtype)
        if head_mask is not None:
            probabilities = probabilities * ops.reshape(head_mask, (-1, 1, 1))
        if record is not None:
            probabilities = record(probabilities)
        probabilities = self.dropout(probabilities, training=training)
        return self.join_heads(ops.transpose(matmul(probabilities, value), (0, 2, 1, 3))), probabilities

    def has_kernel(self, training: bool) -> bool:
        """Whether a fused kernel of Keras computes what this layer does, and faster.

        TensorFlow has none, and under JAX XLA's own fusions are faster at LXMERT's lengths. That of PyTorch knows no
        dropout, Keras gives it float64 as float32, and float16 cannot hold `MASKED`.
        """
        known = keras.backend.backend() == "torch" and self.compute_dtype in ("float32", "bfloat16")
        return known and not (training and self.dropout.rate)

    def attend_fused(self, query, key, value, bias):
        """float[B, A, Q, H / A] and float[B, A, K, H / A] twice -> float[B, Q, H]"""
        query, key, value = (ops.transpose(each, (0, 2, 1, 3)) for each in (query, key, value))
        # PyTorch chooses among its kernels itself; `flash_attention=None` would leave it one that takes no bias.
        attended = ops.dot_product_attention(query, key, value, bias, scale=self.head_size**-0.5, flash_attention=False)
        return self.join_heads(attended)

    def project(self, *streams):
        """Queries, keys and values of streams float[B, L, H]: for each three float[B, A, L, H / A].

        An export puts one product in the place of the three.
        """
        joined, split = join_rows(*streams)
        projected = [split(layer(joined)) for layer in (self.query, self.key, self.value)]
        return [tuple(self.split_heads(part) for part in parts) for parts in zip(*projected, strict=True)]

    def split_heads(self, x):
        """float[B, L, H] -> float[B, A, L, H / A]"""
        batch, length, hidden = ops.shape(x)
        heads = ops.reshape(x, (batch, length, hidden // self.head_size, self.head_size))
        return ops.transpose(heads, (0, 2, 1, 3))

    def join_heads(self, x):
        """float[B, L, A, H / A] -> float[B, L, H]"""
        batch, length = ops.shape(x)[:2]
        return ops.reshape(x, (batch, length, self.config.hidden_size))


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertAttentionOutput(Block):
    """Dense, dropout, residual, normalisation. Upstream: `LxmertAttentionOutput`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.dense = dense(config.hidden_size, "dense", **self.options())
        self.LayerNorm = layer_norm(config, "LayerNorm", dtype)
        self.dropout = dropout(config.hidden_dropout_prob, "dropout", dtype)

    def build(self, input_shape: Any = None) -> None:
        hidden = (None, None, self.config.hidden_size)
        self.dense.build(hidden)
        self.LayerNorm.build(hidden)

    def call(self, hidden_states, residual, training: bool = False):
        """float[B, L, H] twice -> float[B, L, H]"""

        def add(x, residual):
            return self.LayerNorm(self.dropout(self.dense(x), training=training) + residual)

        return on_rows(add, hidden_states, residual)


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertSelfAttentionLayer(Block):
    """A stream attends to itself. Upstream: `LxmertSelfAttentionLayer`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.self = LxmertAttention(config, name="self", **self.options())
        self.output_layer = LxmertAttentionOutput(config, name="output_layer", **self.options())

    def build(self, input_shape: Any = None) -> None:
        self.self.build()
        self.output_layer.build()

    def call(self, hidden_states, bias=None, head_mask=None, training: bool = False, output_attentions: bool = True):
        """float[B, L, H] -> float[B, L, H] and probabilities float[B, A, L, L]"""
        attended, probabilities = self.self(
            hidden_states, hidden_states, bias, head_mask, training=training, output_attentions=output_attentions
        )
        return self.output_layer(attended, hidden_states, training=training), probabilities

    def first_token(self, hidden_states, bias=None, training: bool = False):
        """float[B, L, H] -> float[B, 1, H], the first token of what `call` returns."""
        first = hidden_states[:, :1]
        attended, _ = self.self(first, hidden_states, bias, training=training, output_attentions=False)
        return self.output_layer(attended, first, training=training)


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertCrossAttentionLayer(Block):
    """A stream attends to the other. Upstream: `LxmertCrossAttentionLayer`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.att = LxmertAttention(config, name="att", **self.options())
        self.output_layer = LxmertAttentionOutput(config, name="output_layer", **self.options())

    def build(self, input_shape: Any = None) -> None:
        self.att.build()
        self.output_layer.build()

    def call(
        self, hidden_states, context, bias=None, head_mask=None, training: bool = False, output_attentions: bool = True
    ):
        """float[B, Q, H] attends to float[B, K, H] -> float[B, Q, H] and probabilities float[B, A, Q, K]"""
        attended, probabilities = self.att(
            hidden_states, context, bias, head_mask, training=training, output_attentions=output_attentions
        )
        return self.output_layer(attended, hidden_states, training=training), probabilities

    def both_ways(
        self,
        language,
        vision,
        language_bias=None,
        vision_bias=None,
        head_mask=None,
        training: bool = False,
        output_attentions: bool = True,
    ):
        """float[B, T, H] and float[B, N, H] attend to each other -> both, and probabilities float[B, A, T, N]

        What `call` returns, each way, by products over the rows of both streams.
        """
        (language_attended, probabilities), (vision_attended, _) = self.att.both_ways(
            language, vision, language_bias, vision_bias, head_mask, training, output_attentions
        )
        attended, split = join_rows(language_attended, vision_attended)
        residual, _ = join_rows(language, vision)
        language, vision = split(self.output_layer(attended, residual, training=training))
        return language, vision, probabilities
