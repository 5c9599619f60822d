"""The benchmarks' metrics against their definitions."""

import keras
import numpy as np
import pytest

from lxmert_tf.metrics import AnswerAccuracy, Consistency, OverLabels, sentence_groups

LOGITS = np.array([[0.1, 2.0, -1.0], [3.0, 0.0, 1.0], [0.0, 0.5, 0.4], [1.0, 1.5, 2.0]], "float32")  # 1, 0, 1, 2


def value(metric, *batches) -> float:
    for labels, logits in batches:
        metric.update_state(labels, logits)
    return float(metric.result())


def test_vqa_accuracy_is_the_mean_score_of_the_chosen_answers():
    scores = np.array([[0, 0.3, 1], [1, 0, 0], [0.6, 0, 0], [0, 0, 0]], "float32")
    assert value(AnswerAccuracy(), (scores, LOGITS)) == pytest.approx((0.3 + 1 + 0 + 0) / 4)


def test_batches_of_different_sizes_weigh_by_examples():
    scores = np.eye(3, dtype="float32")[[1, 0, 0, 0]]
    whole = value(AnswerAccuracy(), (scores, LOGITS))
    assert value(AnswerAccuracy(), (scores[:3], LOGITS[:3]), (scores[3:], LOGITS[3:])) == pytest.approx(whole) == 0.5


def test_class_ids_that_are_ignored_do_not_count():
    assert value(AnswerAccuracy(), (np.array([1, -100, 0, 2]), LOGITS)) == pytest.approx(2 / 3)


def test_accuracy_over_words():
    labels = np.array([[1, -100], [-100, 0]])
    assert value(AnswerAccuracy(), (labels, LOGITS.reshape(2, 2, 3))) == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_labels_in_a_column_are_the_same_labels(dtype):
    labels = np.array([1, 2, 0, 2], dtype)
    assert value(AnswerAccuracy(), (labels[:, None], LOGITS)) == value(AnswerAccuracy(), (labels, LOGITS)) == 0.5
    pairs, logits = np.array([0, 1, 1, 0], dtype), np.eye(2)[[0, 1, 0, 0]]
    metric = Consistency([0, 0, 1, 2])
    assert value(metric, (pairs[:, None], logits)) == pytest.approx(2 / 3)


@pytest.mark.parametrize("shape", [(4, 2), (2, 2), (4, 1, 1), ()])
def test_labels_of_another_shape_are_refused(shape):
    for metric in (AnswerAccuracy(), Consistency([0, 1, 2, 3])):
        with pytest.raises(ValueError, match="labels must be"):
            metric.update_state(np.zeros(shape, "int32"), LOGITS)


def test_weights_of_examples_weigh():
    metric = AnswerAccuracy()
    metric.update_state(np.array([1, -100, 0, 2]), LOGITS, sample_weight=np.array([3.0, 5.0, 1.0, 2.0]))
    assert float(metric.result()) == pytest.approx((3 + 2) / (3 + 1 + 2))
    with pytest.raises(ValueError, match="takes no sample_weight"):
        Consistency([0]).update_state(np.array([0]), np.eye(2)[:1], sample_weight=np.ones(1))


def test_sums_are_not_kept_in_half_precision():
    keras.config.set_floatx("float16")
    try:
        metric = AnswerAccuracy()
    finally:
        keras.config.set_floatx("float32")
    labels = np.zeros(5000, "int32")
    logits = np.eye(2, dtype="float32")[np.arange(5000) % 2]
    assert value(metric, (labels, logits), (labels, logits)) == 0.5


def test_consistency_needs_every_pair_of_a_sentence():
    groups = sentence_groups(["dev-0-0-0", "dev-0-1-0", "dev-0-0-1", "dev-1-0-0", "dev-0-2-0"])
    assert groups == [0, 0, 1, 2, 0]
    labels, right = np.array([0, 1, 1, 0, 1]), np.array([True, False, True, True, True])
    logits = np.eye(2)[np.where(right, labels, 1 - labels)]
    metric = Consistency(groups)
    assert value(metric, (labels[:2], logits[:2]), (labels[2:], logits[2:])) == pytest.approx(2 / 3)
    metric.reset_state()
    assert value(metric, (labels, np.eye(2)[labels])) == 1.0


def test_sentences_that_were_not_judged_are_not_consistent():
    metric = Consistency([0, 1, 2, 2, 3, 4])
    labels, chosen = np.array([1, -100, 0, -100, 1]), [1, 1, 0, 1, 0]
    metric.update_state(labels, np.eye(2)[chosen])  # of 1 nothing is known, nor of 4 yet; of 2 one of two
    assert float(metric.result()) == pytest.approx(2 / 3)


def test_sentences_of_two_sets_are_two():
    assert sentence_groups(["dev-1-0-0", "test1-1-0-0"]) == [0, 1]
    with pytest.raises(ValueError, match="split-set-pair-sentence, got 'dev-1'"):
        sentence_groups(["dev-1"])


def test_metrics_survive_their_config():
    assert AnswerAccuracy.from_config(AnswerAccuracy("a").get_config()).name == "a"
    inner = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top_two")
    again = OverLabels.from_config(OverLabels(inner).get_config())
    assert (again.name, again.metric.name) == ("top_two", "top_two")
    assert Consistency.from_config(Consistency([0, 1]).get_config()).groups == [0, 1]
