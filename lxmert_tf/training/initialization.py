"""The model a run starts from: from scratch, a checkpoint or BERT, its answer head matched, parts of it frozen."""

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from conversion.answers import KERNEL, match_answers, with_target_head
from conversion.bert import Bert, open_bert
from conversion.formats import Checkpoint
from conversion.models import assign_rows
from conversion.source import locate, open_source
from conversion.tensors import Tensors
from lxmert_tf.answers import AnswerTable, config_answers
from lxmert_tf.configuration import LxmertConfig

if TYPE_CHECKING:
    import keras

logger = logging.getLogger("lxmert_tf")

HEAD = "answer_head."


def with_answers(config: LxmertConfig, answers: Sequence[str] | None) -> LxmertConfig:
    """The config with these answers as its labels, or as it is without answers."""
    if answers is None:
        return config
    changes = {
        "num_qa_labels": len(answers),
        "id2label": dict(enumerate(answers)),
        "label2id": {answer: row for row, answer in enumerate(answers)},
    }
    return LxmertConfig.from_dict({**config.to_dict(), **changes})


def open_start(source: str, config: LxmertConfig | None, prefix: str | None = None) -> Checkpoint | Bert:
    """What a run starts from: a checkpoint of any format, or a BERT for the language layers.

    Args:
        source: a file, a directory or a Hub id.
        config: in place of the checkpoint's own.
        prefix: what the names of its LXMERT begin with, in a checkpoint of more; by default it is found.
    """
    path = locate(source)
    bert = None if prefix is not None else open_bert(path, config)
    return bert or open_source(path, config, prefix)


def from_bert(
    model_class: type["keras.Model"], bert: Bert, config: LxmertConfig, dtype: str | None = None
) -> "keras.Model":
    """A model of `model_class` with the embeddings and language layers of a BERT; the rest is new.

    Args:
        model_class: of the task to train for.
        bert: as from `open_start`.
        config: the model's.
        dtype: a Keras dtype policy.

    Raises:
        ValueError: BERT has fewer layers, or other sizes.

    Source: Tan & Bansal 2019, section 5.1, "BERT versus LXMERT".
    """
    table = bert.language_rows(config, model_class.task)
    model = model_class(config, dtype=dtype)
    assign_rows(model, table, bert.named_for(model_class.task))
    return model


def from_checkpoint(
    model_class: type["keras.Model"],
    checkpoint: Checkpoint,
    config: LxmertConfig,
    answers: Sequence[str] | None,
    init_answers: Sequence[str] | None = None,
    load_answers: bool = True,
    dtype: str | None = None,
) -> "keras.Model":
    """A model of `model_class` with a checkpoint's weights.

    Args:
        model_class: of the task to train for.
        checkpoint: as from `conversion.source.open_source`.
        config: the model's, with as many answers as `answers`.
        answers: the answers to train for, in order; None for a task without.
        init_answers: those of the checkpoint's head; by default the labels in its config.
        load_answers: whether the answer head starts from the checkpoint's; rows without a counterpart start at zero.
            That of NLVR2 is started from a checkpoint of NLVR2 only.
        dtype: a Keras dtype policy.

    Raises:
        ValueError: the checkpoint does not fit, or its answers are not as many as its head has rows.
    """
    tensors = checkpoint.tensors
    if answers is None:
        config = LxmertConfig.from_dict({**config.to_dict(), "num_qa_labels": checkpoint.config.num_qa_labels})
        if not (load_answers and checkpoint.task == "visual-reasoning"):
            tensors = _without_head(tensors)
    elif checkpoint.task == "visual-reasoning":
        logger.warning("%s has no answer head: it is initialised.", checkpoint.path)
        tensors = _without_head(tensors)
    elif KERNEL in tensors:
        tensors = _fitted_head(checkpoint, list(answers), init_answers, load_answers)
    return model_class.from_pretrained(replace(checkpoint, tensors=tensors, config=config), dtype=dtype)


def freeze(model: "keras.Model", patterns: Sequence[str]) -> int:
    """Excludes weights from training; before `compile`.

    Args:
        model: the model.
        patterns: regular expressions; a weight is frozen if one of them is found in its path, such as
            "lxmert/embeddings/word_embeddings/weight" or "lxmert/encoder/layer_0/attention/self/query/kernel".

    Returns:
        How many weights are frozen.

    Raises:
        ValueError: a pattern is not a regular expression or matches nothing, or nothing is left to train.
    """
    frozen = set()
    for pattern in patterns:
        try:
            found = [v for v in model.weights if re.search(pattern, v.path.removeprefix(f"{model.path}/"))]
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}.") from error
        if not found:
            raise ValueError(f"{pattern!r} matches none of the weights, such as {model.weights[0].path!r}.")
        frozen |= {id(variable) for variable in found}
        for variable in found:
            variable.trainable = False
    if not model.trainable_variables:
        raise ValueError("Every weight is frozen: nothing is left to train.")
    return len(frozen)


def _fitted_head(
    checkpoint: Checkpoint, answers: list[str], init_answers: Sequence[str] | None, load_answers: bool
) -> Tensors:
    """The tensors with the answer head's last layer for `answers`, or without that head."""
    tensors = checkpoint.tensors
    names: AnswerTable | Sequence[str] | None = init_answers
    rows = tensors.shapes[KERNEL][0]
    if not load_answers:
        return _without_head(tensors)
    if names is None:
        names = config_answers(checkpoint.config, rows)
    if names is None:
        logger.warning(
            "%s does not name the %d answers of its head: the answer head is initialised. "
            "Give its answer table (--init-answers all_ans.json) to start from it.",
            checkpoint.path,
            rows,
        )
        return _without_head(tensors)
    if len(names) != rows:
        raise ValueError(f"{checkpoint.path} has a head of {rows} answers, but {len(names)} names were given for them.")
    if list(names) == answers:
        return tensors
    match = match_answers(names, answers)
    logger.warning("%d of %d answers start from the checkpoint's head.", match.found, len(answers))
    return with_target_head(tensors, match)


def _without_head(tensors: Tensors) -> Tensors:
    return Tensors({name: tensor for name, tensor in tensors.stored.items() if not name.startswith(HEAD)})
