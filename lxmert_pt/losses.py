"""The losses of pretraining and fine-tuning; a model's total is their plain sum. Paper sections 3.1 and 4.

All of them compute in at least float32 and return a scalar. Labels of -100 are ignored; where every label is ignored
the loss is 0 with zero gradient (upstream gives NaN there).

Shapes: B examples, N boxes, C classes, A answers, D feature width.
"""

import torch
from torch.nn import functional as F

from lxmert_pt.layers.attention import score_dtype

IGNORE_INDEX = -100


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int = IGNORE_INDEX) -> torch.Tensor:
    """Cross entropy, mean over the labels that are not `ignore_index`.

    Args:
        logits: float[..., C].
        labels: int[...], class ids or `ignore_index`.
    """
    kept = (labels != ignore_index).sum()
    return _class_losses(logits, labels, ignore_index).sum() / kept.clamp(min=1)


def soft_answer_loss(logits: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy against soft scores: mean over all entries, times the number of answers.

    Args:
        logits: float[B, A].
        scores: float[B, A] in 0..1.
    """
    logits = logits.to(score_dtype(logits.dtype))
    return F.binary_cross_entropy_with_logits(logits, scores.to(logits.dtype)) * logits.shape[-1]


def visual_class_loss(
    logits: torch.Tensor, labels: torch.Tensor, confidence: torch.Tensor, normalizer: float
) -> torch.Tensor:
    """Cross entropy of each box times the detector's confidence, mean over all boxes, times `normalizer`.

    Args:
        logits: float[B, N, C].
        labels: int[B, N], class ids; -100 counts as a loss of 0.
        confidence: float[B, N], 0 for boxes that are not to be predicted.
    """
    losses = _class_losses(logits, labels, IGNORE_INDEX)
    return (losses * confidence.to(losses.dtype)).mean() * normalizer


def visual_feature_loss(
    predictions: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor, normalizer: float
) -> torch.Tensor:
    """Smooth L1 (beta 1), mean over a box's features, times `mask`, mean over all boxes, times `normalizer`.

    Args:
        predictions: float[B, N, D].
        targets: float[B, N, D].
        mask: float[B, N], 0 for boxes that are not to be predicted.
    """
    predictions = predictions.to(score_dtype(predictions.dtype))
    losses = F.smooth_l1_loss(predictions, targets.to(predictions.dtype), reduction="none").mean(-1)
    return (losses * mask.to(losses.dtype)).mean() * normalizer


def _class_losses(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """float[..., C], int[...] -> cross entropies float[...], 0 where ignored."""
    flat = logits.to(score_dtype(logits.dtype)).flatten(0, -2)
    losses = F.cross_entropy(flat, labels.flatten().long(), ignore_index=ignore_index, reduction="none")
    return losses.view(labels.shape)
