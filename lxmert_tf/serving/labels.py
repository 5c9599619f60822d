"""The answers of a model directory, in the order of the answer head."""

import json
import os
from pathlib import Path

from lxmert_tf.configuration import LxmertConfig

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
    if file is None and config.id2label and len(config.id2label) == config.num_qa_labels:
        return _checked(config.id2label, config, "id2label of the config")
    if file is None:
        file = next((path for name in LABEL_FILES if (path := Path(directory) / name).is_file()), None)
    if file is None:
        return None
    try:
        values = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not a JSON file: {error}.") from error
    if isinstance(values, dict) and all(isinstance(row, int) for row in values.values()):
        values = {row: answer for answer, row in values.items()}
    elif isinstance(values, list):
        values = dict(enumerate(values))
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold a list of answers, or an object from answer to row.")
    return _checked(values, config, str(file))


def _checked(labels: dict, config: LxmertConfig, where: str) -> list[str]:
    by_row = {int(row) if str(row).isdigit() else row: answer for row, answer in labels.items()}
    if sorted(by_row, key=str) != sorted(range(config.num_qa_labels), key=str):
        raise ValueError(
            f"{where} names {len(by_row)} answers, but the answer head has {config.num_qa_labels} "
            f"(rows 0..{config.num_qa_labels - 1}): give the list that the model was trained with."
        )
    wrong = [answer for answer in by_row.values() if not isinstance(answer, str)]
    if wrong:
        raise ValueError(f"{where}: an answer must be text, got {wrong[0]!r}.")
    return [by_row[row] for row in range(config.num_qa_labels)]
