"""Annotations and answer tables: round trips, and an exact complaint for every kind of bad file."""

import json

import numpy as np
import pytest

from lxmert_tf.answers import AnswerTable, read_answers, write_all_answers, write_answers
from lxmert_tf.data.annotations import (
    Annotation,
    NLVR2Annotation,
    PretrainingAnnotation,
    read_annotations,
    read_nlvr2,
    read_pretraining,
    unknown_answers,
    write_annotations,
    write_nlvr2,
    write_pretraining,
)

VQA = {
    "answer_type": "other",
    "img_id": "COCO_train2014_000000458752",
    "label": {"net": 1, "netting": 0.3},
    "question_id": 458752000,
    "question_type": "what is this",
    "sent": "What is this photo taken looking through?",
}
GQA = {"img_id": "2405722", "label": {"no": 1.0}, "question_id": "02930152", "sent": "Is it überhaupt red?"}
TEST = {"img_id": "COCO_test2015_000000262144", "question_id": 262144000, "sent": "Is the ball flying?"}

NLVR2 = {
    "identifier": "train-10171-0-1",
    "img0": "train-10171-0-img0",
    "img1": "train-10171-0-img1",
    "label": 0,
    "sent": "Both images show a pencil case.",
    "uid": "nlvr2_train_0",
}
NLVR2_TEST = {key: value for key, value in {**NLVR2, "uid": "nlvr2_test_7"}.items() if key != "label"}
PRETRAINING = {
    "img_id": "COCO_train2014_000000318556",
    "labelf": {"vqa": [{"yes": 1.0}, {"grey": 0.6, "gray": 1}]},
    "sentf": {"mscoco": ["A blue bathroom.", ""], "vqa": ["Is it blue?", "What colour is the sink?"]},
}


def write_json(path, value):
    path.write_text(json.dumps(value), "utf-8")
    return path


def test_reads_vqa_gqa_and_test_entries(tmp_path):
    vqa, gqa, test = read_annotations(write_json(tmp_path / "a.json", [VQA, GQA, TEST]))
    assert vqa == Annotation(**VQA)
    assert gqa == Annotation(**GQA)
    assert test.label is None
    assert test.answer_type is None
    assert test.question_type is None


def test_image_names_may_be_numbers(tmp_path):
    (question,) = read_annotations(write_json(tmp_path / "a.json", [{**GQA, "img_id": 2405722}]))
    assert question == Annotation(**GQA)
    (image,) = read_pretraining(write_json(tmp_path / "b.json", [{**PRETRAINING, "img_id": 0}]))
    assert image.img_id == "0"


def test_round_trip(tmp_path):
    written = [Annotation(**entry) for entry in (VQA, GQA, TEST, {**TEST, "question_id": 1, "label": {}})]
    assert write_annotations(tmp_path / "a.json", iter(written)) == 4
    assert read_annotations(tmp_path / "a.json") == written
    assert json.loads((tmp_path / "a.json").read_text("utf-8"))[:3] == [VQA, GQA, TEST]


def test_empty_list(tmp_path):
    assert write_annotations(tmp_path / "a.json", []) == 0
    assert read_annotations(tmp_path / "a.json") == []


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"question_id": None}, "question_id must be a number or text"),
        ({"question_id": ""}, "question_id must be a number or text"),
        ({"question_id": True}, "question_id must be a number or text"),
        ({"question_id": 1.5}, "question_id must be a number or text"),
        ({"question_id": 262144000}, "this question_id is already in the file"),
        ({"img_id": 45.0}, "img_id must be non-empty text"),
        ({"img_id": True}, "img_id must be non-empty text"),
        ({"img_id": -1}, "img_id must be non-empty text"),
        ({"sent": "\ud83d?"}, "sent has an unpaired surrogate"),
        ({"img_id": ""}, "img_id must be non-empty text"),
        ({"sent": None}, "sent must be non-empty text"),
        ({"sent": "  "}, "sent must be non-empty text"),
        ({"answer_type": 3}, "answer_type must be text"),
        ({"question_type": ["is"]}, "question_type must be text"),
        ({"label": "net"}, "label must be an object"),
        ({"label": {"net": "1"}}, "the score of answer 'net' must be a number in 0..1, got '1'"),
        ({"label": {"net": 1.1}}, "must be a number in 0..1"),
        ({"label": {"net": -0.3}}, "must be a number in 0..1"),
        ({"label": {"net": float("nan")}}, "must be a number in 0..1"),
        ({"label": {"net": True}}, "must be a number in 0..1"),
    ],
)
def test_bad_entry_is_named_when_read_and_never_written(tmp_path, changed, complaint):
    bad = {**VQA, **changed}
    path = write_json(tmp_path / "bad.json", [TEST, bad])
    with pytest.raises(ValueError, match=complaint) as caught:
        read_annotations(path)
    name = "" if bad["question_id"] is None else f", question {bad['question_id']!r}"
    assert str(caught.value).startswith(f"{path}, entry 1{name}: ")
    with pytest.raises(ValueError, match=complaint):
        write_annotations(tmp_path / "out.json", [Annotation(**TEST), Annotation(**bad)])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[{", "not json"),
        ("", "not json"),
        ("{}", "expected a list of questions, got an object"),
        ("[3]", "entry 0: a question must be a json object, got a number"),
        ('[{"label": {"yes": 1, "no": 0.3, "yes": 0.6}}]', "an object has the key 'yes' twice"),
    ],
)
def test_bad_file_is_named(tmp_path, text, complaint):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=complaint) as caught:
        read_annotations(path)
    assert str(caught.value).startswith(str(path))


def test_answer_outside_the_table_is_named(tmp_path):
    path = write_json(tmp_path / "a.json", [TEST, VQA])
    assert len(read_annotations(path, AnswerTable(["net", "netting"]))) == 2
    with pytest.raises(ValueError, match="entry 1, question 458752000: the answer 'netting' is not among the 1"):
        read_annotations(path, AnswerTable(["net"]))


def test_nlvr2_round_trip(tmp_path):
    written = [NLVR2Annotation(**entry) for entry in (NLVR2, NLVR2_TEST)]
    assert write_nlvr2(tmp_path / "a.json", iter(written)) == 2
    assert read_nlvr2(tmp_path / "a.json") == written
    assert written[1].label is None
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == [NLVR2, NLVR2_TEST]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"uid": ""}, "uid must be non-empty text, got ''"),
        ({"uid": "nlvr2_test_7"}, "this uid is already in the file"),
        ({"identifier": None}, "identifier must be non-empty text"),
        ({"img0": 3}, "img0 must be non-empty text, got 3"),
        ({"img1": " "}, "img1 must be non-empty text"),
        ({"sent": ["a"]}, "sent must be non-empty text"),
        ({"label": 2}, "label must be 0 or 1, got 2"),
        ({"label": True}, "label must be 0 or 1, got True"),
        ({"label": 1.0}, "label must be 0 or 1, got 1.0"),
        ({"label": "True"}, "label must be 0 or 1, got 'True'"),
    ],
)
def test_bad_pair_is_named_when_read_and_never_written(tmp_path, changed, complaint):
    bad = {**NLVR2, **changed}
    path = write_json(tmp_path / "bad.json", [NLVR2_TEST, bad])
    with pytest.raises(ValueError, match=complaint) as caught:
        read_nlvr2(path)
    assert str(caught.value).startswith(f"{path}, entry 1, pair {bad['uid']!r}: ")
    with pytest.raises(ValueError, match=complaint):
        write_nlvr2(tmp_path / "out.json", [NLVR2Annotation(**NLVR2_TEST), NLVR2Annotation(**bad)])
    assert list(tmp_path.iterdir()) == [path]


def test_pretraining_round_trip(tmp_path):
    captions = {"img_id": "captions", "labelf": {}, "sentf": {"mscoco": ["A cat."]}}
    written = [PretrainingAnnotation(**entry) for entry in (PRETRAINING, captions)]
    assert write_pretraining(tmp_path / "a.json", iter(written)) == 2
    assert read_pretraining(tmp_path / "a.json") == written
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == [PRETRAINING, captions]
    del captions["labelf"]
    assert read_pretraining(write_json(tmp_path / "b.json", [PRETRAINING, captions])) == written


def test_each_sentence_has_the_label_of_its_index():
    assert list(PretrainingAnnotation(**PRETRAINING).sentences()) == [
        ("mscoco", "A blue bathroom.", None),
        ("mscoco", "", None),
        ("vqa", "Is it blue?", {"yes": 1.0}),
        ("vqa", "What colour is the sink?", {"grey": 0.6, "gray": 1}),
    ]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"img_id": ""}, "img_id must be non-empty text"),
        ({"img_id": "other"}, "this img_id is already in the file"),
        ({"sentf": {"vqa": ["a", "\udcff"]}}, "a sentence of vqa has an unpaired surrogate"),
        ({"sentf": ["a"]}, "sentf must be an object of source: list"),
        ({"sentf": {"vqa": "Is it?"}}, "sentf must be an object of source: list"),
        ({"labelf": [{}]}, "labelf must be an object of source: list"),
        ({"labelf": {"vqa": {"yes": 1}}}, "labelf must be an object of source: list"),
        ({"sentf": {"vqa": ["a", 3]}}, "the sentences of vqa must be text, got 3"),
        ({"labelf": {"gqa": [{"yes": 1}]}}, "labelf has the source 'gqa', but sentf does not"),
        ({"labelf": {"vqa": [{"yes": 1}]}}, "vqa must have a label for each of its 2 sentences, got 1"),
        ({"labelf": {"vqa": [{"yes": 1}] * 3}}, "vqa must have a label for each of its 2 sentences, got 3"),
        ({"labelf": {"vqa": [{"yes": 1}, None]}}, "label must be an object of answer: score, got None"),
        ({"labelf": {"vqa": [{"yes": 1}, {"no": 2}]}}, "the score of answer 'no' must be a number in 0..1, got 2"),
    ],
)
def test_bad_image_is_named_when_read_and_never_written(tmp_path, changed, complaint):
    bad, good = {**PRETRAINING, **changed}, {**PRETRAINING, "img_id": "other"}
    path = write_json(tmp_path / "bad.json", [good, bad])
    with pytest.raises(ValueError, match=complaint) as caught:
        read_pretraining(path)
    assert str(caught.value).startswith(f"{path}, entry 1, image {bad['img_id']!r}: ")
    with pytest.raises(ValueError, match=complaint):
        write_pretraining(tmp_path / "out.json", [PretrainingAnnotation(**good), PretrainingAnnotation(**bad)])
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("read", "what"), [(read_annotations, "question"), (read_nlvr2, "pair"), (read_pretraining, "image")]
)
def test_every_reader_names_what_is_no_list_of_objects(tmp_path, read, what):
    with pytest.raises(ValueError, match=f"expected a list of {what}s, got an object"):
        read(write_json(tmp_path / "a.json", {}))
    with pytest.raises(ValueError, match=f"entry 0: a {what} must be a json object, got a list"):
        read(write_json(tmp_path / "a.json", [[]]))
    deep = tmp_path / "deep.json"
    deep.write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json: not json"):
        read(deep)


def test_unknown_answers_are_counted():
    table = AnswerTable(["yes", "net"])
    questions = [Annotation(**VQA), Annotation(**{**VQA, "label": {"netting": 1, "no": 1}}), Annotation(**TEST)]
    assert unknown_answers(questions, table) == {"netting": 2, "no": 1}
    assert unknown_answers([PretrainingAnnotation(**PRETRAINING)], table) == {"grey": 1, "gray": 1}
    assert unknown_answers([Annotation(**TEST)], table).total() == 0


def test_scores():
    table = AnswerTable(["yes", "net", "netting"])
    scores = table.scores(VQA["label"])
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(scores, np.array([0, 1, 0.3], np.float32))
    with pytest.raises(ValueError, match="'fence'"):
        table.scores({"fence": 1.0})


def test_answers_round_trip(tmp_path):
    table = AnswerTable(["yes", "no", "café"])
    files = tmp_path / "label2ans.json", tmp_path / "ans2label.json"
    write_answers(*files, table)
    again = read_answers(*files)
    assert again.answers == table.answers
    assert len(again) == 3
    assert again[2] == "café"
    assert "no" in again
    assert again.row("café") == 2
    assert json.loads(files[1].read_text("utf-8")) == {"yes": 0, "no": 1, "café": 2}


def test_an_answer_with_two_rows_is_refused(tmp_path):
    label2ans = write_json(tmp_path / "label2ans.json", ["yes", "no"])
    (tmp_path / "ans2label.json").write_text('{"yes": 1, "no": 1, "yes": 0}')
    with pytest.raises(ValueError, match=r"ans2label\.json: .* has the key 'yes' twice"):
        read_answers(label2ans, tmp_path / "ans2label.json")


@pytest.mark.parametrize(
    ("label2ans", "ans2label", "complaint"),
    [
        ([], {}, "label2ans.json: an answer table must hold at least one answer"),
        (["yes", "yes"], {}, "label2ans.json: answer 'yes' is in the table twice, at 0 and 1"),
        (["yes", 3], {}, "label2ans.json: answer 1 must be text, got 3"),
        ({"yes": 0}, {}, "label2ans.json: expected a list of answers, got an object"),
        (["yes"], ["yes"], "ans2label.json: expected an object of answer: row, got a list"),
        (["yes", "no"], {"yes": 0}, "ans2label.json: answer 'no' must have row 1"),
        (["yes", "no"], {"yes": 1, "no": 0}, "ans2label.json: answer 'yes' must have row 0"),
        (["yes", "no"], {"yes": 0, "no": 0}, "ans2label.json: answer 'no' must have row 1"),
        (["yes", "no"], {"yes": 0, "no": True}, "ans2label.json: answer 'no' must have row 1"),
        (["yes", "no"], {"yes": 0, "no": 1.0}, "ans2label.json: answer 'no' must have row 1"),
        (["yes", "no"], {"yes": 0, "no": "1"}, "ans2label.json: answer 'no' must have row 1"),
        (["yes"], {"yes": 0, "no": 1}, "ans2label.json: answer 'no' is not in"),
    ],
)
def test_bad_answer_table(tmp_path, label2ans, ans2label, complaint):
    files = write_json(tmp_path / "label2ans.json", label2ans), write_json(tmp_path / "ans2label.json", ans2label)
    with pytest.raises(ValueError, match=complaint):
        read_answers(*files)


def test_all_answers_round_trip(tmp_path):
    table = AnswerTable(["yes", "café", "red"])
    write_all_answers(tmp_path / "all_ans.json", table, {"vqa": ["café", "yes"], "gqa": iter(["yes"])})
    assert read_answers(tmp_path / "all_ans.json").answers == table.answers
    assert json.loads((tmp_path / "all_ans.json").read_text("utf-8")) == [
        {"ans": "yes", "dsets": ["vqa", "gqa"]},
        {"ans": "café", "dsets": ["vqa"]},
        {"ans": "red", "dsets": []},
    ]


def test_bad_all_answers(tmp_path):
    path = write_json(tmp_path / "all_ans.json", [{"ans": "yes"}, {"ans": "yes"}])
    with pytest.raises(ValueError, match=r"all_ans.json: answer 'yes' is in the table twice, at 0 and 1"):
        read_answers(path)
    with pytest.raises(ValueError, match=r"all_ans.json: answer 0 must be text, got 3"):
        read_answers(write_json(path, [3]))
    assert read_answers(write_json(path, ["yes", "no"])).answers == ("yes", "no")  # as label2ans.json has them
