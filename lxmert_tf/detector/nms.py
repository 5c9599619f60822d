"""Non-maximum suppression, in several groups at once: Keras has none."""

from collections.abc import Callable

import numpy as np
from keras import ops


def suppress(scores, candidates, overlapping: Callable, most: int | None = None):
    """Keeps the best box, drops those that overlap it, and goes on with what is left, in each group.

    Args:
        scores: float[G, N]; of equal ones the first is kept.
        candidates: bool[G, N], which boxes take part.
        overlapping: int32[G] -> bool[G, N], whether a box of each group suppresses the others.
        most: boxes to keep in a group. Default: all.

    Returns:
        bool[G, N], which are kept.
    """
    number = ops.shape(scores)[1]
    lowest = ops.full_like(scores, -np.inf)
    places = ops.expand_dims(ops.arange(number, dtype="int32"), 0)

    def goes_on(left, kept, step):
        more = ops.any(left)
        return more if most is None else ops.logical_and(more, step < most)

    def keep_best(left, kept, step):
        best = ops.cast(ops.argmax(ops.where(left, scores, lowest), axis=1), "int32")
        chosen = ops.logical_and(places == ops.expand_dims(best, 1), left)  # of a group that is done, none
        dropped = ops.logical_or(chosen, overlapping(best))
        return ops.logical_and(left, ops.logical_not(dropped)), ops.logical_or(kept, chosen), step + 1

    start = (candidates, ops.zeros_like(candidates), ops.convert_to_tensor(0, "int32"))
    return ops.while_loop(goes_on, keep_best, start)[1]
