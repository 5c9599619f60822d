"""A whole training run, from files to checkpoints: what `lxmert-tf train` does."""

import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from conversion.bert import Bert
from conversion.formats import Checkpoint
from conversion.report import counted
from lxmert_tf import LxmertConfig
from lxmert_tf.answers import read_answers
from lxmert_tf.data.batches import TaskDataset
from lxmert_tf.files import check_apart, remove_partial, write_text
from lxmert_tf.keras_private import build_compiled
from lxmert_tf.model_card import write_model_card
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
    is_chief,
    make_strategy,
    prepare_for_fit,
)
from lxmert_tf.training.initialization import freeze, from_bert, from_checkpoint, open_start, with_answers
from lxmert_tf.training.inputs import read_inputs
from lxmert_tf.training.options import TrainOptions, verbosity
from lxmert_tf.training.recipes import PROBLEM_TYPES, make_optimizer
from lxmert_tf.training.run_directory import BACKUP, PACKAGES, TRAINING, RunDirectory, command_line

if TYPE_CHECKING:
    import tensorflow as tf

logger = logging.getLogger("lxmert_tf")

SHOWN_IDS = 64
NO_METRICS = ("seconds", "updates", "skipped", "data_wait")  # of an epoch: what only its log has


def train(options: TrainOptions, command: Sequence[str] | None = None) -> dict[str, Any]:
    """Trains a model, or resumes a run that was interrupted, or returns the result of a finished one.

    Args:
        options: what to train.
        command: the command line to record in run.json. Default: that of this process.

    Returns:
        {"epochs", "steps", "skipped", "best_epoch", "best", "monitor", "history"}: history has a row for each epoch.

    Raises:
        FileNotFoundError: a file or checkpoint does not exist.
        FileExistsError: the output directory holds something else, or is in use.
        ValueError: files do not fit together, or the directory holds a run with other options.
        TrainingError: a gradient was not finite.
    """
    strategy = make_strategy()
    if strategy is not None and strategy.num_replicas_in_sync > 1 and options.recipe().accumulate > 1:
        raise ValueError(
            f"accumulate works on one device only, and there are {strategy.num_replicas_in_sync}: drop it, or show "
            "TensorFlow one (CUDA_VISIBLE_DEVICES=0)."
        )
    chief = is_chief(strategy)
    report = partial(print, flush=True) if chief and options.verbose != 0 else logger.info
    directory = _open_directory(options, command)
    with directory.lock() if chief else nullcontext():
        if chief:
            remove_partial(directory.path)
        if directory.result is not None:
            report(f"{directory.path} is finished: {summary(directory.result)} Nothing to do.")
            return directory.result
        _configure_keras(options)
        result = _Run(options, directory, strategy, chief, report).train()
        if chief:
            directory.finish(result)
            (directory.path / BACKUP).unlink(missing_ok=True)
    report(f"Finished: {summary(result)}")
    return result


def summary(result: dict[str, Any]) -> str:
    """The result in a sentence."""
    skipped = f", {len(result['skipped'])} skipped" if result["skipped"] else ""
    best = "" if result["best"] is None else f" with {result['monitor']} {result['best']:.4f}"
    done = f"{counted(result['epochs'], 'epoch')}, {counted(result['steps'], 'step')}{skipped}"
    if result["best_epoch"] is None:
        return f"{done}; none is the best, since {result['monitor']} was never finite."
    return f"{done}; the best is epoch {result['best_epoch']}{best}."


def fit(
    model: keras.Model,
    train: TaskDataset,
    epochs: int,
    progress: Progress,
    callbacks: Sequence[keras.callbacks.Callback],
    batches: Callable[[TaskDataset, int, int | None], Any],
    valid: TaskDataset | None = None,
    verbose: int | str = "auto",
    wait: DataWait | None = None,
) -> None:
    """`model.fit` from any step: the rest of an interrupted epoch in one call, whole epochs in another.

    Args:
        model: compiled.
        train: the batches to train on: `len(train)` steps per epoch.
        epochs: passes over it, those already done included.
        progress: where to begin; `Backups` counts its steps.
        callbacks: see `lxmert_tf.training.callbacks`; one of them may stop the training.
        batches: (dataset, first step, last step or None) -> what `fit` takes; `last` is not included.
        valid: the batches to validate on after each epoch.
        verbose: Keras' `verbose`.
        wait: measures the wait for data where `batches` gives a tf.data.Dataset.
    """
    steps = len(train)
    total = epochs * steps
    while progress.step < total and not progress.stopped:
        epoch, position = divmod(progress.step, steps)
        until = epoch + 1 if position else epochs
        data = batches(train, progress.step, until * steps)
        if wait is not None:
            data = wait.observe(data)
        model.fit(
            data,
            initial_epoch=epoch,
            epochs=until,
            steps_per_epoch=steps - position,
            shuffle=False,  # the dataset has done it
            validation_data=None if valid is None else batches(valid, 0, len(valid)),
            callbacks=list(callbacks),
            verbose=verbose,
        )


def _open_directory(options: TrainOptions, command: Sequence[str] | None) -> RunDirectory:
    files = [*options.train, *options.valid, options.features, options.answers, options.init_answers, options.config]
    if options.vocab and os.path.isfile(options.vocab):
        files.append(options.vocab)
    check_apart(options.output, [*files, options.vocab, options.init])
    return RunDirectory.open(
        options.output, options.fixed(), command or command_line(), [file for file in files if file]
    )


def _configure_keras(options: TrainOptions) -> None:
    import tensorflow as tf

    keras.utils.set_random_seed(options.seed)
    if options.deterministic:
        tf.config.experimental.enable_op_determinism()
    if options.precision == "float64":
        keras.config.set_floatx("float64")


class _Run:
    """A run that is not finished.

    Args:
        options: what to train.
        directory: of the run.
        strategy: as from `make_strategy`.
        chief: whether this process writes.
        report: takes a line for the user.
    """

    def __init__(
        self,
        options: TrainOptions,
        directory: RunDirectory,
        strategy: "tf.distribute.Strategy | None",
        chief: bool,
        report: Callable[[str], None],
    ):
        self.options, self.recipe = options, options.recipe()
        self.directory, self.path = directory, directory.path
        self.strategy, self.chief, self.report = strategy, chief, report

    def train(self) -> dict[str, Any]:
        resumed = (self.path / BACKUP).exists()
        config, checkpoint = self._read_config(resumed)
        self.inputs = read_inputs(self.options, config, self.strategy)
        with self.strategy.scope() if self.strategy else nullcontext():
            self.model = self._make_model(config, checkpoint)
            frozen = freeze(self.model, self.options.freeze) if self.options.freeze else 0
            self._compile()
        self.backup = Backup(self.path / BACKUP, self.model, write=self.chief)
        self.progress = Progress(**(self.backup.restore() or {}))
        check_agreement(self.strategy, self.progress.step)
        if self.chief and not resumed:
            self.directory.start()
            self.model.config.save_pretrained(self.path)
        self._describe(frozen)
        self._fit()
        return self._result()

    @property
    def total_steps(self) -> int:
        return self.recipe.epochs * len(self.inputs.train)

    # The model

    def _read_config(self, resumed: bool) -> tuple[LxmertConfig, Checkpoint | Bert | None]:
        """The model's config, and the checkpoint to start from, if there is one and it is still needed."""
        options = self.options
        if resumed:
            return LxmertConfig.from_pretrained(self.path), None
        config = LxmertConfig.from_pretrained(options.config) if options.config else None
        checkpoint = open_start(options.init, config, options.prefix) if options.init else None
        if config is None:
            assert checkpoint is not None  # the options have one or both
            config = checkpoint.config
        if options.dropout is not None:
            rates = {"hidden_dropout_prob": options.dropout, "attention_probs_dropout_prob": options.dropout}
            config = LxmertConfig.from_dict({**config.to_dict(), **rates})
        return config, checkpoint

    def _make_model(self, given: LxmertConfig, checkpoint: Checkpoint | Bert | None):
        options = self.options
        model_class = tasks.model_class(options.task)
        names = self.inputs.answers.answers if self.inputs.answers else None
        config = with_answers(given, names)
        if options.task in ("vqa", "gqa"):  # the model keeps its loss, for whoever evaluates or serves it
            config = LxmertConfig.from_dict({**config.to_dict(), "problem_type": PROBLEM_TYPES[self.recipe.loss]})
        if self.recipe.max_length > config.max_position_embeddings:
            self.report(
                f"Texts are cut to {config.max_position_embeddings} tokens, the config's max_position_embeddings."
            )
        if config.num_qa_labels != given.num_qa_labels:
            self.report(
                f"The model has {counted(config.num_qa_labels, 'answer')}, those of the answer table, instead of the "
                f"config's {given.num_qa_labels:,}."
            )
        if checkpoint is None:
            return model_class(config, dtype=options.precision)
        if isinstance(checkpoint, Bert):
            for line in checkpoint.lines(config, model_class.task):
                self.report(line)
            return from_bert(model_class, checkpoint, config, options.precision)
        init_answers = read_answers(options.init_answers).answers if options.init_answers else None
        load_answers = options.load_answers
        if load_answers is None:  # what NLVR2 does not load are answers; the head of another NLVR2 model it keeps
            load_answers = self.recipe.load_answers or names is None
        return from_checkpoint(model_class, checkpoint, config, names, init_answers, load_answers, options.precision)

    def _compile(self) -> None:
        """Compiles the model, and builds optimizer and metrics, so that a backup finds all of them."""
        if self.options.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        rate_factors = layer_rate_factors(self.model, self.recipe.layer_decay)
        self.model.compile(
            optimizer=make_optimizer(self.recipe, self.total_steps, rate_factors, self.options.skip_nan),
            metrics=tasks.metrics(self.options.task),
            jit_compile=self.options.jit,
        )
        self.model.optimizer.build(self.model.trainable_variables)
        batch = next(iter(self.inputs.train.batches(0, 1)))
        if self.strategy is not None:
            prepare_for_fit(self.model, batch)
        else:
            build_compiled(self.model, batch)

    # Training

    def _describe(self, frozen: int) -> None:
        train, valid, recipe = self.inputs.train, self.inputs.valid, self.recipe
        note = f" ({frozen} tensors frozen)" if frozen else ""
        self.report(
            f"{self.options.task}: {self.model.count_params():,} parameters{note}, "
            f"{counted(recipe.epochs, 'epoch')} of {counted(len(train), 'step')} of {recipe.batch_size}"
        )
        for name, dataset in (("training", train), ("validation", valid)):
            unknown = dataset.unknown_answers.total() if dataset is not None else 0
            if unknown:
                self.report(f"not in the answer table: {counted(unknown, f'{name} answer')}")
        unused = self.total_steps % recipe.accumulate
        if unused:
            self.report(
                f"The last {counted(unused, 'step')} will change nothing: too few for an update, which takes "
                f"{recipe.accumulate} (--accumulate)."
            )
        if self.progress.step:
            self.report(f"resumed after step {self.progress.step} of {self.total_steps}")

    def _fit(self) -> None:
        import tensorflow as tf

        wait = DataWait() if self.strategy is None else None
        try:
            fit(
                self.model,
                self.inputs.train,
                self.recipe.epochs,
                self.progress,
                self._callbacks(wait),
                self._batches,
                self.inputs.valid,
                verbosity(self.options.verbose) if self.chief else 0,
                wait,
            )
        except tf.errors.OpError as error:
            raise TrainingError(
                f"Training stopped in step {self.progress.step + 1} of {self.total_steps}: {root_cause(error)} "
                "The last backup is intact; once the cause is removed, the same command resumes from it."
            ) from error
        if len(self.progress.skipped) == self.progress.step:
            raise TrainingError(
                f"All {counted(self.progress.step, 'step')} were skipped: the model has learnt nothing."
            )

    def _callbacks(self, wait: DataWait | None) -> list[keras.callbacks.Callback]:
        """In the order in which they must see a step: backups last."""
        progress, options = self.progress, self.options
        monitor = self.recipe.monitor if self.inputs.valid is not None else "none"
        return [
            NonFiniteGuard(progress, self._describe_batch, options.skip_nan),
            *([wait] if wait else []),
            *([TensorBoardLog(self.path / "tensorboard", progress)] if self.chief else []),
            EpochLog(progress, self.path / "log.csv" if self.chief else None),
            BestCheckpoint(progress, monitor, lambda: self._save("best"), options.early_stopping),
            keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: self._save("last")),
            Backups(self.backup, progress, options.backup_every),
        ]

    def _batches(self, dataset: TaskDataset, first: int, last: int | None):
        def shard(index: int, count: int):
            return self.inputs.shard(dataset, index, count).batches(first, last)

        training = dataset is self.inputs.train
        return distribute(self.strategy, shard, self.recipe.batch_size if training else self.inputs.eval_batch_size)

    def _describe_batch(self, step: int) -> str:
        """The ids of the examples in a batch."""
        ids = [str(tasks.annotation_id(annotation)) for annotation in self.inputs.train.examples(step)]
        more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
        return ", ".join(ids[:SHOWN_IDS]) + more

    # Results

    def _save(self, name: str) -> None:
        """Writes a self-contained model directory. Only its weights ever change, so it is whole at every moment."""
        if not self.chief:
            return
        directory: Path = self.path / name
        self.inputs.tokenizer.save_pretrained(directory)
        self.model.save_pretrained(directory, model_card=False)
        metrics = self.progress.history[-1] if self.progress.history else {}
        metadata = {"task": self.options.task, "max_length": self.recipe.max_length, "metrics": metrics}
        write_text(directory / TRAINING, json.dumps(metadata, indent=2) + "\n")
        self._write_model_card(directory, metrics)

    def _write_model_card(self, directory: Path, metrics: dict[str, Any]) -> None:
        options = self.options
        files = {"Trained on": options.train, "Validated on": options.valid, "Region features": (options.features,)}
        write_model_card(
            directory,
            self.model.task,
            PACKAGES,
            options.init or "",
            data={purpose: names for purpose, names in files.items() if names},
            metrics={name: value for name, value in metrics.items() if name not in NO_METRICS},
        )

    def _result(self) -> dict[str, Any]:
        return {
            "epochs": len(self.progress.history),
            "steps": self.progress.step,
            "skipped": self.progress.skipped,
            "best_epoch": self.progress.best_epoch,
            "best": self.progress.best,
            "monitor": self.recipe.monitor,
            "history": self.progress.history,
        }


def root_cause(error: BaseException) -> str:
    """What a TensorFlow error says of the Python error behind it, such as one in reading data, as a sentence."""
    found = re.search(r"\b\w*(Error|Exception): .*", str(error))
    text = found[0] if found else str(error).partition("\n")[0] or type(error).__name__
    return text.rstrip(".") + "."
