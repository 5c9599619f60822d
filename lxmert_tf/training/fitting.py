"""`fit` over a `TaskDataset`, from any step: whole epochs in one call, after the rest of a broken one in another."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from lxmert_tf.training.callbacks import DataWait, Progress


def fit(
    model,
    train,
    epochs: int,
    progress: Progress,
    callbacks: Sequence[keras.callbacks.Callback],
    batches: Callable[[Any, int, int | None], Any],
    valid=None,
    verbose: int | str = "auto",
    wait: DataWait | None = None,
) -> None:
    """Trains from `progress.step` to the end, or until a callback stops it.

    Args:
        model: compiled.
        train: a `TaskDataset`: `len(train)` steps per epoch.
        epochs: passes over it, those already done included.
        progress: where to begin; `Backups` counts its steps.
        callbacks: see `lxmert_tf.training.callbacks`.
        batches: (dataset, first step, last step or None) -> what `fit` takes; `last` is not included.
        valid: a `TaskDataset` to validate on after each epoch.
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
            data = wait.watch(data)
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
