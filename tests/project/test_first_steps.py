"""docs/index.md, as a new user does it: its commands and its Python, one after the other, on smaller sets."""

import json
import re
from pathlib import Path

import pytest
from support.pages import blocks, commands

SMALLER = {"demo": ["--images", "40", "--epochs", "1"], "demo-data": ["--images", "40"], "train": ["--epochs", "1"]}
SMALLER["export"] = ["--batch-sizes", "1"]
HELD_OUT = re.compile(r"synthetic_\d{12}")  # pictures of the larger sets
HELD_OUT_HERE = "synthetic_000000000032"


@pytest.mark.slow
def test_first_steps(forked, tmp_path):
    done = []

    def run(*arguments: str) -> str:
        done.append(forked.run(*arguments, cwd=tmp_path))
        return done[-1]

    for language, text in blocks("docs/index.md", "sh", "python"):
        text = HELD_OUT.sub(HELD_OUT_HERE, text)
        if language == "python":
            answer = run("-c", text).strip()
            assert re.fullmatch(r"[\w ]+", answer)
            continue
        for program, subcommand, *arguments in commands(text):
            assert program == "lxmert-tf"
            run("-m", "lxmert_tf.cli", subcommand, *arguments, *SMALLER.get(subcommand, []))
    assert len(done) == 10
    assert not re.search(r"[\r\b]", done[0])  # no bar that is drawn again and again
    assert_demonstrated(done[0], tmp_path / "demo")
    assert (tmp_path / "why.png").is_file()
    assert HELD_OUT_HERE in {each["img_id"] for each in json.loads((tmp_path / "demo/data/valid.json").read_text())}
    assert "sound" in done[-2]


def assert_demonstrated(printed: str, folder: Path) -> None:
    """`lxmert-tf demo` has run to its end and left what it says."""
    assert "trained in" in printed
    assert "overall" in printed
    differences = [float(line.split()[-1]) for line in printed.splitlines() if "largest difference" in line]
    assert len(differences) >= 2
    assert max(differences) < 1e-4  # float32 through a few layers: about 1e-6
    assert {path.name for path in folder.iterdir()} == {"data", "checkpoint", "saved_model", "answer.png"}
