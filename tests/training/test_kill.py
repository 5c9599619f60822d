"""`kill -9` at any moment: the same command goes on, and ends in exactly the weights of a run that was left alone."""

import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from support.data import files_of
from support.forks import Fork

from conversion.formats import open_checkpoint
from lxmert_tf.data.features.build import build_features
from lxmert_tf.demo.dataset import write_dataset

KILLS = 10
SMALL = {"hidden_size": 16, "intermediate_size": 16, "l_layers": 0, "r_layers": 0, "x_layers": 1}
SMALL |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "vqa"
    write_dataset(folder, "vqa", num_images=60, feat_dim=8, pictures=False)
    build_features(folder / "features.tsv", folder / "features.h5")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **SMALL}))
    return folder


@pytest.fixture(scope="module")
def start(forked, data):
    """Starts the training into a directory, in a process of its own."""
    options = ["--epochs", 6, "--batch-size", 8, "--learning-rate", 1e-3, "--deterministic", "--backup-every", 3]
    command = ["-m", "lxmert_tf.cli", "train", "vqa", *files_of(data)]

    def start(output: Path, **limits) -> Fork:
        return forked(*command, "--output", output, *options, **limits)

    return start


@pytest.fixture(scope="module")
def killed(start, tmp_path_factory):
    """A run that was killed ten times."""
    run, seconds = tmp_path_factory.mktemp("killed"), random.Random(0)
    for kills in range(KILLS):
        before = backup_time(run)
        process = start(run)
        while backup_time(run) == before and process.poll() is None:  # so that every attempt gets somewhere
            time.sleep(0.01)
        time.sleep(seconds.uniform(0, 0.3))
        process.kill()
        assert process.wait() == -signal.SIGKILL, f"the run was over after {kills} kills: make it longer"
    return run


def backup_time(run: Path) -> int | None:
    try:
        return (run / "backup.safetensors").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def weights(model: Path) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in open_checkpoint(model).tensors.items()}


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_last_backup_stays(start, killed):
    """The largest file a process may write stands in for the disk: backups of this model are larger."""
    before = (killed / "backup.safetensors").read_bytes()
    limited = start(killed, file_limit=len(before) // 2)
    _, said = limited.communicate()
    assert limited.returncode == 2, said[-2000:]
    assert "Traceback" not in said
    assert "Cannot write" in said or "too large" in said
    assert (killed / "backup.safetensors").read_bytes() == before


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(start, killed, tmp_path):
    processes = [start(run) for run in (tmp_path, killed)]
    printed = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], printed
    assert "resumed after step" in printed[1][0]
    for name in ("last", "best"):
        expected, found = weights(tmp_path / name), weights(killed / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=f"{name}: {key}")
    histories = [json.loads((run / "run.json").read_text())["result"]["history"] for run in (tmp_path, killed)]
    timeless = [[{**row, "seconds": 0, "data_wait": 0} for row in history] for history in histories]
    assert timeless[0] == timeless[1]
