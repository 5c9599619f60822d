"""What a run reads: tokenizer, answer table, region features and annotations, held to the model's config."""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from conversion.report import counted
from lxmert_tf import LxmertConfig, LxmertTokenizer
from lxmert_tf.answers import AnswerTable, config_answers, read_answers
from lxmert_tf.data.batches import TaskDataset
from lxmert_tf.data.features.store import FeatureStore, open_features
from lxmert_tf.hub import is_path
from lxmert_tf.training import tasks
from lxmert_tf.training.distribution import even_batch_size
from lxmert_tf.training.options import TrainOptions

if TYPE_CHECKING:
    import tensorflow as tf


@dataclass
class Inputs:
    """The inputs of a run.

    Attributes:
        tokenizer: of the texts.
        answers: the answer table; None for a task without.
        train: the batches to train on.
        valid: the batches to validate on, or None.
        eval_batch_size: examples per batch of `valid`.
        shard: (one of the two, index, count) -> a worker's share of it.
    """

    tokenizer: LxmertTokenizer
    answers: AnswerTable | None
    train: TaskDataset
    valid: TaskDataset | None
    eval_batch_size: int
    shard: Callable[[TaskDataset, int, int], TaskDataset]


def read_inputs(
    options: TrainOptions, config: LxmertConfig, strategy: "tf.distribute.Strategy | None" = None
) -> Inputs:
    """Reads what the options name.

    Args:
        options: of the run.
        config: of the model.
        strategy: as from `make_strategy`; the batches for validation are divided among its devices.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: a file cannot be read, or does not fit the config or another file.
    """
    recipe = options.recipe()
    tokenizer = read_tokenizer(options.vocab, options.init)
    answers = None
    if tasks.has_answers(options.task):
        answers = read_answers(options.answers) if options.answers else config_answers(config)
        if answers is None:
            raise ValueError("The answers have no names: give an answer table (--answers label2ans.json).")
    features = open_features(options.features)
    check_compatible(config, tokenizer, features)

    def dataset(annotations: list, batch_size: int, shard: tuple[int, int] = (0, 1), **order: Any) -> TaskDataset:
        return tasks.dataset(
            options.task,
            annotations,
            features,
            tokenizer,
            answers,
            batch_size=batch_size // shard[1],
            shard=shard,
            max_length=min(recipe.max_length, config.max_position_embeddings),
            limit=options.limit,
            missing=options.missing,
            **order,
        )

    annotations = tasks.read(options.task, options.train, "train")
    make_train = partial(dataset, annotations, recipe.batch_size, seed=options.seed, drop_remainder=True)
    train = make_train()
    if recipe.accumulate > len(train):
        raise ValueError(
            f"accumulate is {recipe.accumulate}, but an epoch has only {counted(len(train), 'step')} of "
            f"{recipe.batch_size}: lower it (--accumulate), or the batch size."
        )
    valid, make_valid, eval_batch_size = None, make_train, options.eval_batch_size
    if options.valid:
        annotations = tasks.read(options.task, options.valid, "validate")
        valid = dataset(annotations, eval_batch_size)
        even = even_batch_size(eval_batch_size, valid.num_examples, strategy)
        if even != eval_batch_size:
            eval_batch_size, valid = even, dataset(annotations, even)
        make_valid = partial(dataset, annotations, eval_batch_size)

    def shard(whole: TaskDataset, index: int, count: int) -> TaskDataset:
        if count == 1:
            return whole
        make = make_train if whole is train else make_valid
        return make(shard=(index, count))

    return Inputs(tokenizer, answers, train, valid, eval_batch_size, shard)


def read_tokenizer(vocab: str | None, source: str | None) -> LxmertTokenizer:
    """The tokenizer of a vocab.txt or directory, else that of a checkpoint.

    Raises:
        FileNotFoundError: there is no such file, directory or Hub repository.
        ValueError: neither is given, or the checkpoint is a single file.
    """
    if vocab is None and source is not None and Path(source).is_file():
        raise ValueError(f"{source} is a single file without a vocabulary: give one (--vocab vocab.txt).")
    place = vocab or source
    if place is None:
        raise ValueError("A vocabulary is needed (--vocab vocab.txt).")
    if vocab is not None and not Path(vocab).exists() and ("/" not in vocab or is_path(vocab)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), vocab)
    if vocab is not None and Path(vocab).is_file():
        return LxmertTokenizer(vocab)
    return LxmertTokenizer.from_pretrained(place)


def check_compatible(config: LxmertConfig, tokenizer: Any, features: FeatureStore) -> None:
    """Holds vocabulary and region features to the model's config.

    Raises:
        ValueError: one of them does not fit.
    """
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The vocabulary has {len(tokenizer)} tokens, but the model's config says vocab_size={config.vocab_size}."
        )
    if features.feat_dim != config.visual_feat_dim:
        raise ValueError(
            f"The region features have {features.feat_dim} values each, but the model's config says "
            f"visual_feat_dim={config.visual_feat_dim}."
        )
