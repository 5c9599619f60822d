"""Attention of one stream to itself or to the other."""

from keras import ops

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.layers.primitives import Block, dense, dropout, layer_norm, matmul, rows


def attention_bias(mask, dtype: str):
    """What to add to attention scores so that masked keys get no weight.

    Args:
        mask: bool, int or float [B, K], 0 for masked keys, 1 or any number up to it for the others; or None.
        dtype: floating dtype of the scores; at least float32, so that scores added to its minimum stay finite.

    Returns:
        float[B, 1, 1, K], 0 or the dtype's minimum, or None; NaN for a number outside 0..1. A row masked throughout
        spreads its weight evenly over all its keys, as upstream's does, and is never NaN.
    """
    if mask is None:
        return None
    minimum = {"float32": -3.4028234663852886e38, "float64": -1.7976931348623157e308}[dtype]
    mask = ops.cast(mask, dtype)[:, None, None, :]
    bias = ops.where(mask > 0, ops.zeros_like(mask), ops.full_like(mask, minimum))
    known = ops.logical_and(mask >= 0, mask <= 1)
    return ops.where(known, bias, ops.full_like(mask, float("nan")))


def score_dtype(compute_dtype: str) -> str:
    """The dtype of attention scores and of losses: the compute dtype, but no less than float32."""
    return "float64" if compute_dtype == "float64" else "float32"


def softmax(scores):
    """Softmax over the last axis; a single key gets weight 1 without Keras' warning that this is of little use."""
    return ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores, axis=-1)


class LxmertAttention(Block):
    """Multi-head scaled dot-product attention. Upstream: `LxmertAttention`; paper section 2.2."""

    def __init__(self, config: LxmertConfig, **kwargs):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.query = dense(config.hidden_size, config, "query", dtype)
        self.key = dense(config.hidden_size, config, "key", dtype)
        self.value = dense(config.hidden_size, config, "value", dtype)
        self.dropout = dropout(config.attention_probs_dropout_prob, "dropout", dtype)
        self.head_size = config.hidden_size // config.num_attention_heads

    def build(self, input_shape=None):
        hidden = (None, None, self.config.hidden_size)
        self.query.build(hidden)
        self.key.build(hidden)
        self.value.build(hidden)

    def call(self, hidden_states, context, bias=None, training=False):
        """float[B, Q, H] attends to float[B, K, H] -> rows float[B * Q, H] and probabilities float[B, A, Q, K]"""
        query = split_heads(self.query(rows(hidden_states)), hidden_states, self.head_size)
        key = split_heads(self.key(rows(context)), context, self.head_size)
        value = split_heads(self.value(rows(context)), context, self.head_size)
        return self.attend(query, key, value, bias, training)

    def both_ways(self, one, other, one_bias=None, other_bias=None, training=False):
        """Two streams float[B, P, H] and float[B, Q, H] attend to each other: what `call` returns, each way.

        Their queries, keys and values are each one product over the rows of both.
        """
        joined = ops.concatenate([rows(one), rows(other)])
        projected = (self.query(joined), self.key(joined), self.value(joined))
        first = ops.shape(rows(one))[0]
        (query, key, value), (other_query, other_key, other_value) = (
            [split_heads(part, stream, self.head_size) for part in parts]
            for stream, parts in ((one, [x[:first] for x in projected]), (other, [x[first:] for x in projected]))
        )
        return (
            self.attend(query, other_key, other_value, other_bias, training),
            self.attend(other_query, key, value, one_bias, training),
        )

    def attend(self, query, key, value, bias, training):
        """float[B, A, Q, H / A] and float[B, A, K, H / A] twice -> as `call`"""
        scores = matmul(query, ops.transpose(key, (0, 1, 3, 2))) / self.head_size**0.5  # [B, A, Q, K]
        scores = ops.cast(scores, score_dtype(self.compute_dtype))
        probabilities = softmax(scores if bias is None else scores + bias)
        probabilities = self.dropout(ops.cast(probabilities, self.compute_dtype), training=training)
        attended = ops.transpose(matmul(probabilities, value), (0, 2, 1, 3))  # [B, Q, A, H / A]
        return ops.reshape(attended, (-1, self.config.hidden_size)), probabilities


def split_heads(x, stream, head_size: int):
    """Rows float[B * L, H] of a stream float[B, L, H] -> float[B, A, L, H / A]"""
    batch, length, hidden = ops.shape(stream)
    return ops.transpose(ops.reshape(x, (batch, length, hidden // head_size, head_size)), (0, 2, 1, 3))


class LxmertAttentionOutput(Block):
    """Dense, dropout, residual, normalisation. Upstream: `LxmertAttentionOutput` and `LxmertOutput`."""

    def __init__(self, config: LxmertConfig, input_size: int | None = None, **kwargs):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.dense = dense(config.hidden_size, config, "dense", dtype)
        self.LayerNorm = layer_norm(config, "LayerNorm", dtype)
        self.dropout = dropout(config.hidden_dropout_prob, "dropout", dtype)
        self.input_size = input_size or config.hidden_size

    def build(self, input_shape=None):
        self.dense.build((None, None, self.input_size))
        self.LayerNorm.build((None, None, self.config.hidden_size))

    def call(self, hidden_states, residual, training=False):
        """Rows float[B * L, input_size] and their stream float[B, L, H] -> float[B, L, H]"""
        added = self.dropout(self.dense(hidden_states), training=training) + rows(residual)
        return ops.reshape(self.LayerNorm(added), ops.shape(residual))


class _AttentionBlock(Block):
    """Attention and its output; the subclasses name the attention as upstream does."""

    def __init__(self, config: LxmertConfig, attention_name: str, **kwargs):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        setattr(self, attention_name, LxmertAttention(config, name=attention_name, dtype=dtype))
        self.output_layer = LxmertAttentionOutput(config, name="output_layer", dtype=dtype)
        self.attention_name = attention_name

    def build(self, input_shape=None):
        getattr(self, self.attention_name).build()
        self.output_layer.build()

    def call(self, hidden_states, context, bias=None, training=False):
        """float[B, Q, H] attends to float[B, K, H] -> float[B, Q, H] and probabilities float[B, A, Q, K]"""
        attention = getattr(self, self.attention_name)
        attended, probabilities = attention(hidden_states, context, bias, training=training)
        return self.output_layer(attended, hidden_states, training=training), probabilities


class LxmertSelfAttentionLayer(_AttentionBlock):
    """A stream attends to itself. Upstream: `LxmertSelfAttentionLayer`."""

    def __init__(self, config: LxmertConfig, **kwargs):
        super().__init__(config, "self", **kwargs)


class LxmertCrossAttentionLayer(_AttentionBlock):
    """A stream attends to the other. Upstream: `LxmertCrossAttentionLayer`."""

    def __init__(self, config: LxmertConfig, **kwargs):
        super().__init__(config, "att", **kwargs)

    def both_ways(self, language, vision, language_bias=None, vision_bias=None, training=False):
        """float[B, T, H] and float[B, N, H] attend to each other -> both, and probabilities float[B, A, T, N]"""
        (language_rows, probabilities), (vision_rows, _) = self.att.both_ways(
            language, vision, language_bias, vision_bias, training
        )
        joined = ops.concatenate([language_rows, vision_rows])
        output = self.output_layer(joined, ops.concatenate([rows(language), rows(vision)]), training=training)
        first = ops.shape(language_rows)[0]
        return (
            ops.reshape(output[:first], ops.shape(language)),
            ops.reshape(output[first:], ops.shape(vision)),
            probabilities,
        )
