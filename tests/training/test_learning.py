"""Small models learn the synthetic set from scratch through the command line, with its defaults but for the rate."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from data_helpers import files_of

ROOT = Path(__file__).resolve().parents[2]


def lxmert_tf(*arguments) -> str:
    """What a command prints, in a process of its own."""
    run = subprocess.run(
        [sys.executable, "-m", "lxmert_tf.cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=3000,
    )
    return run.stdout


@pytest.mark.slow
def test_vqa_from_scratch(tmp_path):
    data, run = tmp_path / "data", tmp_path / "run"
    lxmert_tf("demo-data", data, "--images", 2000, "--task", "vqa", "--seed", 1, "--no-pictures")
    lxmert_tf("features", "build", data / "features.tsv", data / "features.h5")
    options = ["--epochs", 30, "--batch-size", 64, "--learning-rate", 1e-3]
    lxmert_tf("train", "vqa", *files_of(data), "--output", run, *options)
    held_out = ["--data", data / "valid.json", "--features", data / "features.h5", "--json"]
    found = json.loads(lxmert_tf("evaluate", "vqa", "--model", run / "best", *held_out))
    assert found["accuracy"] >= 0.95
