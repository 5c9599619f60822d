"""The loss of hidden words without the logits of the others."""

import keras
from keras import ops

from lxmert_tf.losses import IGNORE_INDEX

CHUNK = 32  # rows of logits at a time: enough for a fast product, few enough that not many are in vain
SCALE = 32.0  # of the gradient of logits: with many words and labels float16 would take it for 0


def masked_word_loss(hidden, table, bias, labels):
    """`losses.cross_entropy` of the logits `hidden @ table.T + bias`, of which only the rows with a label are computed.

    In training about one word in seven has a label, and its logits are as many as there are words. Rows with a label
    are taken in chunks, and the gradients are worked out along with the loss, so that no logits are kept for them.

    Args:
        hidden: float[N, H].
        table: float[V, H], the word embeddings.
        bias: float[V].
        labels: int32 or int64[N], word ids or -100.

    Returns:
        A scalar of at least float32; differentiable once.
    """

    @ops.custom_gradient
    def loss(hidden, table, bias):
        value, gradients = _loss_and_gradients(hidden, table, bias, labels)
        return value, lambda upstream: [ops.cast(upstream * each, hidden.dtype) for each in gradients]

    return loss(hidden, table, bias)


def _loss_and_gradients(hidden, table, bias, labels):
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
