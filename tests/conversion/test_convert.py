"""Every golden checkpoint in every format and task it can become: bit for bit, whole or not at all, told clearly."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.checkpoints import modules_imported, place
from support.golden import GOLDEN, ROOT

from conversion import cli
from conversion.cli import common
from conversion.compare import Differs, identical
from conversion.convert import FORMATS, convert
from conversion.formats import find_weights, open_checkpoint, read_file
from conversion.inspect import inspect
from conversion.names import HEADS, fit_prefix, rows
from conversion.plan import Incomplete
from conversion.tensors import DTYPES, to_torch
from conversion.writers import DIRECTORY_FORMATS, parse_size, write_checkpoint
from lxmert_tf import LxmertConfig
from lxmert_tf.tasks import ARCHITECTURES

CONFIG = GOLDEN / "hf_pt_pretraining" / "config.json"
SOURCES = {
    "hf_pt_pretraining/model.safetensors": "pretraining",
    "hf_pt_pretraining/pytorch_model.bin": "pretraining",
    "hf_tf_pretraining/model.safetensors": "pretraining",
    "hf_tf_pretraining/tf_model.h5": "pretraining",
    "hf_pt_model": "model",
    "hf_tf_model": "model",
    "hf_pt_qa": "qa",
    "original/Epoch20_LXRT.pth": "pretraining",
    "original/vqa_BEST.pth": "qa",
    "original/nlvr2_BEST.pth": "visual-reasoning",
}
# The tasks that a checkpoint has all tensors for.
REACHED = {
    "pretraining": ("pretraining", "model", "qa"),
    "model": ("model",),
    "qa": ("qa", "model"),
    "visual-reasoning": ("visual-reasoning", "model"),
}
# What a source holds, in every format; as what else it can be read, in one each
PAIRS = [(source, task) for source, own in SOURCES.items() for task in REACHED[own]]
CASES = [(source, own, to) for source, own in SOURCES.items() for to in FORMATS]
CASES += [
    (source, task, FORMATS[i % len(FORMATS)]) for i, (source, task) in enumerate(PAIRS) if task != SOURCES[source]
]
UNREACHED = [(source, task) for source, own in SOURCES.items() for task in HEADS if task not in REACHED[own]]
PRETRAINED = GOLDEN / "hf_pt_pretraining"
DECODER = "cls.predictions.decoder.weight"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")


def tensors_of(path: Path, task: str) -> dict[str, np.ndarray]:
    """What a file or directory holds, read as a model of `task`, without the tied decoder."""
    _, found, _ = read_file(find_weights(path))
    tensors = found.tensors.renamed(lambda n: fit_prefix(n, task))
    return {name: array for name, array in tensors.items() if name != DECODER}


def nothing_left(folder: Path, *kept: str) -> bool:
    return {path.name for path in folder.iterdir()} == set(kept)


def run(*arguments: object) -> int:
    """The exit code of `lxmert-convert`."""
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as error:  # argparse
        return error.code


# The matrix


@pytest.mark.slow
@pytest.mark.parametrize(("source", "task", "to"), CASES)
def test_every_pair_is_bit_exact(tmp_path, source, task, to):
    destination = place(tmp_path, to)
    report = convert(GOLDEN / source, destination, to=to, task=task, config=CONFIG)
    original, written = tensors_of(GOLDEN / source, task), tensors_of(destination, task)
    assert set(written) == {row.torch for row in rows(LxmertConfig.from_json_file(CONFIG), task)}
    assert all(identical(written[name], original[name]) for name in written)
    assert report.verified and report.tensors == len(written) and not report.initialised
    assert set(original) - set(written) == set(report.dropped) - {DECODER}
    assert report.bytes == sum(array.nbytes for array in written.values())
    assert nothing_left(tmp_path, destination.name)
    if to in DIRECTORY_FORMATS:
        assert open_checkpoint(destination).task == task
        assert LxmertConfig.from_pretrained(destination).num_attention_heads == 4


@pytest.mark.parametrize(("source", "task"), UNREACHED)
def test_missing_heads_are_refused_unless_allowed(tmp_path, source, task):
    with pytest.raises(Incomplete, match="lacks"):
        convert(GOLDEN / source, tmp_path / "out", task=task, config=CONFIG)
    assert nothing_left(tmp_path)
    report = convert(GOLDEN / source, tmp_path / "out", task=task, config=CONFIG, allow_missing=True)
    assert report.initialised and report.verified
    assert open_checkpoint(tmp_path / "out").task == task


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "to"),
    [*(("pretraining", to) for to in FORMATS), *((task, "keras") for task in HEADS if task != "pretraining")],
)
def test_there_and_back(tmp_path, task, to):
    """A destination converts back to the very tensors it came from."""
    config = LxmertConfig.from_json_file(CONFIG)
    generator = np.random.default_rng(0)
    tensors = {row.torch: generator.normal(size=row.shape(config)).astype("float32") for row in rows(config, task)}
    write_checkpoint(tmp_path / "source", tensors, config, task, "hf-pt")
    convert(tmp_path / "source", place(tmp_path, to), to=to)
    convert(place(tmp_path, to), tmp_path / "back", config=CONFIG)
    first, back = (tmp_path / name / "model.safetensors" for name in ("source", "back"))
    assert first.read_bytes() == back.read_bytes()


def test_original_names_are_the_originals(tmp_path):
    for file, task in (("Epoch20_LXRT", "pretraining"), ("vqa_BEST", "qa"), ("nlvr2_BEST", "visual-reasoning")):
        convert(GOLDEN / f"original/{file}.pth", tmp_path / file, to="original", config=CONFIG)
        states = [torch.load(path, weights_only=True) for path in (GOLDEN / f"original/{file}.pth", tmp_path / file)]
        assert set(states[0]) == set(states[1]), task
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
        assert (tmp_path / file).read_bytes()[:2] == b"\x80\x02", "not the serialisation of PyTorch 1.x"


# Options


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "dtype"),
    [*((to, "bfloat16") for to in FORMATS), *(("hf-pt", dtype) for dtype in DTYPES if dtype != "bfloat16")],
)
def test_dtype_is_kept_unless_asked(tmp_path, to, dtype):
    if (to, dtype) == ("hf-tf", "bfloat16"):
        with pytest.raises(ValueError, match="cannot hold bfloat16"):
            convert(PRETRAINED, tmp_path / "out", to=to, dtype=dtype)
        assert nothing_left(tmp_path)
        return
    convert(PRETRAINED, place(tmp_path, to), to=to, dtype=dtype)
    written, original = tensors_of(place(tmp_path, to), "pretraining"), tensors_of(PRETRAINED, "pretraining")
    assert all(identical(written[name], original[name].astype(DTYPES[dtype])) for name in original)
    report = convert(place(tmp_path, to), tmp_path / "kept", config=CONFIG)
    assert report.dtypes == [dtype]


def test_shards(tmp_path):
    report = convert(PRETRAINED, tmp_path / "out", shard_size="50KB")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 2
    assert report.verified
    convert(tmp_path / "out", tmp_path / "single")
    assert (tmp_path / "single/model.safetensors").stat().st_size > 290_000


@pytest.mark.parametrize(
    ("text", "size"), [("2GB", 2 * 10**9), ("1.5 MB", 1_500_000), ("1GiB", 2**30), ("10", 10), (7, 7), ("3b", 3)]
)
def test_sizes(text, size):
    assert parse_size(text, "shard_size") == size


@pytest.mark.parametrize("text", ["", "GB", "0", "-1GB", "2XB", "nan", "infGB", "1e999", "2G B B"])
def test_sizes_that_are_none(text):
    with pytest.raises(ValueError, match="shard_size must be"):
        parse_size(text, "shard_size")


def test_allowed_missing_tensors_are_initialised_as_upstream_does(tmp_path):
    tensors = load_file(PRETRAINED / "model.safetensors")
    lost = [name for name in tensors if "pooler" in name or name.endswith("logit_fc.2.weight")]
    save_file({k: v for k, v in tensors.items() if k not in lost}, tmp_path / "partial.safetensors", {"format": "pt"})
    with pytest.raises(Incomplete, match=r"lacks 3 tensors .* answer_head\.logit_fc\.2\.weight"):
        convert(tmp_path / "partial.safetensors", tmp_path / "out", config=CONFIG)
    report = convert(tmp_path / "partial.safetensors", tmp_path / "out", config=CONFIG, allow_missing=True)
    assert report.initialised == sorted(lost)
    written = load_file(tmp_path / "out/model.safetensors")
    assert (written["answer_head.logit_fc.2.weight"] == 1).all()
    assert (written["lxmert.pooler.dense.bias"] == 0).all()
    kernel = written["lxmert.pooler.dense.weight"]
    assert np.abs(kernel).max() <= 0.04 and 0.015 < kernel.std() < 0.02
    assert all(identical(written[name], tensors[name]) for name in tensors if name not in lost)


def test_values_that_are_not_finite_are_counted_and_kept(tmp_path):
    tensors = load_file(PRETRAINED / "model.safetensors")
    tensors["lxmert.pooler.dense.bias"][:3] = np.nan, np.inf, 1e6
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    report = convert(tmp_path / "model.safetensors", tmp_path / "out", config=CONFIG)
    assert report.nonfinite == {"lxmert.pooler.dense.bias": 2}
    half = convert(tmp_path / "model.safetensors", tmp_path / "half", config=CONFIG, dtype="float16")
    assert (half.nonfinite, half.overflowed) == ({"lxmert.pooler.dense.bias": 2}, {"lxmert.pooler.dense.bias": 1})
    assert "warning: lxmert.pooler.dense.bias holds 2 values that are not finite" in half.lines()
    assert "warning: lxmert.pooler.dense.bias: 1 value overflowed in the cast to float16" in half.lines()


def test_many_tensors_that_are_not_finite_are_told_in_one_line(tmp_path):
    tensors = {name: np.full_like(array, np.nan) for name, array in load_file(PRETRAINED / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    report = convert(tmp_path / "model.safetensors", tmp_path / "out", config=CONFIG)
    assert report.verified and set(report.nonfinite) == set(tensors)
    [line] = [line for line in report.lines() if line.startswith("warning: ")]
    assert "holds 3,168 values that are not finite" in line and line.endswith(f" and {len(tensors) - 4} more")


def test_a_decoder_of_its_own_is_told(tmp_path):
    tensors = load_file(PRETRAINED / "model.safetensors")
    state = {name: to_torch(array) for name, array in tensors.items()}
    state[DECODER] = state["lxmert.embeddings.word_embeddings.weight"] + 1
    torch.save(state, tmp_path / "pytorch_model.bin")
    report = convert(tmp_path / "pytorch_model.bin", tmp_path / "out", config=CONFIG)
    assert any(DECODER in note for note in report.notes)


def test_a_guessed_config_is_told(tmp_path):
    report = convert(GOLDEN / "original/vqa_BEST.pth", tmp_path / "out")
    assert any("num_attention_heads=1 is a guess" in note for note in report.notes)


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("out", "hf-pt"),
        ("v1.0", "hf-pt"),
        ("x.weights.h5", "keras-weights"),
        ("x.keras", "keras"),
        ("x.pth", "original"),
    ],
)
def test_the_format_is_told_by_the_destinations_name(tmp_path, name, format):
    report = convert(PRETRAINED, tmp_path / name)
    assert report.format == format
    assert (tmp_path / name).is_dir() == (format == "hf-pt")


@pytest.mark.parametrize(("to", "name"), [("hf-tf", "tf_model.h5"), ("hf-pt", "x.pth"), ("keras", "x.weights.h5")])
def test_a_directory_is_not_named_like_a_file(tmp_path, to, name):
    with pytest.raises(ValueError, match=f"{to} is written as a directory, but {name} is the name of a file"):
        convert(PRETRAINED, tmp_path / name, to=to)


# Whole or not at all


def test_an_empty_directory_is_filled(tmp_path):
    (tmp_path / "out").mkdir()
    convert(PRETRAINED, tmp_path / "out")
    assert nothing_left(tmp_path / "out", "config.json", "model.safetensors")


def test_an_existing_destination_is_kept(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    for overwrite, reason in ((False, "exists"), (True, r"also holds mine\.txt")):
        with pytest.raises(FileExistsError, match=reason):
            convert(PRETRAINED, tmp_path / "out", overwrite=overwrite)
    with pytest.raises(FileExistsError, match="is not a file"):
        convert(PRETRAINED, tmp_path / "out", to="original", overwrite=True)
    assert nothing_left(tmp_path, "out") and nothing_left(tmp_path / "out", "mine.txt")


@pytest.mark.parametrize("to", FORMATS)
def test_overwriting_leaves_nothing_of_the_old(tmp_path, to):
    shards = {"shard_size": 50_000} if to in ("hf-pt", "hf-pt-bin") else {}
    convert(PRETRAINED, place(tmp_path, to), to=to, **shards)
    convert(GOLDEN / "hf_pt_qa", place(tmp_path, to), to=to, overwrite=True)
    assert set(tensors_of(place(tmp_path, to), "qa")) == set(tensors_of(GOLDEN / "hf_pt_qa", "qa"))
    assert nothing_left(tmp_path, place(tmp_path, to).name)
    if to in DIRECTORY_FORMATS:
        assert len(list(place(tmp_path, to).iterdir())) == 2


def test_source_and_destination_must_be_apart(tmp_path):
    source = tmp_path / "source"
    convert(PRETRAINED, source)
    (tmp_path / "link").symlink_to(source)
    before = (source / "model.safetensors").read_bytes()
    for destination in (source / "out", source / "a/b", tmp_path / "link/out"):
        with pytest.raises(ValueError, match="lies inside the source"):
            convert(source, destination)
    for destination in (source, tmp_path / "link"):
        with pytest.raises(ValueError, match="is the source itself"):
            convert(source, destination, overwrite=True)
        with pytest.raises(ValueError, match="holds the source"):
            convert(source / "model.safetensors", destination, overwrite=True)
    assert nothing_left(source, "model.safetensors", "config.json")
    assert (source / "model.safetensors").read_bytes() == before


def test_a_difference_keeps_the_old_destination(tmp_path, monkeypatch):
    convert(PRETRAINED, tmp_path / "out")
    before = (tmp_path / "out/model.safetensors").read_bytes()
    monkeypatch.setattr("conversion.convert.identical", lambda a, b: False)
    with pytest.raises(Differs, match="other values"):
        convert(GOLDEN / "hf_pt_qa", tmp_path / "out", overwrite=True)
    assert run("convert", PRETRAINED, tmp_path / "new") == 1
    assert nothing_left(tmp_path, "out") and (tmp_path / "out/model.safetensors").read_bytes() == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_destination(tmp_path, capsys):
    tmp_path.chmod(0o555)
    assert run("convert", PRETRAINED, tmp_path / "out") == 2
    assert "Permission denied" in capsys.readouterr().err
    tmp_path.chmod(0o755)


@pytest.mark.parametrize("to", FORMATS)
def test_an_error_while_writing_leaves_nothing(tmp_path, monkeypatch, to):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert run("convert", PRETRAINED, place(tmp_path, to), "--to", to) == 2
    assert nothing_left(tmp_path)


# The command line


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["convert", PRETRAINED],
        ["convert", PRETRAINED, "{out}", "--to", "onnx"],
        ["convert", PRETRAINED, "{out}", "--to", "keras", "--shard-size", "2GB"],
        ["convert", PRETRAINED, "{out}", "--shard-size", "many"],
        ["convert", PRETRAINED, "{out}", "--to", "keras-weights"],
        ["convert", PRETRAINED, "{out}", "--config", "/no/such/config.json"],
        ["convert", PRETRAINED, "{out}", "--config", PRETRAINED / "model.safetensors"],
        ["convert", "/no/such/source", "{out}"],
        ["inspect", "/no/such/source"],
        ["inspect", GOLDEN / "inputs.npz"],
    ],
    ids=str,
)
def test_bad_usage(tmp_path, capsys, arguments):
    assert run(*(str(each).format(out=tmp_path / "out") for each in arguments)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("lxmert-convert")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("source", [source for source in SOURCES if "." in source])
@pytest.mark.parametrize("kept", [0, 5, 700, 0.5, -50])
def test_a_truncated_source(tmp_path, capsys, source, kept):
    content = (GOLDEN / source).read_bytes()
    path = tmp_path / Path(source).name
    path.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    for command in (["inspect", path], ["convert", path, tmp_path / "out"]):
        assert run(*command) == 2
        out, err = capsys.readouterr()
        assert out == "" and str(path) in err and err.count("\n") == 1
    assert nothing_left(tmp_path, path.name)


class Code:
    """A pickle that would leave a file behind."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_code_in_a_pickle_is_not_run(tmp_path, capsys):
    plain, zipped = tmp_path / "plain.pth", tmp_path / "zipped.pth"
    plain.write_bytes(pickle.dumps({"a": Code(tmp_path / "ran")}))
    torch.save({"a": Code(tmp_path / "ran")}, zipped)
    for source in (plain, zipped):
        assert run("convert", source, tmp_path / "out") == 2
        assert "more than tensors" in capsys.readouterr().err
    assert nothing_left(tmp_path, "plain.pth", "zipped.pth")


def test_a_config_that_contradicts_the_shapes(tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps({**json.loads(CONFIG.read_text()), "intermediate_size": 8}))
    assert run("convert", PRETRAINED, tmp_path / "out", "--config", tmp_path / "config.json") == 2
    err = capsys.readouterr().err
    assert "misshapen" in err and "and" in err and err.count("\n") == 1 and len(err) < 1000
    assert nothing_left(tmp_path, "config.json")


def test_tensors_that_are_not_floats(tmp_path, capsys):
    tensors = load_file(PRETRAINED / "model.safetensors")
    tensors["lxmert.pooler.dense.bias"] = tensors["lxmert.pooler.dense.bias"].astype("int32")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    for to in FORMATS:
        assert run("convert", tmp_path / "model.safetensors", place(tmp_path, to), "--to", to, "--config", CONFIG) == 2
        assert "lxmert.pooler.dense.bias must be one of" in capsys.readouterr().err
    assert nothing_left(tmp_path, "model.safetensors")


def test_convert_tells_what_it_did(tmp_path, capsys):
    assert run("convert", PRETRAINED, tmp_path / "out", "--task", "qa") == 0
    out = capsys.readouterr().out
    assert "dropped 17" in out and "has no such head" in out and "reread and identical" in out
    arguments = ["convert", PRETRAINED, tmp_path / "out", "--json", "--overwrite", "--no-verify", "--dtype", "bfloat16"]
    assert run(*arguments) == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report) == [
        *("source", "destination", "source_format", "format", "source_task", "task", "config", "config_file"),
        *("dtypes", "tensors", "bytes", "dropped", "initialised", "nonfinite", "overflowed", "notes", "verified"),
    ]
    assert (report["dtypes"], report["tensors"], report["verified"]) == (["bfloat16"], 170, False)
    assert run("convert", GOLDEN / "hf_pt_model", tmp_path / "new", "--task", "qa") == 1
    assert "lacks 6 tensors" in capsys.readouterr().err


def test_choices_are_the_librarys():
    assert (common.FORMATS, set(common.DTYPES)) == (FORMATS, set(DTYPES))
    assert set(ARCHITECTURES) == set(HEADS)


@pytest.mark.parametrize("source", SOURCES)
def test_inspect_knows_every_golden_checkpoint(capsys, source):
    assert run("inspect", GOLDEN / source, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["task"] == SOURCES[source]
    assert report["config"] == ("inferred" if source.startswith("original") else "file")
    assert (report["sizes"]["l_layers"], report["sizes"]["hidden_size"]) == (2, 32)
    assert report["complete"] and not report["unknown"] and not report["missing"]
    assert all(tensor["dtype"] == "float32" for tensor in report["tensors"])
    assert report["bytes"] == sum(4 * int(np.prod(tensor["shape"])) for tensor in report["tensors"])
    assert run("inspect", GOLDEN / source) == 0
    assert report["class_name"] in capsys.readouterr().out


def test_inspect_names_unknown_missing_and_misshapen(tmp_path):
    tensors = load_file(PRETRAINED / "model.safetensors")
    tensors["lxmert.strange"] = np.zeros(3, ml_dtypes.bfloat16)
    tensors["classifier.weight"] = np.zeros((2, 32), "float32")
    del tensors["lxmert.pooler.dense.bias"]
    tensors["cls.predictions.bias"] = np.zeros(5, "float32")
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    (tmp_path / "config.json").write_text(CONFIG.read_text())
    report = inspect(tmp_path)
    assert report.unknown == ["lxmert.strange"] and report.missing == ["lxmert.pooler.dense.bias"]
    assert report.misshapen == {"cls.predictions.bias": [[5], [99]]}
    assert report.skipped == {"classifier.weight": "it is no part of the LXMERT"}
    assert {"missing: lxmert.pooler.dense.bias", "unknown: lxmert.strange"} <= set(report.lines())
    assert run("inspect", tmp_path) == 1


# Without frameworks


@pytest.mark.parametrize("to", ["keras-weights", "keras", "hf-tf", "hf-pt"])
def test_no_framework_is_imported_without_need(tmp_path, to):
    imported = modules_imported("convert", PRETRAINED, place(tmp_path, to), "--to", to)
    assert not imported & {"tensorflow", "keras", "torch", "jax", "transformers"} and "h5py" in imported


def test_help_is_light():
    check = "import sys, conversion.cli; conversion.cli.make_parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert not {"numpy", "h5py", "torch", "keras"} & set(done.stdout.split())


def test_the_module_runs_and_shows_examples():
    done = subprocess.run(
        [sys.executable, "-m", "conversion", "--help"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "examples:" in done.stdout
