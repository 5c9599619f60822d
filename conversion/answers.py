"""A fine-tuning answer head that starts from the pretrained one: rows of equal answers copied, the others zero."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from conversion.tensors import Tensors
from lxmert_tf.files import read_json
from lxmert_tf.labels import by_row

KERNEL, BIAS = "answer_head.logit_fc.3.weight", "answer_head.logit_fc.3.bias"
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


@dataclass(frozen=True)
class AnswerMatch:
    """Which pretrained answer each target answer is.

    Args:
        rows: for each target answer, the row of its pretrained answer, or -1.
        not_found: the target answers with -1, in order and as they were given.
        num_pretrained: number of pretrained answers, which is the number of rows of their head.
    """

    rows: list[int]
    not_found: list[str]
    num_pretrained: int

    @property
    def found(self) -> int:
        """Number of target answers with a pretrained one."""
        return len(self.rows) - len(self.not_found)


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


def match_answers(pretrained: Sequence[str], target: Sequence[str]) -> AnswerMatch:
    """Finds each target answer among the pretrained ones, both normalised.

    Of pretrained answers that are equal once normalised the first wins. Target answers may share a row.
    """
    row_of: dict[str, int] = {}
    for row, answer in enumerate(pretrained):
        row_of.setdefault(normalize_answer(answer), row)
    rows = [row_of.get(normalize_answer(answer), -1) for answer in target]
    not_found = [answer for answer, row in zip(target, rows, strict=True) if row < 0]
    return AnswerMatch(rows, not_found, len(pretrained))


def initialize_answer_head(kernel: np.ndarray, bias: np.ndarray, match: AnswerMatch) -> tuple[np.ndarray, np.ndarray]:
    """The last layer of the target head from that of the pretrained head, in the PyTorch layout.

    Args:
        kernel: float[A, 2H] of the A pretrained answers, `KERNEL` of a checkpoint.
        bias: float[A], `BIAS`.
        match: of those A answers with T target answers.

    Returns:
        New arrays float[T, 2H] and float[T] of the same dtypes, zero where an answer was not found.

    Raises:
        ValueError: the shapes are not those of A answers.
    """
    count = match.num_pretrained
    if kernel.ndim != 2 or len(kernel) != count or bias.shape != (count,):
        raise ValueError(
            f"The head of {count} pretrained answers must have a kernel of shape ({count}, 2 * hidden_size) and a bias "
            f"of shape ({count},), got {kernel.shape} and {bias.shape}."
        )
    return _take_rows(kernel, match.rows), _take_rows(bias, match.rows)


def with_target_head(tensors: Tensors, match: AnswerMatch) -> Tensors:
    """A checkpoint's tensors with the last layer of its answer head as `initialize_answer_head` has it.

    Raises:
        ValueError: the head is not that of the pretrained answers.
    """
    kernel, bias = initialize_answer_head(tensors[KERNEL], tensors[BIAS], match)
    return Tensors({**tensors.stored, **Tensors.of({KERNEL: kernel, BIAS: bias}).stored})


def read_pretraining_answers(path: str | os.PathLike) -> list[str]:
    """The answers of a pretrained head, in the order of its rows.

    Args:
        path: an `all_ans.json`, `[{"ans": "cat", "dsets": ["vqa"]}, ...]`, or a `label2ans.json`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, is no such list, or has an answer twice; the message names the file.
    """
    entries = _read_list(path)
    answers = [entry.get("ans") if isinstance(entry, dict) else entry for entry in entries]
    return _strings(path, answers, '{"ans": text} or text')


def read_answers(path: str | os.PathLike) -> list[str]:
    """The answers of a `label2ans.json`, `["cat", ...]`, in the order of the labels.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, is no such list, or has an answer twice; the message names the file.
    """
    return _strings(path, _read_list(path), "text")


def _take_rows(array: np.ndarray, rows: list[int]) -> np.ndarray:
    source = np.array(rows, dtype=np.intp)
    found = source >= 0
    taken = np.zeros((len(rows), *array.shape[1:]), array.dtype)
    taken[found] = array[source[found]]
    return taken


def _read_list(path: str | os.PathLike) -> list[Any]:
    try:
        content = read_json(path)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ValueError(f"{os.fspath(path)} cannot be read as a JSON list of answers: {error}") from error
    if not isinstance(content, list) or not content:
        raise ValueError(f"{os.fspath(path)} must hold a list of answers that is not empty.")
    return content


def _strings(path: str | os.PathLike, answers: list[Any], expected: str) -> list[str]:
    for index, answer in enumerate(answers):
        if not isinstance(answer, str):
            raise ValueError(f"{os.fspath(path)} must be a list of {expected}; entry {index} is not.")
    try:
        by_row(enumerate(answers))
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: {error}") from error
    return answers
