"""Keras metrics of the benchmarks.

Shapes: B examples, C classes or answers.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from lxmert_tf.layers.attention import score_dtype
from lxmert_tf.losses import IGNORE_INDEX, is_soft, match_class_ids, match_shape


@keras.saving.register_keras_serializable("lxmert_tf")
class AnswerAccuracy(keras.metrics.Mean):
    """Mean score of the answer with the largest logit.

    With soft scores float[B, C] this is the VQA accuracy, and GQA's where the right answer has the score 1; an answer
    that is not in the table scores 0. With class ids int[...] or int[..., 1] it is the share of right ones among those
    that are not -100.

    Source: Antol et al. 2015 (VQA); Hudson & Manning 2019 (GQA); Suhr et al. 2019 (NLVR2).
    """

    def __init__(self, name: str = "accuracy", dtype: Any = None):
        super().__init__(name=name, dtype=dtype or score_dtype(keras.config.floatx()))

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Adds a batch: labels as above, logits float[..., C], optional weights of the labels' shape.

        Raises:
            ValueError: the labels have another shape.
        """
        y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
        best = ops.argmax(y_pred, axis=-1)
        if is_soft(y_true, y_pred):
            scores = match_shape(ops.cast(y_true, self.dtype), y_pred)
            scores = ops.take_along_axis(scores, best[..., None], axis=-1)[..., 0]
            return super().update_state(scores, sample_weight)
        labels, weight = split_labels(y_true, y_pred, sample_weight, self.dtype)
        return super().update_state(ops.cast(ops.equal(labels, ops.cast(best, labels.dtype)), self.dtype), weight)


@keras.saving.register_keras_serializable("lxmert_tf")
class OverLabels(keras.metrics.Metric):
    """A Keras metric over the class ids that are not -100; with other labels the metric itself.

    Args:
        metric: a Keras metric that takes `sample_weight`.
    """

    def __init__(self, metric: keras.metrics.Metric, name: str | None = None, **kwargs: Any):
        super().__init__(name=name or metric.name, **kwargs)
        self.metric = metric

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        y_true = ops.convert_to_tensor(y_true)
        if "int" in keras.backend.standardize_dtype(y_true.dtype) and not is_soft(y_true, y_pred):
            y_true, sample_weight = split_labels(y_true, y_pred, sample_weight, self.dtype)
        return self.metric.update_state(y_true, y_pred, sample_weight=sample_weight)

    def result(self):
        return self.metric.result()

    def reset_state(self) -> None:
        self.metric.reset_state()

    def get_config(self) -> dict:
        return {**super().get_config(), "metric": keras.saving.serialize_keras_object(self.metric)}

    @classmethod
    def from_config(cls, config: dict) -> "OverLabels":
        return cls(**{**config, "metric": keras.saving.deserialize_keras_object(config["metric"])})


def mask_labels(metrics: Any) -> Any:
    """What `compile` takes as metrics, with each of Keras' metrics over the labels that are not -100.

    They see logits, as Keras' own metrics of any model see its outputs: a cross entropy needs `from_logits=True`.
    """

    def convert(metric: Any) -> Any:
        if metric in ("accuracy", "acc"):
            return AnswerAccuracy(name=metric)
        if isinstance(metric, (str, type)):
            metric = keras.metrics.get(metric)
        if callable(metric) and not isinstance(metric, keras.metrics.Metric):
            metric = keras.metrics.MeanMetricWrapper(metric, name=getattr(metric, "__name__", None))
        own = (AnswerAccuracy, Consistency, OverLabels)
        return (
            OverLabels(metric) if isinstance(metric, keras.metrics.Metric) and not isinstance(metric, own) else metric
        )

    return keras.tree.map_structure(convert, metrics)


def split_labels(labels, logits, sample_weight, dtype: str):
    """Class ids of the shape of logits without their last axis, 0 for -100, and weights that are 0 there.

    Args:
        labels: int[...] or int[..., 1], class ids or -100.
        logits: float[..., C].
        sample_weight: of the labels' shape, or a prefix of it, or None.
        dtype: of the weights.
    """
    labels = match_class_ids(labels, ops.convert_to_tensor(logits))
    kept = ops.not_equal(labels, IGNORE_INDEX)
    weight = ops.cast(kept, dtype)
    if sample_weight is not None:
        given = ops.cast(sample_weight, dtype)
        weight = weight * ops.reshape(given, (*ops.shape(given), *(1,) * (len(labels.shape) - len(given.shape))))
    return ops.where(kept, labels, ops.zeros_like(labels)), weight


@keras.saving.register_keras_serializable("lxmert_tf")
class Consistency(keras.metrics.Metric):
    """Share of sentences that were judged rightly with every pair of images they come with, for NLVR2.

    Args:
        groups: int[E], the sentence of each example, counted from 0, in the order in which the examples come. After E
            examples it starts again with the first.

    Source: Suhr et al. 2019, section 6.
    """

    def __init__(self, groups: Sequence[int], name: str = "consistency", dtype: Any = None):
        super().__init__(name=name, dtype=dtype or score_dtype(keras.config.floatx()))
        self.groups = [int(group) for group in groups]
        self.sentences = max(self.groups, default=-1) + 1
        self.seen = self.add_variable((), initializer="zeros", dtype="int32", name="seen")
        self.wrong = self.add_variable((self.sentences,), initializer="zeros", name="wrong")
        self.judged = self.add_variable((self.sentences,), initializer="zeros", name="judged")

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """Adds the next B examples: labels int[B] or int[B, 1] in 0..1, -100 for none, and logits float[B, 2].

        Raises:
            ValueError: the labels have another shape, or there are weights.
        """
        if sample_weight is not None:
            raise ValueError("Consistency takes no sample_weight: a sentence is judged with all its images or not.")
        y_true = ops.convert_to_tensor(y_true)
        if is_soft(y_true, y_pred):
            raise ValueError(f"labels must be int[B] class ids, got shape {list(y_true.shape)}.")
        labels, judged = split_labels(y_true, y_pred, None, self.dtype)
        number = ops.shape(labels)[0]
        places = (self.seen + ops.arange(number, dtype="int32")) % len(self.groups)
        groups = ops.take(ops.convert_to_tensor(np.array(self.groups, "int32")), places)
        wrong = ops.not_equal(labels, ops.cast(ops.argmax(y_pred, axis=-1), labels.dtype))
        wrong = ops.cast(wrong, self.dtype) * judged
        self.wrong.assign_add(ops.segment_sum(wrong, groups, self.sentences))
        self.judged.assign_add(ops.segment_sum(judged, groups, self.sentences))
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
