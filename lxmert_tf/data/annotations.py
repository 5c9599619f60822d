"""Questions and answer tables: the json files of the original LXMERT for VQA, and for GQA, which has fewer keys.

Shapes: A = answers in the table.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_tf.files import replacing, write_text


@dataclass(frozen=True)
class Annotation:
    """One question about one image.

    Args:
        question_id: unique in its file; a number in VQA, text in GQA.
        img_id: the image's name, as in the region features.
        sent: the question.
        label: soft scores, answer -> score in 0..1; None in a test set.
        answer_type: "yes/no", "number" or "other"; None in GQA.
        question_type: the question's opening words, for example "how many"; None in GQA.
    """

    question_id: int | str
    img_id: str
    sent: str
    label: dict[str, float] | None = None
    answer_type: str | None = None
    question_type: str | None = None


class AnswerTable:
    """The answers that a model can give; an answer's place is its row in the answer head.

    Args:
        answers: the answers in order, no two alike.

    Raises:
        ValueError: there is no answer, an answer is not text, or one is there twice.
    """

    def __init__(self, answers: Iterable[str]):
        self.answers = tuple(answers)
        if not self.answers:
            raise ValueError("an answer table must hold at least one answer, got none")
        self._rows: dict[str, int] = {}
        for row, answer in enumerate(self.answers):
            if not isinstance(answer, str):
                raise ValueError(f"answer {row} must be text, got {answer!r}")
            if answer in self._rows:
                raise ValueError(f"answer {answer!r} is in the table twice, at {self._rows[answer]} and {row}")
            self._rows[answer] = row

    def __len__(self) -> int:
        return len(self.answers)

    def __contains__(self, answer: str) -> bool:
        return answer in self._rows

    def __getitem__(self, row: int) -> str:
        return self.answers[row]

    def row(self, answer: str) -> int:
        """The row of an answer, in 0..A-1; ValueError if the table does not hold it."""
        if answer not in self._rows:
            raise ValueError(f"the answer {answer!r} is not among the {len(self)} of the answer table")
        return self._rows[answer]

    def scores(self, label: dict[str, float]) -> np.ndarray:
        """Soft scores as the loss takes them.

        Args:
            label: answer -> score in 0..1, as in `Annotation.label`.

        Returns:
            `float32[A]`, 0 for answers that the label does not name.

        Raises:
            ValueError: the label names an answer that the table does not hold.
        """
        target = np.zeros(len(self), np.float32)
        for answer, score in label.items():
            target[self.row(answer)] = score
        return target


def read_annotations(path: str | os.PathLike, answers: AnswerTable | None = None) -> list[Annotation]:
    """Reads a VQA or GQA json file.

    Args:
        path: a json list of {answer_type, img_id, label {answer: score}, question_id, question_type, sent}; label,
            answer_type and question_type may be absent, other keys are ignored.
        answers: if given, every answer of every label must be in it.

    Returns:
        The questions in the order of the file.

    Raises:
        ValueError: the file is not such a list, or an entry is wrong or repeats a question_id. The message names the
            file, the entry (counted from 0) and the question_id.
    """
    entries = _read_json(path, list, "a list of questions")
    annotations = []
    seen: set[int | str] = set()
    for number, entry in enumerate(entries):
        try:
            annotation = _annotation(entry)
            if annotation.question_id in seen:
                raise ValueError("this question_id is in the file already; every question must be there once")
            for answer in annotation.label or () if answers is not None else ():
                answers.row(answer)
        except ValueError as error:
            question_id = entry.get("question_id") if isinstance(entry, dict) else None
            raise ValueError(f"{os.fspath(path)}, entry {number}, question {question_id!r}: {error}") from error
        seen.add(annotation.question_id)
        annotations.append(annotation)
    return annotations


def write_annotations(path: str | os.PathLike, annotations: Iterable[Annotation]) -> int:
    """Writes a VQA or GQA json file, one question per line, beside `path`, and renames at the end.

    Args:
        path: the file to write; an existing one is replaced, but only when all is written.
        annotations: the questions in order; keys whose value is None are left out.

    Returns:
        How many were written.

    Raises:
        ValueError: an annotation is wrong or repeats a question_id. The message names the file, the entry and the
            question_id.
    """
    number = 0
    seen: set[int | str] = set()
    with replacing(path) as part, open(part, "w", encoding="utf-8") as file:
        for number, annotation in enumerate(annotations, start=1):
            entry = {key: value for key, value in sorted(asdict(annotation).items()) if value is not None}
            try:
                _annotation(entry)
                if annotation.question_id in seen:
                    raise ValueError("this question_id is in the file already; every question must be there once")
            except ValueError as error:
                where = f"{os.fspath(path)}, entry {number - 1}, question {annotation.question_id!r}"
                raise ValueError(f"{where}: {error}") from error
            seen.add(annotation.question_id)
            file.write("[\n" if number == 1 else ",\n")
            file.write(json.dumps(entry, ensure_ascii=False))
        file.write("\n]\n" if number else "[]\n")
    return number


def read_answers(label2ans: str | os.PathLike, ans2label: str | os.PathLike | None = None) -> AnswerTable:
    """Reads an answer table.

    Args:
        label2ans: a json list of answers.
        ans2label: if given, a json object answer -> row; it must say the same as the list.

    Raises:
        ValueError: a file is not of that form, or the two disagree. The message names the file and the answer.
    """
    names = _read_json(label2ans, list, "a list of answers")
    try:
        table = AnswerTable(names)
    except ValueError as error:
        raise ValueError(f"{os.fspath(label2ans)}: {error}") from error
    if ans2label is not None:
        _check_same(table, _read_json(ans2label, dict, "an object of answer: row"), ans2label, label2ans)
    return table


def write_answers(label2ans: str | os.PathLike, ans2label: str | os.PathLike, table: AnswerTable) -> None:
    """Writes an answer table as `read_answers` takes it: the json list, and the json object answer -> row."""
    for path, value in ((label2ans, table.answers), (ans2label, {name: row for row, name in enumerate(table.answers)})):
        write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def _annotation(entry: Any) -> Annotation:
    if not isinstance(entry, dict):
        raise ValueError(f"a question must be a json object, got {type(entry).__name__}")
    question_id = entry.get("question_id")
    if isinstance(question_id, bool) or not isinstance(question_id, int | str) or question_id == "":
        raise ValueError(f"question_id must be a number or text, got {question_id!r}")
    for key in ("img_id", "sent"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise ValueError(f"{key} must be text that is not empty, got {entry.get(key)!r}")
    for key in ("answer_type", "question_type"):
        if not isinstance(entry.get(key), str | None):
            raise ValueError(f"{key} must be text, got {entry[key]!r}")
    _check_label(entry.get("label"))
    optional = {key: entry.get(key) for key in ("label", "answer_type", "question_type")}
    return Annotation(question_id, entry["img_id"], entry["sent"], **optional)


def _check_label(label: Any) -> None:
    if label is None:
        return
    if not isinstance(label, dict):
        raise ValueError(f"label must be an object of answer: score, got {label!r}")
    for answer, score in label.items():
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if not (number and 0 <= score <= 1):
            raise ValueError(f"the score of answer {answer!r} must be a number in 0..1, got {score!r}")


def _check_same(table: AnswerTable, rows: dict[str, Any], path: str | os.PathLike, other: str | os.PathLike) -> None:
    for answer in table.answers:
        if type(rows.get(answer)) is not int or rows[answer] != table.row(answer):
            raise ValueError(
                f"{os.fspath(path)}: answer {answer!r} must have row {table.row(answer)} as in {os.fspath(other)}, "
                f"got {rows.get(answer)!r}"
            )
    extra = sorted(rows.keys() - set(table.answers))
    if extra:
        raise ValueError(f"{os.fspath(path)}: answer {extra[0]!r} is not in {os.fspath(other)}")


def _read_json(path: str | os.PathLike, kind: type, what: str) -> Any:
    try:
        value = json.loads(Path(path).read_text("utf-8"))
    except ValueError as error:  # json.JSONDecodeError and UnicodeDecodeError
        raise ValueError(f"{os.fspath(path)}: not json: {error}") from error
    if not isinstance(value, kind):
        raise ValueError(f"{os.fspath(path)}: expected {what}, got {type(value).__name__}")
    return value
