"""What differs between the tasks: the model, the files, the metrics."""

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from lxmert_tf.answers import AnswerTable
from lxmert_tf.data.annotations import (
    read_annotations,
    read_nlvr2,
    read_pretraining,
)
from lxmert_tf.tasks import MODEL_TASKS, keras_class

if TYPE_CHECKING:
    from lxmert_tf.data.batches import TaskDataset
    from lxmert_tf.data.features.store import FeatureStore
    from lxmert_tf.pretrained import TFLxmertPreTrainedModel
    from lxmert_tf.tokenization import LxmertTokenizer

READERS: dict[str, Callable[[str | os.PathLike], list]] = {
    "vqa": read_annotations,
    "gqa": read_annotations,
    "nlvr2": read_nlvr2,
    "pretrain": read_pretraining,
}


def model_class(task: str) -> "type[TFLxmertPreTrainedModel]":
    """The class of the models for a task."""
    import lxmert_tf

    return getattr(lxmert_tf, keras_class(MODEL_TASKS[task]))


def has_answers(task: str) -> bool:
    """Whether a task has an answer table."""
    return task != "nlvr2"


def read(task: str, paths: Sequence[str | os.PathLike], purpose: str | None = None) -> list:
    """The annotations of one or several files, in order.

    Args:
        task: whose files they are.
        paths: json files.
        purpose: "train" or "validate", for which there must be labels; None if they may be absent.

    Raises:
        ValueError: a file cannot be read as one of the task, has no labels where it must, or two files share an id.
    """
    annotations = []
    for path in paths:
        content = READERS[task](path)
        if purpose and task != "pretrain":
            _check_labelled(path, content, purpose)
        annotations += content
    if not annotations:
        raise ValueError(f"{_joined(paths)}: no annotations.")
    if len(paths) > 1:
        seen: set = set()
        for annotation in annotations:
            name = annotation_id(annotation)
            if name in seen:
                raise ValueError(f"{name!r} is in more than one of {_joined(paths)}.")
            seen.add(name)
    return annotations


def _joined(paths: Sequence[str | os.PathLike]) -> str:
    return ", ".join(os.fspath(path) for path in paths)


def annotation_id(annotation: Any) -> int | str:
    """What identifies an annotation in its file: question_id, uid or img_id."""
    for name in ("question_id", "uid", "img_id"):
        if hasattr(annotation, name):
            return getattr(annotation, name)
    raise TypeError(f"{type(annotation).__name__} has no question_id, uid or img_id.")


def dataset(
    task: str,
    annotations: list,
    features: "FeatureStore",
    tokenizer: "LxmertTokenizer",
    answers: AnswerTable | None,
    **options: Any,
) -> "TaskDataset":
    """The task's `TaskDataset`; see `lxmert_tf.data.datasets` for the options."""
    from lxmert_tf.data import datasets

    if task in ("vqa", "gqa") and answers is not None:
        labels = [annotation.label for annotation in annotations if annotation.label is not None]
        if labels and not any(answer in answers for label in labels for answer in label):
            raise ValueError(
                "The answer table has none of the answers in the annotations: it belongs to another data set."
            )
    make = getattr(datasets, {"pretrain": "pretraining_dataset"}.get(task, f"{task}_dataset"))
    given = () if task == "nlvr2" else (answers,)
    return make(annotations, features, tokenizer, *given, **options)


def metrics(task: str) -> Any:
    """The task's metrics for `compile`: accuracy, and in pretraining those of matching, words and answers."""
    from lxmert_tf.metrics import AnswerAccuracy

    if task == "pretrain":
        return {name: AnswerAccuracy() for name in ("matched", "masked_lm", "ans")}
    return [AnswerAccuracy()]


def _check_labelled(path: str | os.PathLike, annotations: list, purpose: str) -> None:
    bare = sum(annotation.label is None for annotation in annotations)
    if bare:
        share = "there are no labels" if bare == len(annotations) else f"{bare:,} of {len(annotations):,} have no label"
        raise ValueError(f"{os.fspath(path)}: {share} to {purpose} on.")
