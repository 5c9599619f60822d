"""docs/training.md: its Python runs, its commands parse, its recipes are those of the code."""

import re
import shlex

import pytest
from support.golden import ROOT
from support.pages import blocks

from lxmert_tf import cli
from lxmert_tf.training.recipes import RECIPES

TEXT = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_keras_example_runs(forked, tmp_path):
    [(_, block)] = blocks("docs/training.md", "python")
    strictly = "import warnings; warnings.simplefilter('error', FutureWarning)"
    assert "val_accuracy" in forked.run("-c", f"{strictly}\n{block}", cwd=tmp_path)
    assert (tmp_path / "tuned" / "config.json").exists()


def test_the_commands_parse():
    text = TEXT.replace("\\\n", " ")
    commands = re.findall(r"^lxmert-tf (?:train|evaluate|predict) .*$", text, re.MULTILINE)
    manifest = re.search(r"command: \[(.*?)\]", TEXT)[1].replace('"', "").replace(",", "")
    commands.append(" ".join([manifest, *re.findall(r"^ +- (--\S+)$", TEXT, re.MULTILINE)]))
    whole = [command for command in commands if "..." not in command]
    assert len(whole) == 5
    for command in whole:
        assert cli.make_parser().parse_args(shlex.split(command)[1:]).task == "vqa"


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("epochs", "epochs"),
        ("batch size", "batch_size"),
        ("peak learning rate", "learning_rate"),
        ("warm-up, then linear decay to 0", "warmup"),
        ("global gradient clip", "clip"),
    ],
)
def test_the_table_of_recipes_is_that_of_the_code(row, field):
    cells = re.search(rf"^\| {re.escape(row)} \|(.*)\|$", TEXT, re.MULTILINE)[1].split("|")
    told = [float(cell.strip().rstrip("%")) / (100 if "%" in cell else 1) for cell in cells]
    assert told == [getattr(RECIPES[task], field) for task in ("vqa", "gqa", "nlvr2", "pretrain")]
