"""Official annotation files, and tables of one's own, turned into the json files and answer tables of the original."""

import csv
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Any

from tqdm import tqdm

from conversion.report import counted
from lxmert_tf.answers import AnswerTable, read_answers, write_answers
from lxmert_tf.command_line import option
from lxmert_tf.data.annotations import (
    Annotation,
    Label,
    NLVR2Annotation,
    parse_pair,
    parse_question,
    write_annotations,
    write_nlvr2,
)
from lxmert_tf.data.features.image import image_name
from lxmert_tf.data.vqa_answers import MIN_COUNT, answer_table, normalize_vqa_answer, soft_scores
from lxmert_tf.files import check_apart, json_kind, parse_json, read_json_as, staging

TABLES = {".csv": ",", ".tsv": "\t", ".jsonl": ""}  # of one's own: between the columns
LABEL2ANS, ANS2LABEL = "trainval_label2ans.json", "trainval_ans2label.json"
Written = tuple[str, Callable[[Path], Any] | None]  # what a file holds, in words, and what writes it
TEST = "test"  # what the names of splits begin with whose answers do not count into the table


class Split:
    """The questions of one output file.

    Attributes:
        name: of the file, without suffix.
        questions: question_id -> the entry of the output file, without its label.
        images: question_id -> the image as its file names it.
        labels: question_id -> soft scores, also of answers that will not be in the table; of no question in a test set.
        main: question_id -> the answer that counts into the table.
    """

    def __init__(self, name: str):
        self.name = name
        self.questions: dict[int | str, dict[str, Any]] = {}
        self.images: dict[int | str, Any] = {}
        self.labels: dict[int | str, Label] = {}
        self.main: dict[int | str, str] = {}

    def add(self, question_id: Any, image: Any, img_id: str, sent: str) -> None:
        """Adds a question about an image, which the region features call `img_id`; ValueError if it cannot be one."""
        entry = {"question_id": question_id, "img_id": img_id, "sent": sent}
        if parse_question(entry).question_id in self.questions:
            raise ValueError(f"question {question_id!r} is there twice")
        self.questions[question_id] = entry
        self.images[question_id] = image

    def drop_unlabelled(self, what: str, report: "PrepareReport") -> None:
        """Drops the questions without label, unless it is a test set, where none has one."""
        if self.labels and (missing := len(self.questions) - len(self.labels)):
            report.dropped[what] += missing
            self.questions = {name: entry for name, entry in self.questions.items() if name in self.labels}


@dataclass
class PrepareReport:
    """What has been written, and what has not.

    Attributes:
        files: of each file, its path and what it holds, in words.
        dropped: reason -> how many questions or answers are left out for it.
    """

    files: dict[Path, str] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)


def prepare_vqa(
    paths: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    answers: str | os.PathLike | None = None,
    min_count: int | None = None,
    image_names: str | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> PrepareReport:
    """Turns VQA v2, or tables of one's own, into label json and an answer table, by the published rules.

    Args:
        paths: official files of questions and of annotations, in any order, and tables `.csv`, `.tsv` or `.jsonl` with
            the columns image, question, answer and, if one likes, question_id. In a jsonl answer may be a list of what
            several people answered.
        output: the directory to write into: SPLIT.json for each split, and the answer table.
        answers: an answer table to use, instead of making one of all answers but those of splits named test...
        min_count: questions that must have an answer for it to be in the table. Default: 9, of tables of one's own 1.
        image_names: how the region features call the images of official files, a format string with `{image_id}` and,
            if one likes, `{split}`. Default: as in COCO, "COCO_{split}_{image_id:012}". Those of tables are called as
            they are there, without folder and suffix.
        overwrite: replace files that are there.
        progress: show bars.

    Raises:
        FileNotFoundError: there is no such file.
        FileExistsError: a file to be written is there.
        ValueError: a file is none of these, an entry is wrong, or two files do not go together.
    """
    report = PrepareReport()
    tables = all(map(_is_table, paths))
    if image_names is not None:
        if tables:
            raise ValueError(f"{option('image_names')} does nothing with tables of your own; leave it out")
        _check_image_names(image_names)
    splits = _vqa_splits([Path(path) for path in paths], image_names, report, progress)
    default = 1 if tables else MIN_COUNT
    return _write_questions(splits, paths, output, _Options(answers, min_count, default), overwrite, report)


def prepare_gqa(
    paths: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    answers: str | os.PathLike | None = None,
    min_count: int | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> PrepareReport:
    """Turns GQA's question files into label json and an answer table; every answer scores 1.

    Args:
        paths: official files `SPLIT_questions.json`, or directories of them; `SPLIT_questions_0.json` and so on are the
            parts of one split.
        output, answers, overwrite, progress: as of `prepare_vqa`, whose errors are raised.
        min_count: questions that must have an answer for it to be in the table. Default: 1.
    """
    report = PrepareReport()
    files = _gqa_files([Path(path) for path in paths])
    splits = [_gqa_split(name, parts, report, progress) for name, parts in files.items()]
    return _write_questions(splits, paths, output, _Options(answers, min_count, 1, True), overwrite, report)


def prepare_nlvr2(
    paths: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    *,
    overwrite: bool = False,
    progress: bool = False,
) -> PrepareReport:
    """Turns NLVR2's files of one JSON object per line into label json.

    Args:
        paths: official files, such as train.json and dev.json.
        output, overwrite, progress: as of `prepare_vqa`, whose errors are raised.
    """
    report = PrepareReport()
    _check_names([Path(path).stem for path in paths])
    written: dict[str, Written] = {}
    for path in map(Path, paths):
        pairs = _nlvr2_pairs(path, progress)
        labelled = [pair for pair in pairs if pair.label is not None]
        if labelled and len(labelled) < len(pairs):
            report.dropped[f"sentences of {path.stem} without a label"] = len(pairs) - len(labelled)
            pairs = labelled
        text = f"{counted(len(pairs), 'sentence')} about pairs of images"
        written[f"{path.stem}.json"] = text, partial(write_nlvr2, annotations=pairs)
    return _write(written, paths, Path(output), overwrite, report)


# Reading


def _vqa_splits(paths: list[Path], image_names: str | None, report: PrepareReport, progress: bool) -> list[Split]:
    splits: dict[str, Split] = {}
    annotations: list[tuple[Path, str, list]] = []
    images: dict[str, str] = {}
    for path in paths:
        if _is_table(path):
            split = _table_split(path, images, report, progress)
            _check_names([*splits, split.name])
            splits[split.name] = split
            continue
        content = read_json_as(path, dict, "official VQA questions or annotations, an object with a list of them")
        name = content.get("data_subtype") or path.stem
        if isinstance(content.get("questions"), list):
            _check_names([*splits, name])
            splits[name] = _vqa_questions(path, name, content, image_names, progress)
        elif isinstance(content.get("annotations"), list):
            annotations.append((path, name, content["annotations"]))
        else:
            raise ValueError(f"{path}: expected a list named questions or annotations, as in the official VQA files")
    for path, name, entries in annotations:
        if name not in splits:
            raise ValueError(f"{path} has annotations of {name}, but none of the files has its questions")
        _vqa_annotations(path, splits[name], entries, report, progress)
    return list(splits.values())


def _vqa_questions(path: Path, name: str, content: dict, image_names: str | None, progress: bool) -> Split:
    data_type = content.get("data_type") or "mscoco"
    prefix = "COCO" if data_type == "mscoco" else data_type
    template = image_names or f"{prefix}_{{split}}_{{image_id:012}}"
    split = Split(name)
    with _reading(path, content["questions"], "question", progress) as entries:
        for entry in entries:
            image = _need(entry, "image_id", int)
            img_id = _image(template, image, name.replace("-dev", ""))
            split.add(_need(entry, "question_id", int), image, img_id, _need(entry, "question", str))
    return split


def _vqa_annotations(path: Path, split: Split, annotations: list, report: PrepareReport, progress: bool) -> None:
    with _reading(path, annotations, "annotation", progress) as entries:
        for entry in entries:
            number = _need(entry, "question_id", int)
            if number not in split.questions:
                report.dropped[f"annotations of {split.name} without a question"] += 1
                continue
            if number in split.labels:
                raise ValueError(f"question {number} is annotated twice")
            image = split.images[number]
            if (other := entry.get("image_id", image)) != image:
                raise ValueError(f"question {number} is about image {image}, but its annotation about {other!r}")
            split.labels[number] = soft_scores(_need(each, "answer", str) for each in _need(entry, "answers", list))
            split.main[number] = normalize_vqa_answer(_need(entry, "multiple_choice_answer", str))
            types = {name: _need(entry, name, str) for name in ("answer_type", "question_type") if name in entry}
            split.questions[number].update(types)
    if not split.labels:
        raise ValueError(f"{path}: none of its annotations belongs to a question of {split.name}")
    split.drop_unlabelled(f"questions of {split.name} without an annotation", report)


def _is_table(path: str | os.PathLike) -> bool:
    return Path(path).suffix.lower() in TABLES


def _table_split(path: Path, images: dict[str, str], report: PrepareReport, progress: bool) -> Split:
    """The questions of a table; `images`, by their names in the region features, are those of all tables so far."""
    split = Split(path.stem)
    with _reading(path, _rows(path), "row", progress) as rows:
        for number, row in enumerate(rows, 1):
            image, question = (str(row.get(name) or "").strip() for name in ("image", "question"))
            if not image or not question:
                report.dropped[f"rows of {path.name} without image or question"] += 1
                continue
            img_id = image_name(image)
            if (other := images.setdefault(img_id, image)) != image:
                raise ValueError(f"{image!r} and {other!r} are both the image {img_id!r}; give each image one name")
            name = row.get("question_id") or f"{path.stem}-{number}"
            split.add(name, image, img_id, question)
            answer = row.get("answer")
            several = answer if isinstance(answer, list) else [answer]
            texts = [str(each) for each in several if each is not None and str(each).strip()]
            given = [normal for text in texts if (normal := normalize_vqa_answer(text))]
            if empty := len(texts) - len(given):
                report.dropped[f"answers of {path.name} with no word but an article"] += empty
            if given:
                split.labels[name] = soft_scores(given) if isinstance(answer, list) else {given[0]: 1.0}
                split.main[name] = Counter(given).most_common(1)[0][0]
    split.drop_unlabelled(f"rows of {path.name} without an answer", report)
    return split


def _gqa_files(paths: Sequence[Path]) -> dict[str, list[Path]]:
    """The files of each split: several where they are numbered parts."""
    splits: defaultdict[str, list[Path]] = defaultdict(list)
    whole, numbered = [], set()
    for path in paths:
        files = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not files:
            raise ValueError(f"{path} has no json files")
        for file in files:
            if part := re.fullmatch(r"(.+)_questions_[0-9]+", file.stem):
                numbered.add(name := part[1])
            else:
                whole.append(name := file.stem.removesuffix("_questions"))
            splits[name].append(file)
    _check_names([*whole, *numbered])
    return splits


def _gqa_split(name: str, files: Sequence[Path], report: PrepareReport, progress: bool) -> Split:
    split = Split(name)
    for file in files:
        content = read_json_as(file, dict, "official GQA questions, an object of id: question")
        with _reading(file, content.values(), "question", progress) as entries:
            for question_id, entry in zip(content, entries, strict=True):
                image = _need(entry, "imageId", str | int)
                split.add(question_id, image, str(image), _need(entry, "question", str))
                if "answer" not in entry:
                    continue
                answer = _need(entry, "answer", str)
                if answer.strip():
                    split.main[question_id], split.labels[question_id] = answer, {answer: 1.0}
                else:
                    report.dropped[f"answers of {split.name} that are empty"] += 1
    split.drop_unlabelled(f"questions of {split.name} without an answer", report)
    return split


def _nlvr2_pairs(path: Path, progress: bool) -> list[NLVR2Annotation]:
    pairs, seen = [], set()
    with _reading(path, list(_json_lines(path)), "line", progress) as entries:
        for number, entry in enumerate(entries):
            identifier = _need(entry, "identifier", str)
            pair, dash, _ = identifier.rpartition("-")
            if not dash:
                raise ValueError(f"identifier must be split-set-pair-sentence, got {identifier!r}")
            if identifier in seen:
                raise ValueError(f"{identifier!r} is there twice")
            seen.add(identifier)
            label = entry.get("label")
            if not (isinstance(label, bool) or label in (None, "True", "False")):
                raise ValueError(f"label must be True or False, got {label!r}")
            pairs.append(
                parse_pair(
                    {
                        "uid": f"nlvr2_{path.stem}_{number}",
                        "identifier": identifier,
                        "img0": f"{pair}-img0",
                        "img1": f"{pair}-img1",
                        "sent": _need(entry, "sentence", str),
                        "label": None if label is None else int(str(label) == "True"),
                    }
                )
            )
    return pairs


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table by the names of its columns."""
    suffix = path.suffix.lower()
    if suffix == ".jsonl":
        return list(_json_lines(path))
    with open(path, encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(_without_nul(path, file), delimiter=TABLES[suffix], strict=True)
        try:
            head = [name.strip().lower() for name in next(reader, [])]
            if not {"image", "question"} <= set(head):
                raise ValueError(f"{path}: the first line must name the columns image, question and answer, got {head}")
            if twice := [name for name, count in Counter(filter(None, head)).items() if count > 1]:
                raise ValueError(f"{path}: the first line names {twice[0]!r} twice; give each column one name")
            return [_row(path, reader.line_num, head, row) for row in reader if any(row)]
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {reader.line_num}: {error}; a field with quotes in it is quoted, and they are doubled"
            ) from error
        except UnicodeError as error:
            raise ValueError(f"{path}: it cannot be read as a table in UTF-8: {error}") from error


def _without_nul(path: Path, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if "\0" in line:
            raise ValueError(f"{path}, line {number}: it has a NUL character; save the table as UTF-8")
        yield line


def _row(path: Path, line: int, head: Sequence[str], row: Sequence[str]) -> dict[str, str]:
    """One row; ValueError if it is not of the table's columns, or a quote has swallowed the next rows."""
    if len(row) != len(head):
        raise ValueError(
            f"{path}, line {line}: it has {counted(len(row), 'field')}, but the first line names {len(head)}; quote a "
            "field with the separator in it"
        )
    for name, text in zip(head, row, strict=True):
        if re.search(r"[\r\n]", text.strip()):
            raise ValueError(f"{path}, line {line}: {name} goes over several lines; is a quote before it not closed?")
    return dict(zip(head, row, strict=True))


def _json_lines(path: Path) -> Iterator[Any]:
    with open(path, encoding="utf-8-sig") as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):  # noqa: B007 (the error below names it)
                if line.strip():
                    yield parse_json(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number + isinstance(error, UnicodeError)}: not json: {error}") from error


@contextmanager
def _reading(path: Path, entries: Collection[Any], what: str, progress: bool) -> Iterator[Iterator[dict]]:
    """Yields the entries of a file; an error while one is in use names the file and the entry."""
    number = 0

    def objects() -> Iterator[dict]:
        nonlocal number
        bar = tqdm(entries, path.name, unit=f" {what}s", disable=not progress or None)
        for number, entry in enumerate(bar, 1):  # noqa: B007 (the error below names it)
            if not isinstance(entry, dict):
                raise ValueError(f"expected an object, got {json_kind(entry)}")
            yield entry

    try:
        yield objects()
    except ValueError as error:
        raise ValueError(f"{path}, {what} {number}: {error}") from error


def _need(entry: Any, name: str, kind: Any) -> Any:
    value = entry.get(name) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        expected = {int: "a number", str: "text", list: "a list"}.get(kind, "text or a number")
        raise ValueError(f"{name} must be {expected}, got {'nothing' if value is None else repr(value)[:40]}")
    return value


def _image(template: str, image_id: int, split: str) -> str:
    try:
        return template.format(image_id=image_id, split=split)
    except (KeyError, IndexError, ValueError, AttributeError) as error:
        raise ValueError(_no_image_names(template, error)) from error


def _check_image_names(template: str) -> None:
    """ValueError unless it is text with image_id and maybe split in it, and nothing of their insides."""
    try:
        fields = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ValueError(_no_image_names(template, error)) from error
    if strange := fields - {"image_id", "split"}:
        raise ValueError(_no_image_names(template, f"there is no {min(strange)!r}"))
    if "image_id" not in fields:
        raise ValueError(_no_image_names(template, "all images would have one name"))


def _no_image_names(template: str, why: object) -> str:
    return (
        f"{template!r} does not make names of images: expected text with {{image_id}} and, if you like, {{split}}, "
        f"such as COCO_{{split}}_{{image_id:012}} ({why})"
    )


# Writing


@dataclass
class _Options:
    """How the answers of splits become labels and a table."""

    answers: str | os.PathLike | None
    min_count: int | None
    default_count: int
    keep_all: bool = False  # also labels whose answers are not in the table


def _write_questions(
    splits: list[Split],
    inputs: Sequence[str | os.PathLike],
    output: str | os.PathLike,
    options: _Options,
    overwrite: bool,
    report: PrepareReport,
) -> PrepareReport:
    _check_names([split.name for split in splits])
    table, words = _table(splits, options, report)
    written: dict[str, Written] = {}
    for split in splits:
        questions = _labelled(split, table, options.keep_all)
        if outside := sum(map(len, split.labels.values())) - sum(len(each.label or ()) for each in questions):
            report.dropped[f"answers to questions of {split.name} that are not in the table"] = outside
        text = (
            f"{counted(len(questions), 'question')} about {counted(len({each.img_id for each in questions}), 'image')}"
        )
        if not split.labels:
            text += ", without labels"
        elif bare := sum(table is not None and not any(a in table for a in each.label or ()) for each in questions):
            text += f", {bare:,} of them without an answer of the table, so that every answer to them is wrong"
        written[f"{split.name}.json"] = text, partial(write_annotations, annotations=questions)
    if table is not None:
        written[LABEL2ANS] = words, partial(_write_answers, table=table)
        written[ANS2LABEL] = "the row of each", None
    return _write(written, inputs, Path(output), overwrite, report)


def _write_answers(path: Path, table: AnswerTable) -> None:
    write_answers(path, path.with_name(ANS2LABEL), table)


def _table(splits: list[Split], options: _Options, report: PrepareReport) -> tuple[AnswerTable | None, str]:
    """The table given or made, and what it is in words; None where nothing has answers."""
    if options.answers is not None:
        if options.min_count is not None:
            raise ValueError("min_count is for a table to be made, but answers gives one: drop one of them")
        table = read_answers(options.answers)
        return table, f"the {len(table):,} answers of {os.fspath(options.answers)}"
    min_count = options.default_count if options.min_count is None else options.min_count
    if min_count < 1:
        raise ValueError(f"min_count must be at least 1, got {min_count}")
    sources = [split for split in splits if split.labels and not split.name.startswith(TEST)]
    if not sources:
        return None, ""
    counts = Counter(answer for split in sources for answer in split.main.values())
    table = answer_table(counts, min_count)
    if rare := len(counts) - len(table):
        report.dropped[f"answers that fewer than {min_count} questions have"] = rare
    return table, f"{counted(len(table), 'answer')} of {', '.join(split.name for split in sources)}"


def _labelled(split: Split, table: AnswerTable | None, keep_all: bool) -> list[Annotation]:
    if not split.labels:
        return [Annotation(**entry) for entry in split.questions.values()]
    if table is None:
        raise ValueError(f"{split.name} has answers, but there is no table of answers: give one (--answers)")
    questions = []
    for name, entry in split.questions.items():
        label = split.labels[name]
        if not keep_all:
            label = {answer: score for answer, score in label.items() if answer in table}
        questions.append(Annotation(**entry, label=label))
    return questions


def _write(
    written: dict[str, Written],
    inputs: Sequence[str | os.PathLike],
    output: Path,
    overwrite: bool,
    report: PrepareReport,
) -> PrepareReport:
    """Writes all files beside their places, and moves them there once all are written."""
    for name in written:
        path = output / name
        check_apart(path, inputs)
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} already exists; overwrite it (--overwrite) or choose another directory")
    with staging(output) as folder:
        for name, (_, write) in written.items():
            if write:
                write(folder / name)
        for name, (words, _) in written.items():
            os.replace(folder / name, output / name)
            report.files[output / name] = words
    return report


def _check_names(names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"two of the files are of {name}; give each split once")
        if not name or name != os.path.basename(name) or name.startswith("."):
            raise ValueError(f"a split cannot be called {name!r}, since its file is named after it")
        if f"{name}.json" in (LABEL2ANS, ANS2LABEL):
            raise ValueError(f"a split cannot be called {name!r}, as the answer table is; rename its file")
