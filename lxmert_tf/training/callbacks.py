"""Keras callbacks of a training run: the log, the best checkpoint, backups, and the guard against NaN.

They share a `Progress`, which a backup keeps beside the tensors.
"""

import csv
import io
import logging
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from lxmert_tf.files import replacing, write_text
from lxmert_tf.keras_private import steps_of
from lxmert_tf.training.backup import Backup

if TYPE_CHECKING:
    import tensorflow as tf

logger = logging.getLogger("lxmert_tf")


class TrainingError(ValueError):
    """Training cannot go on; what was saved before is intact."""


@dataclass
class Progress:
    """Where training is.

    Args:
        step: batches done, counted over all epochs.
        history: a row of the log for each epoch done.
        best: the best value of the monitored metric so far, and the epoch it was in, counted from 1.
        waited: epochs since then.
        skipped: steps that were no updates, since their gradients were not finite.
        stopped: whether training has ended early.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best: float | None = None
    best_epoch: int | None = None
    waited: int = 0
    skipped: list[int] = field(default_factory=list)
    stopped: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Backups(keras.callbacks.Callback):
    """Saves a backup every so many steps and after each epoch; the last callback, so that it has the others' effects.

    Args:
        backup: where to.
        progress: where training is; its step is counted here.
        every: steps between backups; None for one after each epoch only.
    """

    def __init__(self, backup: Backup, progress: Progress, every: int | None = None):
        super().__init__()
        self.backup, self.progress, self.every = backup, progress, every

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.backup.restore_metrics()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.progress.step += 1
        # The end of an epoch has its own, after validation.
        if self.every and self.progress.step % self.every == 0 and batch + 1 < self.params["steps"]:
            self.backup.save(self.progress.to_dict())

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.model.reset_metrics()  # as they are when the next epoch begins
        self.backup.save(self.progress.to_dict())


class NonFiniteGuard(keras.callbacks.Callback):
    """Stops when the loss or a gradient is not finite, or records the step where the optimiser skips such updates.

    With float16 the loss scale may make gradients infinite: Keras then lowers the scale and skips the update, which is
    recorded, and only the loss stops training.

    Args:
        progress: where training is.
        describe: step -> a description of the batch, such as its question ids.
        skip: whether the optimiser skips them; the running metrics then forget the batch, too.
    """

    def __init__(self, progress: Progress, describe: Callable[[int], str], skip: bool = False):
        super().__init__()
        self.progress, self.describe, self.skip = progress, describe, skip

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.seen, self.applied = self._count(), self._applied()
        self.before: list = []

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.skip:
            self.before = [variable.numpy() for variable in self.model.metrics_variables]

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        applied, self.applied = self.applied, self._applied()
        if self._count() == self.seen and np.isfinite((logs or {}).get("loss", 0.0)).all():
            if self.applied == applied:
                self.progress.skipped.append(self.progress.step)
            return
        self.seen = self._count()
        step = self.progress.step
        if not self.skip:
            raise TrainingError(
                f"The loss or a gradient of step {step + 1} is not finite; its batch is {self.describe(step)}. "
                "Nothing of this step was saved. Lower the learning rate, repair the data (`lxmert-tf features check` "
                "finds features that are not finite), or skip such steps (--skip-nan)."
            )
        self.progress.skipped.append(step)
        for variable, value in zip(self.model.metrics_variables, self.before, strict=True):
            variable.assign(value)

    def _count(self) -> int:
        """Gradients that were not finite."""
        return int(inner_optimizer(self.model).nonfinite.numpy())

    def _applied(self) -> int:
        """Steps whose gradients came to the optimiser."""
        return int(steps_of(inner_optimizer(self.model)).numpy())


class EpochLog(keras.callbacks.Callback):
    """Keeps a row for each epoch, and writes all of them to a CSV file, whole or not at all.

    Args:
        progress: where training is.
        path: the CSV file; None in a worker that does not write.
    """

    def __init__(self, progress: Progress, path: Path | None):
        super().__init__()
        self.progress, self.path = progress, path

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        row = {
            "epoch": epoch + 1,
            "step": self.progress.step,
            "seconds": round(time.perf_counter() - self.started, 3),  # of this process, if the epoch was resumed
            "updates": int(inner_optimizer(self.model).iterations),
            "skipped": len(self.progress.skipped),
            **{name: float(value) for name, value in (logs or {}).items()},
        }
        self.progress.history.append(row)
        if self.path is not None:
            write_log(self.path, self.progress.history)


class BestCheckpoint(keras.callbacks.Callback):
    """Saves the weights whenever the monitored metric is the best so far; stops when it has not been for a while.

    Args:
        progress: where training is.
        monitor: the metric, such as "val_accuracy"; larger is better unless it ends in "loss". Where there is no such
            metric, every epoch is the best.
        save: saves the model.
        patience: epochs without a better value after which training stops; None for never.
    """

    def __init__(self, progress: Progress, monitor: str, save: Callable[[], None], patience: int | None = None):
        super().__init__()
        self.progress, self.monitor, self.save, self.patience = progress, monitor, save, patience

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        value = (logs or {}).get(self.monitor)
        if value is not None and not self._is_better(float(value)):
            self.progress.waited += 1
            if self.patience is not None and self.progress.waited >= self.patience:
                self.progress.stopped = self.model.stop_training = True
            return
        self.save()
        self.progress.best = None if value is None else float(value)
        self.progress.best_epoch, self.progress.waited = epoch + 1, 0

    def _is_better(self, value: float) -> bool:
        best = self.progress.best
        if not math.isfinite(value):
            logger.warning(
                "%s is not finite, so this epoch is not the best; `lxmert-tf features check` finds region features "
                "that are not finite.",
                self.monitor,
            )
            return False
        if best is None:
            return True
        return value < best if self.monitor.endswith("loss") else value > best


class DataWait(keras.callbacks.Callback):
    """Adds to the logs the seconds per step in which training waited for data, as `data_wait`.

    `observe` makes the dataset record when a batch arrives; the time from the beginning of the step until then is the
    wait. The first step after a start, in which the model is traced, does not count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.arrived = 0.0

    def observe(self, dataset: "tf.data.Dataset") -> "tf.data.Dataset":
        """The same dataset, whose arrivals are recorded."""
        import tensorflow as tf

        def record(*batch: Any) -> Any:
            time_of_arrival = tf.numpy_function(self._record, [], tf.float64)
            with tf.control_dependencies([time_of_arrival]):
                return tf.nest.map_structure(tf.identity, batch)

        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False  # it would hide the wait
        return dataset.map(record).with_options(options)

    def _record(self) -> float:
        self.arrived = time.perf_counter()
        return self.arrived

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.first = True

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.waited, self.steps = 0.0, 0

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if not self.first:
            self.waited += max(self.arrived - self.began, 0.0)
            self.steps += 1
        self.first = False
        self._add_wait(logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._add_wait(logs)

    def _add_wait(self, logs: dict[str, Any] | None) -> None:
        if logs is not None:
            logs["data_wait"] = self.waited / max(self.steps, 1)


class TensorBoardLog(keras.callbacks.Callback):
    """Loss and learning rate every few steps, and all metrics after each epoch, for TensorBoard.

    Args:
        directory: where the event files go.
        progress: where training is; its step is the horizontal axis, also after a restart, which takes back what was
            written of steps after it.
        every: steps between points of the training curves.
    """

    def __init__(self, directory: Path, progress: Progress, every: int = 20):
        super().__init__()
        self.directory, self.progress, self.every = directory, progress, every
        self.writer: tf.summary.SummaryWriter | None = None

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        remove_events_after(self.directory, self.progress.step)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        step = self.progress.step + 1
        if step % self.every == 0:
            values = {f"train/{name}": value for name, value in (logs or {}).items()}
            self._write({**values, "train/learning_rate": float(self.model.optimizer.learning_rate)}, step)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._write({f"epoch/{name}": value for name, value in (logs or {}).items()}, self.progress.step)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None

    def _write(self, values: dict[str, float], step: int) -> None:
        import tensorflow as tf

        if self.writer is None:
            self.writer = tf.summary.create_file_writer(str(self.directory))
        # What tf.summary.scalar writes, which itself needs TensorBoard to be installed.
        metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"), data_class=1
        )
        with self.writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.write(name, tf.constant(value, tf.float32), metadata=metadata)
        self.writer.flush()


def remove_events_after(directory: Path, step: int) -> None:
    """Rewrites TensorBoard's event files without what a killed run wrote after the backup that it is resumed from."""
    import tensorflow as tf

    for path in sorted(directory.glob("events.out.tfevents.*")):
        kept, later = [], False
        try:
            for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
                if tf.compat.v1.Event.FromString(record).step <= step:
                    kept.append(record)
                else:
                    later = True
        except tf.errors.DataLossError:  # the kill cut off the last record
            later = True
        if later:
            with replacing(path) as temporary, tf.io.TFRecordWriter(str(temporary)) as file:
                for record in kept:
                    file.write(record)


def inner_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimiser that updates the weights, which in float16 Keras puts into one that scales the loss."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def write_log(path: Path, history: list[dict[str, float]]) -> None:
    """Writes the rows as CSV, whole or not at all."""
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_text(path, text.getvalue())
