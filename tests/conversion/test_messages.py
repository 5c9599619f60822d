"""What `lxmert-convert` tells: what is damaged, dropped, overflowed and unusable, and what to do, in one sentence."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conversion_helpers import BIAS, CONFIG, KERNEL, PRETRAINED, SOURCES, converted, golden, refusal, run, same, saved

from conversion.convert import convert
from conversion.tensors import to_torch

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
    assert (code, out) == (2, "") and f"{tmp_path / 'twice.json'} must name each answer once, got 'answer 3'" in err


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
