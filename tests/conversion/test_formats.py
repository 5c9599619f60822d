"""Every format read and written: bit for bit, whole or not at all, and clear about damaged files."""

import itertools
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.golden import GOLDEN, golden_state_dict

from conversion.formats import open_checkpoint
from conversion.matching import match
from conversion.models import select
from conversion.names import HEADS, rows
from conversion.writers import write_checkpoint
from lxmert_tf import LxmertConfig

FORMATS = ("hf-pt", "hf-pt-bin", "keras", "hf-tf")
DTYPES = ("float16", "bfloat16", "float32", "float64")
FILES = {
    "hf-pt": "model.safetensors",
    "hf-pt-bin": "pytorch_model.bin",
    "keras": "model.weights.h5",
    "hf-tf": "tf_model.h5",
}
GOLDEN_FILES = {
    "hf_pt_pretraining/model.safetensors": ("hf-pt", "pretraining"),
    "hf_pt_pretraining/pytorch_model.bin": ("hf-pt-bin", "pretraining"),
    "hf_tf_pretraining/model.safetensors": ("hf-tf", "pretraining"),
    "hf_tf_pretraining/tf_model.h5": ("hf-tf", "pretraining"),
    "hf_pt_model/model.safetensors": ("hf-pt", "model"),
    "hf_tf_model/tf_model.h5": ("hf-tf", "model"),
    "hf_pt_qa/model.safetensors": ("hf-pt", "qa"),
    "original/Epoch20_LXRT.pth": ("original", "pretraining"),
    "original/vqa_BEST.pth": ("original", "qa"),
    "original/nlvr2_BEST.pth": ("original", "visual-reasoning"),
}
DECODER = "cls.predictions.decoder.weight"


@pytest.fixture
def config() -> LxmertConfig:
    return LxmertConfig.from_pretrained(GOLDEN / "hf_pt_pretraining")


def random_tensors(config: LxmertConfig, task: str, dtype: str = "float32") -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    return {row.torch: generator.normal(size=row.shape(config)).astype(kind) for row in rows(config, task)}


def assert_identical(actual, expected) -> None:
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype, name
        assert actual[name].shape == array.shape, name
        assert actual[name].tobytes() == array.tobytes(), name


# Reading what upstream wrote


@pytest.mark.parametrize("file", GOLDEN_FILES)
def test_golden_files_hold_identical_tensors(file):
    checkpoint = open_checkpoint(GOLDEN / file)
    assert (checkpoint.format, checkpoint.task) == GOLDEN_FILES[file]
    if file.endswith("BEST.pth"):
        expected = {
            name.replace("lxrt_encoder.model.bert.", "lxmert.").replace(
                "logit_fc.", "answer_head.logit_fc."
            ): value.numpy()
            for name, value in torch.load(GOLDEN / file, weights_only=True).items()
        }
    else:
        expected = golden_state_dict(f"hf_pt_{checkpoint.task}")
    tensors = dict(checkpoint.tensors)
    decoder = tensors.pop(DECODER, None)
    assert (decoder is not None) == file.endswith(("pytorch_model.bin", "Epoch20_LXRT.pth"))
    assert_identical(tensors, expected)
    assert {name: array.shape for name, array in checkpoint.tensors.items()} == checkpoint.tensors.shapes
    matched = match(checkpoint.tensors.shapes, checkpoint.task, checkpoint.config)
    assert len(matched.loaded) == len(expected)


def test_every_golden_checkpoint_is_tested():
    found = {
        p.relative_to(GOLDEN).as_posix()
        for p in GOLDEN.rglob("*")
        if p.suffix in (".safetensors", ".bin", ".h5", ".pth")
        and not p.is_relative_to(GOLDEN / "detector")  # whose formats are tested there
        and not p.is_relative_to(GOLDEN / "explain")
    }
    assert found <= set(GOLDEN_FILES)


def test_a_missing_config_is_inferred_and_loading_warns(caplog, config):
    checkpoint = open_checkpoint(GOLDEN / "original/Epoch20_LXRT.pth")
    assert checkpoint.inferred and not caplog.text
    select(checkpoint, "pretraining", checkpoint.config)
    assert "num_attention_heads=1 assumed" in caplog.text
    differing = {
        name: (getattr(checkpoint.config, name), getattr(config, name))
        for name in ("num_attention_heads", "hidden_size", "vocab_size", "l_layers", "num_qa_labels", "visual_feat_dim")
        if getattr(checkpoint.config, name) != getattr(config, name)
    }
    assert differing == {"num_attention_heads": (1, 4)}


# Round trips


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("format", FORMATS)
def test_round_trip(tmp_path, config, format, task):
    tensors = random_tensors(config, task)
    path = write_checkpoint(tmp_path, tensors, config, task, format)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["config.json", FILES[format]])
    checkpoint = open_checkpoint(tmp_path)
    assert (checkpoint.path, checkpoint.format, checkpoint.task) == (path, format, task)
    found = dict(checkpoint.tensors)
    if format == "hf-pt-bin" and task == "pretraining":
        assert_identical({"w": found.pop(DECODER)}, {"w": tensors["lxmert.embeddings.word_embeddings.weight"]})
    assert_identical(found, tensors)
    assert checkpoint.config.hidden_size == config.hidden_size


@pytest.mark.parametrize(
    ("format", "dtype"), [p for p in itertools.product(FORMATS, DTYPES) if p != ("hf-tf", "bfloat16")]
)
def test_round_trip_of_each_dtype(tmp_path, config, format, dtype):
    tensors = random_tensors(config, "qa", dtype)
    write_checkpoint(tmp_path, tensors, config, "qa", format)
    assert_identical(open_checkpoint(tmp_path).tensors, tensors)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == dtype


@pytest.mark.parametrize("format", ["hf-pt", "hf-pt-bin"])
def test_round_trip_in_shards(tmp_path, config, format):
    tensors = random_tensors(config, "pretraining")
    path = write_checkpoint(tmp_path, tensors, config, "pretraining", format, max_shard_size=40_000)
    assert path.name == f"{FILES[format]}.index.json"
    shards = set(json.loads(path.read_text())["weight_map"].values())
    assert len(shards) > 5
    assert shards == {p.name for p in tmp_path.iterdir()} - {path.name, "config.json"}
    found = dict(open_checkpoint(tmp_path).tensors)
    found.pop(DECODER, None)
    assert_identical(found, tensors)


def test_the_newest_of_single_file_and_shards_is_the_one_found(tmp_path, config):
    old, new = random_tensors(config, "model"), random_tensors(config, "model", "float16")
    write_checkpoint(tmp_path, old, config, "model", "hf-pt")
    write_checkpoint(tmp_path, new, config, "model", "hf-pt", max_shard_size=30_000)
    assert_identical(open_checkpoint(tmp_path).tensors, new)
    write_checkpoint(tmp_path, old, config, "model", "hf-pt")
    assert_identical(open_checkpoint(tmp_path).tensors, old)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("folder", ["hf_tf_pretraining", "hf_tf_model"])
def test_tf_model_h5_is_laid_out_as_upstreams(tmp_path, folder):
    checkpoint = open_checkpoint(GOLDEN / folder / "tf_model.h5")
    write_checkpoint(tmp_path, checkpoint.tensors, checkpoint.config, checkpoint.task, "hf-tf")

    def layout(path: Path) -> dict[str, set[str]]:
        with h5py.File(path) as file:
            layers = [name.decode() if isinstance(name, bytes) else name for name in file.attrs["layer_names"]]
            assert set(file) == {*layers, "top_level_model_weights"}
            names = {layer: list(file[layer].attrs["weight_names"]) for layer in layers}
            assert all(name in file[layer] for layer in layers for name in names[layer])
        return {layer: {n.decode() if isinstance(n, bytes) else n for n in listed} for layer, listed in names.items()}

    assert layout(tmp_path / "tf_model.h5") == layout(GOLDEN / folder / "tf_model.h5")


def test_pytorch_files_are_what_upstreams_libraries_read(tmp_path, config):
    tensors = random_tensors(config, "pretraining")
    path = write_checkpoint(tmp_path, tensors, config, "pretraining", "hf-pt")
    assert_identical(load_file(path), tensors)
    path = write_checkpoint(tmp_path / "bin", tensors, config, "pretraining", "hf-pt-bin")
    state = torch.load(path, weights_only=True)
    assert state[DECODER].data_ptr() == state["lxmert.embeddings.word_embeddings.weight"].data_ptr()


# Which file


def test_preference_among_the_files_of_a_directory(tmp_path, config):
    tensors = random_tensors(config, "model")
    for format in ("hf-tf", "hf-pt-bin", "keras", "hf-pt"):
        write_checkpoint(tmp_path, tensors, config, "model", format)
    for name in ("model.safetensors", "model.weights.h5", "pytorch_model.bin", "tf_model.h5"):
        assert open_checkpoint(tmp_path).path.name == name
        (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match="found none"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(("older", "newer"), [("hf-pt", "keras"), ("keras", "hf-pt-bin"), ("hf-pt-bin", "hf-tf")])
def test_new_weights_are_not_hidden_behind_old_ones_of_another_format(tmp_path, config, older, newer):
    tensors = random_tensors(config, "model")
    write_checkpoint(tmp_path, tensors, config, "model", older)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(FileExistsError, match="which would be read instead of"):
        write_checkpoint(tmp_path, tensors, config, "model", newer)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_single_file_of_any_name_is_found_and_told_by_content(tmp_path):
    shutil.copy(GOLDEN / "original/vqa_BEST.pth", tmp_path / "weights.h5")
    assert open_checkpoint(tmp_path).format == "original"
    shutil.copy(GOLDEN / "hf_pt_qa/model.safetensors", tmp_path / "other.bin")
    assert open_checkpoint(tmp_path / "other.bin").format == "hf-pt"
    with pytest.raises(FileNotFoundError, match=r"found other\.bin, weights\.h5; name one of them"):
        open_checkpoint(tmp_path)


def test_no_such_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file or directory .*nowhere"):
        open_checkpoint(tmp_path / "nowhere")


# Damaged and hostile files


@pytest.mark.parametrize("file", GOLDEN_FILES)
@pytest.mark.parametrize("kept", [4, 600, -100])
def test_a_truncated_file_is_named(tmp_path, file, kept):
    path = tmp_path / Path(file).name
    path.write_bytes((GOLDEN / file).read_bytes()[:kept])
    with pytest.raises(ValueError, match=path.name):
        dict(open_checkpoint(path).tensors)


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"{}", b"[1, 2]", b"PK\x03\x04", b"{\xff", b"\x89HDF\r\n\x1a\n"]
)
def test_something_else_is_named(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        open_checkpoint(path)


def test_code_in_a_pickle_is_not_run(tmp_path):
    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "was_run",))

    for name, save in {
        "plain.bin": lambda o, p: p.write_bytes(pickle.dumps(o, protocol=2)),
        "zip.bin": torch.save,
    }.items():
        save({"lxmert.pooler.dense.bias": Hostile()}, tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} .*refused"):
            open_checkpoint(tmp_path / name)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 1}, torch.zeros(2)])
def test_a_pickle_without_a_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(ValueError, match=r"x\.bin .*a dict from names to tensors"):
        open_checkpoint(tmp_path / "x.bin")


def test_two_names_for_one_tensor_are_refused(tmp_path):
    save_file(
        {"bert.pooler.dense.bias": np.zeros(2), "module.bert.pooler.dense.bias": np.ones(2)}, tmp_path / "x.safetensors"
    )
    with pytest.raises(ValueError, match=r"x\.safetensors .*Two tensors are called lxmert\.pooler\.dense\.bias"):
        open_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("shard", ["../secret.safetensors", "/etc/passwd", "a\\b", "..", "", 3])
def test_an_index_must_name_files_beside_it(tmp_path, shard):
    shutil.copy(GOLDEN / "hf_pt_model/model.safetensors", tmp_path / "secret.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"pooler.dense.bias": shard}}))
    with pytest.raises(ValueError, match=r"index\.json .*weight_map must name files"):
        open_checkpoint(folder)


def test_a_missing_shard_is_named(tmp_path, config):
    write_checkpoint(tmp_path, random_tensors(config, "model"), config, "model", "hf-pt", max_shard_size=50_000)
    lost = sorted(tmp_path.glob("model-*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=lost.name):
        open_checkpoint(tmp_path)


def test_a_shard_without_its_tensors_is_named(tmp_path, config):
    path = write_checkpoint(tmp_path, random_tensors(config, "model"), config, "model", "hf-pt", max_shard_size=50_000)
    first, second = sorted(tmp_path.glob("model-*.safetensors"))[:2]
    shutil.copy(first, second)
    with pytest.raises(ValueError, match=f"{path.name} .*lack .* tensors of its weight_map"):
        open_checkpoint(tmp_path)


def test_links_in_an_h5_file_are_not_followed(tmp_path, config):
    write_checkpoint(tmp_path / "secret", random_tensors(config, "model"), config, "model", "keras")
    secret = tmp_path / "secret/model.weights.h5"
    with h5py.File(tmp_path / "links.h5", "w") as file:
        for name in ("embeddings", "encoder", "layers"):
            file[name] = h5py.ExternalLink(str(secret), f"/{name}")
    with pytest.raises(ValueError, match=r"links\.h5 .*no tensor"):
        open_checkpoint(tmp_path / "links.h5")
    with h5py.File(tmp_path / "external.h5", "w") as file:
        file.create_dataset("x", (4,), "uint8", external=[(str(secret), 0, 4)])
    with pytest.raises(ValueError, match=r"external\.h5 .*another file"):
        open_checkpoint(tmp_path / "external.h5")


def test_a_keras_archive_of_another_model_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {}}))
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(ValueError, match=r"x\.keras .*Functional is not an LXMERT model"):
        open_checkpoint(tmp_path / "x.keras")


# Refusing to write


def test_what_cannot_be_written_leaves_the_old_files(tmp_path, config):
    tensors = random_tensors(config, "model")
    write_checkpoint(tmp_path, tensors, config, "model", "hf-tf")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    integers = {**tensors, "pooler.dense.bias": np.zeros(32, "int8")}
    few = {name: array for name, array in tensors.items() if name != "pooler.dense.bias"}
    bfloat16 = random_tensors(config, "model", "bfloat16")
    for bad, format, message in (
        (few, "hf-pt", "missing: pooler.dense.bias"),
        (integers, "hf-pt", "pooler.dense.bias must be one of float64.* got int8"),
        (bfloat16, "hf-tf", "cannot hold bfloat16"),
        (tensors, "onnx", "format must be one of hf-pt.* got 'onnx'"),
    ):
        with pytest.raises(ValueError, match=message):
            write_checkpoint(tmp_path, bad, config, "model", format)
    with pytest.raises(ValueError, match="keras is a single file, and the tensors take"):
        write_checkpoint(tmp_path, tensors, config, "model", "keras", max_shard_size=5)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_heads_must_be_written_too(tmp_path, config):
    tensors = {f"lxmert.{name}": array for name, array in random_tensors(config, "model").items()}
    with pytest.raises(ValueError, match=r"must be written .*answer_head\.logit_fc\.0\.bias"):
        write_checkpoint(tmp_path, tensors, config, "qa", "hf-pt")
    assert list(tmp_path.iterdir()) == []
