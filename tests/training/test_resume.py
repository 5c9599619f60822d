"""An interrupted training goes on as if it had not been interrupted: same batches, same dropout, same weights."""

import json

import keras
import numpy as np
import pytest
from support.training import MemoryDataset, assert_same, compiled, plain_batches, small_config, values

from lxmert_tf.training.backup import Backup
from lxmert_tf.training.callbacks import Backups, BestCheckpoint, DataWait, EpochLog, Progress
from lxmert_tf.training.run import fit

EPOCHS, STEPS = 3, 4
CONFIG = small_config(hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2)


class Killed(Exception):
    pass


class KillAt(keras.callbacks.Callback):
    """Ends the training after a step, or after an epoch before its backup."""

    def __init__(self, progress, step):
        super().__init__()
        self.progress, self.step = progress, step

    def on_train_batch_end(self, batch, logs=None):
        if self.progress.step == self.step:
            raise Killed


def run(model, directory, kill_at=None, every=3):
    """Trains with backups, from the last one if there is one; returns where it has come."""
    train, valid = MemoryDataset(CONFIG, 34), MemoryDataset(CONFIG, 16, seed=None)
    assert len(train) == STEPS
    backup = Backup(directory / "backup.safetensors", model)
    progress = Progress(**(backup.restore() or {}))
    wait = DataWait()
    callbacks = [
        wait,
        EpochLog(progress, directory / "log.csv"),
        BestCheckpoint(progress, "val_accuracy", lambda: None),
        Backups(backup, progress, every),
        KillAt(progress, kill_at),
    ]
    try:
        fit(model, train, EPOCHS, progress, callbacks, plain_batches, valid, verbose=0, wait=wait)
    except Killed:
        assert progress.step == kill_at
    return progress


def scramble(model) -> None:
    """Forgets everything, as a new process does (but for the traced functions, which cost the most time)."""
    model.reset_metrics()
    for variable in (*model.variables, *model.optimizer.variables):
        variable.assign(keras.ops.ones_like(variable) * 3)


def without_times(history):
    return [{name: v for name, v in row.items() if name not in ("seconds", "data_wait")} for row in history]


@pytest.fixture(scope="module")
def model():
    return compiled(CONFIG, MemoryDataset(CONFIG, 34), EPOCHS)


@pytest.fixture(scope="module")
def start(model):
    """The model's state before any training."""
    return values(model)


@pytest.fixture(scope="module")
def whole(model, start, tmp_path_factory):
    """What an uninterrupted training ends in."""
    directory = tmp_path_factory.mktemp("whole")
    progress = run(model, directory)
    return values(model), progress, directory


def begin(model, start) -> None:
    for variable, value in zip((*model.variables, *model.optimizer.variables), start, strict=True):
        variable.assign(value)


@pytest.mark.slow
@pytest.mark.parametrize("kills", [[(2, 0), (5, 4), (7, 6)], [(3, 3), (8, 6), (11, 9)]], ids=str)
def test_killed_again_and_again(kills, tmp_path, model, start, whole):
    """Each kill with the step of the last backup: every third, and the last of an epoch."""
    expected, progress, _ = whole
    for step, backed_up in kills:
        scramble(model)
        if not (tmp_path / "backup.safetensors").exists():
            begin(model, start)
        run(model, tmp_path, kill_at=step)
        if backed_up:
            assert json_state(tmp_path)["step"] == backed_up
    scramble(model)
    resumed = run(model, tmp_path)
    assert_same(values(model), expected)
    assert (resumed.step, resumed.best, resumed.best_epoch) == (progress.step, progress.best, progress.best_epoch)
    assert without_times(resumed.history) == without_times(progress.history)


@pytest.mark.slow
def test_the_log_has_a_row_for_each_epoch(whole):
    _, progress, directory = whole
    lines = (directory / "log.csv").read_text().splitlines()
    assert lines[0].startswith("epoch,step,seconds,updates,skipped,")
    assert {"accuracy", "loss", "val_accuracy", "val_loss", "data_wait"} <= set(lines[0].split(","))
    assert [line.split(",")[:2] for line in lines[1:]] == [["1", "4"], ["2", "8"], ["3", "12"]]
    assert 0 < progress.history[-1]["data_wait"] < 1


@pytest.mark.slow
def test_a_finished_training_does_nothing_more(model, whole):
    expected, _, directory = whole
    scramble(model)
    assert run(model, directory).step == EPOCHS * STEPS
    assert_same(values(model), expected)


def json_state(directory):
    from safetensors import safe_open

    with safe_open(directory / "backup.safetensors", framework="numpy") as file:
        return json.loads(file.metadata()["lxmert_tf_backup"])["state"]


def test_backup_of_another_model_or_damaged_is_refused(tmp_path):
    data = MemoryDataset(CONFIG)
    path = tmp_path / "backup.safetensors"
    Backup(path, compiled(CONFIG, data)).save({"step": 1})
    other = Backup(path, compiled(small_config(hidden_size=6), data))
    with pytest.raises(ValueError, match="backup of another model"):
        other.restore()
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"Cannot read the backup .*backup\.safetensors"):
        other.restore()


def test_a_backup_that_fails_leaves_the_one_before(tmp_path, monkeypatch):
    model = compiled(CONFIG, MemoryDataset(CONFIG))
    backup = Backup(tmp_path / "backup.safetensors", model)
    backup.save({"step": 1})
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        backup.save({"step": 2})
    monkeypatch.undo()
    assert backup.restore() == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["backup.safetensors"]


def test_early_stopping_counts_over_restarts():
    saved = []
    progress = Progress()
    model = keras.Model()
    for epoch, value in enumerate([0.5, 0.4, 0.6, 0.6, 0.1], 1):
        callback = BestCheckpoint(progress, "val_accuracy", lambda epoch=epoch: saved.append(epoch), patience=2)
        callback.set_model(model)  # a new one each time, as after a restart
        callback.on_epoch_end(epoch - 1, {"val_accuracy": value})
        progress = Progress(**json.loads(json.dumps(progress.to_dict())))
    assert saved == [1, 3]
    assert (progress.best, progress.best_epoch, progress.stopped) == (0.6, 3, True)


def test_a_lower_loss_is_better_and_nan_never_is():
    progress, saved = Progress(), []
    callback = BestCheckpoint(progress, "val_loss", lambda: saved.append(1))
    for epoch, value in enumerate([float("nan"), 2.0, 1.0, float("nan"), 1.5]):
        callback.on_epoch_end(epoch, {"val_loss": value})
    assert (len(saved), progress.best, progress.best_epoch) == (2, 1.0, 3)
    assert np.isfinite(progress.best)
