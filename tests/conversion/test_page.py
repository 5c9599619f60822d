"""docs/conversion.md: its recipes run, and its lists are complete."""

import json
import os
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.checkpoints import CONFIG, PRETRAINED, golden, run
from support.golden import GOLDEN, ROOT
from support.pages import blocks

from conversion.cli import MODULES
from conversion.convert import FORMATS
from conversion.names import rows, templates
from lxmert_pt import LxmertModel
from lxmert_tf import LxmertConfig

PAGE = (ROOT / "docs" / "conversion.md").read_text(encoding="utf-8")
RECIPES = [line for _, block in blocks("docs/conversion.md", "sh") for line in block.splitlines()]


def test_templates_are_every_row():
    config = LxmertConfig.from_json_file(CONFIG)
    expanded = {row.torch.format(i=i) for row in templates() for i in range(2)}
    assert {row.torch for row in rows(config, "pretraining")} <= expanded


def write_adapter(folder: Path) -> None:
    """One that changes the queries of the first language layer."""
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 2}))
    query = "base_model.model.lxmert.encoder.layer.0.attention.self.query"
    factors = {f"{query}.lora_A.weight": np.ones((1, 32), "f4"), f"{query}.lora_B.weight": np.ones((32, 1), "f4")}
    save_file(factors, folder / "adapter_model.safetensors")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:torch")
def test_the_recipes_run_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    for name in ("tf_model.h5", "config.json"):
        shutil.copy(GOLDEN / "hf_tf_pretraining" / name, tmp_path / "old")
    for name in ("Epoch20_LXRT.pth", "vqa_BEST.pth", "nlvr2_BEST.pth"):
        shutil.copy(GOLDEN / "original" / name, tmp_path)
    shutil.copy(PRETRAINED / "config.json", tmp_path)
    (tmp_path / "all_ans.json").write_text(json.dumps([{"ans": f"answer {i}"} for i in range(11)]))
    (tmp_path / "label2ans.json").write_text(json.dumps(["answer 3"]))
    state = {f"model.{name}": torch.from_numpy(value) for name, value in golden().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "epoch=3.ckpt")
    ema = {name: value + 1 for name, value in state.items()}
    torch.save({"model": state, "ema": ema}, tmp_path / "two-models.pth")
    write_adapter(tmp_path / "lora")
    assert len(RECIPES) > 12
    for line in RECIPES:
        program, *arguments = shlex.split(line)
        code, out, err = run(*arguments)
        assert (program, code, err) == ("lxmert-convert", 0, ""), line
        assert out
    assert sorted(os.listdir("for-transformers-4")) == ["config.json", "pytorch_model.bin"]


def test_the_example_in_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [(_, example)] = blocks("docs/conversion.md", "python")
    model = LxmertModel(LxmertConfig.from_json_file(CONFIG))
    names = {"model": model}
    exec(example.replace("unc-nlp/lxmert-base-uncased", str(PRETRAINED)), names)
    assert capsys.readouterr().out == "hf-pt pretraining 32 170\n"
    assert all(np.array_equal(value, names["arrays"][name]) for name, value in model.state_dict().items())
    assert names["report"].format == "keras" and (tmp_path / "keras-lxmert" / "model.weights.h5").is_file()


def test_every_format_and_subcommand_has_its_line():
    assert re.findall(r"^\| `(\S+)` \| (?:`config|one)", PAGE, re.MULTILINE) == list(FORMATS)
    assert set(re.findall(r"^\| `(\w+) (?:SRC|A)", PAGE, re.MULTILINE)) == {module.NAME for module in MODULES}


@pytest.mark.parametrize("command", ["inspect", "convert", "diff"])
def test_the_keys_of_the_json_are_listed(tmp_path, command):
    destination = [tmp_path / "out"] if command == "convert" else [PRETRAINED] if command == "diff" else []
    _, out, _ = run(command, PRETRAINED, *destination, "--json")
    listed = re.search(rf"^\| `{command}` \| (`path`.*|`source`.*|`a` .*) \|$", PAGE, re.MULTILINE)[1]
    assert re.findall(r"`(\w+)`", listed) == list(json.loads(out))
