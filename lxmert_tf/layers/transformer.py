"""Transformer layers of one stream, cross layers of both, and the encoder that stacks them."""

from typing import Any

import keras

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.head_masks import ATTENTIONS
from lxmert_tf.layers.attention import (
    LxmertAttentionOutput,
    LxmertCrossAttentionLayer,
    LxmertSelfAttentionLayer,
    records_attention,
)
from lxmert_tf.layers.embeddings import LxmertVisualFeatureEncoder
from lxmert_tf.layers.primitives import Block, activation, dense, on_rows
from lxmert_tf.layers.remat import recomputed


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertIntermediate(Block):
    """First half of a feed-forward block: dense and activation. Upstream: `LxmertIntermediate`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.dense = dense(config.intermediate_size, "dense", **self.options())
        self.activation = activation(config.hidden_act)

    def build(self, input_shape: Any = None) -> None:
        self.dense.build((None, None, self.config.hidden_size))

    def call(self, hidden_states):
        """float[B, L, H] -> float[B, L, intermediate_size]"""
        return on_rows(lambda x: self.activation(self.dense(x)), hidden_states)


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertOutput(LxmertAttentionOutput):
    """Second half of a feed-forward block, back to H. Upstream: `LxmertOutput`."""

    def build(self, input_shape: Any = None) -> None:
        self.dense.build((None, None, self.config.intermediate_size))
        self.LayerNorm.build((None, None, self.config.hidden_size))


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertLayer(Block):
    """Self-attention and feed-forward of one stream. Upstream: `LxmertLayer`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.attention = LxmertSelfAttentionLayer(config, name="attention", **self.options())
        self.intermediate = LxmertIntermediate(config, name="intermediate", **self.options())
        self.output_layer = LxmertOutput(config, name="output_layer", **self.options())

    def build(self, input_shape: Any = None) -> None:
        self.attention.build()
        self.intermediate.build()
        self.output_layer.build()

    def call(self, hidden_states, bias=None, head_mask=None, training: bool = False, output_attentions: bool = True):
        """float[B, L, H] -> float[B, L, H] and probabilities float[B, A, L, L]"""
        attended, probabilities = self.attention(
            hidden_states, bias, head_mask, training=training, output_attentions=output_attentions
        )
        return self.output_layer(self.intermediate(attended), attended, training=training), probabilities


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertXLayer(Block):
    """Cross attention both ways, then self-attention and feed-forward of each stream. Upstream: `LxmertXLayer`.

    One cross-attention block serves both directions, each from the layer's inputs.
    """

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.visual_attention = LxmertCrossAttentionLayer(config, name="visual_attention", **self.options())
        self.lang_self_att = LxmertSelfAttentionLayer(config, name="lang_self_att", **self.options())
        self.visn_self_att = LxmertSelfAttentionLayer(config, name="visn_self_att", **self.options())
        self.lang_inter = LxmertIntermediate(config, name="lang_inter", **self.options())
        self.lang_output = LxmertOutput(config, name="lang_output", **self.options())
        self.visn_inter = LxmertIntermediate(config, name="visn_inter", **self.options())
        self.visn_output = LxmertOutput(config, name="visn_output", **self.options())

    def build(self, input_shape: Any = None) -> None:
        self.visual_attention.build()
        self.lang_self_att.build()
        self.visn_self_att.build()
        self.lang_inter.build()
        self.lang_output.build()
        self.visn_inter.build()
        self.visn_output.build()

    def call(
        self,
        language,
        vision,
        language_bias=None,
        vision_bias=None,
        head_mask=None,
        language_head_mask=None,
        vision_head_mask=None,
        training: bool = False,
        output_attentions: bool = True,
    ):
        """float[B, T, H] and float[B, N, H] -> the same, and language-to-vision probabilities float[B, A, T, N]

        The heads' masks, float[A] each, are those of the cross attention and of each stream's self-attention.
        """
        language_crossed, vision_crossed, probabilities = self.visual_attention.both_ways(
            language, vision, language_bias, vision_bias, head_mask, training, output_attentions
        )
        unseen = {"training": training, "output_attentions": False}
        language, _ = self.lang_self_att(language_crossed, language_bias, language_head_mask, **unseen)
        vision, _ = self.visn_self_att(vision_crossed, vision_bias, vision_head_mask, **unseen)

        language = self.lang_output(self.lang_inter(language), language, training=training)
        vision = self.visn_output(self.visn_inter(vision), vision, training=training)
        return language, vision, probabilities

    def first_token(self, language, vision, language_bias=None, vision_bias=None, training: bool = False):
        """float[B, T, H] and float[B, N, H] -> float[B, 1, H], the first token of what `call` returns."""
        language, _ = self.visual_attention(language, vision, vision_bias, training=training, output_attentions=False)
        first = self.lang_self_att.first_token(language, language_bias, training=training)
        return self.lang_output(self.lang_inter(first), first, training=training)


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertEncoder(Block):
    """Language layers, vision layers, then cross layers. Upstream: `LxmertEncoder`; paper section 2.2.

    The layers are attributes `layer_0` ..., `r_layers_0` ..., `x_layers_0` ..., so that they are saved by these names.
    """

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.visn_fc = LxmertVisualFeatureEncoder(config, name="visn_fc", **self.options())
        self.gradient_checkpointing = False
        self.depths = {"layer": config.l_layers, "r_layers": config.r_layers, "x_layers": config.x_layers}
        for stack, layer_class in (("layer", LxmertLayer), ("r_layers", LxmertLayer), ("x_layers", LxmertXLayer)):
            for i in range(self.depths[stack]):
                setattr(self, f"{stack}_{i}", layer_class(config, name=f"{stack}_{i}", **self.options()))

    def build(self, input_shape: Any = None) -> None:
        self.visn_fc.build()
        for layer in self.stack("layer") + self.stack("r_layers") + self.stack("x_layers"):
            layer.build()

    def call(
        self,
        language,
        visual_feats,
        visual_pos,
        language_bias=None,
        vision_bias=None,
        head_masks=None,
        training: bool = False,
        output_attentions: bool = True,
    ):
        """float[B, T, H], float[B, N, visual_feat_dim], float[B, N, visual_pos_dim] -> states and attentions.

        Args:
            head_masks: float[layers, A] by names of `lxmert_tf.head_masks.ATTENTIONS`, or None.

        Returns:
            Five lists: language states after each of its layers, vision states likewise (each led by the stream's
            input, so that the last entry is always the encoder's output), and the language, vision and cross
            attention probabilities; some may be None where `output_attentions` is False.
        """
        vision = self.visn_fc(visual_feats, visual_pos, training=training)
        switches = {"training": training, "output_attentions": output_attentions}
        masks = dict.fromkeys(ATTENTIONS) | (head_masks or {})
        language_states, language_attentions = self.encode_stream(
            "layer", language, language_bias, head_mask=masks["language"], **switches
        )
        vision_states, vision_attentions = self.encode_stream(
            "r_layers", vision, vision_bias, head_mask=masks["vision"], **switches
        )
        cross_masks = [masks[name] for name in ("cross", "cross_language", "cross_vision")]
        cross_attentions = []
        for i, layer in enumerate(self.stack("x_layers")):
            streams = language_states[-1], vision_states[-1], language_bias, vision_bias
            of_layer = [None if mask is None else mask[i] for mask in cross_masks]
            language, vision, probabilities = self.apply(layer, *streams, *of_layer, **switches)
            language_states.append(language)
            vision_states.append(vision)
            cross_attentions.append(probabilities)
        return language_states, vision_states, language_attentions, vision_attentions, cross_attentions

    def encode_stream(
        self,
        stack: str,
        hidden_states,
        bias=None,
        training: bool = False,
        output_attentions: bool = False,
        head_mask=None,
    ):
        """float[B, L, H] through the layers of one stack -> lists of states, led by the input, and of probabilities"""
        states, attentions = [hidden_states], []
        switches = {"training": training, "output_attentions": output_attentions}
        for i, layer in enumerate(self.stack(stack)):
            of_layer = None if head_mask is None else head_mask[i]
            hidden_states, probabilities = self.apply(layer, hidden_states, bias, of_layer, **switches)
            states.append(hidden_states)
            attentions.append(probabilities)
        return states, attentions

    def stack(self, name: str) -> list:
        """The layers of one stack ("layer", "r_layers" or "x_layers"), in order."""
        return [getattr(self, f"{name}_{i}") for i in range(self.depths[name])]

    def apply(self, layer, *inputs, training: bool, output_attentions: bool = False):
        """What a layer returns; with gradient checkpointing, of a training step only that is kept."""
        if training and self.gradient_checkpointing and not records_attention():
            return recomputed(layer, *inputs)
        return layer(*inputs, training=training, output_attentions=output_attentions)

    # Shorter ways, where less than all is asked for

    def encode_image(self, visual_feats, visual_pos, bias=None, training: bool = False):
        """float[B, N, visual_feat_dim] and float[B, N, visual_pos_dim] -> float[B, N, H], before the cross layers"""
        vision = self.visn_fc(visual_feats, visual_pos, training=training)
        return self.encode_stream("r_layers", vision, bias, training)[0][-1]

    def encode_text(self, language, bias=None, training: bool = False):
        """float[B, T, H] -> float[B, T, H], before the cross layers"""
        return self.encode_stream("layer", language, bias, training)[0][-1]

    def cross(self, language, vision, language_bias=None, vision_bias=None, training: bool = False):
        """float[B, T, H] and float[B, N, H] through the cross layers -> the same"""
        for layer in self.stack("x_layers"):
            language, vision, _ = self.apply(layer, language, vision, language_bias, vision_bias, training=training)
        return language, vision

    def cross_first_token(self, language, vision, language_bias=None, vision_bias=None, training: bool = False):
        """float[B, T, H] and float[B, N, H] -> float[B, 1, H], the first token after the last cross layer

        The last layer computes nothing else: not the other tokens, and no vision stream, which no one reads.
        """
        layers = self.stack("x_layers")
        for layer in layers[:-1]:
            language, vision, _ = self.apply(layer, language, vision, language_bias, vision_bias, training=training)
        for layer in layers[-1:]:
            language = layer.first_token(language, vision, language_bias, vision_bias, training=training)
        return language[:, :1]
