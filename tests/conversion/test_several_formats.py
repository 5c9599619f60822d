"""A directory with several checkpoints, of equal weights or not: every reader says which one it has read."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import BIAS, CONFIG, SOURCES, converted, golden, run, same, saved

import lxmert_pt
import lxmert_tf
from conversion.answers import convert_answers
from conversion.convert import convert
from conversion.diff import diff
from conversion.formats import open_checkpoint
from conversion.inspect import inspect
from conversion.load import load_into, load_state_dict
from conversion.verify import verify
from lxmert_tf import LxmertConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")


@pytest.fixture
def two(tmp_path) -> Path:
    """Other weights in tf_model.h5 than in model.safetensors."""
    return Path(shutil.copy(SOURCES["hf-tf"], saved(tmp_path / "two", changed()))).parent


def changed() -> dict[str, np.ndarray]:
    return {**golden(), BIAS: golden()[BIAS] + np.float32(1)}


def note(folder: Path, also: str = "tf_model.h5", used: str = "model.safetensors") -> str:
    return f"{folder} also holds {also}; {used} is used"


def test_every_command_prints_it(tmp_path, two, only_pytorch):
    for name, answers in (("all_ans.json", 11), ("label2ans.json", 3)):
        (tmp_path / name).write_text(json.dumps([f"answer {i}" for i in range(answers)]))
    lists = ["--pretrained", tmp_path / "all_ans.json", "--answers", tmp_path / "label2ans.json"]
    for command, side in (
        (["inspect", two], ""),
        (["convert", two, tmp_path / "converted"], ""),
        (["answers", two, tmp_path / "vqa", *lists], ""),
        (["diff", SOURCES["hf-pt"], two], "in b, "),
        (["diff", two, SOURCES["hf-pt"]], "in a, "),
        (["verify", two, two], "in b, "),
    ):
        code, out, err = run(*command)
        assert f"note: {side}{note(two)}" in out.splitlines() and err == "" and code in (0, 1), command
    assert same(converted(two), changed())
    assert "also holds" not in run("inspect", two / "tf_model.h5")[1], "it is the file that was asked for"


def test_results_carry_it(tmp_path, two, only_pytorch):
    assert open_checkpoint(two).notes == (note(two),)
    assert open_checkpoint(two, CONFIG).notes == open_checkpoint(two, LxmertConfig.from_json_file(CONFIG)).notes
    assert open_checkpoint(two, CONFIG).notes == (note(two),)
    assert inspect(two).notes == convert(two, tmp_path / "out").notes == [note(two)]
    assert diff(SOURCES["hf-pt"], two).notes == [f"in b, {note(two)}"]
    assert verify(two, SOURCES["hf-pt"]).notes == [f"in a, {note(two)}"]
    assert load_into(lxmert_pt.LxmertForPreTraining(LxmertConfig.from_json_file(CONFIG)), two).notes == [note(two)]
    (two / "config.json").unlink()
    assert open_checkpoint(two).notes == (note(two),)


@pytest.mark.parametrize("model", [lxmert_tf.TFLxmertForPreTraining, lxmert_pt.LxmertForPreTraining], ids=["tf", "pt"])
def test_from_pretrained_logs_it(two, caplog, model):
    caplog.set_level("INFO", "lxmert_tf")
    model.from_pretrained(two)
    [record] = [record for record in caplog.records if "also holds" in record.getMessage()]
    assert (record.name, record.levelname, record.getMessage()) == ("lxmert_tf", "INFO", note(two))
    caplog.clear()
    model.from_pretrained(two / "tf_model.h5")
    assert "also holds" not in caplog.text and "tf_model.h5" in caplog.text


def test_whatever_opens_a_directory_logs_it_once(tmp_path, two, caplog, only_pytorch):
    caplog.set_level("INFO", "lxmert_tf")
    (tmp_path / "answers.json").write_text(json.dumps([f"answer {i}" for i in range(11)]))
    for read in (
        open_checkpoint,
        load_state_dict,
        inspect,
        lambda source: diff(source, golden()),
        lambda source: verify(source, SOURCES["hf-pt"]),
        lambda source: convert(source, tmp_path / "out"),
        lambda source: convert_answers(source, tmp_path / "vqa", tmp_path / "answers.json", tmp_path / "answers.json"),
    ):
        caplog.clear()
        read(two)
        assert caplog.messages.count(note(two)) == 1


def test_a_user_who_logs_at_info_sees_it(two):
    script = f"""
import logging
logging.basicConfig(level=logging.INFO)
from conversion.formats import open_checkpoint
open_checkpoint({str(two)!r})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == f"INFO:lxmert_tf:{note(two)}\n"


def test_which_files_are_other_checkpoints(tmp_path, two, sources):
    """Not shards, nor what training leaves beside a model."""
    for name in ("optimizer.pt", "rng_state.pth", "training_args.bin", "vocab.txt", ".partial-x.keras", "a.h5.txt"):
        (two / name).write_text("other")
    (two / "folder.keras").mkdir()
    assert open_checkpoint(two).notes == (note(two),)
    shutil.copy(sources["keras archive"], two / "lxmert.keras")
    shutil.copy(sources["keras"], two / "lxmert.weights.h5")
    shutil.copy(SOURCES["original"], two / "Epoch20_LXRT.pth")
    also = "tf_model.h5, Epoch20_LXRT.pth, lxmert.keras, lxmert.weights.h5"
    assert open_checkpoint(two).notes == (note(two, also),)
    shutil.copy(SOURCES["hf-pt-bin"], two)
    also = "pytorch_model.bin, tf_model.h5, Epoch20_LXRT.pth, lxmert.keras and 1 more"
    assert open_checkpoint(two).notes == (note(two, also),)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
def test_the_shards_of_an_index_are_not_others(tmp_path):
    convert(SOURCES["hf-pt"], tmp_path / "pt", shard_size=50_000, config=CONFIG)
    assert open_checkpoint(tmp_path / "pt").notes == ()
    model = lxmert_tf.TFLxmertForPreTraining.from_pretrained(tmp_path / "pt")
    (tmp_path / "keras").mkdir()
    model.save_weights(tmp_path / "keras/model.weights.json", max_shard_size=1e-4)
    assert len(list((tmp_path / "keras").glob("*.weights.h5"))) > 2
    assert open_checkpoint(tmp_path / "keras").notes == ()
    shutil.copy(tmp_path / "pt/model.safetensors.index.json", tmp_path / "keras")
    for shard in (tmp_path / "pt").glob("*.safetensors"):
        shutil.copy(shard, tmp_path / "keras")
    [told] = open_checkpoint(tmp_path / "keras").notes
    assert told == note(tmp_path / "keras", "model.weights.json", "model.safetensors.index.json")


def test_a_directory_of_one_checkpoint_has_no_note(tmp_path, caplog, only_pytorch):
    caplog.set_level("INFO", "lxmert_tf")
    checkpoint = open_checkpoint(saved(tmp_path / "one", golden()))
    assert checkpoint.notes == () and not caplog.records
    assert verify(checkpoint, checkpoint).notes == []
