"""A fine-tuning answer head that starts from the pretrained one: rows of equal answers copied, the others zero."""

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from conversion.convert import Report, convert
from conversion.formats import Checkpoint
from conversion.report import counted
from conversion.source import open_source
from conversion.tensors import Tensors
from lxmert_tf.answers import AnswerTable, normalize_answer, read_answers
from lxmert_tf.configuration import LxmertConfig

KERNEL, BIAS = "answer_head.logit_fc.3.weight", "answer_head.logit_fc.3.bias"


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


def match_answers(pretrained: Collection[str] | AnswerTable, target: Collection[str] | AnswerTable) -> AnswerMatch:
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


def _take_rows(array: np.ndarray, rows: list[int]) -> np.ndarray:
    source = np.array(rows, dtype=np.intp)
    found = source >= 0
    taken = np.zeros((len(rows), *array.shape[1:]), array.dtype)
    taken[found] = array[source[found]]
    return taken


# Checkpoints


@dataclass(frozen=True)
class AnswersReport:
    """What became of the answers.

    Args:
        match: which pretrained answer each new one is.
        report: of the conversion.
    """

    match: AnswerMatch
    report: Report

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: "found", "not_found" (the answers), "pretrained" (how many), "conversion"."""
        return {
            "found": self.match.found,
            "not_found": self.match.not_found,
            "pretrained": self.match.num_pretrained,
            "conversion": self.report.to_dict(),
        }

    def lines(self) -> list[str]:
        """The report for people."""
        lost = self.match.not_found
        return [
            *self.report.lines(),
            f"{counted(self.match.found, 'answer')} found among {self.match.num_pretrained}, {len(lost)} not found",
            *([f"not found, and zero: {', '.join(lost)}"] if lost else []),
        ]


def convert_answers(
    source: Any,
    destination: str | os.PathLike,
    pretrained: str | os.PathLike,
    answers: str | os.PathLike,
    **options: Any,
) -> AnswersReport:
    """Writes a checkpoint for question answering whose answer head starts from the pretrained one.

    Args:
        source: a checkpoint with an answer head, as for `convert`.
        destination: as for `convert`.
        pretrained: the source's answers: an `all_ans.json`, or a `label2ans.json` if it was fine-tuned.
        answers: those of the new head, a `label2ans.json`; the config that is written names them in `id2label`.
        **options: of `convert`, except `task` and `allow_missing`.

    Raises:
        ValueError: the source has no head of that many answers, none is found, or one is named twice; or as `convert`.
    """
    new = read_answers(answers)
    match = match_answers(read_answers(pretrained), new)
    if not match.found:
        raise ValueError(f"None of the answers in {answers} is among those in {pretrained}; check which list is which.")
    opened = open_source(source, *(options.pop(name, None) for name in ("config", "prefix", "adapter")))
    checkpoint = _with_answers(opened, match, new)
    return AnswersReport(match, convert(checkpoint, destination, task="qa", **options))


def _with_answers(checkpoint: Checkpoint, match: AnswerMatch, answers: AnswerTable) -> Checkpoint:
    """The checkpoint with an answer head for question answering that starts from its own one.

    Args:
        checkpoint: of pretraining, or fine-tuned on other answers.
        match: of the checkpoint's answers with `answers`.
        answers: of the new head, in the order of its rows; the config names them in `id2label`.

    Raises:
        ValueError: the checkpoint has no answer head, or one of another number of answers.
    """
    tensors = checkpoint.tensors
    if not {KERNEL, BIAS} <= set(tensors) or checkpoint.task == "visual-reasoning":
        raise ValueError(f"{checkpoint.path} has no answer head to start from; use one of pretraining with task_qa.")
    if tensors.shapes[BIAS] != (match.num_pretrained,):
        head = counted(tensors.shapes[BIAS][0], "answer")
        raise ValueError(
            f"{checkpoint.path} has a head of {head}, but the list of its answers has {match.num_pretrained}."
        )
    named = {"num_qa_labels": len(answers), "id2label": dict(enumerate(answers)), "label2id": None}
    return replace(
        checkpoint,
        tensors=with_target_head(tensors, match),
        config=LxmertConfig.from_dict({**checkpoint.config.to_dict(), **named}),
    )
