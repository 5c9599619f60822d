"""Official annotations, and tables of one's own: labels and tables equal an independent count of the same files."""

import csv
import json
import os
import random
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from support.golden import ROOT

from lxmert_tf.answers import read_answers
from lxmert_tf.cli import main
from lxmert_tf.data import prepare_gqa, prepare_nlvr2, prepare_vqa, read_annotations, read_nlvr2
from lxmert_tf.data.vqa_answers import CONTRACTIONS, normalize_vqa_answer, soft_score

REAL = Path(os.environ.get("LXMERT_TF_DATA", ROOT.parent / "shared" / "data"))

SPELLINGS = {
    "Yes.": "yes",
    "yes": "yes",
    "no": "no",
    "No!": "no",
    "The cat": "cat",
    "two": "2",
    "2": "2",
    "dont know": "don't know",
}
RARE = [f"thing {n}" for n in range(400)]


def write_json(path, content):
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def vqa(tmp_path_factory):
    """Two annotated splits and a test split, in the official format, of thousands of questions."""
    folder, rng = tmp_path_factory.mktemp("vqa"), random.Random(0)
    number = 0
    for split, count in (("train2014", 3000), ("val2014", 1500), ("test2015", 400)):
        questions, annotations = [], []
        for _ in range(count):
            number += 1
            question = {
                "question_id": 1000 * number,
                "image_id": rng.randrange(1, 900),
                "question": f"What is {number}?",
            }
            main_answer = rng.choice([*SPELLINGS, RARE[int(400 * rng.random() ** 4)]])
            others = [main_answer] * rng.randrange(1, 8) + rng.choices([*SPELLINGS.values(), *RARE[:30]], k=9)
            answers = [
                {"answer": each, "answer_confidence": "yes", "answer_id": place}
                for place, each in enumerate(others[:10], 1)
            ]
            questions.append(question)
            annotations.append(
                {
                    "question_id": question["question_id"],
                    "image_id": question["image_id"],
                    "question_type": "what is",
                    "answer_type": rng.choice(["yes/no", "number", "other"]),
                    "multiple_choice_answer": main_answer,
                    "answers": answers,
                }
            )
        rng.shuffle(annotations)
        head = {"info": {}, "license": {}, "data_subtype": split, "data_type": "mscoco"}
        write_json(folder / f"{split}_questions.json", {**head, "task_type": "Open-Ended", "questions": questions})
        if split != "test2015":
            write_json(folder / f"{split}_annotations.json", {**head, "annotations": annotations})
    return folder


def load(path):
    return json.loads(path.read_text())


def test_vqa_equals_an_independent_count(vqa, tmp_path):
    report = prepare_vqa(sorted(vqa.iterdir()), tmp_path)
    raw = {split: load(vqa / f"{split}_annotations.json")["annotations"] for split in ("train2014", "val2014")}
    times = defaultdict(int)
    for annotations in raw.values():
        for annotation in annotations:
            answer = annotation["multiple_choice_answer"]
            times[SPELLINGS.get(answer, answer)] += 1
    expected = sorted((answer for answer in times if times[answer] >= 9), key=lambda answer: (-times[answer], answer))
    table = read_answers(tmp_path / "trainval_label2ans.json", tmp_path / "trainval_ans2label.json")
    assert list(table) == expected
    assert 6 < len(expected) < len(times)
    left_out = {"answers that fewer than 9 questions have": len(times) - len(expected)}
    for split, annotations in raw.items():
        given = [{each["answer"] for each in annotation["answers"]} - set(expected) for annotation in annotations]
        left_out[f"answers to questions of {split} that are not in the table"] = sum(map(len, given))
    assert report.dropped == left_out
    for split, annotations in raw.items():
        entries = load(tmp_path / f"{split}.json")
        questions = load(vqa / f"{split}_questions.json")["questions"]
        assert [entry["question_id"] for entry in entries] == [question["question_id"] for question in questions]
        by_id = {annotation["question_id"]: annotation for annotation in annotations}
        for entry, question in zip(entries, questions, strict=True):
            annotation = by_id[entry["question_id"]]
            given = [each["answer"] for each in annotation["answers"]]
            label = {}
            for answer in expected:
                votes = sum(each == answer for each in given)
                if votes:
                    label[answer] = {1: 0.3, 2: 0.6, 3: 0.9}.get(votes, 1)
            assert entry == {
                "answer_type": annotation["answer_type"],
                "img_id": f"COCO_{split}_" + str(question["image_id"]).zfill(12),
                "label": label,
                "question_id": question["question_id"],
                "question_type": "what is",
                "sent": question["question"],
            }
        bare = sum(not entry["label"] for entry in entries)
        assert f", {bare:,} of them without an answer of the table" in report.files[tmp_path / f"{split}.json"]
    test = read_annotations(tmp_path / "test2015.json")
    assert len(test) == 400
    assert all(question.label is None for question in test)
    assert test[0].img_id.startswith("COCO_test2015_000000000")


def test_the_table_of_a_checkpoint(vqa, tmp_path):
    write_json(tmp_path / "label2ans.json", ["no", "cat", "thing 3", "yes"])
    files = [vqa / "val2014_annotations.json", vqa / "val2014_questions.json"]
    prepare_vqa(files, tmp_path / "out", answers=tmp_path / "label2ans.json", image_names="{split}/{image_id}")
    assert load(tmp_path / "out" / "trainval_label2ans.json") == ["no", "cat", "thing 3", "yes"]
    questions = read_annotations(tmp_path / "out" / "val2014.json", read_answers(tmp_path / "label2ans.json"))
    assert {answer for question in questions for answer in question.label} == {"no", "cat", "thing 3", "yes"}
    assert re.fullmatch(r"val2014/[1-9][0-9]*", questions[0].img_id)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Yes.", "yes"),
        ("The  Two\n", "2"),
        ("none", "0"),
        ("ten a", "10"),
        ("a", ""),
        ("grey", "grey"),
        ("2.00", "2.00"),
        ("12:35", "12:35"),
        ("1,000", "1000"),
        ("$1,000-2,000", "$10002000"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("t-shirt", "t shirt"),
        ("(left)", "left"),
        ("st. patrick's day", "st patrick's day"),
        ("at&t", "at&t"),
        ("dont know", "don't know"),
        ("cant see it", "can't see it"),
        ("couldnt've", "couldn't've"),
        ("couldn'tve", "couldn't've"),
        ("its well", "its well"),
        ("oclock", "o'clock"),
        ("no, thanks", "no thanks"),
        ("u.s.a.", "usa"),
        ("v1.5", "v1.5"),
    ],
)
def test_normal_forms(text, expected):
    assert normalize_vqa_answer(text) == expected
    assert normalize_vqa_answer(expected) == expected


def test_contractions_are_no_words_of_their_own():
    assert not {"its", "were", "well", "ill", "id", "hell", "shell", "shed", "wed"} & set(CONTRACTIONS)
    assert set(CONTRACTIONS.values()).isdisjoint(CONTRACTIONS)


def test_soft_scores():
    assert [soft_score(count) for count in (0, 1, 2, 3, 4, 10)] == [0, 0.3, 0.6, 0.9, 1, 1]


@pytest.mark.skipif(not (REAL / "vqa").exists(), reason="the real answer list is not there")
def test_the_real_answers_are_their_own_normal_forms():
    answers = load(REAL / "vqa" / "trainval_label2ans.json")
    assert len(answers) == 3129
    assert [answer for answer in answers if normalize_vqa_answer(answer) != answer] == []


def gqa_question(number, answer):
    entry = {"question": f"Is it {number}?", "imageId": str(2_000_000 + number % 300), "isBalanced": True}
    return {**entry, "groups": {}, "semantic": []} | (
        {} if answer is None else {"answer": answer, "fullAnswer": "Yes."}
    )


def test_gqa_equals_an_independent_count(tmp_path):
    rng = random.Random(1)
    words = [f"answer {n}" for n in range(200)]
    made = {}
    for split, count, known in (
        ("train_all", 0, words[:150]),
        ("val_balanced", 900, words[:160]),
        ("testdev_balanced", 300, words),
    ):
        made[split] = {f"{split}{n:05}": gqa_question(n, rng.choice(known)) for n in range(count)}
    made["submission_all"] = {str(n): gqa_question(n, None) for n in range(50)}
    (tmp_path / "train_all_questions").mkdir()
    for part in range(3):
        content = {f"{part}{n:04}": gqa_question(n, rng.choice(words[:150])) for n in range(700)}
        write_json(tmp_path / "train_all_questions" / f"train_all_questions_{part}.json", content)
        made["train_all"] |= content
    paths = [tmp_path / "train_all_questions"]
    for split in ("val_balanced", "testdev_balanced", "submission_all"):
        paths.append(write_json(tmp_path / f"{split}_questions.json", made[split]))
    prepare_gqa(paths, tmp_path / "out")
    counts = Counter(each["answer"] for split in ("train_all", "val_balanced") for each in made[split].values())
    assert load(tmp_path / "out" / "trainval_label2ans.json") == sorted(counts, key=lambda each: (-counts[each], each))
    for split, content in made.items():
        for entry in load(tmp_path / "out" / f"{split}.json"):
            source = content.pop(entry["question_id"])
            label = {"label": {source["answer"]: 1.0}} if "answer" in source else {}
            assert entry == {
                "question_id": entry["question_id"],
                "img_id": source["imageId"],
                "sent": source["question"],
                **label,
            }
        assert not content


def test_nlvr2(tmp_path):
    rng, lines = random.Random(2), []
    for n in range(2000):
        entry = {"identifier": f"dev-{n // 4}-{n % 2}-{n % 4}", "sentence": f"There are {n} dogs.", "synset": "dog"}
        lines.append({**entry, "label": rng.choice(["True", "False"]), "left_url": "http://a", "query": "dogs7"})
    (tmp_path / "dev.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "hidden.json").write_text(json.dumps({key: lines[0][key] for key in ("identifier", "sentence")}))
    prepare_nlvr2([tmp_path / "dev.json", tmp_path / "hidden.json"], tmp_path / "out")
    for line, pair in zip(lines, read_nlvr2(tmp_path / "out" / "dev.json"), strict=True):
        stem = "-".join(line["identifier"].split("-")[:3])
        assert (pair.identifier, pair.sent) == (line["identifier"], line["sentence"])
        assert (pair.img0, pair.img1) == (f"{stem}-img0", f"{stem}-img1")
        assert pair.label == (1 if line["label"] == "True" else 0)
    assert read_nlvr2(tmp_path / "out" / "hidden.json")[0].label is None


def test_tables_of_ones_own(tmp_path):
    with open(tmp_path / "train.csv", "w", newline="", encoding="utf-8-sig") as file:
        writer = csv.writer(file)
        writer.writerow(["Image", "question", "answer", "note"])
        writer.writerows(
            [["a.jpg", "Is it, red?", "Yes.", ""], ["b.png", "What?", "the Café", ""], ["b.png", "", "yes", ""]]
        )
        writer.writerow(["a.jpg", "Is it blue?", "", ""])
        writer.writerow(["c", "How many?", "two", ""])
    lines = [
        {"image": "d.jpeg", "question": "Is it?", "answer": ["yes", "Yes", "no"], "question_id": 7},
        {"image": 42, "question": "How many?", "answer": 2},
    ]
    (tmp_path / "valid.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "test.tsv").write_text("question\timage\nIs it?\ta.jpg\n")
    report = prepare_vqa([tmp_path / name for name in ("train.csv", "valid.jsonl", "test.tsv")], tmp_path / "out")
    assert load(tmp_path / "out" / "trainval_label2ans.json") == ["2", "yes", "café"]
    assert load(tmp_path / "out" / "train.json") == [
        {"img_id": "a", "label": {"yes": 1.0}, "question_id": "train-1", "sent": "Is it, red?"},
        {"img_id": "b", "label": {"café": 1.0}, "question_id": "train-2", "sent": "What?"},
        {"img_id": "c", "label": {"2": 1.0}, "question_id": "train-5", "sent": "How many?"},
    ]
    assert load(tmp_path / "out" / "valid.json") == [
        {"img_id": "d", "label": {"yes": 0.6}, "question_id": 7, "sent": "Is it?"},
        {"img_id": "42", "label": {"2": 1.0}, "question_id": "valid-2", "sent": "How many?"},
    ]
    assert load(tmp_path / "out" / "test.json") == [{"img_id": "a", "question_id": "test-1", "sent": "Is it?"}]
    assert report.dropped == {
        "rows of train.csv without image or question": 1,
        "rows of train.csv without an answer": 1,
        "answers to questions of valid that are not in the table": 1,
    }


def vqa_files(folder, **changed):
    question = {"question_id": 1, "image_id": 5, "question": "What?"}
    annotation = {"question_id": 1, "multiple_choice_answer": "yes", "answers": [{"answer": "yes"}] * 10}
    questions = changed.pop("questions", [question | changed.pop("question", {})])
    annotations = changed.pop("annotations", [annotation | changed.pop("annotation", {})])
    assert not changed
    write_json(folder / "q.json", {"data_subtype": "val2014", "questions": questions})
    write_json(folder / "a.json", {"data_subtype": "val2014", "annotations": annotations})
    return ["vqa", folder / "q.json", folder / "a.json", "--min-count", "1"]


def run(*arguments):
    return main(["annotations", *map(str, arguments)])


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"question": {"question_id": "1"}}, "q.json, question 1: question_id must be a number, got '1'"),
        ({"question": {"question": " "}}, "q.json, question 1: sent must be non-empty text"),
        ({"question": {"question": "\ud800"}}, "q.json, question 1: sent has an unpaired surrogate"),
        ({"questions": [7]}, "q.json, question 1: expected an object, got a number"),
        ({"annotation": {"answers": [{"answer": 1}]}}, "a.json, annotation 1: answer must be text, got 1"),
        ({"annotation": {"answers": None}}, "a.json, annotation 1: answers must be a list, got nothing"),
        ({"annotation": {"multiple_choice_answer": True}}, "multiple_choice_answer must be text, got True"),
        (
            {"annotation": {"image_id": 6}},
            "a.json, annotation 1: question 1 is about image 5, but its annotation about 6",
        ),
        (
            {"questions": [{"question_id": 1, "image_id": 5, "question": "a"}] * 2},
            "question 2: question 1 is there twice",
        ),
    ],
)
def test_wrong_entries_are_named(tmp_path, capsys, changed, complaint):
    assert run(*vqa_files(tmp_path, **changed), "--output", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_does_not_go_together_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = vqa_files(Path())
    (tmp_path / "bad.csv").write_bytes(b"image,question\n\xff,a\n")
    (tmp_path / "names.csv").write_text("picture,question\na,b\n")
    (tmp_path / "bomb.json").write_text("[" * 100_000)
    (tmp_path / "lines.json").write_text('{"identifier": "dev-1-0-0", "sentence": "a"}\n{"identifier": 1}\n{')
    write_json(tmp_path / "path.json", {"data_subtype": "../up", "questions": []})
    write_json(tmp_path / "other.json", {"info": 1})
    cases = [
        ([*files[:1], files[2]], "a.json has annotations of val2014, but none of the files has its questions"),
        ([*files[:2], files[1]], "two of the files are of val2014"),
        (
            [*files[:3]],
            "no answer is that of 9 questions or more (the most frequent is that of 1); lower min_count (--min-count)",
        ),
        ([*files, "--answers", "q.json"], "min_count is for a table to be made, but answers gives one"),
        ([*files, "--image-names", "{id}"], "'{id}' does not make names of images"),
        ([*files, "--image-names", "{image_id"], "'{image_id' does not make names of images"),
        ([*files, "--image-names", "{image_id:q}"], "q.json, question 1: '{image_id:q}' does not make names of images"),
        ([*files, "--image-names", "{image_id.__class__}"], "(there is no 'image_id.__class__')"),
        ([*files, "--image-names", "{split}"], "(all images would have one name)"),
        (["vqa", "bad.csv", "--image-names", "{image_id}"], "--image-names does nothing with tables of your own"),
        (["vqa", "other.json"], "other.json: expected a list named questions or annotations"),
        (["vqa", "path.json"], "a split cannot be called '../up'"),
        (["vqa", "bad.csv"], "bad.csv: it cannot be read as a table in UTF-8"),
        (["vqa", "names.csv"], "names.csv: the first line must name the columns image, question and answer"),
        (["vqa", "bomb.json"], "bomb.json: not json: it is nested too deeply"),
        (["nlvr2", "lines.json"], "lines.json, line 3: not json"),
        (["nlvr2", "lines.json", "--min-count", "1"], "--min-count does nothing with nlvr2; leave it out"),
        (["gqa", "q.json"], "q.json, question 1: expected an object, got text"),
        (["gqa", "nothing.json"], "No such file or directory: nothing.json"),
    ]
    for arguments, complaint in cases:
        assert run(*arguments, "--output", "out") == 2
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a.jpg,How, many?,two", "train.csv, line 2: it has 4 fields, but the first line names 3"),
        ("a.jpg,How many?", "train.csv, line 2: it has 2 fields"),
        ('a,"What?,cat\nb,Who?,"Ann"', "train.csv, line 3: ',' expected after '\"'"),
        ('a,"What?,cat\nb,Who?",Ann', "train.csv, line 3: question goes over several lines"),
        ('a,"What?,cat\nb,Who?,Ann', "train.csv, line 3: unexpected end of data"),
        ("a,b\0c,d", "train.csv, line 2: it has a NUL character"),
        ("a/1.jpg,q,x\nb/1.jpg,q,y", "train.csv, row 2: 'b/1.jpg' and 'a/1.jpg' are both the image '1'"),
    ],
)
def test_wrong_rows_are_named(tmp_path, capsys, text, complaint):
    (tmp_path / "train.csv").write_text(f"image,question,answer\n{text}\n")
    assert run("vqa", tmp_path / "train.csv", "--output", tmp_path / "out") == 2
    assert complaint in capsys.readouterr().err


def test_names_of_tables(tmp_path):
    (tmp_path / "twice.csv").write_text("image,question,answer,Answer\na,b,c,d\n")
    (tmp_path / "trainval_label2ans.csv").write_text("image,question,answer\na,b,c\n")
    (tmp_path / "TRAIN.CSV").write_text("image,question,answer\na,b,c\n")
    (tmp_path / "more.jsonl").write_text('{"image": "x/a", "question": "b", "answer": "c"}')
    for names, complaint in (
        (["twice.csv"], "the first line names 'answer' twice"),
        (["trainval_label2ans.csv"], "cannot be called 'trainval_label2ans', as the answer table is"),
        (["TRAIN.CSV", "more.jsonl"], "are both the image 'a'"),
    ):
        with pytest.raises(ValueError, match=re.escape(complaint)):
            prepare_vqa([tmp_path / name for name in names], tmp_path / "out")
    prepare_vqa([tmp_path / "TRAIN.CSV"], tmp_path / "out")
    assert load(tmp_path / "out" / "TRAIN.json")[0]["label"] == {"c": 1.0}


def test_answers_without_a_word_are_dropped(tmp_path):
    rows = "a,q,A\nb,q,the\nc,q,An apple\nd,q,?\n"
    (tmp_path / "train.csv").write_text(f"image,question,answer\n{rows}")
    report = prepare_vqa([tmp_path / "train.csv"], tmp_path / "own")
    assert load(tmp_path / "own" / "trainval_label2ans.json") == ["apple"]
    assert [entry["img_id"] for entry in load(tmp_path / "own" / "train.json")] == ["c"]
    assert report.dropped == {
        "answers of train.csv with no word but an article": 3,
        "rows of train.csv without an answer": 3,
    }
    path = write_json(tmp_path / "val_questions.json", {"1": gqa_question(1, ""), "2": gqa_question(2, "yes")})
    report = prepare_gqa([path], tmp_path / "gqa")
    assert load(tmp_path / "gqa" / "trainval_label2ans.json") == ["yes"]
    assert report.dropped == {"answers of val that are empty": 1, "questions of val without an answer": 1}


def test_gqa_directories_of_several_splits(tmp_path):
    folder = tmp_path / "questions1.2"
    folder.mkdir()
    splits = ("train_balanced", "val_balanced", "testdev_balanced")
    for number, split in enumerate(splits):
        write_json(folder / f"{split}_questions.json", {str(number): gqa_question(number, split)})
    prepare_gqa([folder], tmp_path / "out")
    for number, split in enumerate(splits):
        assert [entry["question_id"] for entry in load(tmp_path / "out" / f"{split}.json")] == [str(number)]
    assert load(tmp_path / "out" / "trainval_label2ans.json") == ["train_balanced", "val_balanced"]
    part = write_json(tmp_path / "val_balanced_questions_0.json", {"9": gqa_question(9, "yes")})
    with pytest.raises(ValueError, match="two of the files are of val_balanced"):
        prepare_gqa([folder, part], tmp_path / "more")


def test_nlvr2_labels_are_true_and_false(tmp_path):
    for label in (1, 0, "true", 1.0):
        entry = {"identifier": "dev-1-0-0", "sentence": "A dog.", "label": label}
        with pytest.raises(ValueError, match=f"line 1: label must be True or False, got {label!r}"):
            prepare_nlvr2([write_json(tmp_path / "dev.json", entry)], tmp_path / "out")
    lines = [{**entry, "label": True}, {"identifier": "dev-1-0-1", "sentence": "A cat."}]
    (tmp_path / "dev.json").write_text("\n".join(map(json.dumps, lines)))
    report = prepare_nlvr2([tmp_path / "dev.json"], tmp_path / "out")
    assert [pair.label for pair in read_nlvr2(tmp_path / "out" / "dev.json")] == [1]
    assert report.dropped == {"sentences of dev without a label": 1}


def test_what_is_there_is_kept_unless_told(tmp_path, capsys):
    files = [*vqa_files(tmp_path), "--output", tmp_path / "out"]
    assert run(*files) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{tmp_path / 'out' / 'val2014.json'}: 1 question about 1 image",
        f"{tmp_path / 'out' / 'trainval_label2ans.json'}: 1 answer of val2014",
        f"{tmp_path / 'out' / 'trainval_ans2label.json'}: the row of each",
    ]
    (tmp_path / "out" / "trainval_ans2label.json").write_text("mine")
    assert run(*files) == 2
    assert "val2014.json already exists; overwrite it (--overwrite)" in capsys.readouterr().err
    assert (tmp_path / "out" / "trainval_ans2label.json").read_text() == "mine"
    assert run(*files, "--overwrite") == 0
    assert load(tmp_path / "out" / "trainval_ans2label.json") == {"yes": 0}
    assert len(list((tmp_path / "out").iterdir())) == 3
