"""The losses of pretraining and fine-tuning; a model's total is their plain sum. Paper sections 3.1 and 4.

All of them compute in at least float32 and return a scalar. Labels of -100 are ignored; where every label is ignored
the loss is 0 (upstream's PyTorch gives NaN there).

Shapes: B examples, N boxes, C classes, A answers, D feature width.
"""

import keras
from keras import ops

IGNORE_INDEX = -100


def cross_entropy(logits, labels):
    """Mean cross entropy over the labels that are not -100.

    Args:
        logits: float[..., C].
        labels: int[...], class ids or -100.
    """
    losses, kept = _class_losses(logits, labels)
    return ops.sum(losses) / ops.maximum(ops.sum(kept), 1.0)


def soft_answer_loss(logits, scores):
    """Binary cross entropy against soft scores, averaged over everything, times the number of answers.

    Args:
        logits: float[B, A].
        scores: float[B, A] in 0..1.
    """
    logits = _at_least_float32(logits)
    scores = ops.cast(scores, logits.dtype)
    # max(x, 0) - x z + log(1 + exp(-|x|)) is the stable form of -z log s(x) - (1 - z) log(1 - s(x)).
    losses = ops.relu(logits) - logits * scores + ops.log1p(ops.exp(-ops.abs(logits)))
    return _mean(losses) * logits.shape[-1]


def visual_class_loss(logits, labels, confidence, normalizer: float):
    """Cross entropy per box, times the detector's confidence, mean over all boxes, times the normalizer.

    Args:
        logits: float[B, N, C].
        labels: int[B, N], class ids or -100.
        confidence: float[B, N].
        normalizer: the config's `visual_loss_normalizer`.
    """
    losses, _ = _class_losses(logits, labels)
    return _mean(losses * ops.cast(confidence, losses.dtype)) * normalizer


def visual_feature_loss(predictions, targets, mask, normalizer: float):
    """Smooth L1 (beta 1) averaged over the feature, times the mask, mean over all boxes, times the normalizer.

    Args:
        predictions, targets: float[B, N, D].
        mask: float[B, N], 1 for boxes whose features were masked.
        normalizer: the config's `visual_loss_normalizer`.
    """
    predictions = _at_least_float32(predictions)
    distance = ops.abs(predictions - ops.cast(targets, predictions.dtype))
    losses = ops.where(distance < 1.0, 0.5 * ops.square(distance), distance - 0.5)
    per_box = ops.sum(losses, axis=-1) / losses.shape[-1]
    return _mean(per_box * ops.cast(mask, losses.dtype)) * normalizer


def _class_losses(logits, labels):
    """Cross entropy of each label, 0 where it is ignored, and 1 or 0 for whether it was kept.

    A label that is neither a class nor -100 gives NaN: where labels cannot be checked, training must not go on quietly.
    """
    logits, labels = _at_least_float32(logits), ops.convert_to_tensor(labels)
    check_same_shape(tuple(labels.shape), tuple(logits.shape[:-1]))
    classes = logits.shape[-1]
    kept = ops.not_equal(labels, IGNORE_INDEX)
    known = ops.logical_and(labels >= 0, labels < classes)
    safe = ops.cast(ops.where(known, labels, ops.zeros_like(labels)), "int32")
    log_probabilities = ops.log_softmax(logits, axis=-1)
    losses = -ops.squeeze(ops.take_along_axis(log_probabilities, safe[..., None], axis=-1), -1)
    losses = ops.where(known, losses, ops.where(kept, ops.full_like(losses, float("nan")), ops.zeros_like(losses)))
    return losses, ops.cast(kept, losses.dtype)


def check_same_shape(got: tuple, expected: tuple) -> None:
    differs = len(got) != len(expected) or any(
        None not in sizes and sizes[0] != sizes[1] for sizes in zip(got, expected, strict=False)
    )
    if differs:
        raise ValueError(f"Labels must have shape {list(expected)}, as their predictions have, got {list(got)}.")


def _mean(x):
    """The mean of everything. Outside TensorFlow, `ops.mean` computes float64 in float32; `ops.sum` does not."""
    return ops.sum(x) / ops.cast(ops.size(x), x.dtype)


def _at_least_float32(x):
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) in ("float32", "float64") else ops.cast(x, "float32")
