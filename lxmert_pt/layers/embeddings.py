"""From words and image regions to vectors of one width."""

import torch
from torch import nn

from lxmert_tf.configuration import LxmertConfig


class LxmertEmbeddings(nn.Module):
    """Sum of word, position and token type embeddings, normalised.

    Row 0 of each table gets no gradient from its lookup. Source: paper, section 2.1; upstream `LxmertEmbeddings`.
    """

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=0)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size, padding_idx=0)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size, padding_idx=0)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """int[B, T] (or its word embeddings float[B, T, H]), int[B, T] (None: all zeros) -> float[B, T, H]."""
        if inputs_embeds is None:
            inputs_embeds = self.word_embeddings(input_ids)
        positions = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)
        if token_type_ids is None:
            token_type_ids = torch.zeros_like(positions)
        embeddings = inputs_embeds + self.position_embeddings(positions) + self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(embeddings))


class LxmertVisualFeatureEncoder(nn.Module):
    """Mean of a region's projected features and its projected box, each normalised first.

    Source: paper, section 2.1; upstream `LxmertVisualFeatureEncoder`.
    """

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.visn_fc = nn.Linear(config.visual_feat_dim, config.hidden_size)
        self.visn_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.box_fc = nn.Linear(config.visual_pos_dim, config.hidden_size)
        self.box_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, visual_feats: torch.Tensor, visual_pos: torch.Tensor) -> torch.Tensor:
        """float[B, N, D], float[B, N, P] -> float[B, N, H]."""
        features = self.visn_layer_norm(self.visn_fc(visual_feats))
        boxes = self.box_layer_norm(self.box_fc(visual_pos))
        return self.dropout((features + boxes) / 2)
