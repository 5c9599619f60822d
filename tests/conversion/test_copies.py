"""A tensor that is in a checkpoint twice: copies of the same bits count as one, others are refused by both places."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.checkpoints import (
    BIAS,
    CONFIG,
    KERNEL,
    PRETRAINED,
    SOURCES,
    converted,
    golden,
    refusal,
    run,
    same,
    saved,
    write_archive,
)

import lxmert_pt
import lxmert_tf
from conversion.convert import convert
from conversion.formats import open_checkpoint
from conversion.load import load_state_dict
from conversion.names import rows
from conversion.tensors import to_torch
from lxmert_tf import LxmertConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")

WORDS, NORM = "lxmert.embeddings.word_embeddings.weight", "lxmert.embeddings.LayerNorm.weight"
DECODER = "cls.predictions.decoder.weight"


both = pytest.mark.parametrize("differs", [False, True], ids=["equal", "different"])


def copy_of(name: str, differs: bool) -> np.ndarray:
    """A second copy of a golden tensor, which differs in one bit of its last value or not at all."""
    copy = golden()[name]
    copy.reshape(-1).view("u4")[-1] ^= differs
    return copy


def check(source: Path, differs: bool, *places: str) -> None:
    """The checkpoint is the golden one or, if a copy differs, refused in a sentence that names both places."""
    if not differs:
        assert same(converted(source), golden())
        return
    line = refusal(source)
    assert "Two tensors are called" in line and all(place in line for place in places), line


# PyTorch names

SPELLINGS = {
    "bert": (BIAS, "bert.pooler.dense.bias"),
    "bare": (BIAS, "pooler.dense.bias"),
    "DataParallel": (KERNEL, "module.lxmert.pooler.dense.weight"),
    "DataParallel of the original": (KERNEL, "module.bert.pooler.dense.weight"),
    "fine-tuned": (WORDS, "lxrt_encoder.model.bert.embeddings.word_embeddings.weight"),
    "gamma": (NORM, "lxmert.embeddings.LayerNorm.gamma"),
    "bare gamma": (NORM, "embeddings.LayerNorm.gamma"),
    "head": ("answer_head.logit_fc.3.bias", "logit_fc.3.bias"),
}


def pytorch_file(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    """A file of PyTorch names of the kind that its name says."""
    if path.suffix == ".safetensors":
        save_file(tensors, path, {"format": "pt"})
    else:
        state = {name: to_torch(array) for name, array in tensors.items()}
        torch.save(state, path, _use_new_zipfile_serialization=path.suffix == ".bin")
    return path


@pytest.mark.slow
@both
@pytest.mark.parametrize("file", ["x.safetensors", "x.bin", "x.pth"])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_two_spellings_of_one_name(tmp_path, file, spelling, differs):
    name, again = SPELLINGS[spelling]
    for tensors in ({again: copy_of(name, differs), **golden()}, {**golden(), again: copy_of(name, differs)}):
        check(pytorch_file(tmp_path / file, tensors), differs, name, again)


def test_every_reader_refuses_copies_that_differ(tmp_path):
    tensors = {**golden(), "bert.pooler.dense.bias": copy_of(BIAS, True)}
    path = pytorch_file(tmp_path / "x.bin", tensors)
    for command in (["inspect", path], ["diff", PRETRAINED, path], ["verify", PRETRAINED, path]):
        assert run(*command)[0] == 2
    models = lxmert_tf.TFLxmertForPreTraining, lxmert_tf.TFLxmertModel, lxmert_pt.LxmertForPreTraining
    for read in (load_state_dict, *(model.from_pretrained for model in models)):
        for source in (path, tensors):
            with pytest.raises(ValueError, match=f"Two tensors are called {BIAS} but differ"):
                read(source)
    equal = {**tensors, "bert.pooler.dense.bias": golden()[BIAS]}
    assert same(load_state_dict(equal), golden())


def test_a_second_copy_does_not_make_a_format(tmp_path):
    """Only the original's names do."""
    tensors = {**golden(), "pooler.dense.bias": golden()[BIAS]}
    assert open_checkpoint(pytorch_file(tmp_path / "x.bin", tensors)).format == "hf-pt-bin"
    tensors = {**golden(), "bert.pooler.dense.bias": golden()[BIAS]}
    assert open_checkpoint(pytorch_file(tmp_path / "x.bin", tensors)).format == "original"


@pytest.mark.parametrize(
    "change",
    [lambda x: x.astype("f8"), lambda x: x[:5], lambda x: x.reshape(1, -1), lambda x: -x],
    ids=["dtype", "size", "rank", "sign"],
)
def test_copies_of_another_shape_or_dtype_differ(tmp_path, change):
    tensors = {**golden(), "pooler.dense.bias": change(golden()[BIAS])}
    assert "but differ" in refusal(pytorch_file(tmp_path / "x.safetensors", tensors))


def test_copies_that_are_not_finite_are_compared_by_their_bits(tmp_path):
    tensors = golden()
    tensors[BIAS].view("u4")[:3] = 0x7FC12345, 0xFF800001, 0x7F800000
    tensors["bert.pooler.dense.bias"] = tensors[BIAS].copy()
    result = converted(pytorch_file(tmp_path / "x.safetensors", tensors))
    assert same({BIAS: result[BIAS]}, {BIAS: tensors[BIAS]})
    tensors["bert.pooler.dense.bias"].view("u4")[0] ^= 1
    assert np.isnan(tensors["bert.pooler.dense.bias"][0])
    assert "but differ" in refusal(pytorch_file(tmp_path / "x.safetensors", tensors))


@pytest.mark.parametrize("keys", [("state_dict", "model"), ("model", "ema")])
def test_two_state_dicts_in_one_file(tmp_path, keys):
    state = {name: torch.from_numpy(array) for name, array in golden().items()}
    path = tmp_path / "x.pth"
    torch.save({keys[0]: state, keys[1]: {name: value.clone() for name, value in state.items()}, "epoch": 3}, path)
    assert same(converted(path), golden())
    torch.save({keys[0]: state, keys[1]: {**state, BIAS: state[BIAS] + 1}}, path)
    line = refusal(path)
    assert all(f"under {key} (170 tensors)" in line for key in keys) and "--prefix" in line
    torch.save({keys[0]: state, keys[1]: {BIAS: state[BIAS] + 1}}, path)
    assert same(converted(path), golden())  # a part of one is none


# TensorFlow


@both
@pytest.mark.parametrize(
    ("table", "name"),
    [("word_embeddings/weight:0", WORDS), ("LayerNorm/gamma:0", NORM)],
)
def test_embeddings_under_two_groups_of_tensorflow(tmp_path, table, name, differs):
    path = Path(shutil.copy(SOURCES["hf-tf"], tmp_path / "x.h5"))
    places = [f"{top}/tf_lxmert_for_pre_training/lxmert/embeddings/{table}" for top in ("cls", "lxmert")]
    for place in places:
        with h5py.File(path, "r+") as file:
            file[place][...] = copy_of(name, differs)
        check(path, differs, *places)
        with h5py.File(path, "r+") as file:
            file[place][...] = golden()[name]


def test_two_models_of_tensorflow_in_one_file(tmp_path):
    with h5py.File(SOURCES["hf-tf"]) as old, h5py.File(tmp_path / "x.h5", "w") as new:
        new.attrs.update(old.attrs)
        for top, group in old.items():
            new.create_group(top).attrs.update(group.attrs)
            for root in ("a", "b"):
                for model in group:
                    old.copy(group[model], new[top], name=root)
    assert same(converted(tmp_path / "x.h5"), golden())
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        file["lxmert/b/lxmert/pooler/dense/bias:0"][3] += 1
    line = refusal(tmp_path / "x.h5")
    assert "lxmert/a/lxmert/pooler/dense/bias:0" in line and "lxmert/b/lxmert/pooler/dense/bias:0" in line


@both
def test_a_tensor_by_both_frameworks_names(tmp_path, differs):
    """A PyTorch name has PyTorch's layout, whatever is beside it."""
    tensors = {**load_file(SOURCES["hf-tf safetensors"]), KERNEL: copy_of(KERNEL, differs)}
    save_file(tensors, tmp_path / "x.safetensors", {"format": "tf"})
    check(tmp_path / "x.safetensors", differs, KERNEL, "lxmert/pooler/dense/kernel:0")


# Keras


@both
@pytest.mark.parametrize("kind", ["weights.h5", "keras"])
def test_a_tensor_of_keras_that_is_there_by_another_name(tmp_path, sources, kind, differs):
    [row] = [row for row in rows(LxmertConfig.from_json_file(CONFIG), "pretraining") if row.torch == KERNEL]
    weights = Path(shutil.copy(sources["keras"], tmp_path / "x.weights.h5"))
    with h5py.File(weights, "r+") as file:
        file[KERNEL] = copy_of(KERNEL, differs)
        file[f"{row.h5_path}_again"] = file[row.h5_path]  # a second name of the same data is no copy
    if kind == "keras":
        write_archive(tmp_path / "x.keras", weights)
    check(tmp_path / f"x.{kind}", differs, KERNEL, row.h5_path)


# Shards


@both
@pytest.mark.parametrize("spelled", [BIAS, "pooler.dense.bias", "module.bert.pooler.dense.bias"])
@pytest.mark.parametrize("to", ["hf-pt", "hf-pt-bin"])
def test_a_tensor_in_two_shards(tmp_path, to, spelled, differs):
    convert(PRETRAINED, tmp_path / "x", to=to, shard_size=50_000)
    [index] = (tmp_path / "x").glob("*.index.json")
    home = json.loads(index.read_text())["weight_map"][BIAS]
    [away, *_] = (path for path in sorted(index.parent.glob("*-of-*")) if path.name != home)
    held = load_file(away) if to == "hf-pt" else {k: v.numpy() for k, v in torch.load(away, weights_only=True).items()}
    pytorch_file(away, {**held, spelled: copy_of(BIAS, differs)})
    files = () if spelled.startswith("module") else (f"in {home}", f"in {away.name}")
    check(index.parent, differs, BIAS, spelled, *files)


# The decoder, which LXMERT ties to the word embeddings


@pytest.mark.slow
@both
@pytest.mark.parametrize(("file", "name"), [("model.safetensors", DECODER), ("pytorch_model.bin", f"module.{DECODER}")])
def test_a_decoder_of_its_own_is_told_by_every_reader(tmp_path, caplog, file, name, differs):
    told = f"{DECODER} is not {WORDS}, as it must be in LXMERT; the latter is used for both"
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(CONFIG, source)
    pytorch_file(source / file, {**golden(), name: copy_of(WORDS, differs)})
    for command in (["inspect", source], ["diff", SOURCES["hf-pt"], source], ["convert", source, tmp_path / "out"]):
        code, out, err = run(*command)
        assert (code, told in out, err) == (0, differs, "")
    for model in (lxmert_tf.TFLxmertForPreTraining, lxmert_pt.LxmertForPreTraining):
        caplog.clear()
        model.from_pretrained(source)
        assert [record.levelname for record in caplog.records] == ["WARNING"] * differs
        assert (told in caplog.text) == differs
    caplog.clear()
    lxmert_pt.LxmertForQuestionAnswering.from_pretrained(source)  # it has no decoder
    assert not caplog.records


@both
def test_a_decoder_beside_a_backbone_without_prefix(tmp_path, differs):
    tensors = {name.removeprefix("lxmert."): array for name, array in golden().items()}
    path = pytorch_file(tmp_path / "x.safetensors", {**tensors, DECODER: copy_of(WORDS, differs)})
    assert [DECODER in note for note in open_checkpoint(path).notes] == [True] * differs


# Reading


def test_a_checkpoint_without_copies_is_not_read_when_it_is_opened(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("conversion.copies.identical", lambda a, b: read.append(a) or True)
    open_checkpoint(saved(tmp_path / "x", golden()))
    assert not read
    open_checkpoint(SOURCES["hf-tf"])
    assert len(read) == 5  # the embeddings alone
