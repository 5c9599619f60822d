"""The answers of an answer head: their spelling, the row each has, and the files and configs that name them.

Imports no framework. Shapes: A = answers in the table.
"""

import json
import logging
import os
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from lxmert_tf.files import read_json_as, write_text

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger("lxmert_tf")

PLAIN = re.compile(r"0|[1-9][0-9]{0,9}")  # a row as a JSON key, in the one way that it is written
ANSWER_FILES = ("label2ans.json", "trainval_label2ans.json")  # in a model directory
TRUTHS = ("False", "True")  # the answers of visual reasoning, by row


class Answer(NamedTuple):
    """An answer of a model: its text (None where the model does not name its answers), score in 0..1, and row."""

    text: str | None
    score: float
    id: int


ARTICLES = ("a ", "an ", "the ")
# Only whole answers, and only these: the pretraining list is normalised already, yet holds "zero" beside "0",
# "eleven", "two dogs", "light grey" and "greyhound" as answers of their own.
SPELLINGS = {
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
    "grey": "gray",
}


def normalize_answer(text: str) -> str:
    """The spelling under which answers are compared, as the pretraining list has it.

    Lower case, without outer spaces, one trailing full stop and one leading article; an answer that then is a number
    word from one to ten becomes digits, and "grey" becomes "gray". "The two." gives "2"; "two dogs" stays.
    """
    answer = text.strip().lower().removesuffix(".").strip()
    for article in ARTICLES:
        if answer.startswith(article):
            answer = answer.removeprefix(article).strip()
            break
    return SPELLINGS.get(answer, answer)


# Rows


def by_row(pairs: Iterable[tuple[Any, Any]]) -> dict[int, str]:
    """The answer of each row.

    Args:
        pairs: (row, answer); a row is an integer from 0, or its digits, such as the keys of a JSON object.

    Raises:
        ValueError: a row is none or is not written plainly ("04", 4.0, True), an answer is not text, or one of them is
            there twice. The message names the entry, not the file.
    """
    answers: dict[int, str] = {}
    rows: dict[str, int] = {}
    for key, answer in pairs:
        row = _row(key)
        if not isinstance(answer, str):
            raise ValueError(f"answer {row} must be text, got {reprlib.repr(answer)}")
        if row in answers:
            raise ValueError(f"row {row} has two answers, {answers[row]!r} and {answer!r}")
        if answer in rows:
            raise ValueError(f"answer {answer!r} is in the table twice, at {rows[answer]} and {row}")
        answers[row], rows[answer] = answer, row
    return answers


def are_placeholders(id2label: Mapping[int, str]) -> bool:
    """Whether these are the names that transformers puts where nobody gave any: LABEL_0, LABEL_1, ..."""
    return all(label == f"LABEL_{row}" for row, label in id2label.items())


def _row(key: Any) -> int:
    row = int(key) if isinstance(key, str) and PLAIN.fullmatch(key) else key
    if isinstance(row, bool) or not isinstance(row, Integral) or row < 0:
        raise ValueError(f"{reprlib.repr(key)} is not a row: expected an integer from 0, in plain digits")
    return int(row)


def _in_order(answers: Mapping[int, str], rows: int) -> list[str]:
    """The answers of a head of so many rows, one for each."""
    if len(answers) != rows:
        raise ValueError(
            f"it names {len(answers)} answers, but the answer head has {rows} (rows 0..{rows - 1}); "
            "give the list that the model was trained with"
        )
    if missing := set(range(rows)) - set(answers):
        raise ValueError(
            f"row {min(missing)} of the answer head has no answer, but there is one for row {max(answers)}; "
            f"the rows must be 0..{rows - 1}"
        )
    return [answers[row] for row in range(rows)]


def answer_row(answer: str | int, names: Iterable[str] | None, rows: int) -> int:
    """The row of an answer that is given by its name or, where no answer has that name, by its row, also in digits.

    Args:
        answer: a name, or a row; where the names are `TRUTHS`, also True or False.
        names: of the answers by row, or None.
        rows: of the answer head.

    Raises:
        TypeError: it is True or False, which is no row.
        ValueError: there is no such answer.
    """
    if isinstance(answer, bool) and names is TRUTHS:
        return int(answer)
    if type(answer).__name__ in ("bool", "bool_"):
        raise TypeError(f"answer must be a name or a row, got {answer}; its name is text, {str(answer)!r}.")
    if isinstance(answer, str):
        if (named := next((row for row, name in enumerate(names or ()) if name == answer), None)) is not None:
            return named
        if not PLAIN.fullmatch(answer):
            why = "." if names else f", which have no names (id2label): give one of 0..{rows - 1}."
            raise ValueError(f"{answer!r} is none of the model's {rows} answers{why}")
    row = int(answer) if isinstance(answer, str | Integral) else -1
    if not 0 <= row < rows:
        raise ValueError(f"answer must be an id in 0..{rows - 1} or a name, got {answer!r}.")
    return row


# Scores


def best_answers(
    logits: Any, names: "Sequence[str] | AnswerTable | None", exclusive: bool, top_k: int | None = None
) -> list[list[Answer]]:
    """The best answers of each example, the best first; of equals the first.

    Args:
        logits: float[B, A].
        names: of the answers by row; None where they have none.
        exclusive: one answer alone is right, and the scores of all add up to 1 (softmax); else each stands on its own
            (sigmoid).
        top_k: how many. Default: all.
    """
    import numpy as np

    logits = np.asarray(logits, "float64")
    if exclusive:
        scores = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    else:
        scores = np.exp(-np.logaddexp(0, -logits))
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    return [
        [Answer(None if names is None else names[each], float(row[each]), int(each)) for each in best]
        for row, best in zip(scores, order, strict=True)
    ]


# The table


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
        self._rows = {answer: row for row, answer in by_row(enumerate(self.answers)).items()}

    def __len__(self) -> int:
        return len(self.answers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.answers)

    def __contains__(self, answer: object) -> bool:
        return answer in self._rows

    def __getitem__(self, row: int) -> str:
        return self.answers[row]

    def row(self, answer: str) -> int:
        """The row of an answer, in 0..A-1; ValueError if the table does not hold it."""
        if answer not in self._rows:
            raise ValueError(f"the answer {answer!r} is not among the {len(self)} of the answer table")
        return self._rows[answer]

    def scores(self, label: Mapping[str, float]) -> "np.ndarray":
        """Soft scores as the loss takes them.

        Args:
            label: answer -> score in 0..1, as in `Annotation.label`.

        Returns:
            `float32[A]`, 0 for answers that the label does not name.

        Raises:
            ValueError: the label names an answer that the table does not hold.
        """
        import numpy as np

        target = np.zeros(len(self), np.float32)
        for answer, score in label.items():
            target[self.row(answer)] = score
        return target


# From files and configs


def read_answers(path: str | os.PathLike, ans2label: str | os.PathLike | None = None) -> AnswerTable:
    """Reads an answer table.

    Args:
        path: a JSON list in the order of the rows, of answers (`label2ans.json`) or, as pretraining has it, of
            {ans, dsets} (`all_ans.json`).
        ans2label: if given, a JSON object answer -> row; it must say the same as the list.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is not of that form, has an answer twice, or the two disagree. The message names the file
            and the answer.
    """
    content = read_json_as(path, list, "a list of answers")
    with _named(path):
        table = AnswerTable(answer for _, answer in _pairs(content))
    if ans2label is not None:
        rows = read_json_as(ans2label, dict, "an object of answer: row")
        with _named(ans2label):
            _check_same(table, rows, path)
    return table


class AnswersInConfig(Protocol):
    """What an `LxmertConfig` says of its answers."""

    id2label: dict[int, str] | None
    num_qa_labels: int


def config_answers(config: "AnswersInConfig", rows: int | None = None) -> AnswerTable | None:
    """The answers that a config names.

    Args:
        config: whose `id2label` names them.
        rows: of the answer head. Default: the config's `num_qa_labels`.

    Returns:
        As many answers as rows; None where the config names none, or another number, which a line of the log tells.

    Raises:
        ValueError: there are as many names as rows, but not one for each.
    """
    names, rows = config.id2label, config.num_qa_labels if rows is None else rows
    if not names or are_placeholders(names):
        return None
    if len(names) != rows:
        logger.warning(
            "id2label in the config names %d answers, but num_qa_labels is %d: the names are not used.",
            len(names),
            rows,
        )
        return None
    with _named("id2label in the config"):
        return AnswerTable(_in_order(names, rows))


def model_answers(
    directory: str | os.PathLike, config: "AnswersInConfig", file: str | os.PathLike | None = None
) -> AnswerTable | None:
    """The answers of a model: from `file`, else its config's `id2label`, else a label2ans.json in its directory.

    Args:
        directory: the model's.
        config: its config, whose `num_qa_labels` the answers must match.
        file: as of `read_answers`, or a JSON object from answer to row or from row to answer.

    Returns:
        `num_qa_labels` answers; None where there are none.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the answers are not those of the answer head.
    """
    if file is None:
        table = config_answers(config)
        file = next((path for name in ANSWER_FILES if (path := Path(directory) / name).is_file()), None)
        if table is not None or file is None:
            return table
    content = read_json_as(file, (list, dict), "a list of answers, or an object of answer: row")
    with _named(file):
        return AnswerTable(_in_order(by_row(_pairs(content)), config.num_qa_labels))


def write_answers(label2ans: str | os.PathLike, ans2label: str | os.PathLike, table: AnswerTable) -> None:
    """Writes an answer table as `read_answers` takes it: the JSON list, and the JSON object answer -> row."""
    for path, value in ((label2ans, table.answers), (ans2label, {name: row for row, name in enumerate(table)})):
        write_text(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_all_answers(path: str | os.PathLike, table: AnswerTable, sources: Mapping[str, Iterable[str]]) -> None:
    """Writes an answer table as pretraining has it, a JSON list of {ans, dsets}.

    Args:
        path: the file to write.
        table: the answers.
        sources: source ("vqa", "gqa", ...) -> the answers that it has.
    """
    known = {source: frozenset(answers) for source, answers in sources.items()}
    entries = [{"ans": answer, "dsets": [source for source in known if answer in known[source]]} for answer in table]
    write_text(path, json.dumps(entries, ensure_ascii=False, indent=1) + "\n")


def _pairs(content: list | dict) -> Iterable[tuple[Any, Any]]:
    """(row, answer) of each entry."""
    if isinstance(content, list):
        return enumerate(entry["ans"] if isinstance(entry, dict) and "ans" in entry else entry for entry in content)
    if any(isinstance(value, str) for value in content.values()):
        return content.items()
    return ((row, answer) for answer, row in content.items())


def _check_same(table: AnswerTable, rows: Mapping[str, Any], other: str | os.PathLike) -> None:
    for answer in table:
        if type(rows.get(answer)) is not int or rows[answer] != table.row(answer):
            raise ValueError(
                f"answer {answer!r} must have row {table.row(answer)} as in {os.fspath(other)}, "
                f"got {rows.get(answer)!r}"
            )
    if extra := sorted(rows.keys() - set(table)):
        raise ValueError(f"answer {extra[0]!r} is not in {os.fspath(other)}")


@contextmanager
def _named(source: str | os.PathLike) -> Iterator[None]:
    """Puts the name of what is read before what is wrong with it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{os.fspath(source)}: {error}") from error
