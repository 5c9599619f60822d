"""What `lxmert-convert` tells: what is damaged, dropped, overflowed and unusable, and what to do, in one sentence."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from support.checkpoints import BIAS, CONFIG, KERNEL, PRETRAINED, SOURCES, converted, golden, refusal, run, same, saved

from conversion.convert import convert
from conversion.tensors import to_torch
from lxmert_tf.files import staged

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")
TABLE = "lxmert.embeddings.word_embeddings.weight"


# Damage


def flip(source: Path, path: Path, entry: str) -> str:
    """A copy of an archive with one bit flipped in the middle of an entry, whose whole name is returned."""
    content = bytearray(source.read_bytes())
    with zipfile.ZipFile(source) as archive:
        [info] = [info for info in archive.infolist() if info.filename.endswith(entry)]
    name, extra = (int.from_bytes(content[info.header_offset + at :][:2], "little") for at in (26, 28))
    content[info.header_offset + 30 + name + extra + info.file_size // 2] ^= 1
    path.write_bytes(content)
    return info.filename


@pytest.mark.parametrize(
    ("source", "entry"), [("hf-pt-bin", "data/7"), ("hf-pt-bin", "data.pkl"), ("keras archive", "model.weights.h5")]
)
def test_an_entry_that_fails_its_checksum_is_named(tmp_path, sources, source, entry):
    path = tmp_path / sources[source].name
    name = flip(sources[source], path, entry)
    assert f"its entry {name} is damaged" in refusal(path)


def test_an_archive_that_was_saved_without_checksums_is_read(tmp_path):
    compute = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({name: to_torch(array) for name, array in golden().items()}, tmp_path / "x.bin")
    finally:
        torch.serialization.set_crc32_options(compute)
    assert same(converted(tmp_path / "x.bin"), golden())


@pytest.mark.parametrize("kind", ["soft", "external"])
def test_a_group_of_tensorflow_that_is_a_link_is_told(tmp_path, kind):
    with h5py.File(SOURCES["hf-tf"]) as old, h5py.File(tmp_path / "x.h5", "w") as new:
        new.attrs.update(old.attrs)
        new["cls"] = h5py.SoftLink("/nothing") if kind == "soft" else h5py.ExternalLink("nothing.h5", "/cls")
    assert "its group cls is a link, which is refused" in refusal(tmp_path / "x.h5")


# Reports


def test_answers_tells_the_real_task_and_what_is_dropped(tmp_path):
    (tmp_path / "all_ans.json").write_text(json.dumps([f"answer {i}" for i in range(11)]))
    (tmp_path / "label2ans.json").write_text(json.dumps(["answer 3"]))
    lists = ["--pretrained", tmp_path / "all_ans.json", "--answers", tmp_path / "label2ans.json"]
    code, out, _ = run("answers", PRETRAINED, tmp_path / "out", *lists, "--json")
    report = json.loads(out)["conversion"]
    assert (code, report["source_task"], report["task"]) == (0, "pretraining", "qa")
    assert report["dropped"] == convert(PRETRAINED, tmp_path / "qa", task="qa").dropped and report["dropped"]
    assert "1 answer found among 11" in run("answers", PRETRAINED, tmp_path / "again", *lists)[1]


def test_answers_that_are_named_twice_are_refused(tmp_path):
    (tmp_path / "all_ans.json").write_text(json.dumps([f"answer {i}" for i in range(11)]))
    (tmp_path / "twice.json").write_text(json.dumps(["answer 3", "answer 2", "answer 3"]))
    lists = ["--pretrained", tmp_path / "all_ans.json", "--answers", tmp_path / "twice.json"]
    code, out, err = run("answers", PRETRAINED, tmp_path / "out", *lists)
    assert (code, out) == (2, "") and f"{tmp_path / 'twice.json'}: answer 'answer 3' is in the table twice" in err


def test_what_overflows_in_a_cast_is_told_apart_from_what_was_not_finite(tmp_path):
    tensors = golden()
    tensors[BIAS][:2], tensors[KERNEL][0, :3] = np.nan, 1e6
    report = convert(saved(tmp_path / "source", tensors), tmp_path / "half", dtype="float16")
    assert (report.nonfinite, report.overflowed) == ({BIAS: 2}, {KERNEL: 3})
    assert f"warning: {KERNEL}: 3 values overflowed in the cast to float16" in report.lines()
    assert convert(tmp_path / "source", tmp_path / "wide", dtype="float64").overflowed == {}


@pytest.mark.parametrize(("to", "name"), [("hf-pt", "model.safetensors"), ("hf-pt-bin", "pytorch_model.bin")])
def test_a_shard_size_beyond_the_model_splits_nothing(tmp_path, to, name):
    convert(PRETRAINED, tmp_path / "out", to=to, shard_size="2GB")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["config.json", name]


def test_inspect_of_a_file_without_tensors(tmp_path):
    source = saved(tmp_path / "source", {})
    code, out, err = run("inspect", source)
    assert (code, err) == (1, "") and "0 tensors, 0 bytes" in out and "missing: pooler.dense.bias" in out
    assert run("inspect", source, "--json")[0] == 1


def test_inspect_tells_of_a_dtype_that_convert_refuses(tmp_path):
    source = saved(tmp_path / "source", {**golden(), BIAS: np.zeros(32, "int32")})
    code, out, _ = run("inspect", source)
    assert code == 1 and f"unusable: {BIAS} is int32, not one of float64, float32, float16, bfloat16" in out
    report = json.loads(run("inspect", source, "--json")[1])
    assert report["unusable"] == {BIAS: "int32"} and not report["complete"]
    assert run("convert", source, tmp_path / "out")[0] == 2


def test_inspect_tells_of_a_decoder_of_its_own(tmp_path):
    tensors = golden()
    for added, told in ((0, False), (1, True)):
        tensors["cls.predictions.decoder.weight"] = tensors[TABLE] + np.float32(added)
        out = run("inspect", saved(tmp_path / str(added), tensors))[1]
        assert (f"note: cls.predictions.decoder.weight is not {TABLE}" in out) == told
    assert "note: cls" not in run("inspect", SOURCES["hf-pt-bin"], "--config", CONFIG)[1]


# Streams


@pytest.mark.parametrize("closed", ["1", "2", "0", "0 1 2"])
def test_closed_standard_streams_do_no_harm(tmp_path, closed):
    redirections = " ".join(f"{number}>&-" for number in closed.split())
    script = f'"$@" {redirections}'
    command = [sys.executable, "-m", "conversion", "convert", PRETRAINED, tmp_path / "out", "--to", "hf-tf"]
    done = subprocess.run(["sh", "-c", script, "sh", *map(str, command)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert same(converted(tmp_path / "out"), golden())


# What to do


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["convert", PRETRAINED, "{}"], "replace it with --overwrite."),
        (["convert", PRETRAINED, "{}/x", "--task", "visual-reasoning"], "have them initialised with --allow-missing."),
        (["convert", PRETRAINED, "{}/x", "--shard-size", "many"], "--shard-size must be a number of bytes"),
        (["convert", PRETRAINED, "{}/x", "--to", "keras", "--shard-size", "1GB"], "--shard-size splits only"),
        (["verify", PRETRAINED, PRETRAINED, "--max-error", "-1"], "--max-error must be at least 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_errors_name_options_of_the_command_line(tmp_path, arguments, option):
    (tmp_path / "mine.txt").write_text("mine")
    code, out, err = run(*(str(argument).format(tmp_path) for argument in arguments))
    assert (code in (1, 2), out, err.count("\n")) == (True, "", 1) and option in err, err


def test_notes_and_mismatches_name_options_of_the_command_line(tmp_path):
    for options in ([], ["--json"]):
        out = run("convert", SOURCES["original"], tmp_path / f"out{len(options)}", *options)[1]
        assert "if it is wrong, give it with --config" in out
    err = run("convert", saved(tmp_path / "source", golden(), vocab_size=98), tmp_path / "no")[2]
    assert "misshapen" in err and "ignore_mismatched_sizes" not in err


@pytest.mark.parametrize("name", ["overwrite=True", "pass config=", "shard_size must", "allow_missing=True"])
def test_what_looks_like_an_option_in_a_path_is_left_alone(tmp_path, name):
    code, out, err = run("convert", PRETRAINED, tmp_path / name / "x", "--json")
    assert (code, err, json.loads(out)["destination"]) == (0, "", str(tmp_path / name / "x"))
    assert f"-> {tmp_path / name / 'y'} (" in run("convert", PRETRAINED, tmp_path / name / "y")[1]
    assert run("convert", PRETRAINED, tmp_path / name / "x")[2].endswith(
        f"{tmp_path / name / 'x'} exists; choose another destination, or replace it with --overwrite.\n"
    )
    assert f"'{tmp_path / name / 'z'}'" in run("inspect", tmp_path / name / "z")[2]


def test_errors_name_arguments_to_callers_of_the_library(tmp_path):
    run("inspect", tmp_path / "nowhere")  # a command line that is over changes nothing
    convert(PRETRAINED, tmp_path / "out")
    with pytest.raises(FileExistsError, match=r"replace it with overwrite=True\."):
        convert(PRETRAINED, tmp_path / "out")
    with pytest.raises(ValueError, match=r"^shard_size must be a number of bytes"):
        convert(PRETRAINED, tmp_path / "x", shard_size="many")
    misshapen = saved(tmp_path / "source", golden(), vocab_size=98)
    with pytest.raises(ValueError, match=r"initialised \(from_pretrained takes ignore_mismatched_sizes=True"):
        convert(misshapen, tmp_path / "x")


def test_one_tensor_is_not_called_tensors(tmp_path):
    tensors = golden()
    del tensors[BIAS]
    err = run("convert", saved(tmp_path / "source", tensors), tmp_path / "out")[2]
    assert f"lacks 1 tensor of LxmertForPreTraining: {BIAS};" in err


# Names


@pytest.mark.parametrize("name", ["", "lxmert-bas", "runs/lxmert-bas", "lxmert/", "dangling", "some\\dir", "a/x.bin"])
def test_a_mistyped_path_is_never_looked_for_on_the_hub(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the Hub"))
    (tmp_path / "runs").mkdir()
    (tmp_path / "dangling").symlink_to("nowhere")
    told = {
        "": "The name of the source is empty",
        "dangling": "'dangling' is a link to 'nowhere', where there is nothing",
    }
    for command in (["inspect", name], ["convert", name, "out"]):
        code, out, err = run(*command)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert told.get(name, f"There is no file or directory {name!r}") in err


def test_a_hub_that_cannot_be_reached_is_told_in_one_sentence():
    command = [sys.executable, "-m", "conversion", "inspect", "someone/lxmert"]
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert "No local path 'someone/lxmert', and the Hub did not give it: it cannot be reached" in done.stderr


def test_what_is_no_regular_file_is_told(tmp_path):
    for command in (["inspect", "/dev/null"], ["convert", PRETRAINED, "/dev/null", "--to", "original", "--overwrite"]):
        code, out, err = run(*command)
        assert (code, out, err.count("\n")) == (2, "", 1) and "/dev/null exists but is not a regular file" in err
    assert not Path("/dev/null").is_file()
    assert "The name of the destination is empty" in run("convert", PRETRAINED, "")[2]


@pytest.mark.parametrize("name", ["x.safetensors", "x.weights.h5", "x.keras"])
def test_the_original_format_is_not_written_under_the_name_of_another(tmp_path, name):
    code, _, err = run("convert", PRETRAINED, tmp_path / name, "--to", "original")
    assert code == 2 and f"{name} is the name of a file of another format" in err and not list(tmp_path.iterdir())


# Cut short


@pytest.mark.parametrize("source", ["hf-pt", "hf-pt-bin", "hf-tf", "original", "keras", "keras archive", "legacy"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_file_that_is_cut_short_is_told_in_our_words(tmp_path, sources, source, kept):
    path = tmp_path / "weights"
    if source == "legacy":
        torch.save({BIAS: torch.arange(5000.0)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes() if source == "legacy" else sources[source].read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    line = refusal(path)
    assert f"{path} is cut short or damaged; download or copy it again" in line or "cut short or damaged (" in line, (
        line
    )


def test_a_shard_that_is_cut_short_is_named_once(tmp_path):
    convert(PRETRAINED, tmp_path / "out", to="hf-pt-bin", shard_size="100KB")
    shard = sorted((tmp_path / "out").glob("*.bin"))[1]
    shard.write_bytes(shard.read_bytes()[:5000])
    line = refusal(tmp_path / "out")
    assert line.endswith(f".index.json: {shard} is cut short or damaged; download or copy it again\n")


def test_the_folder_of_a_run_that_goes_on_is_left_alone(tmp_path):
    with staged(tmp_path / "first") as first:
        first.write_text("first")
        convert(PRETRAINED, tmp_path / "second")
    assert (tmp_path / "first").read_text() == "first"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "second"]


def test_of_what_killed_runs_left_only_what_they_were_replacing_stays(tmp_path):
    for name, kept in ((".partial-a", "x"), (".partial-b", "x.old")):
        (tmp_path / name / kept).mkdir(parents=True)
        (tmp_path / name / ".lock").write_bytes(b"")
    convert(PRETRAINED, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".partial-b", "out"]
