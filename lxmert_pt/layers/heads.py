"""The pooler and the heads of the pretraining and fine-tuning tasks."""

import torch
from torch import nn

from lxmert_pt.layers.primitives import get_activation
from lxmert_tf.configuration import LxmertConfig


class LxmertPooler(nn.Module):
    """tanh(dense(first token)): the cross-modality output. Source: paper, section 2.3; upstream `LxmertPooler`."""

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """float[B, T, H] -> float[B, H]."""
        return torch.tanh(self.dense(hidden_states[:, 0]))


class LxmertPredictionHeadTransform(nn.Module):
    """Dense, activation, normalisation. Source: upstream `LxmertPredictionHeadTransform`."""

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = get_activation(config.hidden_act)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """float[B, S, H] -> float[B, S, H]."""
        return self.LayerNorm(self.activation(self.dense(hidden_states)))


class LxmertLMPredictionHead(nn.Module):
    """Scores every word of the vocabulary; the decoder's weight is the word embedding table itself.

    Source: paper, section 3.1.1; upstream `LxmertLMPredictionHead`.
    """

    def __init__(self, config: LxmertConfig, word_embeddings: nn.Embedding):
        super().__init__()
        self.transform = LxmertPredictionHeadTransform(config)
        self.decoder = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.decoder.weight = word_embeddings.weight
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """float[B, T, H] -> logits float[B, T, V]."""
        return self.decoder(self.transform(hidden_states)) + self.bias

    def resize(self, word_embeddings: nn.Embedding) -> None:
        """Ties the decoder to another table and fits the bias to it; new words start at zero."""
        self.decoder.weight = word_embeddings.weight
        num_words = word_embeddings.num_embeddings
        if num_words == len(self.bias):
            return
        bias = self.bias.new_zeros(num_words)
        kept = min(num_words, len(self.bias))
        bias[:kept] = self.bias.detach()[:kept]
        self.bias = nn.Parameter(bias, requires_grad=self.bias.requires_grad)
        self.decoder.out_features = num_words


class LxmertPreTrainingHeads(nn.Module):
    """The word scores, and whether sentence and image match. Source: upstream `LxmertPreTrainingHeads`."""

    def __init__(self, config: LxmertConfig, word_embeddings: nn.Embedding):
        super().__init__()
        self.predictions = LxmertLMPredictionHead(config, word_embeddings)
        self.seq_relationship = nn.Linear(config.hidden_size, 2)

    def forward(self, language_output: torch.Tensor, pooled_output: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """float[B, T, H], float[B, H] -> word logits float[B, T, V], match logits float[B, 2]."""
        return self.predictions(language_output), self.seq_relationship(pooled_output)


class LxmertVisualObjHead(nn.Module):
    """Predicts a masked region's object, attribute and features, as the config's visual losses ask.

    Source: paper, section 3.1.2; upstream `LxmertVisualObjHead`.
    """

    def __init__(self, config: LxmertConfig):
        super().__init__()
        self.transform = LxmertPredictionHeadTransform(config)
        outputs = {
            "obj": (config.visual_obj_loss, config.num_object_labels),
            "attr": (config.visual_attr_loss, config.num_attr_labels),
            "feat": (config.visual_feat_loss, config.visual_feat_dim),
        }
        self.decoder_dict = nn.ModuleDict(
            {name: nn.Linear(config.hidden_size, size) for name, (used, size) in outputs.items() if used}
        )

    def forward(self, vision_output: torch.Tensor) -> dict[str, torch.Tensor]:
        """float[B, N, H] -> "obj" and "attr" logits float[B, N, classes], "feat" float[B, N, D]."""
        hidden = self.transform(vision_output)
        return {name: decoder(hidden) for name, decoder in self.decoder_dict.items()}


class LxmertVisualAnswerHead(nn.Module):
    """Dense to twice the width, GELU (always the exact one), normalisation, dense.

    Args:
        num_labels: number of answers A.
        num_images: pooled outputs joined in the input, 1 for questions, 2 for pairs of images.

    Source: paper, section 3.1.3; upstream `LxmertVisualAnswerHead`.
    """

    def __init__(self, config: LxmertConfig, num_labels: int, num_images: int = 1):
        super().__init__()
        width = 2 * config.hidden_size
        self.logit_fc = nn.Sequential(
            nn.Linear(num_images * config.hidden_size, width),
            nn.GELU(),
            nn.LayerNorm(width, eps=config.layer_norm_eps),
            nn.Linear(width, num_labels),
        )

    def forward(self, pooled_output: torch.Tensor) -> torch.Tensor:
        """float[B, num_images * H] -> logits float[B, A]."""
        return self.logit_fc(pooled_output)
