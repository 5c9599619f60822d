"""docs/index.md, as a new user does it: its commands and its Python, one after the other, on smaller sets."""

import os
import re
import shlex
import subprocess
import sys

import pytest
from support.golden import ROOT
from support.pages import blocks, commands

SMALLER = {"demo": ["--images", "40", "--epochs", "1"], "demo-data": ["--images", "40"], "train": ["--epochs", "1"]}
SMALLER["export"] = ["--batch-sizes", "1"]


@pytest.mark.slow
def test_first_steps(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = []

    def run(*arguments: str) -> str:
        process = subprocess.run(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900
        )
        assert process.returncode == 0, f"{shlex.join(arguments)}\n{process.stderr[-3000:]}"
        done.append(process.stdout)
        return process.stdout

    for language, text in blocks("docs/index.md", "sh", "python"):
        if language == "python":
            answer = run("-c", text).strip()
            assert re.fullmatch(r"[\w ]+", answer)
            continue
        for program, subcommand, *arguments in commands(text):
            assert program == "lxmert-tf"
            run("-m", "lxmert_tf.cli", subcommand, *arguments, *SMALLER.get(subcommand, []))
    assert len(done) == 8
    assert (tmp_path / "why.png").is_file()
    assert "sound" in done[-1]
