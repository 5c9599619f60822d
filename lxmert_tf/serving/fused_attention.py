"""One product for queries, keys and values: fewer and larger operations, which is what counts in small batches.

Checkpoints keep the three kernels apart, and joining them in every call would cost more than it saves; an export is
written once and only computes, so it keeps them joined.
"""

import tensorflow as tf

from lxmert_tf.layers.attention import LxmertAttention
from lxmert_tf.layers.primitives import rows


class FusedAttention:
    """What `LxmertAttention` computes where queries, keys and values come from one place; for inference.

    Args:
        attention: the layer, whose weights are copied.
    """

    def __init__(self, attention: LxmertAttention):
        self._attention = attention
        layers = (attention.query, attention.key, attention.value)
        self.replaced = [weight for layer in layers for weight in layer.weights]
        self.kernel = tf.Variable(tf.concat([layer.kernel.value for layer in layers], axis=-1), name="qkv/kernel")
        self.bias = tf.Variable(tf.concat([layer.bias.value for layer in layers], axis=-1), name="qkv/bias")

    def __call__(self, hidden_states, context, bias=None, training=False):
        """As `LxmertAttention.call`; `context` must be `hidden_states`."""
        if context is not hidden_states:
            raise ValueError("Fused attention is of a stream to itself, or both ways; the context is another stream.")
        projected = self._project(rows(hidden_states))
        return self._attention.attend(*self._heads(projected, hidden_states), bias, training)

    def both_ways(self, one, other, one_bias=None, other_bias=None, training=False):
        """As `LxmertAttention.both_ways`."""
        projected, first = self._project(tf.concat([rows(one), rows(other)], axis=0)), tf.shape(rows(one))[0]
        query, key, value = self._heads(projected[:first], one)
        other_query, other_key, other_value = self._heads(projected[first:], other)
        return (
            self._attention.attend(query, other_key, other_value, other_bias, training),
            self._attention.attend(other_query, key, value, one_bias, training),
        )

    def _project(self, x):
        return tf.nn.bias_add(tf.matmul(x, tf.cast(self.kernel, x.dtype)), tf.cast(self.bias, x.dtype))

    def _heads(self, projected, stream):
        """Rows float[B * L, 3 H] of a stream float[B, L, H] -> queries, keys and values, float[B, A, L, H / A] each."""
        batch, length = tf.unstack(tf.shape(stream)[:2])
        size = self._attention.head_size
        parts = tf.reshape(projected, (batch, length, 3, self._attention.config.hidden_size // size, size))
        return tf.unstack(tf.transpose(parts, (2, 0, 3, 1, 4)))


def fuse_attention(model) -> list[tf.Variable]:
    """Fuses the attention of a model that from here on only computes; returns all its weights.

    The last cross layer stays as it is, since answers need a part of it only.

    Args:
        model: one of the TFLxmert models.
    """
    encoder = getattr(model, "lxmert", model).encoder
    blocks = [layer.attention for name in ("layer", "r_layers") for layer in encoder.stack(name)]
    for layer in encoder.stack("x_layers")[:-1]:
        blocks += [layer.visual_attention, layer.lang_self_att, layer.visn_self_att]
    fused = [FusedAttention(getattr(block, block.attention_name)) for block in blocks]
    replaced = {id(weight) for attention in fused for weight in attention.replaced}
    weights = [weight.value for weight in model.weights if id(weight) not in replaced]
    for block, attention in zip(blocks, fused, strict=True):
        setattr(block, block.attention_name, attention)
    return weights + [weight for attention in fused for weight in (attention.kernel, attention.bias)]
