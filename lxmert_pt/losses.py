"""The losses of pretraining and fine-tuning; a model's total is their plain sum. Paper sections 3.1 and 4.

All of them compute in at least float32 and return a scalar. Labels of -100 are ignored; where every label is ignored
the loss is 0 with zero gradient (upstream gives NaN there).

Shapes: B examples, N boxes, C classes, A answers, D feature width.
"""

import torch
from torch.nn import functional as F

from lxmert_pt.layers.attention import score_dtype
from lxmert_tf.configuration import SINGLE_LABEL

IGNORE_INDEX = -100


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy over the labels that are not -100.

    Args:
        logits: float[..., C].
        labels: int[...] or int[..., 1], class ids or -100.
    """
    kept = (labels.long() != IGNORE_INDEX).sum()
    return _class_losses(logits, labels).sum() / kept.clamp(min=1)


def soft_answer_loss(logits: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy against soft scores: mean over all entries, times the number of answers.

    Args:
        logits: float[B, A].
        scores: float[B, A] in 0..1; others give NaN.
    """
    logits = logits.to(score_dtype(logits.dtype))
    _check_same_shape(scores, logits)
    losses = F.binary_cross_entropy_with_logits(logits, scores.to(logits.dtype), reduction="none")
    losses = losses.masked_fill(~((scores >= 0) & (scores <= 1)), torch.nan)
    return losses.sum() / max(len(logits), 1)


def answer_loss(logits: torch.Tensor, labels: torch.Tensor, problem_type: str | None = None) -> torch.Tensor:
    """The loss of an answer head.

    Args:
        logits: float[B, A].
        labels: int[B] or int[B, 1], answer ids or -100: cross entropy. Or float[B, A], soft scores: binary cross
            entropy, or the cross entropy of the best answer where `problem_type` is "single_label_classification".
        problem_type: of the config.

    Raises:
        ValueError: the labels have another shape.
    """
    if is_soft(labels, logits):
        if problem_type != SINGLE_LABEL:
            return soft_answer_loss(logits, labels)
        labels = best_answers(labels)
    return cross_entropy(logits, labels)


def is_soft(labels: torch.Tensor, logits: torch.Tensor) -> bool:
    """Whether labels are scores of all classes, float[B, C], and not class ids int[B] or int[B, 1].

    Raises:
        ValueError: they are neither.
    """
    if labels.shape == logits.shape and (labels.shape[-1] != 1 or labels.is_floating_point()):
        return True
    if labels.shape not in (logits.shape[:-1], (*logits.shape[:-1], 1)):
        raise ValueError(
            f"labels must be int[{len(logits)}] answer ids or float{list(logits.shape)} soft scores, "
            f"got shape {list(labels.shape)}."
        )
    return False


def best_answers(scores: torch.Tensor) -> torch.Tensor:
    """int64[B], the answer with the largest of the scores float[B, A], the first of equal ones; -100 if all are 0.

    A row with a score outside 0..1 gives -1, which is no label, and so NaN as its loss.
    """
    best = torch.where((scores > 0).any(-1), scores.argmax(-1), IGNORE_INDEX)
    return torch.where(((scores >= 0) & (scores <= 1)).all(-1), best, -1)


def visual_class_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    confidence: torch.Tensor,
    normalizer: float,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cross entropy of each box times the detector's confidence, mean over all boxes, times `normalizer`.

    A box that only fills up its image does not count: one that is masked and has no label or no confidence.

    Args:
        logits: float[B, N, C].
        labels: int[B, N], class ids; -100 counts as a loss of 0.
        confidence: float[B, N], 0 for boxes that are not to be predicted.
        mask: int or float[B, N], 0 for boxes that are masked. Default: none is.
    """
    losses = _class_losses(logits, labels)
    confidence = confidence.to(losses.dtype)
    _check_same_shape(confidence, losses)
    described = (confidence != 0) & (labels.long() != IGNORE_INDEX)
    return _mean_of_boxes(losses * confidence, described, mask, normalizer)


def visual_feature_loss(
    predictions: torch.Tensor,
    targets: torch.Tensor,
    weight: torch.Tensor,
    normalizer: float,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Smooth L1 (beta 1), mean over a box's features, times `weight`, mean over all boxes, times `normalizer`.

    A box that only fills up its image does not count: one that is masked and has neither weight nor features.

    Args:
        predictions: float[B, N, D].
        targets: float[B, N, D].
        weight: float[B, N], 0 for boxes that are not to be predicted.
        mask: int or float[B, N], 0 for boxes that are masked. Default: none is.
    """
    predictions = predictions.to(score_dtype(predictions.dtype))
    _check_same_shape(targets, predictions)
    _check_same_shape(weight, predictions[..., 0])
    losses = F.smooth_l1_loss(predictions, targets.to(predictions.dtype), reduction="none").mean(-1)
    described = (weight != 0) | (targets != 0).any(-1)
    return _mean_of_boxes(losses * weight.to(losses.dtype), described, mask, normalizer)


def _mean_of_boxes(
    losses: torch.Tensor, described: torch.Tensor, mask: torch.Tensor | None, normalizer: float
) -> torch.Tensor:
    """Over the boxes float[B, N] that are not masked, or are `described` by what is to be predicted of them."""
    counted = torch.ones_like(losses) if mask is None else ((mask > 0) | described).to(losses.dtype)
    return (losses * counted).sum() / counted.sum().clamp(min=1) * normalizer


def _class_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """float[..., C], int[...] or int[..., 1] -> cross entropies float[...], 0 where ignored.

    A label that is neither a class nor -100 gives NaN, as in TensorFlow.
    """
    if labels.dim() == logits.dim() and labels.shape[-1] == 1:
        labels = labels[..., 0]
    _check_same_shape(labels, logits[..., 0])
    labels, classes = labels.long(), logits.shape[-1]
    known = (labels >= 0) & (labels < classes)
    flat = logits.to(score_dtype(logits.dtype)).flatten(0, -2)
    safe = torch.where(known, labels, IGNORE_INDEX)
    losses = F.cross_entropy(flat, safe.flatten(), ignore_index=IGNORE_INDEX, reduction="none").view(labels.shape)
    return losses.masked_fill(~known & (labels != IGNORE_INDEX), torch.nan)


def _check_same_shape(labels: torch.Tensor, predictions: torch.Tensor) -> None:
    if labels.shape != predictions.shape:
        raise ValueError(
            f"Labels must have shape {list(predictions.shape)}, as their predictions have, got {list(labels.shape)}."
        )
