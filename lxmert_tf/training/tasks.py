"""What differs between the tasks: the model, the files, the metrics."""

import os
from collections.abc import Sequence
from typing import Any

from lxmert_tf.answers import AnswerTable
from lxmert_tf.data.annotations import (
    read_annotations,
    read_nlvr2,
    read_pretraining,
)
from lxmert_tf.tasks import MODEL_TASKS, keras_class

READERS = {"vqa": read_annotations, "gqa": read_annotations, "nlvr2": read_nlvr2, "pretrain": read_pretraining}


def model_class(task: str) -> type:
    """The class of the models for a task."""
    import lxmert_tf

    return getattr(lxmert_tf, keras_class(MODEL_TASKS[task]))


def has_answers(task: str) -> bool:
    """Whether a task has an answer table."""
    return task != "nlvr2"


def read(task: str, paths: Sequence[str | os.PathLike], limit: int | None = None, purpose: str | None = None) -> list:
    """The annotations of one or several files, in order.

    Args:
        task: whose files they are.
        paths: json files.
        limit: only the annotations of so many images, the first that are named.
        purpose: "train" or "validate", for which there must be labels; None if they may be absent.

    Raises:
        ValueError: a file cannot be read as one of the task, has no labels where it must, or two files share an id;
            or `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}.")
    annotations = []
    for path in paths:
        content = READERS[task](path)
        if purpose and task != "pretrain":
            _check_labelled(path, content, purpose)
        annotations += content
    if not annotations:
        raise ValueError(f"{', '.join(map(os.fspath, paths))}: there is nothing in it.")
    if len(paths) > 1:
        seen: set = set()
        for annotation in annotations:
            name = identify(annotation)
            if name in seen:
                raise ValueError(f"{name!r} is in more than one of {', '.join(map(os.fspath, paths))}.")
            seen.add(name)
    return annotations if limit is None else _of_first_images(annotations, limit)


def identify(annotation: Any) -> int | str:
    """What names an annotation in its file: question_id, uid or img_id."""
    for name in ("question_id", "uid", "img_id"):
        if hasattr(annotation, name):
            return getattr(annotation, name)
    raise TypeError(f"{type(annotation).__name__} has no id.")


def dataset(task: str, annotations: list, features, tokenizer, answers: AnswerTable | None, **options):
    """The task's `TaskDataset`; see `lxmert_tf.data.datasets` for the options."""
    from lxmert_tf.data import datasets

    if task in ("vqa", "gqa"):
        labels = [annotation.label for annotation in annotations if annotation.label is not None]
        if labels and not any(answer in answers for label in labels for answer in label):
            raise ValueError(
                "The answer table has none of the answers that the annotations give: it is of another set."
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


def _of_first_images(annotations: list, limit: int) -> list:
    names = [name for name in ("img_id", "img0", "img1") if hasattr(annotations[0], name)]
    images = dict.fromkeys(getattr(annotation, name) for annotation in annotations for name in names)
    first = set(list(images)[:limit])
    return [each for each in annotations if all(getattr(each, name) in first for name in names)]
