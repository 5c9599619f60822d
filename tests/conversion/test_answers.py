"""Answer heads: which answers are the same, which rows move, and the counts on the original's lists."""

import json
import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from conversion.answers import (
    AnswerMatch,
    initialize_answer_head,
    match_answers,
    normalize_answer,
    read_answers,
    read_pretraining_answers,
)

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("LXMERT_TF_DATA", ROOT.parent / "shared" / "data"))
PRETRAINING = DATA / "lxmert" / "all_ans.json"
LISTS = {task: DATA / task / "trainval_label2ans.json" for task in ("vqa", "gqa")}

real_lists = pytest.mark.skipif(
    not all(path.is_file() for path in (PRETRAINING, *LISTS.values())),
    reason=f"needs the original's answer lists lxmert/all_ans.json, vqa/ and gqa/trainval_label2ans.json, "
    f"not found in {DATA}; set LXMERT_TF_DATA to their folder",
)


@pytest.fixture
def answer_file(tmp_path):
    """Writes bytes, text or JSON to a file."""

    def write(content):
        path = tmp_path / "answers.json"
        if not isinstance(content, str | bytes):
            content = json.dumps(content)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Teal Otter", "teal otter"),
        ("  otter ", "otter"),
        ("otter.", "otter"),
        ("otter .", "otter"),
        ("otter..", "otter."),  # one full stop
        ("1.5 otters", "1.5 otters"),
        ("a man", "man"),
        ("An otter", "otter"),
        ("the  man", "man"),
        ("the a man", "a man"),  # one article
        ("another otter", "another otter"),
        ("theatre", "theatre"),
        ("man on the left", "man on the left"),
        ("a", "a"),
        ("the.", "the"),
        ("one", "1"),
        ("Five.", "5"),
        ("ten", "10"),
        ("the two", "2"),
        ("zero", "zero"),  # a pretrained answer of its own, as are eleven, twelve, ...
        ("eleven", "eleven"),
        ("two otters", "two otters"),
        ("Grey", "gray"),
        ("greyhound", "greyhound"),
        ("light grey", "light grey"),
        ("", ""),
        (".", ""),
    ],
)
def test_normalize(text, expected):
    assert normalize_answer(text) == expected


def test_every_number_word():
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    assert [normalize_answer(word) for word in words] == [str(number) for number in range(1, 11)]


def test_match_normalises_both_sides():
    match = match_answers(["Two", "otter", "gray"], ["The otter.", "teal", "grey", "2", "otter", ""])
    assert match == AnswerMatch(rows=[1, -1, 2, 0, 1, -1], not_found=["teal", ""], num_pretrained=3)
    assert match.found == 4


def test_first_of_equal_pretrained_answers_wins():
    assert match_answers(["teal", "the otter", "otter", "Otter."], ["otter", "Otter."]).rows == [1, 1]


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ml_dtypes.bfloat16])
def test_head_rows(dtype):
    kernel = np.arange(1, 13).reshape(3, 4).astype(dtype)
    bias = np.array([5, 6, 7], dtype)
    new_kernel, new_bias = initialize_answer_head(kernel, bias, AnswerMatch([2, -1, 0, 2], ["teal"], 3))
    assert new_kernel.dtype == new_bias.dtype == np.dtype(dtype)
    assert np.array_equal(new_kernel, np.stack([kernel[2], np.zeros_like(kernel[0]), kernel[0], kernel[2]]))
    assert np.array_equal(new_bias, np.array([7, 0, 5, 7], dtype))


def test_head_is_new():
    kernel, bias = np.ones((2, 4), "float32"), np.ones(2, "float32")
    new_kernel, new_bias = initialize_answer_head(kernel, bias, match_answers(["otter", "teal"], ["otter", "teal"]))
    new_kernel[:] = new_bias[:] = 0
    assert kernel.all() and bias.all()


def test_head_without_a_found_answer_is_zero():
    match = match_answers(["otter"], ["teal", "heron"])
    kernel, bias = initialize_answer_head(np.ones((1, 4)), np.ones(1), match)
    assert kernel.shape == (2, 4) and not kernel.any()
    assert bias.shape == (2,) and not bias.any()


@pytest.mark.parametrize(
    ("kernel", "bias"),
    [((3, 4), (3,)), ((4, 2), (2,)), ((2, 4), (3,)), ((2,), (2,)), ((2, 4), (2, 1)), ((2, 4), ())],
    ids=str,
)
def test_head_of_other_answers_is_refused(kernel, bias):
    with pytest.raises(ValueError, match="The head of 2 pretrained answers must have"):
        initialize_answer_head(np.ones(kernel), np.ones(bias), match_answers(["otter", "teal"], ["teal"]))


def test_readers_keep_order_and_spelling(answer_file):
    assert read_answers(answer_file(["Otter", "", "café", "Otter"])) == ["Otter", "", "café", "Otter"]
    entries = [{"ans": "Otter", "dsets": ["vqa"]}, {"ans": "0", "dsets": []}]
    assert read_pretraining_answers(answer_file(entries)) == ["Otter", "0"]


BAD = {"cut short": '["otter", ', "not text": b"\xff\xfe", "empty": "", "deep": "[" * 100_000}
BAD_LISTS = {"dict": {"otter": 0}, "no answers": [], "number": 3, "a number in it": ["otter", 3], "null in it": [None]}
BAD_ENTRIES = {"texts": ["otter"], "no ans": [{"dsets": []}], "ans is a list": [{"ans": ["otter"]}]}


@pytest.mark.parametrize(
    ("read", "content"),
    [
        *(pytest.param(read_answers, content, id=f"answers-{name}") for name, content in {**BAD, **BAD_LISTS}.items()),
        pytest.param(read_answers, [{"ans": "otter"}], id="answers-pretraining list"),
        *(
            pytest.param(read_pretraining_answers, content, id=f"pretraining-{name}")
            for name, content in {**BAD, **BAD_LISTS, **BAD_ENTRIES}.items()
        ),
    ],
)
def test_bad_file(answer_file, read, content):
    path = answer_file(content)
    with pytest.raises(ValueError, match="answers") as caught:
        read(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("read", [read_answers, read_pretraining_answers])
def test_no_file(tmp_path, read):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read(tmp_path / "nowhere.json")
    with pytest.raises(ValueError, match="cannot be read") as caught:
        read(tmp_path)
    assert str(tmp_path) in str(caught.value)


# The original's lists


@real_lists
@pytest.mark.parametrize(("task", "found", "missing"), [("vqa", 3124, 5), ("gqa", 1736, 106)])
def test_real_counts(task, found, missing):
    match = match_answers(read_pretraining_answers(PRETRAINING), read_answers(LISTS[task]))
    assert (match.found, len(match.not_found), match.num_pretrained) == (found, missing, 9500)


@real_lists
def test_pretraining_list_is_normalised():
    """So no pretrained row is lost to a duplicate, and the rules go no further than those of the list."""
    answers = read_pretraining_answers(PRETRAINING)
    assert [normalize_answer(answer) for answer in answers] == answers
    assert len(set(answers)) == len(answers) == 9500


@real_lists
@pytest.mark.parametrize("task", LISTS)
def test_found_answers_are_the_same(task):
    pretrained, target = read_pretraining_answers(PRETRAINING), read_answers(LISTS[task])
    rows = match_answers(pretrained, target).rows
    assert all(
        pretrained[row] == normalize_answer(answer) for answer, row in zip(target, rows, strict=True) if row >= 0
    )
