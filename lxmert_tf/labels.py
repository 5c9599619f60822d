"""Names of answers and the rows of the answer head that they stand for, one to one. Imports no framework."""

import logging
import re
import reprlib
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

logger = logging.getLogger("lxmert_tf")

PLAIN = re.compile(r"0|[1-9][0-9]{0,9}")  # a row as a JSON key, in the one way that it is written


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


def in_order(answers: Mapping[int, str], rows: int) -> list[str]:
    """The answers of a head of so many rows, from `by_row`.

    Raises:
        ValueError: they are not one for each row.
    """
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


def head_labels(id2label: Mapping[int, str] | None, rows: int) -> list[str] | None:
    """The answers of a head in the order of its rows, as its config names them.

    Args:
        id2label: of the config.
        rows: of the head, the config's `num_qa_labels`.

    Returns:
        `rows` answers; None where the config names none, or another number, which a line of the log tells.

    Raises:
        ValueError: there are as many names as rows, but not one for each.
    """
    if not id2label or are_placeholders(id2label):
        return None
    if len(id2label) != rows:
        logger.warning(
            "id2label in the config names %d answers, but num_qa_labels is %d: the names are not used.",
            len(id2label),
            rows,
        )
        return None
    try:
        return in_order(id2label, rows)
    except ValueError as error:
        raise ValueError(f"id2label in the config: {error}.") from error


def are_placeholders(id2label: Mapping[int, str]) -> bool:
    """Whether these are the names that transformers puts where nobody gave any: LABEL_0, LABEL_1, ..."""
    return all(label == f"LABEL_{row}" for row, label in id2label.items())


def _row(key: Any) -> int:
    row = int(key) if isinstance(key, str) and PLAIN.fullmatch(key) else key
    if isinstance(row, bool) or not isinstance(row, Integral) or row < 0:
        raise ValueError(f"{reprlib.repr(key)} is no row: expected an integer from 0, in plain digits")
    return int(row)
