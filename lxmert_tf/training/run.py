"""A whole training run, from files to checkpoints: what `lxmert-tf train` does."""

import errno
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import keras

from conversion.report import counted
from conversion.source import open_source
from lxmert_tf import LxmertConfig, LxmertTokenizer
from lxmert_tf.answers import AnswerTable, config_answers, read_answers
from lxmert_tf.data.features.store import open_features
from lxmert_tf.files import check_apart, remove_partial, write_text
from lxmert_tf.hub import is_path
from lxmert_tf.keras_private import build_compiled
from lxmert_tf.optimizers import layer_rate_factors
from lxmert_tf.training import tasks
from lxmert_tf.training.backup import Backup
from lxmert_tf.training.callbacks import (
    Backups,
    BestCheckpoint,
    DataWait,
    EpochLog,
    NonFiniteGuard,
    Progress,
    TensorBoardLog,
    TrainingError,
)
from lxmert_tf.training.distribution import (
    check_agreement,
    distribute,
    even_batch_size,
    is_chief,
    make_fit_work,
    make_strategy,
)
from lxmert_tf.training.fitting import fit
from lxmert_tf.training.initialization import freeze, from_checkpoint, with_answers
from lxmert_tf.training.options import TrainOptions
from lxmert_tf.training.recipes import PROBLEM_TYPES, Recipe, make_optimizer
from lxmert_tf.training.run_directory import BACKUP, RunDirectory, command_line

logger = logging.getLogger("lxmert_tf")

TRAINING = "training.json"
SHOWN_IDS = 64


@dataclass
class Inputs:
    """What a run reads."""

    tokenizer: Any
    answers: AnswerTable | None
    train: Any  # TaskDataset
    valid: Any  # TaskDataset or None
    share: Callable  # (one of these two, index, count) -> a worker's share of it


def train(options: TrainOptions, command: Sequence[str] | None = None) -> dict[str, Any]:
    """Runs a training, goes on with one that was interrupted, or tells that it is finished.

    Args:
        options: what to train.
        command: the command line to note in run.json. Default: that of this process.

    Returns:
        {"epochs", "steps", "skipped", "best_epoch", "best", "monitor", "history"}: history has a row for each epoch.

    Raises:
        FileNotFoundError: a file or checkpoint is not there.
        FileExistsError: the output directory holds something else, or is in use.
        ValueError: files do not fit together, or the directory holds a run with other options.
        TrainingError: a gradient was not finite.
    """
    import tensorflow as tf

    strategy = make_strategy()
    if strategy is not None and strategy.num_replicas_in_sync > 1 and options.recipe().accumulate > 1:
        raise ValueError(
            f"accumulate works on one device only, and there are {strategy.num_replicas_in_sync}: drop it, or show "
            "TensorFlow one (CUDA_VISIBLE_DEVICES=0)."
        )
    chief = strategy is None or is_chief(strategy)
    say = partial(print, flush=True) if chief and options.verbose != 0 else logger.info
    files = [*options.train, *options.valid, options.features, options.answers, options.init_answers, options.config]
    if options.vocab and os.path.isfile(options.vocab):
        files.append(options.vocab)
    check_apart(options.output, [*files, options.vocab, options.init])
    run = RunDirectory.open(
        options.output, options.fixed(), command or command_line(), [file for file in files if file]
    )
    with run.lock() if chief else nullcontext():
        if chief:
            remove_partial(run.path)
        if run.result is not None:
            say(f"{run.path} is finished: {summary(run.result)} Nothing to do.")
            return run.result
        keras.utils.set_random_seed(options.seed)
        if options.deterministic:
            tf.config.experimental.enable_op_determinism()
        if options.precision == "float64":
            keras.config.set_floatx("float64")
        try:
            result = _Run(options, run, strategy, chief, say).train()
        except BaseException:
            if chief:
                run.forget_unless_begun()
            raise
        if chief:
            run.finish(result)
            (run.path / BACKUP).unlink(missing_ok=True)
    say(f"Finished: {summary(result)}")
    return result


def summary(result: dict[str, Any]) -> str:
    """The result in a sentence."""
    skipped = f", {len(result['skipped'])} skipped" if result["skipped"] else ""
    best = "" if result["best"] is None else f" with {result['monitor']} {result['best']:.4f}"
    done = f"{counted(result['epochs'], 'epoch')}, {counted(result['steps'], 'step')}{skipped}"
    if result["best_epoch"] is None:
        return f"{done}; none is the best, since {result['monitor']} was never finite."
    return f"{done}; the best is epoch {result['best_epoch']}{best}."


class _Run:
    def __init__(self, options: TrainOptions, run: RunDirectory, strategy, chief: bool, say):
        self.options, self.run, self.strategy, self.chief, self.say = options, run, strategy, chief, say
        self.recipe: Recipe = options.recipe()

    def train(self) -> dict[str, Any]:
        import tensorflow as tf

        options, recipe, path = self.options, self.recipe, self.run.path
        resumed = (path / BACKUP).exists()
        self.config, checkpoint = self._config(resumed)
        self.inputs = self._inputs()
        with self.strategy.scope() if self.strategy else nullcontext():
            self.model = self._model(checkpoint)
            frozen = freeze(self.model, options.freeze) if options.freeze else 0
            if options.gradient_checkpointing:
                self.model.gradient_checkpointing_enable()
            total_steps = recipe.epochs * len(self.inputs.train)
            self.model.compile(
                optimizer=make_optimizer(
                    recipe, total_steps, layer_rate_factors(self.model, recipe.layer_decay), options.skip_nan
                ),
                metrics=tasks.metrics(options.task),
                jit_compile=options.jit,
            )
            self.model.optimizer.build(self.model.trainable_variables)
            self._build_metrics()
        backup = Backup(path / BACKUP, self.model, write=self.chief)
        progress = Progress(**(backup.restore() or {}))
        check_agreement(self.strategy, progress.step)
        if self.chief and not resumed:
            self.run.begin()
            self.model.config.save_pretrained(path)
        self._describe(progress, frozen)
        wait = DataWait() if self.strategy is None else None
        monitor = recipe.monitor if self.inputs.valid is not None else "none"
        callbacks = [
            NonFiniteGuard(progress, self._batch_ids, options.skip_nan),
            *([wait] if wait else []),
            *([TensorBoardLog(path / "tensorboard", progress)] if self.chief else []),
            EpochLog(progress, path / "log.csv" if self.chief else None),
            BestCheckpoint(progress, monitor, lambda: self._save(path / "best", progress), options.early_stopping),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self._save(path / "last", progress)),
            Backups(backup, progress, options.backup_every),
        ]
        verbose = verbosity(options.verbose) if self.chief else 0
        try:
            inputs = self.inputs
            fit(
                self.model, inputs.train, recipe.epochs, progress, callbacks, self._batches, inputs.valid, verbose, wait
            )
        except tf.errors.OpError as error:
            raise TrainingError(
                f"Training stopped in step {progress.step + 1} of {total_steps}: {cause(error)} The last backup is "
                "intact; once this is mended, the same command goes on from it."
            ) from error
        if len(progress.skipped) == progress.step:
            raise TrainingError(f"All {counted(progress.step, 'step')} were skipped: the model has learnt nothing.")
        return {
            "epochs": len(progress.history),
            "steps": progress.step,
            "skipped": progress.skipped,
            "best_epoch": progress.best_epoch,
            "best": progress.best,
            "monitor": recipe.monitor,
            "history": progress.history,
        }

    # What the run reads

    def _config(self, resumed: bool):
        """The model's config, and the checkpoint to start from, if there is one and it is still needed."""
        options = self.options
        if resumed:
            return LxmertConfig.from_pretrained(self.run.path), None
        config = LxmertConfig.from_pretrained(options.config) if options.config else None
        checkpoint = open_source(options.init, config) if options.init else None
        config = config or checkpoint.config
        if options.dropout is not None:
            rates = {"hidden_dropout_prob": options.dropout, "attention_probs_dropout_prob": options.dropout}
            config = LxmertConfig.from_dict({**config.to_dict(), **rates})
        return config, checkpoint

    def _inputs(self) -> Inputs:
        options, recipe = self.options, self.recipe
        tokenizer = read_tokenizer(options.vocab, options.init)
        answers = None
        if tasks.has_answers(options.task):
            answers = read_answers(options.answers) if options.answers else config_answers(self.config)
            if answers is None:
                raise ValueError("The answers have no names: give an answer table (--answers label2ans.json).")
        features = open_features(options.features)
        check_fits(self.config, tokenizer, features)

        if recipe.max_length > self.config.max_position_embeddings:
            self.say(
                f"Texts are cut to {self.config.max_position_embeddings} tokens, the config's max_position_embeddings."
            )

        def read(paths, purpose):
            return tasks.read(options.task, paths, options.limit, purpose)

        def dataset(annotations, batch_size, shard=(0, 1), **how):
            return tasks.dataset(
                options.task,
                annotations,
                features,
                tokenizer,
                answers,
                batch_size=batch_size // shard[1],
                shard=shard,
                max_length=min(recipe.max_length, self.config.max_position_embeddings),
                **how,
            )

        make_train = partial(
            dataset, read(options.train, "train"), recipe.batch_size, seed=options.seed, drop_remainder=True
        )
        train, valid, make_valid = make_train(), None, None
        if recipe.accumulate > len(train):
            raise ValueError(
                f"accumulate is {recipe.accumulate}, but an epoch has only {counted(len(train), 'step')} of "
                f"{recipe.batch_size}: lower it (--accumulate), or the batch size."
            )
        if options.valid:
            annotations = read(options.valid, "validate")
            self.eval_batch_size, valid = options.eval_batch_size, dataset(annotations, options.eval_batch_size)
            even = even_batch_size(self.eval_batch_size, valid.num_examples, self.strategy)
            if even != self.eval_batch_size:
                self.eval_batch_size, valid = even, dataset(annotations, even)
            make_valid = partial(dataset, annotations, self.eval_batch_size)

        def share(whole, index, count):
            return whole if count == 1 else (make_train if whole is train else make_valid)(shard=(index, count))

        return Inputs(tokenizer, answers, train, valid, share)

    def _model(self, checkpoint):
        options = self.options
        model_class = tasks.model_class(options.task)
        names = self.inputs.answers.answers if self.inputs.answers else None
        config = with_answers(self.config, names)
        if options.task in ("vqa", "gqa"):  # the model keeps its loss, for whoever evaluates or serves it
            config = LxmertConfig.from_dict({**config.to_dict(), "problem_type": PROBLEM_TYPES[self.recipe.loss]})
        if config.num_qa_labels != self.config.num_qa_labels:
            self.say(
                f"The model has {counted(config.num_qa_labels, 'answer')}, those of the answer table, in place of the "
                f"config's {self.config.num_qa_labels:,}."
            )
        if checkpoint is None:
            return model_class(config, dtype=options.precision)
        init_answers = read_answers(options.init_answers).answers if options.init_answers else None
        load_answers = options.load_answers
        if load_answers is None:  # what NLVR2 does not load are answers; the head of another NLVR2 model it keeps
            load_answers = self.recipe.load_answers or names is None
        return from_checkpoint(model_class, checkpoint, config, names, init_answers, load_answers, options.precision)

    # Batches

    def _batches(self, dataset, first: int, last: int | None):
        def share(index: int, count: int):
            return self.inputs.share(dataset, index, count).batches(first, last)

        size = self.recipe.batch_size if dataset is self.inputs.train else self.eval_batch_size
        return distribute(self.strategy, share, size)

    def _build_metrics(self) -> None:
        """Builds the metrics from one batch, so that a backup finds all of them."""
        batch = next(iter(self.inputs.train.batches(0, 1)))
        if self.strategy is not None:
            make_fit_work(self.model, batch)
        else:
            build_compiled(self.model, batch)

    def _batch_ids(self, step: int) -> str:
        ids = [str(tasks.identify(annotation)) for annotation in self.inputs.train.examples(step)]
        more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        return ", ".join(ids[:SHOWN_IDS]) + more

    # What the run writes

    def _save(self, directory: Path, progress: Progress) -> None:
        """A self-contained model directory. All but the weights stays the same, so it is whole at every moment."""
        if not self.chief:
            return
        self.inputs.tokenizer.save_pretrained(directory)
        self.model.save_pretrained(directory)
        about = {
            "task": self.options.task,
            "max_length": self.recipe.max_length,
            "metrics": progress.history[-1] if progress.history else {},
        }
        write_text(directory / TRAINING, json.dumps(about, indent=2) + "\n")

    def _describe(self, progress: Progress, frozen: int) -> None:
        train, valid, recipe = self.inputs.train, self.inputs.valid, self.recipe
        held = f" ({frozen} tensors frozen)" if frozen else ""
        self.say(
            f"{self.options.task}: {self.model.count_params():,} parameters{held}, "
            f"{counted(recipe.epochs, 'epoch')} of {counted(len(train), 'step')} of {recipe.batch_size}"
        )
        for name, dataset in (("training", train), ("validation", valid)):
            lost = sum(dataset.unknown_answers.values()) if dataset is not None and dataset.unknown_answers else 0
            if lost:
                self.say(f"not in the answer table: {counted(lost, f'{name} answer')}")
        unused = recipe.epochs * len(train) % recipe.accumulate
        if unused:
            self.say(
                f"The last {counted(unused, 'step')} will change nothing: too few for an update, which takes "
                f"{recipe.accumulate} (--accumulate)."
            )
        if progress.step:
            self.say(f"resumed after step {progress.step} of {recipe.epochs * len(train)}")


def cause(error: BaseException) -> str:
    """What a TensorFlow error says of the Python error behind it, such as one in reading data, as a sentence."""
    found = re.search(r"\b\w*(Error|Exception): .*", str(error))
    told = found[0] if found else str(error).partition("\n")[0] or type(error).__name__
    return told.rstrip(".") + "."


def verbosity(verbose: int | str) -> int:
    """Keras' `verbose`; "auto" is a progress bar on a terminal and a line per epoch elsewhere."""
    return (1 if sys.stdout.isatty() else 2) if verbose == "auto" else verbose


def read_tokenizer(vocab: str | None, source: str | None) -> Any:
    """The tokenizer of a vocab.txt or directory, else that of a checkpoint.

    Raises:
        FileNotFoundError: there is no such file, directory or Hub repository.
        ValueError: none is given.
    """
    if vocab is None and source is not None and Path(source).is_file():
        raise ValueError(f"{source} is a single file without a vocabulary: give one (--vocab vocab.txt).")
    if vocab is None and source is None:
        raise ValueError("A vocabulary is needed (--vocab vocab.txt).")
    if vocab is not None and not Path(vocab).exists() and ("/" not in vocab or is_path(vocab)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), vocab)
    if vocab is not None and Path(vocab).is_file():
        return LxmertTokenizer(vocab)
    return LxmertTokenizer.from_pretrained(vocab or source)


def check_fits(config: LxmertConfig, tokenizer: Any, features: Any) -> None:
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
