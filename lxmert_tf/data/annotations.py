"""The json files of the original LXMERT: questions (VQA, GQA), pairs of images (NLVR2), pretraining.

Each reader has its writer; errors name the file and the entry.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Any

from lxmert_tf.answers import AnswerTable
from lxmert_tf.files import json_kind, read_json_as, replacing

Label = dict[str, float]  # soft scores: answer -> score in 0..1


@dataclass(frozen=True, slots=True)
class Annotation:
    """One question about one image.

    Args:
        question_id: unique in its file; a number in VQA, text in GQA.
        img_id: the image's name, as in the region features; in a file it may be a number.
        sent: the question.
        label: soft scores, answer -> score in 0..1; None in a test set.
        answer_type: "yes/no", "number" or "other"; None in GQA.
        question_type: the question's opening words, for example "how many"; None in GQA.
    """

    question_id: int | str
    img_id: str
    sent: str
    label: Label | None = None
    answer_type: str | None = None
    question_type: str | None = None


@dataclass(frozen=True, slots=True)
class NLVR2Annotation:
    """One sentence about a pair of images.

    Args:
        uid: unique in its file.
        identifier: the name in submissions, `split-set-pair-sentence`, for example "dev-850-0-1"; those that differ in
            the pair alone share a sentence.
        img0, img1: the names of the left and the right image, as in the region features.
        sent: the sentence.
        label: 1 if it is true of the pair, else 0; None in a test set.
    """

    uid: str
    identifier: str
    img0: str
    img1: str
    sent: str
    label: int | None = None


@dataclass(frozen=True, slots=True)
class PretrainingAnnotation:
    """One image with all its sentences.

    Args:
        img_id: the image's name, as in the region features; unique in its file.
        sentf: source ("mscoco", "vg", "vqa", "gqa", "visual7w") -> its sentences about the image.
        labelf: source -> the soft scores of each of its sentences, in the same order; captions have none.
    """

    img_id: str
    sentf: dict[str, list[str]]
    labelf: dict[str, list[Label]] = field(default_factory=dict)

    def sentences(self) -> Iterator[tuple[str, str, Label | None]]:
        """(source, sentence, soft scores or None) of every sentence, in the order of the file."""
        for source, sentences in self.sentf.items():
            labels = self.labelf.get(source, [None] * len(sentences))
            for sentence, label in zip(sentences, labels, strict=True):
                yield source, sentence, label


def read_annotations(path: str | os.PathLike, answers: AnswerTable | None = None) -> list[Annotation]:
    """Reads a VQA or GQA json file.

    Args:
        path: a json list of {answer_type, img_id, label {answer: score}, question_id, question_type, sent}; label,
            answer_type and question_type may be absent, other keys are ignored.
        answers: if given, it must have the answers of all labels; `unknown_answers` counts those that it has not.

    Returns:
        The questions in the order of the file.

    Raises:
        ValueError: the file is not such a list, or an entry is wrong or repeats a question_id. The message names the
            file, the entry (counted from 0) and the question_id.
    """

    def parse(entry: dict) -> Annotation:
        annotation = parse_question(entry)
        if answers is not None:
            for answer in annotation.label or ():
                answers.row(answer)
        return annotation

    return _read_entries(path, "question", "question_id", parse)


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
    return _write_entries(path, "question", "question_id", annotations, parse_question)


def read_nlvr2(path: str | os.PathLike) -> list[NLVR2Annotation]:
    """Reads an NLVR2 json file.

    Args:
        path: a json list of {identifier, img0, img1, label (0 or 1), sent, uid}; label may be absent, other keys are
            ignored.

    Returns:
        The sentences in the order of the file.

    Raises:
        ValueError: the file is not such a list, or an entry is wrong or repeats a uid. The message names the file, the
            entry (counted from 0) and the uid.
    """
    return _read_entries(path, "pair", "uid", parse_pair)


def write_nlvr2(path: str | os.PathLike, annotations: Iterable[NLVR2Annotation]) -> int:
    """Writes an NLVR2 json file as `write_annotations` writes one of questions; returns how many pairs it has."""
    return _write_entries(path, "pair", "uid", annotations, parse_pair)


def read_pretraining(path: str | os.PathLike) -> list[PretrainingAnnotation]:
    """Reads a pretraining json file.

    Args:
        path: a json list of {img_id, sentf {source: [sentence]}, labelf {source: [{answer: score}]}}; labelf may be
            absent or lack sources, other keys are ignored.

    Returns:
        The images in the order of the file. Answers are as in the file; the original normalises them
        (`lxmert_tf.answers.normalize_answer`) before it looks them up.

    Raises:
        ValueError: the file is not such a list, an entry is wrong or repeats an img_id, or a source has more or fewer
            labels than sentences. The message names the file, the entry (counted from 0) and the img_id.
    """
    return _read_entries(path, "image", "img_id", _pretraining_annotation)


def write_pretraining(path: str | os.PathLike, annotations: Iterable[PretrainingAnnotation]) -> int:
    """Writes a pretraining json file as `write_annotations` writes one of questions; returns how many images it has."""
    return _write_entries(path, "image", "img_id", annotations, _pretraining_annotation)


def unknown_answers(annotations: Iterable[Annotation | PretrainingAnnotation], table: AnswerTable) -> Counter[str]:
    """How many labels name each answer that is not in the table.

    Training gives such answers no row to learn; `.total()` of the result says how many are lost that way.
    """
    labels = (label for annotation in annotations for label in _labels(annotation))
    return Counter(answer for label in labels for answer in label if answer not in table)


def _read_entries(path: str | os.PathLike, what: str, key: str, parse: Callable[[dict], Any]) -> list:
    """The parsed entries of a json list of objects, no two of which have the same `key`."""
    entries = read_json_as(path, list, f"a list of {what}s")
    check = _Check(path, what, key, parse)
    for number, entry in enumerate(entries):
        entries[number] = check(number, entry)  # in place: most of the memory is json objects
    return entries


def _write_entries(
    path: str | os.PathLike, what: str, key: str, annotations: Iterable, parse: Callable[[dict], Any]
) -> int:
    """Writes annotations, one per line, each only if it can be read back; returns how many."""
    number = 0
    check = _Check(path, what, key, parse)
    with replacing(path) as part, open(part, "w", encoding="utf-8") as file:
        for number, annotation in enumerate(annotations, start=1):
            values = {column.name: getattr(annotation, column.name) for column in fields(annotation)}
            entry = {name: value for name, value in sorted(values.items()) if value is not None}
            check(number - 1, entry)
            file.write("[\n" if number == 1 else ",\n")
            file.write(json.dumps(entry, ensure_ascii=False))
        file.write("\n]\n" if number else "[]\n")
    return number


class _Check:
    """Parses one entry after the other; an error names the file, the entry and its key."""

    def __init__(self, path: str | os.PathLike, what: str, key: str, parse: Callable[[dict], Any]):
        self.path, self.what, self.key, self.parse = os.fspath(path), what, key, parse
        self.seen: set[int | str] = set()

    def __call__(self, number: int, entry: Any) -> Any:
        try:
            if not isinstance(entry, dict):
                raise ValueError(f"a {self.what} must be a json object, got {json_kind(entry)}")
            annotation = self.parse(entry)
            name = getattr(annotation, self.key)
            if name in self.seen:
                raise ValueError(f"this {self.key} is already in the file")
        except ValueError as error:
            name = entry.get(self.key) if isinstance(entry, dict) else None
            where = f"{self.path}, entry {number}" + ("" if name is None else f", {self.what} {name!r}")
            raise ValueError(f"{where}: {error}") from error
        self.seen.add(name)
        return annotation


def parse_question(entry: dict) -> Annotation:
    """An entry of a VQA or GQA json file; ValueError if it is wrong."""
    question_id = entry.get("question_id")
    if isinstance(question_id, bool) or not isinstance(question_id, int | str) or question_id == "":
        got = "nothing" if question_id is None else repr(question_id)
        raise ValueError(f"question_id must be a number or text, got {got}")
    img_id = _img_id(entry)
    _check_texts(entry, "sent")
    for key in ("answer_type", "question_type"):
        if not isinstance(entry.get(key), str | None):
            raise ValueError(f"{key} must be text, got {entry[key]!r}")
    if entry.get("label") is not None:
        _check_label(entry["label"])
    optional = (entry.get(key) for key in ("label", "answer_type", "question_type"))
    return Annotation(question_id, img_id, entry["sent"], *optional)


def parse_pair(entry: dict) -> NLVR2Annotation:
    """An entry of an NLVR2 json file; ValueError if it is wrong."""
    texts = ("uid", "identifier", "img0", "img1", "sent")
    _check_texts(entry, *texts)
    label = entry.get("label")
    if label is not None and (type(label) is not int or label not in (0, 1)):
        raise ValueError(f"label must be 0 or 1, got {label!r}")
    return NLVR2Annotation(**{key: entry[key] for key in texts}, label=label)


def _pretraining_annotation(entry: dict) -> PretrainingAnnotation:
    img_id = _img_id(entry)
    sentf: Any = entry.get("sentf")
    labelf: Any = entry.get("labelf", {})
    for key, value in (("sentf", sentf), ("labelf", labelf)):
        if not isinstance(value, dict) or not all(isinstance(items, list) for items in value.values()):
            raise ValueError(f"{key} must be an object of source: list, got {_short(value)}")
    for source, sentences in sentf.items():
        for sentence in sentences:
            if not isinstance(sentence, str):  # empty ones are accepted: published files have them
                raise ValueError(f"the sentences of {source} must be text, got {_short(sentence)}")
            _check_characters(f"a sentence of {source}", sentence)
    for source, labels in labelf.items():
        if source not in sentf:
            raise ValueError(f"labelf has the source {source!r}, but sentf does not")
        if len(labels) != len(sentf[source]):
            raise ValueError(
                f"{source} must have a label for each of its {len(sentf[source])} sentences, got {len(labels)}"
            )
        for label in labels:
            _check_label(label)
    return PretrainingAnnotation(img_id, sentf, labelf)


def _labels(annotation: Annotation | PretrainingAnnotation) -> Iterator[Label]:
    if isinstance(annotation, PretrainingAnnotation):
        for labels in annotation.labelf.values():
            yield from labels
    elif annotation.label is not None:
        yield annotation.label


def _check_texts(entry: dict, *keys: str) -> None:
    for key in keys:
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            got = "nothing" if entry.get(key) is None else repr(entry[key])
            raise ValueError(f"{key} must be non-empty text, got {got}")
        _check_characters(key, entry[key])


def _img_id(entry: dict) -> str:
    """The image's name; some files have numbers."""
    img_id: Any = entry.get("img_id")
    if type(img_id) is int and img_id >= 0:
        return str(img_id)
    _check_texts(entry, "img_id")
    return img_id


def _check_characters(what: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} has an unpaired surrogate, which is not a character: {text!r}") from error


def _check_label(label: Any) -> None:
    if not isinstance(label, dict):
        raise ValueError(f"label must be an object of answer: score, got {label!r}")
    for answer, score in label.items():
        number = isinstance(score, int | float) and not isinstance(score, bool)
        if not (number and 0 <= score <= 1):
            raise ValueError(f"the score of answer {answer!r} must be a number in 0..1, got {score!r}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
