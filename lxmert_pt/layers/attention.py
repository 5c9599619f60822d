"""Multi-head attention, and the self- and cross-attention sub-blocks made of it."""

import math

import torch
from torch import nn

from lxmert_tf.configuration import LxmertConfig


def attention_bias(mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """What to add to attention scores so that masked keys get no weight.

    Args:
        mask: bool, int or float[B, K], 0 for masked keys, 1 or any number up to it for the others; or None.
        dtype: of the scores, float32 at least, so that scores added to its minimum stay finite.

    Returns:
        float[B, 1, 1, K], 0 or the dtype's minimum; None without a mask. NaN for a number outside 0..1. A row masked
        throughout spreads its weight evenly over all its keys and is never NaN.
    """
    if mask is None:
        return None
    mask = mask.to(dtype)[:, None, None, :]
    bias = torch.zeros_like(mask).masked_fill(mask <= 0, torch.finfo(dtype).min)
    return bias.masked_fill(~((mask >= 0) & (mask <= 1)), torch.nan)


def score_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of attention scores and of losses for tensors of `dtype`: the same, but no less than float32."""
    return torch.promote_types(dtype, torch.float32)


class LxmertAttention(nn.Module):
    """Multi-head scaled dot-product attention of one sequence over another.

    Scores and softmax are computed in float32 at least, so that masks are safe in half precision.
    Source: paper, section 2.2.1; upstream `LxmertAttention`.
    """

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.num_attention_heads = config.num_attention_heads
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def split_heads(self, states: torch.Tensor) -> torch.Tensor:
        """float[B, S, H] -> float[B, A, S, H / A]."""
        return states.unflatten(-1, (self.num_attention_heads, self.head_size)).transpose(1, 2)

    def forward(
        self,
        hidden_states: torch.Tensor,
        context: torch.Tensor,
        bias: torch.Tensor | None = None,
        head_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Lets `hidden_states` float[B, Q, H] attend to `context` float[B, K, H].

        `bias` float[B, 1, 1, K] (see `attention_bias`) is added to the scores, and `head_mask` float[A] multiplies the
        probabilities of each head. Returns the attended values float[B, Q, H] and the probabilities
        float[B, A, Q, K], after dropout in training.
        """
        query = self.split_heads(self.query(hidden_states))
        key = self.split_heads(self.key(context))
        value = self.split_heads(self.value(context))
        scores = query @ key.transpose(-1, -2) / math.sqrt(self.head_size)
        scores = scores.to(score_dtype(scores.dtype))
        if bias is not None:
            scores = scores + bias
        probabilities = self.dropout(scores.softmax(dim=-1)).to(value.dtype)
        if head_mask is not None:
            probabilities = probabilities * head_mask[:, None, None]
        attended = (probabilities @ value).transpose(1, 2).flatten(-2)
        return attended, probabilities


class LxmertAttentionOutput(nn.Module):
    """Dense, dropout, residual, normalisation. Source: upstream `LxmertAttentionOutput`."""

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, hidden_states: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """float[B, S, H] twice -> float[B, S, H]."""
        return self.LayerNorm(self.dropout(self.dense(hidden_states)) + residual)


class LxmertSelfAttentionLayer(nn.Module):
    """A sequence attends to itself. Source: upstream `LxmertSelfAttentionLayer`."""

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.self = LxmertAttention(config)
        self.output = LxmertAttentionOutput(config)

    def forward(
        self, hidden_states: torch.Tensor, bias: torch.Tensor | None = None, head_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """float[B, S, H], float[B, 1, 1, S], float[A] -> float[B, S, H] and probabilities float[B, A, S, S]."""
        attended, probabilities = self.self(hidden_states, hidden_states, bias, head_mask)
        return self.output(attended, hidden_states), probabilities


class LxmertCrossAttentionLayer(nn.Module):
    """A sequence attends to another. Source: paper, section 2.2.3; upstream `LxmertCrossAttentionLayer`."""

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.att = LxmertAttention(config)
        self.output = LxmertAttentionOutput(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        context: torch.Tensor,
        bias: torch.Tensor | None = None,
        head_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """float[B, Q, H], float[B, K, H], float[B, 1, 1, K], float[A] -> float[B, Q, H] and float[B, A, Q, K]."""
        attended, probabilities = self.att(hidden_states, context, bias, head_mask)
        return self.output(attended, hidden_states), probabilities
