"""`kill -9` at any moment: the same command goes on, and ends in exactly the weights of a run that was left alone."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.data import files_of
from support.golden import ROOT

from conversion.formats import open_checkpoint
from lxmert_tf.data.features.build import build_features
from lxmert_tf.demo.dataset import write_dataset

KILLS = 10
SMALL = {"hidden_size": 16, "intermediate_size": 16, "l_layers": 1, "r_layers": 1, "x_layers": 1}
SMALL |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "vqa"
    write_dataset(folder, "vqa", num_images=60, feat_dim=8, pictures=False)
    build_features(folder / "features.tsv", folder / "features.h5")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **SMALL}))
    return folder


def start(data: Path, output: Path) -> subprocess.Popen:
    options = ["--epochs", 8, "--batch-size", 8, "--learning-rate", 1e-3, "--deterministic", "--backup-every", 3]
    command = [sys.executable, "-m", "lxmert_tf.cli", "train", "vqa", *files_of(data), "--output", output, *options]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.Popen(
        list(map(str, command)), cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process: subprocess.Popen) -> str:
    text, _ = process.communicate(timeout=900)
    assert process.returncode == 0, text[-3000:]
    return text


def weights(model: Path) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in open_checkpoint(model).tensors.items()}


@pytest.mark.slow
def test_ten_kills_at_random_moments_change_nothing(data, tmp_path):
    whole = tmp_path / "whole"
    finish(start(data, whole))

    killed, seconds = tmp_path / "killed", random.Random(0)
    kills = 0
    while kills < KILLS:
        process = start(data, killed)
        before = backup_time(killed)
        while backup_time(killed) == before and process.poll() is None:  # so that every attempt gets somewhere
            time.sleep(0.01)
        time.sleep(seconds.uniform(0, 0.5))
        if process.poll() is not None:
            break  # it was quicker than we
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    text = finish(start(data, killed))
    assert kills == KILLS, f"the run was over after {kills} kills: make it longer"
    assert "resumed after step" in text or "is finished" in text

    for name in ("last", "best"):
        expected = weights(whole / name)
        found = weights(killed / name)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            np.testing.assert_array_equal(found[key], value, err_msg=f"{name}: {key}")
    histories = [json.loads((run / "run.json").read_text())["result"]["history"] for run in (whole, killed)]
    timeless = [[{**row, "seconds": 0, "data_wait": 0} for row in history] for history in histories]
    assert timeless[0] == timeless[1]


def backup_time(run: Path) -> int | None:
    try:
        return (run / "backup.safetensors").stat().st_mtime_ns
    except FileNotFoundError:
        return None


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_last_backup_goes_on(data, tmp_path):
    """The largest file a process may write stands in for the disk: backups of this model are larger."""
    process = start(data, tmp_path / "run")
    while backup_time(tmp_path / "run") is None and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    size = (tmp_path / "run" / "backup.safetensors").stat().st_size
    before = (tmp_path / "run" / "backup.safetensors").read_bytes()
    limited = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2},) * 2)"
    script = f"{limited}; import sys; from lxmert_tf.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = process.args[3:]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    run = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=env, capture_output=True, text=True, timeout=900, check=False
    )
    assert run.returncode == 2, run.stderr[-2000:]
    assert "Traceback" not in run.stderr
    assert "Cannot write" in run.stderr or "too large" in run.stderr
    assert (tmp_path / "run" / "backup.safetensors").read_bytes() == before
    assert "resumed after step" in finish(start(data, tmp_path / "run"))
