"""One product for queries, keys and values: fewer and larger operations, which is what counts in small batches.

Checkpoints keep the three kernels apart, and joining them in every call would cost more than it saves; an export is
written once and only computes, so it keeps them joined.
"""

import keras
import tensorflow as tf

from lxmert_tf.layers.attention import LxmertAttention
from lxmert_tf.layers.primitives import join_rows
from lxmert_tf.layers.quantization import merged_weight


class FusedProjection:
    """`LxmertAttention.project` of a layer, by one product; for inference.

    Args:
        attention: the layer, whose weights are copied.
    """

    def __init__(self, attention: LxmertAttention):
        self._heads = attention.config.num_attention_heads
        layers = (attention.query, attention.key, attention.value)
        self.replaced = [weight for layer in layers for weight in layer.weights]
        self.kernel = tf.Variable(tf.concat([merged_weight(layer) for layer in layers], axis=-1), name="qkv/kernel")
        self.bias = tf.Variable(tf.concat([layer.bias.value for layer in layers], axis=-1), name="qkv/bias")

    def __call__(self, *streams: tf.Tensor) -> list[list[tf.Tensor]]:
        """As `LxmertAttention.project`."""
        joined, split = join_rows(*streams)
        kernel, bias = tf.cast(self.kernel, joined.dtype), tf.cast(self.bias, joined.dtype)
        return [self._split_heads(part) for part in split(tf.nn.bias_add(tf.matmul(joined, kernel), bias))]

    def _split_heads(self, projected: tf.Tensor) -> list[tf.Tensor]:
        """float[B, L, 3 H] -> queries, keys and values, float[B, A, L, H / A] each."""
        batch, length = tf.unstack(tf.shape(projected)[:2])
        parts = tf.reshape(projected, (batch, length, 3, self._heads, projected.shape[-1] // (3 * self._heads)))
        return tf.unstack(tf.transpose(parts, (2, 0, 3, 1, 4)))


def fuse_projections(model: keras.Model) -> list[tf.Variable]:
    """Fuses the projections of a model that from here on only computes; returns all its weights.

    The last cross layer stays as it is, since answers need a part of it only, and so do quantized layers.

    Args:
        model: one of the TFLxmert models.
    """
    encoder = model.get_backbone().encoder
    attentions = [layer.attention.self for name in ("layer", "r_layers") for layer in encoder.stack(name)]
    for layer in encoder.stack("x_layers")[:-1]:
        attentions += [layer.visual_attention.att, layer.lang_self_att.self, layer.visn_self_att.self]
    attentions = [attention for attention in attentions if not _is_quantized(attention)]
    fused = [FusedProjection(attention) for attention in attentions]
    for attention, projection in zip(attentions, fused, strict=True):
        attention.project = projection
    replaced = {id(weight) for projection in fused for weight in projection.replaced}
    weights = [weight.value for weight in model.weights if id(weight) not in replaced]
    return weights + [weight for projection in fused for weight in (projection.kernel, projection.bias)]


def _is_quantized(attention: LxmertAttention) -> bool:
    return any(layer.quantization_mode for layer in (attention.query, attention.key, attention.value))
