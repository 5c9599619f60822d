"""The benchmarks' metrics against their definitions."""

import numpy as np
import pytest

from lxmert_tf.metrics import AnswerAccuracy, Consistency, sentence_groups

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


@pytest.mark.parametrize(("ignore", "expected"), [(False, 2 / 4), (True, 2 / 3)])
def test_class_ids_with_none_among_them(ignore, expected):
    assert value(AnswerAccuracy(ignore=ignore), (np.array([1, -100, 0, 2]), LOGITS)) == pytest.approx(expected)


def test_accuracy_over_words():
    labels = np.array([[1, -100], [-100, 0]])
    assert value(AnswerAccuracy(ignore=True), (labels, LOGITS.reshape(2, 2, 3))) == pytest.approx(0.5)


def test_consistency_needs_every_pair_of_a_sentence():
    groups = sentence_groups(["dev-0-0-0", "dev-0-1-0", "dev-0-0-1", "dev-1-0-0", "dev-0-2-0"])
    assert groups == [0, 0, 1, 2, 0]
    labels, right = np.array([0, 1, 1, 0, 1]), np.array([True, False, True, True, True])
    logits = np.eye(2)[np.where(right, labels, 1 - labels)]
    metric = Consistency(groups)
    assert value(metric, (labels[:2], logits[:2]), (labels[2:], logits[2:])) == pytest.approx(2 / 3)
    metric.reset_state()
    assert value(metric, (labels, np.eye(2)[labels])) == 1.0


def test_sentences_of_two_sets_are_two():
    assert sentence_groups(["dev-1-0-0", "test1-1-0-0"]) == [0, 1]
    with pytest.raises(ValueError, match="split-set-pair-sentence, got 'dev-1'"):
        sentence_groups(["dev-1"])


def test_metrics_survive_their_config():
    assert AnswerAccuracy.from_config(AnswerAccuracy("a", ignore=True).get_config()).ignore
    assert Consistency.from_config(Consistency([0, 1]).get_config()).groups == [0, 1]
