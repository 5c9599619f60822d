"""The losses of pretraining and fine-tuning; a model's total is their plain sum. Paper sections 3.1 and 4.

All of them compute in at least float32 and return a `Loss`: a mean, and over how many. Labels of -100 are ignored;
where there is nothing to take the mean of, the loss is 0 (upstream's PyTorch gives NaN there).

All of them take Keras' `sample_weight`: what an example adds to the sum is multiplied by its weight, and the mean stays
one over the same number of labels, examples or boxes.

Shapes: B examples, N boxes, C classes, A answers, D feature width.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
from keras import ops

from lxmert_tf.backend import asserted, in_graph
from lxmert_tf.configuration import SINGLE_LABEL

IGNORE_INDEX = -100


class Loss(NamedTuple):
    """The mean loss of a batch, and over how many labels, examples or boxes: its weight among the batches of a set.

    Fields:
        value: float[].
        count: int[] or float[], a whole number.
    """

    value: Any
    count: Any


def cross_entropy(logits, labels, sample_weight=None) -> Loss:
    """Mean cross entropy over the labels that are not -100.

    Args:
        logits: float[..., C].
        labels: int[...], class ids or -100; or int[..., 1].
        sample_weight: float[B] or of more of the labels' axes. Default: 1.
    """
    losses, kept = _class_losses(logits, labels)
    count = ops.sum(kept)
    return Loss(ops.sum(weighted(losses, sample_weight)) / ops.maximum(count, 1.0), count)


def soft_answer_loss(logits, scores, sample_weight=None) -> Loss:
    """Binary cross entropy against soft scores, averaged over everything, times the number of answers.

    Args:
        logits: float[B, A].
        scores: float[B, A] in 0..1; others give NaN.
        sample_weight: float[B]. Default: 1.
    """
    logits = _at_least_float32(logits)
    scores = match_shape(ops.cast(scores, logits.dtype), logits)
    # max(x, 0) - x z + log(1 + exp(-|x|)) is the stable form of -z log s(x) - (1 - z) log(1 - s(x)).
    losses = ops.relu(logits) - logits * scores + ops.log1p(ops.exp(-ops.abs(logits)))
    known = ops.logical_and(scores >= 0, scores <= 1)
    losses = ops.where(known, losses, ops.full_like(losses, float("nan")))
    count = ops.shape(logits)[0]
    return Loss(ops.sum(weighted(losses, sample_weight)) / ops.cast(ops.maximum(count, 1), losses.dtype), count)


def answer_loss(logits, labels, problem_type: str | None = None, sample_weight=None) -> Loss:
    """The loss of an answer head, over the labels that are not -100, or over all examples with soft scores.

    Args:
        logits: float[B, A].
        labels: int[B] or int[B, 1], answer ids or -100: cross entropy. Or float[B, A], soft scores: binary cross
            entropy, or the cross entropy of the best answer where `problem_type` is "single_label_classification".
        problem_type: of the config.
        sample_weight: float[B]. Default: 1.

    Raises:
        ValueError: the labels have another shape.
    """
    if is_soft(labels, logits):
        if problem_type != SINGLE_LABEL:
            return soft_answer_loss(logits, labels, sample_weight)
        labels = best_answers(labels)
    return cross_entropy(logits, labels, sample_weight)


def is_soft(labels, logits) -> bool:
    """Whether labels are scores of all classes, float[B, C], and not class ids int[B] or int[B, 1].

    Raises:
        ValueError: they are neither.
    """
    got, expected = tuple(labels.shape), tuple(logits.shape)
    if len(got) == len(expected) and got[-1] == expected[-1] and (got[-1] != 1 or not _is_integer(labels)):
        return True
    if got[-1:] == (1,) and len(got) == len(expected):
        got = got[:-1]
    if len(got) != len(expected) - 1:
        raise ValueError(
            f"labels must be int[B] answer ids or float[B, {expected[-1]}] soft scores, got shape {list(labels.shape)}."
        )
    return False


def best_answers(scores):
    """int32[B], the answer with the largest of the scores float[B, A], the first of equal ones; -100 if all are 0.

    A row with a score outside 0..1 gives -1, which is no label, and so NaN as its loss.
    """
    scores = _at_least_float32(scores)
    best = ops.cast(ops.argmax(scores, axis=-1), "int32")
    best = ops.where(ops.any(scores > 0, axis=-1), best, ops.full_like(best, IGNORE_INDEX))
    known = ops.all(ops.logical_and(scores >= 0, scores <= 1), axis=-1)
    return ops.where(known, best, ops.full_like(best, -1))


def visual_class_loss(logits, labels, confidence, normalizer: float, mask=None, sample_weight=None) -> Loss:
    """Cross entropy per box, times the detector's confidence, mean over all boxes, times the normalizer.

    A box that only fills up its image does not count: one that is masked and has no label or no confidence.

    Args:
        logits: float[B, N, C].
        labels: int[B, N], class ids or -100.
        confidence: float[B, N].
        normalizer: the config's `visual_loss_normalizer`.
        mask: int or float[B, N], 0 for boxes that are masked. Default: none is.
        sample_weight: float[B] or float[B, N]. Default: 1.
    """
    losses, kept = _class_losses(logits, labels)
    confidence = match_shape(ops.cast(confidence, losses.dtype), losses)
    described = ops.not_equal(kept * confidence, 0)
    return _mean_of_boxes(weighted(losses * confidence, sample_weight), described, mask, normalizer)


def visual_feature_loss(predictions, targets, weight, normalizer: float, mask=None, sample_weight=None) -> Loss:
    """Smooth L1 (beta 1) averaged over the feature, times the weight, mean over all boxes, times the normalizer.

    A box that only fills up its image does not count: one that is masked and has neither weight nor features.

    Args:
        predictions, targets: float[B, N, D].
        weight: float[B, N], 1 for boxes whose features were hidden.
        normalizer: the config's `visual_loss_normalizer`.
        mask: int or float[B, N], 0 for boxes that are masked. Default: none is.
        sample_weight: float[B] or float[B, N]. Default: 1.
    """
    predictions = _at_least_float32(predictions)
    targets = match_shape(ops.cast(targets, predictions.dtype), predictions)
    weight = match_shape(ops.cast(weight, predictions.dtype), predictions[..., 0])
    distance = ops.abs(predictions - targets)
    losses = ops.where(distance < 1.0, 0.5 * ops.square(distance), distance - 0.5)
    per_box = ops.sum(losses, axis=-1) / losses.shape[-1]
    described = ops.logical_or(ops.not_equal(weight, 0), ops.any(ops.not_equal(targets, 0), axis=-1))
    return _mean_of_boxes(weighted(per_box * weight, sample_weight), described, mask, normalizer)


def _mean_of_boxes(losses, described, mask, normalizer: float) -> Loss:
    """Over the boxes float[B, N] that are not masked, or are `described` by what is to be predicted of them.

    Upstream takes the mean over all boxes, masked or not, but knows no images of different numbers of boxes.
    """
    counted = ops.ones_like(losses)
    if mask is not None:
        counted = ops.cast(ops.logical_or(ops.cast(mask, losses.dtype) > 0, described), losses.dtype)
    count = ops.sum(counted)
    return Loss(ops.sum(losses * counted) / ops.maximum(count, 1.0) * normalizer, count)


def weight_of(sample_weight, *names: str):
    """The weight of a label: that of the example, or the label's own where weights come by the names of labels.

    Keras makes one for all labels into a structure like theirs.

    Args:
        sample_weight: float[B]; or a dict, perhaps of dicts, of such or of tuples of them; or None.
        names: of the label, from the outside in.
    """
    for name in names:
        if isinstance(sample_weight, Mapping):
            sample_weight = sample_weight.get(name)
    return sample_weight[0] if isinstance(sample_weight, tuple) else sample_weight


def weighted(losses, sample_weight):
    """The losses of labels float[B, ...], each times the weight of its example, or of the label itself.

    Args:
        losses: float[B, ...].
        sample_weight: float[B], or of more of the axes of `losses`, or float[B, 1], or None.

    Raises:
        ValueError: the weights have another shape.
    """
    if sample_weight is None:
        return losses
    weight = ops.cast(sample_weight, losses.dtype)
    while len(weight.shape) > 1 and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    got, expected = tuple(weight.shape), tuple(losses.shape)
    differs = any(None not in sizes and sizes[0] != sizes[1] for sizes in zip(got, expected, strict=False))
    if differs or not 0 < len(got) <= len(expected):
        raise ValueError(f"sample_weight must have shape [{expected[0]}], one for each example, got {list(got)}.")
    ones = (1,) * (len(expected) - len(got))
    return losses * ops.reshape(weight, (*ops.shape(weight), *ones))


def _class_losses(logits, labels):
    """Cross entropy of each label, 0 where it is ignored, and 1 or 0 for whether it was kept.

    A label that is neither a class nor -100 gives NaN: where labels cannot be checked, training must not go on quietly.
    """
    logits = _at_least_float32(logits)
    labels, classes = match_class_ids(labels, logits), logits.shape[-1]
    kept = ops.not_equal(labels, IGNORE_INDEX)
    known = ops.logical_and(labels >= 0, labels < classes)
    safe = ops.cast(ops.where(known, labels, ops.zeros_like(labels)), "int32")
    log_probabilities = ops.log_softmax(logits, axis=-1)
    losses = -ops.squeeze(ops.take_along_axis(log_probabilities, safe[..., None], axis=-1), -1)
    losses = ops.where(known, losses, ops.where(kept, ops.full_like(losses, float("nan")), ops.zeros_like(losses)))
    return losses, ops.cast(kept, losses.dtype)


def class_ids(ids):
    """Integers of any type as int32, or int64 where they may not fit: a narrow type cannot hold every bound or -100."""
    ids = ops.convert_to_tensor(ids)
    wide = keras.backend.standardize_dtype(ids.dtype) in ("int64", "uint32", "uint64")
    return ops.cast(ids, "int64" if wide else "int32")


def match_class_ids(labels, logits):
    """Class ids int[...] or int[..., 1] of logits float[..., C], as int[...].

    Raises:
        ValueError: they have another shape.
    """
    labels = class_ids(labels)
    if len(labels.shape) == len(logits.shape) and labels.shape[-1] == 1:
        labels = ops.squeeze(labels, -1)
    return match_shape(labels, logits[..., 0])


def _is_integer(x) -> bool:
    return "int" in keras.backend.standardize_dtype(x.dtype)


def match_shape(labels, predictions):
    """Labels, which have the shape of what they are compared with: nothing is broadcast.

    Raises:
        ValueError: they have another shape. Where a graph does not know it, the graph fails when it runs.
    """
    got, expected = tuple(labels.shape), tuple(predictions.shape)
    differs = len(got) != len(expected) or any(
        None not in sizes and sizes[0] != sizes[1] for sizes in zip(got, expected, strict=False)
    )
    if differs:
        raise ValueError(f"Labels must have shape {list(expected)}, as their predictions have, got {list(got)}.")
    if None in got + expected and in_graph(labels):
        same = ops.all(ops.equal(ops.stack(ops.shape(labels)), ops.stack(ops.shape(predictions))))
        message = "Labels must have the shape of their predictions, got"
        return asserted(labels, same, message, ops.stack(ops.shape(labels)), "for", ops.stack(ops.shape(predictions)))
    return labels


def _at_least_float32(x):
    x = ops.convert_to_tensor(x)
    return x if keras.backend.standardize_dtype(x.dtype) in ("float32", "float64") else ops.cast(x, "float32")


# Hidden words, without the logits of the others

CHUNK = 32  # rows of logits at a time: enough for a fast product, few enough that not many are in vain
SCALE = 32.0  # of the gradient of logits: with many words and labels float16 would take it for 0


def masked_word_loss(hidden, table, bias, labels, sample_weight=None):
    """`cross_entropy` of the logits `hidden @ table.T + bias`, of which only the rows with a label are computed.

    In training about one word in seven has a label, and its logits are as many as there are words. Rows with a label
    are taken in chunks, and the gradients are worked out along with the loss, so that no logits are kept for them.

    Args:
        hidden: float[N, H].
        table: float[V, H], the word embeddings.
        bias: float[V].
        labels: int32 or int64[N], word ids or -100.
        sample_weight: float[N], of each label. Default: 1.

    Returns:
        A scalar of at least float32; differentiable once.
    """

    @ops.custom_gradient
    def loss(hidden, table, bias):
        value, gradients = _loss_and_gradients(hidden, table, bias, labels, sample_weight)
        return value, lambda upstream: [ops.cast(upstream * each, hidden.dtype) for each in gradients]

    return loss(hidden, table, bias)


def _loss_and_gradients(hidden, table, bias, labels, sample_weight):
    """The loss, and its gradients for `hidden`, `table` and `bias`."""
    wide = "float64" if hidden.dtype == "float64" else "float32"
    kept = ops.not_equal(labels, IGNORE_INDEX)
    count = ops.sum(ops.cast(kept, "int32"))
    weight = 1.0 / ops.cast(ops.maximum(count, 1), wide)
    order = ops.argsort(ops.cast(ops.logical_not(kept), "int32"))  # rows with a label first
    order = ops.concatenate([ops.cast(order, "int32"), ops.zeros((CHUNK,), "int32")])

    def add_chunk(start, loss, for_hidden, for_table, for_bias):
        rows = ops.slice(order, (start,), (CHUNK,))
        used = start + ops.arange(CHUNK, dtype="int32") < count
        states, words = ops.take(hidden, rows, axis=0), ops.take(labels, rows)
        logits = ops.matmul(states, ops.transpose(table)) + bias
        log_probabilities = ops.log_softmax(ops.cast(logits, wide))
        hits = ops.equal(
            words[:, None], ops.arange(table.shape[0], dtype=keras.backend.standardize_dtype(labels.dtype))
        )
        losses = -ops.sum(ops.where(hits, log_probabilities, ops.zeros_like(log_probabilities)), axis=-1)
        # As `cross_entropy`: a label that is neither a word nor -100 gives NaN.
        losses = ops.where(ops.any(hits, axis=-1), losses, ops.full_like(losses, float("nan")))
        gradient = ops.where(used[:, None], ops.exp(log_probabilities) - ops.cast(hits, wide), 0.0) * SCALE
        if sample_weight is not None:
            of_rows = ops.cast(ops.take(sample_weight, rows), wide)
            losses, gradient = losses * of_rows, gradient * of_rows[:, None]
        for_logits = ops.cast(gradient, hidden.dtype)
        for_states = ops.cast(ops.matmul(for_logits, table), wide)
        return (
            start + CHUNK,
            loss + ops.sum(ops.where(used, losses, ops.zeros_like(losses))),
            for_hidden + ops.scatter(rows[:, None], for_states, ops.shape(hidden)),
            for_table + ops.cast(ops.matmul(ops.transpose(for_logits), states), wide),
            for_bias + ops.sum(gradient, axis=0),
        )

    nothing = [ops.zeros(ops.shape(x), wide) for x in (hidden, table, bias)]
    first = (ops.zeros((), "int32"), ops.zeros((), wide), *nothing)
    _, loss, *gradients = ops.while_loop(lambda start, *_: start < count, add_chunk, first)
    return loss * weight, [gradient * (weight / SCALE) for gradient in gradients]
