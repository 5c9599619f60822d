"""Which config a checkpoint is read with: one beside a single file only where it fits, a directory's always."""

import json
import shutil
from pathlib import Path

import pytest
from support.checkpoints import CONFIG, SOURCES, golden, run, saved
from support.golden import ROOT

from conversion.formats import WEIGHT_FILES, open_checkpoint
from lxmert_tf import TFLxmertForPreTraining


@pytest.fixture
def lone(tmp_path) -> Path:
    """A single file of an unusual name, in a folder of its own."""
    (tmp_path / "source").mkdir()
    return Path(shutil.copy(SOURCES["hf-pt"], tmp_path / "source/weights.safetensors"))


def config_beside(file: Path, text: str | None = None, **changes: object) -> Path:
    path = file.with_name("config.json")
    path.write_text(json.dumps({**json.loads(CONFIG.read_text()), **changes}) if text is None else text)
    return path


def test_the_config_beside_a_single_file_is_used_where_it_fits_and_named(tmp_path, lone):
    config = config_beside(lone, hidden_act="relu")
    code, out, err = run("convert", lone, tmp_path / "out")
    assert (code, err) == (0, "") and f"config ({config})" in out
    assert json.loads((tmp_path / "out/config.json").read_text())["hidden_act"] == "relu"
    assert f"config (file {config})" in run("inspect", lone)[1]
    report = json.loads(run("inspect", lone, "--json")[1])
    assert (report["config"], report["config_file"], report["notes"]) == ("file", str(config), [])


@pytest.mark.parametrize(
    ("text", "changes", "why"),
    [
        (None, {"intermediate_size": 8}, "says intermediate_size=8, the tensors 48; it is ignored"),
        (None, {"num_qa_labels": 9500}, "says num_qa_labels=9500, the tensors 11; it is ignored"),
        (None, {"x_layers": 5}, "says x_layers=5, the tensors 2; it is ignored"),
        (None, {"model_type": "bert"}, "model_type must be 'lxmert'"),
        ('{"learning_rate": 0.1}', {}, "is not an LXMERT config and is ignored"),
        ("{", {}, "is not a JSON file"),
        ("[]", {}, "must be a JSON object"),
    ],
    ids=str,
)
def test_the_config_beside_a_single_file_is_ignored_with_a_note_if_anothers(tmp_path, lone, text, changes, why):
    config = config_beside(lone, text, **changes)
    code, out, err = run("convert", lone, tmp_path / "out")
    assert (code, err) == (0, ""), err
    assert [line for line in out.splitlines() if line.startswith(f"note: {config}") and why in line], out
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert (written["intermediate_size"], written["num_qa_labels"], written["x_layers"]) == (48, 11, 2)
    code, out, _ = run("inspect", lone)
    assert code == 0 and "config (inferred)" in out and f"note: {config}" in out and why in out


def test_loading_into_a_model_warns_of_a_config_that_is_ignored(lone, caplog):
    config_beside(lone, x_layers=5)
    assert TFLxmertForPreTraining.from_pretrained(lone).config.x_layers == 2
    assert "says x_layers=5, the tensors 2; it is ignored, so the config is inferred" in caplog.text


@pytest.mark.parametrize("options", [[], ["--task", "qa"]], ids=str)
@pytest.mark.parametrize("given", [False, True])
def test_a_directorys_or_a_given_config_that_contradicts_the_tensors_is_an_error_that_names_file_and_field(
    tmp_path, given, options
):
    changed = saved(tmp_path / "changed", golden(), num_qa_labels=5)
    source = saved(tmp_path / "right", golden()) if given else changed
    config = ["--config", changed / "config.json"] if given else []
    code, out, err = run("convert", source, tmp_path / "out", *config, *options)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{changed / 'config.json'} says num_qa_labels=5, the tensors 11" in err
    code, out, _ = run("inspect", source, *config)
    assert code == 1 and f"note: {changed / 'config.json'} says num_qa_labels=5, the tensors 11" in out


def test_a_depth_that_contradicts_the_tensors_is_told_beside_what_is_missing(tmp_path):
    source = saved(tmp_path / "source", golden(), l_layers=3)
    code, _, err = run("convert", source, tmp_path / "out")
    assert code == 1 and f"{source / 'config.json'} says l_layers=3, the tensors 2" in err


def test_verify_names_file_and_field_of_a_config_that_contradicts_the_tensors(tmp_path):
    source = saved(tmp_path / "source", golden(), l_layers=3)
    code, out, _ = run("verify", source, source)
    assert code == 1 and "note: not run: " in out and f"{source / 'config.json'} says l_layers=3, the tensors 2" in out


def test_inspect_takes_a_config(tmp_path):
    config = saved(tmp_path / "other", golden(), num_attention_heads=2) / "config.json"
    code, out, _ = run("inspect", SOURCES["original"], "--config", config)
    assert code == 0 and f"config (file {config})" in out and "num_attention_heads=2" in out


def test_the_page_lists_the_files_of_a_directory_in_the_order_of_preference():
    page = (ROOT / "docs/conversion.md").read_text(encoding="utf-8")
    assert ", ".join(f"`{name}`" for name in WEIGHT_FILES) in " ".join(page.split())


def test_tensors_that_are_opened_from_a_single_file_keep_their_config_in_an_archive(sources):
    checkpoint = open_checkpoint(sources["keras archive"])
    assert (checkpoint.config_file, checkpoint.inferred) == (sources["keras archive"], "")
