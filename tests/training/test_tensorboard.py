"""TensorBoard's files have every point once, whatever was killed."""

from types import SimpleNamespace

import pytest
import tensorflow as tf

from lxmert_tf.training.callbacks import Progress, TensorBoardLog


def log(directory, first: int, last: int) -> None:
    """What a run from step `first` on writes until it is killed after step `last`."""
    progress = Progress(step=first)
    callback = TensorBoardLog(directory, progress, every=2)
    callback.set_model(SimpleNamespace(optimizer=SimpleNamespace(learning_rate=0.5)))
    callback.on_train_begin()
    while progress.step < last:
        callback.on_train_batch_end(0, {"loss": 100.0 * first + progress.step})
        progress.step += 1
    callback.on_epoch_end(0, {"loss": 0.0})


def points(directory) -> list[tuple[int, str, float]]:
    found = []
    for path in sorted(directory.glob("events.*")):
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            event = tf.compat.v1.Event.FromString(record)
            found += [(event.step, v.tag, float(tf.make_ndarray(v.tensor))) for v in event.summary.value]
    return sorted(found)


@pytest.mark.parametrize("cut_off", [False, True])
def test_a_run_that_goes_on_takes_back_what_it_writes_again(tmp_path, cut_off):
    log(tmp_path, 0, 7)  # the backup is of step 3
    before = [point for point in points(tmp_path) if point[0] <= 3]
    assert [step for step, tag, _ in before if tag == "train/loss"] == [2]
    if cut_off:
        (path,) = tmp_path.glob("events.*")
        path.write_bytes(path.read_bytes()[:-5])
    log(tmp_path, 3, 8)
    after = points(tmp_path)
    assert after[: len(before)] == before
    assert [(step, value) for step, tag, value in after if tag == "train/loss"] == [
        (2, 1),
        (4, 303),
        (6, 305),
        (8, 307),
    ]
    assert len({(step, tag) for step, tag, _ in after}) == len(after)
