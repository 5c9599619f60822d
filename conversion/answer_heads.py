"""Checkpoints for question answering whose head starts from a pretrained one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from conversion.answers import BIAS, KERNEL, AnswerMatch, match_answers, read_pretraining_answers, with_target_head
from conversion.convert import Report, convert
from conversion.formats import Checkpoint
from conversion.report import counted
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.weights import open_source


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
    source: Any, destination: str | os.PathLike, pretrained: str | os.PathLike, answers: str | os.PathLike, **options
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
    new = read_pretraining_answers(answers)
    match = match_answers(read_pretraining_answers(pretrained), new)
    if not match.found:
        raise ValueError(f"None of the answers in {answers} is among those in {pretrained}; check which list is which.")
    checkpoint = fine_tuning_checkpoint(open_source(source, options.pop("config", None)), match, new)
    return AnswersReport(match, convert(checkpoint, destination, task="qa", **options))


def fine_tuning_checkpoint(checkpoint: Checkpoint, match: AnswerMatch, answers: Sequence[str]) -> Checkpoint:
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
