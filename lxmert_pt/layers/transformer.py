"""The single-modality layer, the cross-modality layer, and the encoder that stacks them."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from lxmert_pt.layers.attention import LxmertCrossAttentionLayer, LxmertSelfAttentionLayer
from lxmert_pt.layers.embeddings import LxmertVisualFeatureEncoder
from lxmert_pt.layers.primitives import get_activation
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.head_masks import ATTENTIONS


class LxmertIntermediate(nn.Module):
    """First half of a feed-forward block: dense, activation. Source: upstream `LxmertIntermediate`."""

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = get_activation(config.hidden_act)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """float[B, S, H] -> float[B, S, I]."""
        return self.activation(self.dense(hidden_states))


class LxmertOutput(nn.Module):
    """Second half: dense, dropout, residual, normalisation. Source: upstream `LxmertOutput`."""

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """float[B, S, I], float[B, S, H] -> float[B, S, H]."""
        return self.LayerNorm(self.dropout(self.dense(hidden_states)) + residual)


class LxmertLayer(nn.Module):
    """Self-attention and feed-forward over one modality. Source: paper, section 2.2.2; upstream `LxmertLayer`."""

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.attention = LxmertSelfAttentionLayer(config)
        self.intermediate = LxmertIntermediate(config)
        self.output = LxmertOutput(config)

    def forward(
        self, hidden_states: torch.Tensor, bias: torch.Tensor | None = None, head_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """float[B, S, H], float[B, 1, 1, S], float[A] -> float[B, S, H] and probabilities float[B, A, S, S]."""
        attended, probabilities = self.attention(hidden_states, bias, head_mask)
        return self.output(self.intermediate(attended), attended), probabilities


class LxmertXLayer(nn.Module):
    """Cross-attention in both directions, then self-attention and feed-forward of each modality.

    One `visual_attention` block serves both directions, each from the layer's inputs.
    Source: paper, section 2.2.3; upstream `LxmertXLayer`.
    """

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.visual_attention = LxmertCrossAttentionLayer(config)
        self.lang_self_att = LxmertSelfAttentionLayer(config)
        self.visn_self_att = LxmertSelfAttentionLayer(config)
        self.lang_inter = LxmertIntermediate(config)
        self.lang_output = LxmertOutput(config)
        self.visn_inter = LxmertIntermediate(config)
        self.visn_output = LxmertOutput(config)

    def forward(
        self,
        language: torch.Tensor,
        vision: torch.Tensor,
        language_bias: torch.Tensor | None = None,
        vision_bias: torch.Tensor | None = None,
        head_mask: torch.Tensor | None = None,
        language_head_mask: torch.Tensor | None = None,
        vision_head_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, tuple[torch.Tensor, ...]]:
        """One layer over both streams.

        Args:
            language, vision: float[B, T, H], float[B, N, H].
            language_bias, vision_bias: float[B, 1, 1, T], float[B, 1, 1, N], added to the scores, or None.
            head_mask, language_head_mask, vision_head_mask: float[A], of the heads of the cross attention and of each
                stream's self-attention, or None.

        Returns:
            language float[B, T, H], vision float[B, N, H], and four probabilities: of language to vision
            float[B, A, T, N], vision to language float[B, A, N, T], language and vision to themselves.
        """
        language_crossed, to_vision = self.visual_attention(language, vision, vision_bias, head_mask)
        vision_crossed, to_language = self.visual_attention(vision, language, language_bias, head_mask)
        language, of_language = self.lang_self_att(language_crossed, language_bias, language_head_mask)
        vision, of_vision = self.visn_self_att(vision_crossed, vision_bias, vision_head_mask)
        language = self.lang_output(self.lang_inter(language), language)
        vision = self.visn_output(self.visn_inter(vision), vision)
        return language, vision, (to_vision, to_language, of_language, of_vision)


class LxmertEncoder(nn.Module):
    """Language layers, vision ("relation") layers, then cross-modality layers.

    Source: paper, figure 1 and section 2.2; upstream `LxmertEncoder`.
    """

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.config = config
        self.gradient_checkpointing: dict[str, Any] | None = None  # options of `checkpoint`, where it is on
        self.visn_fc = LxmertVisualFeatureEncoder(config)
        self.layer = nn.ModuleList(LxmertLayer(config) for _ in range(config.l_layers))
        self.x_layers = nn.ModuleList(LxmertXLayer(config) for _ in range(config.x_layers))
        self.r_layers = nn.ModuleList(LxmertLayer(config) for _ in range(config.r_layers))

    def forward(
        self,
        language: torch.Tensor,
        visual_feats: torch.Tensor,
        visual_pos: torch.Tensor,
        language_bias: torch.Tensor | None = None,
        vision_bias: torch.Tensor | None = None,
        head_masks: Mapping[str, torch.Tensor] | None = None,
    ) -> tuple[list[torch.Tensor], ...]:
        """Encodes both streams.

        Args:
            language: text embeddings float[B, T, H].
            visual_feats, visual_pos: float[B, N, D], float[B, N, P].
            language_bias, vision_bias: float[B, 1, 1, T], float[B, 1, 1, N], added to the scores, or None.
            head_masks: float[layers, A] by names of `lxmert_tf.head_masks.ATTENTIONS`, or None.

        Returns:
            Five lists: language states after each of its layers, vision states likewise (each led by the stream's
            input, so that the last entry is always the encoder's output), and the probabilities of language and
            vision layers and of cross layers, four of each.
        """
        language_states, vision_states = [language], [self.visn_fc(visual_feats, visual_pos)]
        language_attentions, vision_attentions = [], []
        cross_attentions: list[torch.Tensor] = []
        masks: dict[str, Any] = {name: [None] * getattr(self.config, depth) for name, depth in ATTENTIONS.items()}
        masks |= head_masks or {}
        for layer, head_mask in zip(self.layer, masks["language"], strict=True):
            hidden_states, probabilities = self.apply_layer(layer, language_states[-1], language_bias, head_mask)
            language_states.append(hidden_states)
            language_attentions.append(probabilities)
        for layer, head_mask in zip(self.r_layers, masks["vision"], strict=True):
            hidden_states, probabilities = self.apply_layer(layer, vision_states[-1], vision_bias, head_mask)
            vision_states.append(hidden_states)
            vision_attentions.append(probabilities)
        cross_masks = (masks[name] for name in ("cross", "cross_language", "cross_vision"))
        for layer, *of_layer in zip(self.x_layers, *cross_masks, strict=True):
            streams = language_states[-1], vision_states[-1], language_bias, vision_bias
            language, vision, probabilities = self.apply_layer(layer, *streams, *of_layer)
            language_states.append(language)
            vision_states.append(vision)
            cross_attentions.extend(probabilities)
        return language_states, vision_states, language_attentions, vision_attentions, cross_attentions

    def apply_layer(self, layer: nn.Module, *inputs: torch.Tensor | None) -> tuple[Any, ...]:
        """What a layer returns; with gradient checkpointing, of a training step only that is kept."""
        if self.training and self.gradient_checkpointing is not None:
            return checkpoint(layer, *inputs, **self.gradient_checkpointing)
        return layer(*inputs)
