"""Answer heads: which answers are the same, which rows move, and the counts on the original's lists."""

import json
import os
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from support.checkpoints import run
from support.golden import GOLDEN, ROOT

from conversion.answers import BIAS, KERNEL, AnswerMatch, initialize_answer_head, match_answers
from conversion.formats import open_checkpoint
from conversion.names import rows
from conversion.writers import write_checkpoint
from lxmert_tf import LxmertConfig
from lxmert_tf.answers import normalize_answer, read_answers

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
    assert list(read_answers(answer_file(["Otter", "", "café", "otter"]))) == ["Otter", "", "café", "otter"]
    entries = [{"ans": "Otter", "dsets": ["vqa"]}, {"ans": "0", "dsets": []}]
    assert list(read_answers(answer_file(entries))) == ["Otter", "0"]
    assert list(read_answers(answer_file(["Otter", "0"]))) == ["Otter", "0"], "a head that was fine-tuned"


BAD = {"cut short": '["otter", ', "not text": b"\xff\xfe", "empty": "", "deep": "[" * 100_000}
BAD_LISTS = {
    "dict": {"otter": 0},
    "no answers": [],
    "number": 3,
    "a number in it": ["otter", 3],
    "null in it": [None],
    "an answer twice": ["otter", "teal", "otter"],
}
BAD_ENTRIES = {
    "no ans": [{"dsets": []}],
    "ans is a list": [{"ans": ["otter"]}],
    "two ans": '[{"ans": "otter", "ans": "teal"}]',
    "an ans twice": [{"ans": "otter"}, {"ans": "otter"}],
}


BAD_FILES = {**BAD, **BAD_LISTS, **BAD_ENTRIES}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES)
def test_bad_file(answer_file, content):
    path = answer_file(content)
    with pytest.raises(ValueError, match=re.escape(f"{path}: ")) as caught:
        read_answers(path)
    assert re.search("answer|not json", str(caught.value).removeprefix(str(path)))


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_answers(tmp_path / "nowhere.json")
    with pytest.raises(IsADirectoryError, match=re.escape(str(tmp_path))):
        read_answers(tmp_path)


# The original's lists


@real_lists
@pytest.mark.parametrize(("task", "found", "missing"), [("vqa", 3124, 5), ("gqa", 1736, 106)])
def test_real_counts(task, found, missing):
    match = match_answers(read_answers(PRETRAINING), read_answers(LISTS[task]))
    assert (match.found, len(match.not_found), match.num_pretrained) == (found, missing, 9500)


@real_lists
def test_pretraining_list_is_normalised():
    """So no pretrained row is lost to a duplicate, and the rules go no further than those of the list."""
    answers = list(read_answers(PRETRAINING))
    assert [normalize_answer(answer) for answer in answers] == answers
    assert len(set(answers)) == len(answers) == 9500


@real_lists
@pytest.mark.parametrize("task", LISTS)
def test_found_answers_are_the_same(task):
    pretrained, target = read_answers(PRETRAINING), read_answers(LISTS[task])
    rows = match_answers(pretrained, target).rows
    assert all(
        pretrained[row] == normalize_answer(answer) for answer, row in zip(target, rows, strict=True) if row >= 0
    )


# Checkpoints


def head(path) -> tuple[np.ndarray, np.ndarray]:
    tensors = open_checkpoint(path).tensors
    return tensors[KERNEL], tensors[BIAS]


@pytest.fixture
def lists(tmp_path) -> list[str]:
    """Arguments that name the answers of the golden pretraining checkpoint, and those of a new head."""
    (tmp_path / "all_ans.json").write_text(json.dumps([{"ans": f"answer {i}"} for i in range(11)]))
    (tmp_path / "label2ans.json").write_text(json.dumps(["The answer 4.", "teal", "answer 0"]))
    return ["--pretrained", tmp_path / "all_ans.json", "--answers", tmp_path / "label2ans.json"]


@pytest.mark.filterwarnings("ignore::UserWarning:torch")
@pytest.mark.parametrize("source", ["hf_pt_pretraining", "hf_pt_qa", "original/Epoch20_LXRT.pth", "hf_tf_pretraining"])
def test_a_checkpoint_starts_from_the_pretrained_answers(tmp_path, lists, source):
    code, out, err = run("answers", GOLDEN / source, tmp_path / "out", *lists)
    assert (code, err) == (0, "")
    assert out.splitlines()[-2:] == ["2 answers found among 11, 1 not found", "not found, and zero: teal"]
    (old_kernel, old_bias), (kernel, bias) = head(GOLDEN / source), head(tmp_path / "out")
    assert np.array_equal(kernel, [old_kernel[4], np.zeros(64), old_kernel[0]])
    assert np.array_equal(bias, [old_bias[4], 0, old_bias[0]])
    checkpoint = open_checkpoint(tmp_path / "out")
    assert checkpoint.task == "qa" and checkpoint.config.num_qa_labels == 3
    assert checkpoint.config.id2label == {0: "The answer 4.", 1: "teal", 2: "answer 0"}
    original = open_checkpoint(GOLDEN / source).tensors
    others = set(checkpoint.tensors) - {KERNEL, BIAS}
    assert len(others) == 151 and all(np.array_equal(checkpoint.tensors[name], original[name]) for name in others)


def test_the_json_of_answers_and_every_option(tmp_path, lists):
    source = GOLDEN / "hf_pt_pretraining"
    code, out, _ = run("answers", source, tmp_path / "x.keras", *lists, "--dtype", "float16", "--json")
    report = json.loads(out)
    assert code == 0 and list(report) == ["found", "not_found", "pretrained", "conversion"]
    assert (report["found"], report["not_found"], report["pretrained"]) == (2, ["teal"], 11)
    assert report["conversion"]["task"] == "qa" and report["conversion"]["dtypes"] == ["float16"]
    assert report["conversion"]["verified"]


@pytest.mark.parametrize(
    ("source", "pretrained", "answers", "words"),
    [
        ("hf_pt_model", 11, ["answer 1"], "has no answer head to start from"),
        ("original/nlvr2_BEST.pth", 2, ["answer 1"], "has no answer head to start from"),
        ("hf_pt_pretraining", 10, ["answer 1"], "has a head of 11 answers, but the list of its answers has 10"),
        ("hf_pt_pretraining", 11, ["teal"], "None of the answers in"),
        ("hf_pt_pretraining", 11, {"teal": 0}, "expected a list of answers, got an object"),
        (
            "hf_pt_pretraining",
            11,
            ["answer 1", "teal", "answer 1"],
            "answer 'answer 1' is in the table twice, at 0 and 2",
        ),
        ("nowhere", 11, ["answer 1"], "no"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_bad_usage_of_answers(tmp_path, source, pretrained, answers, words):
    (tmp_path / "all_ans.json").write_text(json.dumps([{"ans": f"answer {i}"} for i in range(pretrained)]))
    (tmp_path / "label2ans.json").write_text(json.dumps(answers))
    arguments = ["--pretrained", tmp_path / "all_ans.json", "--answers", tmp_path / "label2ans.json"]
    code, out, err = run("answers", GOLDEN / source, tmp_path / "out", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and words in err
    assert not (tmp_path / "out").exists()


@real_lists
@pytest.mark.parametrize(("task", "found", "missing"), [("vqa", 3124, 5), ("gqa", 1736, 106)])
def test_real_lists_on_a_checkpoint_of_their_size(tmp_path, task, found, missing):
    config = LxmertConfig.from_pretrained(GOLDEN / "hf_pt_pretraining", num_qa_labels=9500)
    tensors = {row.torch: np.full(row.shape(config), 0.5, "f4") for row in rows(config, "pretraining")}
    tensors[BIAS] = np.arange(9500, dtype="f4") + 1
    write_checkpoint(tmp_path / "source", tensors, config, "pretraining", "hf-pt")
    lists = ("--pretrained", PRETRAINING, "--answers", LISTS[task])
    code, out, _ = run("answers", tmp_path / "source", tmp_path / "out.weights.h5", *lists, "--json")
    report = json.loads(out)
    assert (code, report["found"], len(report["not_found"])) == (0, found, missing)
    kernel, bias = head(tmp_path / "out.weights.h5")
    assert ((bias > 0).sum(), (kernel.any(axis=1)).sum(), len(bias)) == (found, found, found + missing)
