"""The answers of a model directory, in the order of the answer head."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.files import read_json
from lxmert_tf.labels import by_row, head_labels, in_order

LABEL_FILES = ("label2ans.json", "trainval_label2ans.json")


def read_labels(
    directory: str | os.PathLike, config: LxmertConfig, file: str | os.PathLike | None = None
) -> list[str] | None:
    """The answers, from `file`, else the config's `id2label`, else a label2ans.json in the directory.

    Args:
        directory: the model's.
        config: its config, whose `num_qa_labels` the answers must match.
        file: a JSON list of answers, or an object from answer to row or from row to answer.

    Returns:
        `num_qa_labels` answers; None where there are none.

    Raises:
        ValueError: the answers are not those of the answer head.
        FileNotFoundError: there is no such file.
    """
    if file is None:
        labels = head_labels(config.id2label, config.num_qa_labels)
        file = next((path for name in LABEL_FILES if (path := Path(directory) / name).is_file()), None)
        if labels is not None or file is None:
            return labels
    try:
        values = read_json(file)
    except ValueError as error:
        raise ValueError(f"{file} is not a JSON file of answers: {error}.") from error
    if not isinstance(values, list | dict):
        raise ValueError(f"{file} must hold a list of answers, or an object from answer to row.")
    try:
        return in_order(by_row(_pairs(values)), config.num_qa_labels)
    except ValueError as error:
        raise ValueError(f"{file}: {error}.") from error


def _pairs(values: list | dict) -> Iterable[tuple[Any, Any]]:
    """(row, answer) of each entry."""
    if isinstance(values, list):
        return enumerate(values)
    if any(isinstance(value, str) for value in values.values()):
        return values.items()
    return ((row, answer) for answer, row in values.items())
