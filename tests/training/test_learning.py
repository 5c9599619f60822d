"""Small models learn the synthetic sets through the command line: each task from scratch, and more from pretraining."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.golden import ROOT

pytestmark = pytest.mark.long


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


def make_set(folder: Path, task: str, images: int) -> Path:
    lxmert_tf("demo-data", folder, "--images", images, "--task", task, "--seed", 1, "--no-pictures")
    lxmert_tf("features", "build", folder / "features.tsv", folder / "features.h5")
    return folder


@pytest.fixture(scope="module")
def all_tasks(tmp_path_factory) -> Path:
    return make_set(tmp_path_factory.mktemp("learning") / "all", "all", 2000)


def trained(task: str, data: Path, run: Path, *options) -> float:
    """The accuracy on held-out pictures after training; for pretraining, that of telling which sentences match."""
    features = ["--features", data / "features.h5"]
    answers = {"nlvr2": None, "pretrain": "all_ans.json"}.get(task, "label2ans.json")
    files = ["--train", data / task / "train.json", "--valid", data / task / "valid.json", *features]
    files += ["--vocab", data / "vocab.txt", *(["--answers", data / answers] if answers else [])]
    lxmert_tf("train", task, *files, "--output", run, *options)
    held_out = ["--data", data / task / "valid.json", *features, "--json"]
    return json.loads(lxmert_tf("evaluate", task, "--model", run / "best", *held_out))["accuracy"]


def from_scratch(data: Path, epochs: int, batch_size: int = 64, learning_rate: float = 1e-3) -> list:
    """Options; the published rates are meant for fine-tuning a large model."""
    rates = ["--epochs", epochs, "--batch-size", batch_size, "--learning-rate", learning_rate]
    return ["--config", data / "config.json", *rates]


def test_vqa_from_scratch(all_tasks, tmp_path):
    assert trained("vqa", all_tasks, tmp_path / "run", *from_scratch(all_tasks, epochs=20)) >= 0.97


def test_nlvr2_from_scratch(tmp_path):
    data = make_set(tmp_path / "data", "all", 4000)
    options = from_scratch(data, epochs=5, batch_size=32, learning_rate=3e-4)
    assert trained("nlvr2", data, tmp_path / "run", *options) >= 0.85


def test_pretraining_then_fine_tuning_beats_scratch(all_tasks, tmp_path):
    pretraining = tmp_path / "pretraining"
    assert trained("pretrain", all_tasks, pretraining, *from_scratch(all_tasks, epochs=30)) >= 0.90
    scratch = trained("vqa", all_tasks, tmp_path / "scratch", *from_scratch(all_tasks, epochs=4))
    adam = ["--optimizer", "adamw", "--clip", 1]  # as from scratch; the fine-tuning default is BertAdam
    tuned = ["--init", pretraining / "last", *adam, *from_scratch(all_tasks, epochs=4)[2:]]
    assert trained("vqa", all_tasks, tmp_path / "tuned", *tuned) >= scratch + 0.1
