"""Keras metrics of the benchmarks.

Shapes: B examples, C classes or answers.
"""

from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from lxmert_tf.losses import IGNORE_INDEX


@keras.saving.register_keras_serializable("lxmert_tf")
class AnswerAccuracy(keras.metrics.Mean):
    """Mean score of the answer with the largest logit.

    With soft scores float[B, C] this is the VQA accuracy, and GQA's where the right answer has the score 1; an answer
    that is not in the table scores 0. With class ids int[...] it is the share of right ones.

    Args:
        ignore: whether labels of -100 do not count; else they count as wrong, as questions do whose answer the table
            does not hold.

    Source: Antol et al. 2015 (VQA); Hudson & Manning 2019 (GQA); Suhr et al. 2019 (NLVR2).
    """

    def __init__(self, name: str = "accuracy", ignore: bool = False, **kwargs):
        super().__init__(name=name, **kwargs)
        self.ignore = ignore

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch: labels as above, logits float[..., C], optional weights of the labels' shape."""
        best = ops.argmax(y_pred, axis=-1)
        if len(y_true.shape) == len(y_pred.shape) and y_true.shape[-1] == y_pred.shape[-1]:
            scores = ops.take_along_axis(ops.cast(y_true, self.dtype), best[..., None], axis=-1)[..., 0]
        else:
            labels = ops.cast(y_true, best.dtype)
            scores = ops.cast(ops.equal(labels, best), self.dtype)
            if self.ignore:
                kept = ops.cast(ops.not_equal(labels, IGNORE_INDEX), self.dtype)
                sample_weight = kept if sample_weight is None else kept * ops.cast(sample_weight, self.dtype)
        return super().update_state(scores, sample_weight)

    def get_config(self) -> dict:
        return {**super().get_config(), "ignore": self.ignore}


@keras.saving.register_keras_serializable("lxmert_tf")
class Consistency(keras.metrics.Metric):
    """Share of sentences that were judged rightly with every pair of images they come with, for NLVR2.

    Args:
        groups: int[E], the sentence of each example, counted from 0, in the order in which the examples come. After E
            examples it starts again with the first.

    Source: Suhr et al. 2019, section 6.
    """

    def __init__(self, groups: Sequence[int], name: str = "consistency", **kwargs):
        super().__init__(name=name, **kwargs)
        self.groups = [int(group) for group in groups]
        self.sentences = max(self.groups, default=-1) + 1
        self.seen = self.add_variable((), initializer="zeros", dtype="int32", name="seen")
        self.wrong = self.add_variable((self.sentences,), initializer="zeros", name="wrong")
        self.judged = self.add_variable((self.sentences,), initializer="zeros", name="judged")

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds the next B examples: labels int[B] in 0..1, logits float[B, 2]."""
        number = ops.shape(y_true)[0]
        places = (self.seen + ops.arange(number, dtype="int32")) % len(self.groups)
        groups = ops.take(ops.convert_to_tensor(np.array(self.groups, "int32")), places)
        wrong = ops.not_equal(ops.cast(y_true, "int32"), ops.cast(ops.argmax(y_pred, axis=-1), "int32"))
        self.wrong.assign_add(ops.segment_sum(ops.cast(wrong, self.dtype), groups, self.sentences))
        self.judged.assign_add(ops.segment_sum(ops.ones_like(ops.cast(wrong, self.dtype)), groups, self.sentences))
        self.seen.assign_add(number)

    def result(self):
        judged = ops.cast(self.judged > 0, self.dtype)
        right = judged * ops.cast(ops.equal(self.wrong, 0), self.dtype)
        return ops.sum(right) / ops.maximum(ops.sum(judged), 1)

    def get_config(self) -> dict:
        return {**super().get_config(), "groups": self.groups}


def sentence_groups(identifiers: Sequence[str]) -> list[int]:
    """The `groups` of `Consistency` from NLVR2 identifiers `split-set-pair-sentence`: all but the pair must agree.

    Raises:
        ValueError: an identifier has not four parts.
    """
    numbers: dict[tuple[str, ...], int] = {}
    groups = []
    for identifier in identifiers:
        parts = identifier.split("-")
        if len(parts) != 4:
            raise ValueError(f"An NLVR2 identifier must read split-set-pair-sentence, got {identifier!r}.")
        groups.append(numbers.setdefault((parts[0], parts[1], parts[3]), len(numbers)))
    return groups
