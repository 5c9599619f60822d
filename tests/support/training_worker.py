"""One process of a group that trains together; run by test_distribution.py.

    python worker.py OUTPUT [--devices N] [--die-at STEP]

Trains a tiny model on `MemoryDataset` and writes the losses of its steps and its weights to OUTPUT/worker-INDEX.npz.
"""

import argparse
import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from support.training import MemoryDataset, compiled, small_config

from lxmert_tf.backend import replica_id
from lxmert_tf.training.backup import Backup
from lxmert_tf.training.callbacks import Backups, NonFiniteGuard, Progress
from lxmert_tf.training.distribution import check_agreement, distribute, is_chief, make_strategy, prepare_for_fit
from lxmert_tf.training.run import fit

EPOCHS, BATCH = 3, 8


class Losses(keras.callbacks.Callback):
    """The loss of each step; dies on demand."""

    def __init__(self, progress, die_at):
        super().__init__()
        self.progress, self.die_at, self.values = progress, die_at, []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(logs["loss"])
        if self.progress.step + 1 == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()


def replicas(strategy) -> list[int]:
    """The numbers of this process' replicas, by which their dropout differs."""
    if strategy is None:
        return [replica_id()]
    numbers = strategy.run(tf.function(lambda: tf.convert_to_tensor(replica_id())))
    return [int(number) for number in strategy.experimental_local_results(numbers)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--die-at", type=int)
    parser.add_argument("--ahead", type=int, default=0, help="steps by which this worker thinks that it is ahead")
    args = parser.parse_args()
    if args.devices > 1:
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * args.devices)
    strategy = make_strategy(mirrored=args.devices > 1)
    chief = strategy is None or is_chief(strategy)
    keras.config.set_floatx("float64")  # where additions in another order still agree to many digits
    config = small_config()

    def data(seed, shard=(0, 1)):
        return MemoryDataset(config, 48 if seed is not None else 20, BATCH, seed, shard)

    def batches(dataset, first, last):
        return distribute(strategy, lambda i, n: data(dataset.seed, (i, n)).batches(first, last), BATCH)

    train, valid = data(seed=0), data(seed=None)
    with strategy.scope() if strategy else nullcontext():
        model = compiled(config, train, EPOCHS, clip=0.5)  # low, so that it is at work in every step
        if strategy:
            prepare_for_fit(model, next(iter(train.batches(0, 1))))
    backup = Backup(args.output / "backup.safetensors", model, write=chief)
    progress = Progress(**(backup.restore() or {}))
    check_agreement(strategy, progress.step + args.ahead)
    first = progress.step
    losses = Losses(progress, args.die_at)
    callbacks = [NonFiniteGuard(progress, str), losses, Backups(backup, progress, every=4)]
    fit(model, train, EPOCHS, progress, callbacks, batches, valid, verbose=0)
    history = model.history.history
    task = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]
    np.savez(
        args.output / f"worker-{task['index']}.npz",
        first=first,
        losses=losses.values,
        val_loss=history["val_loss"],
        val_accuracy=history["val_accuracy"],
        replicas=replicas(strategy),
        **{f"weight-{number}": weight.numpy() for number, weight in enumerate(model.weights)},
    )


main()
