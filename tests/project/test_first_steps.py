"""docs/index.md, as a new user does it: its commands and its Python, one after the other, on smaller sets."""

import re
from pathlib import Path

import pytest
from support.pages import blocks, commands

SMALLER = {"demo": ["--images", "40", "--epochs", "1"], "demo-data": ["--images", "40"], "train": ["--epochs", "1"]}
SMALLER["export"] = ["--batch-sizes", "1"]


@pytest.mark.slow
def test_first_steps(forked, tmp_path):
    done = []

    def run(*arguments: str) -> str:
        done.append(forked.run(*arguments, cwd=tmp_path))
        return done[-1]

    for language, text in blocks("docs/index.md", "sh", "python"):
        if language == "python":
            answer = run("-c", text).strip()
            assert re.fullmatch(r"[\w ]+", answer)
            continue
        for program, subcommand, *arguments in commands(text):
            assert program == "lxmert-tf"
            run("-m", "lxmert_tf.cli", subcommand, *arguments, *SMALLER.get(subcommand, []))
    assert len(done) == 8
    assert_demonstrated(done[0], tmp_path / "demo")
    assert (tmp_path / "why.png").is_file()
    assert "sound" in done[-1]


def assert_demonstrated(printed: str, folder: Path) -> None:
    """`lxmert-tf demo` has run to its end and left what it says."""
    assert "trained in" in printed
    assert "overall" in printed
    differences = [float(line.split()[-1]) for line in printed.splitlines() if "largest difference" in line]
    assert len(differences) >= 2
    assert max(differences) < 1e-4  # float32 through a few layers: about 1e-6
    assert {path.name for path in folder.iterdir()} == {"data", "checkpoint", "saved_model", "answer.png"}
