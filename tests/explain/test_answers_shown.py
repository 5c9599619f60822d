"""Answers by name and by id, and their scores."""

import numpy as np
import pytest

from lxmert_tf.answers import TRUTHS, AnswerTable, answer_row, best_answers


@pytest.mark.parametrize(("answer", "row"), [("blue", 1), ("1", 0), ("0", 0), (1, 1), (np.int64(1), 1)])
def test_a_name_comes_before_an_id(answer, row):
    for names in (["1", "blue"], AnswerTable(["1", "blue"])):
        assert answer_row(answer, names, 2) == row


def test_answers_without_names():
    assert answer_row("1", None, 2) == 1
    with pytest.raises(ValueError, match=r"'red' is none of the model's 2 answers, which have no names"):
        answer_row("red", None, 2)


@pytest.mark.parametrize("answer", [2, -1, "2", 0.5])
def test_ids_are_those_of_the_answer_head(answer):
    with pytest.raises(ValueError, match=r"answer must be an id in 0\.\.1 or a name"):
        answer_row(answer, ["yes", "no"], 2)


def test_truths_are_answers_of_visual_reasoning_only():
    assert [answer_row(each, TRUTHS, 2) for each in (False, True, "False", "True")] == [0, 1, 0, 1]
    with pytest.raises(TypeError, match="its name is text, 'True'"):
        answer_row(True, ["yes", "no"], 2)


def test_the_best_answers():
    logits = np.float32([[1000, 0, 1000], [-1000, 3, 2]])
    first, second = best_answers(logits, ["a", "b", "c"], exclusive=True, top_k=2)
    assert [tuple(each) for each in first] == [("a", 0.5, 0), ("c", 0.5, 2)]
    assert [each.text for each in second] == ["b", "c"]
    assert second[0].score == pytest.approx(1 / (1 + np.exp(-1.0)), rel=1e-15)
    [apart, _] = best_answers(logits, None, exclusive=False)
    assert [tuple(each) for each in apart] == [(None, 1.0, 0), (None, 1.0, 2), (None, 0.5, 1)]
