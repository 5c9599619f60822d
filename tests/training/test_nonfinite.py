"""A loss or gradient that is not finite stops training and names the batch, or is skipped and leaves no trace."""

import keras
import numpy as np
import pytest
from support.training import MemoryDataset, compiled, plain_batches, small_config, values

from lxmert_tf.training.backup import Backup
from lxmert_tf.training.callbacks import Backups, EpochLog, NonFiniteGuard, Progress, TrainingError
from lxmert_tf.training.run import fit

CONFIG = small_config()
BAD = 2  # the step with a bad example


def dataset():
    data = MemoryDataset(CONFIG, 32)
    data.scores[data.rows(BAD)[3]] = np.nan
    return data


def run(data, directory, skip: bool, dtype: str | None = None):
    model = compiled(CONFIG, data, epochs=1, dtype=dtype, skip_nan=skip, eager=True)
    progress = Progress()
    backup = Backup(directory / "backup.safetensors", model)
    guard = NonFiniteGuard(progress, lambda step: ", ".join(str(e.question_id) for e in data.examples(step)), skip)
    log = EpochLog(progress, directory / "log.csv")
    fit(model, data, 1, progress, [guard, log, Backups(backup, progress, 1)], plain_batches, verbose=0)
    return model, progress


@pytest.mark.slow
def test_stops_with_the_ids_of_the_batch_and_keeps_the_last_good_backup(tmp_path):
    data = dataset()
    ids = ", ".join(map(str, data.rows(BAD)))
    with pytest.raises(TrainingError, match=f"step 3 is not finite; its batch is {ids}"):
        run(data, tmp_path, skip=False)
    model = compiled(CONFIG, data, epochs=1)
    assert Backup(tmp_path / "backup.safetensors", model).restore()["step"] == BAD
    assert all(np.isfinite(value).all() for value in values(model))


def test_skipped_steps_are_counted_and_leave_weights_and_metrics_as_they_were(tmp_path):
    data = dataset()
    model, progress = run(data, tmp_path, skip=True)
    assert progress.skipped == [BAD]
    assert progress.step == len(data)
    assert all(np.isfinite(value).all() for value in values(model))
    (row,) = progress.history
    assert (row["step"], row["updates"], row["skipped"]) == (4, 3, 1)
    assert float(model.optimizer.learning_rate) == float(model.optimizer._learning_rate(3)) > 0
    assert np.isfinite(row["loss"])
    assert 0 <= row["accuracy"] <= 1


@pytest.mark.slow
def test_a_step_that_keras_skips_to_lower_the_loss_scale_is_shown_and_is_no_update(tmp_path):
    data = MemoryDataset(CONFIG, 32)
    model = compiled(CONFIG, data, epochs=1, dtype="mixed_float16", eager=True)
    progress = Progress()

    def overflow(batch, logs=None):
        model.optimizer.dynamic_scale.assign(1e30 if batch == BAD else 1.0)

    overflowing = keras.callbacks.LambdaCallback(on_train_batch_begin=overflow)
    backups = Backups(Backup(tmp_path / "backup.safetensors", model), progress)
    callbacks = [overflowing, NonFiniteGuard(progress, str), EpochLog(progress, None), backups]
    fit(model, data, 1, progress, callbacks, plain_batches, verbose=0)
    assert progress.skipped == [BAD]
    (row,) = progress.history
    assert (row["step"], row["updates"], row["skipped"]) == (4, 3, 1)
    schedule = model.optimizer.inner_optimizer._learning_rate
    assert float(model.optimizer.learning_rate) == float(schedule(3)) > 0


@pytest.mark.slow
def test_a_loss_that_is_not_finite_counts_where_keras_scales_the_loss(tmp_path):
    with pytest.raises(TrainingError, match="step 3 is not finite"):
        run(dataset(), tmp_path, skip=False, dtype="mixed_float16")
    model, progress = run(dataset(), tmp_path, skip=True, dtype="mixed_float16")
    assert hasattr(model.optimizer, "inner_optimizer")
    assert BAD in progress.skipped  # and those in which Keras finds its scale
    assert progress.history[0]["updates"] == 4 - len(progress.skipped)
    assert np.isfinite(progress.history[0]["loss"])
