"""What real programs write, as they write it: sharded, compiled, wrapped, in full directories and under odd names."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.checkpoints import BIAS, CONFIG, KERNEL, PRETRAINED, SOURCES, converted, golden, run, same, saved
from support.golden import GOLDEN

from conversion.convert import convert
from conversion.diff import diff
from conversion.formats import find_weights, open_checkpoint
from conversion.models import state_dict
from conversion.names import rows
from conversion.writers import write_checkpoint
from lxmert_tf import LxmertConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")


# TensorFlow


def tensorflow_names() -> dict[str, np.ndarray]:
    """The golden tensors as TensorFlow names and lays them out."""
    return load_file(SOURCES["hf-tf safetensors"])


@pytest.mark.parametrize("suffix", ["h5", "safetensors"])
def test_tensorflow_shards(tmp_path, suffix):
    """`transformers` names tensors without the root model in the shards, and with it in the index."""
    tensors, weight_map = tensorflow_names(), {}
    for number in (1, 2, 3):
        name = f"{'tf_model' if suffix == 'h5' else 'model'}-0000{number}-of-00003.{suffix}"
        shard = {key: tensors[key] for key in sorted(tensors)[number - 1 :: 3]}
        weight_map.update({f"tf_lxmert_for_pre_training/{key}": name for key in shard})
        if suffix == "safetensors":
            save_file(shard, tmp_path / name, {"format": "tf"})
            continue
        with h5py.File(tmp_path / name, "w") as file:
            for key, array in shard.items():
                file[key] = array
            file.attrs["layer_names"] = np.array(list(shard), "S")
    index = {"h5": "tf_model.h5.index.json", "safetensors": "model.safetensors.index.json"}[suffix]
    (tmp_path / index).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    assert same(converted(tmp_path), golden())
    assert run("inspect", tmp_path)[1].startswith(f"{tmp_path / index}: hf-tf, LxmertForPreTraining")


@pytest.mark.parametrize("root", ["tf_lxmert_for_pre_training_7", "my_model"])
def test_tensorflow_models_of_another_name(tmp_path, root):
    """A second model in a process is numbered."""
    with h5py.File(SOURCES["hf-tf"]) as old, h5py.File(tmp_path / "tf_model.h5", "w") as new:
        for name, value in old.attrs.items():
            new.attrs[name] = value
        for top, group in old.items():
            new.create_group(top).attrs["weight_names"] = group.attrs["weight_names"]
            for model in group:
                old.copy(group[model], new[top], name=root)
    assert same(converted(tmp_path / "tf_model.h5"), golden())


def test_more_names_than_an_attribute_of_hdf5_holds(tmp_path):
    sizes = dict.fromkeys(
        ("hidden_size", "intermediate_size", "vocab_size", "visual_feat_dim", "num_attention_heads"), 2
    )
    config = LxmertConfig(**sizes, l_layers=16, r_layers=16, x_layers=20, max_position_embeddings=2)
    tensors = {row.torch: np.ones(row.shape(config), "f4") for row in rows(config, "model")}
    path = write_checkpoint(tmp_path, tensors, config, "model", "hf-tf")
    with h5py.File(path) as file:
        attributes = dict(file["lxmert"].attrs)
        listed = [name.decode() for part in sorted(attributes) for name in attributes[part]]
        assert len(attributes) > 1 and "weight_names0" in attributes
        assert len(listed) == len(tensors) and all(name in file["lxmert"] for name in listed)
    assert same(dict(open_checkpoint(tmp_path).tensors), tensors)


# Keras


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A trained model, and the folder that Keras saved it into in every way it has."""
    from support.models import TFLxmertForQuestionAnswering, batch, labels, tiny_model

    folder = tmp_path_factory.mktemp("compiled")
    model = tiny_model(TFLxmertForQuestionAnswering, hidden_dropout_prob=0.1)
    model.compile(optimizer="adam", run_eagerly=True)
    model.fit(batch(model), labels(model), verbose=0)
    model.save(folder / "model.keras")
    model.save_weights(folder / "one.weights.h5")
    (folder / "shards").mkdir()
    model.save_weights(folder / "shards" / "model.weights.json", max_shard_size=1e-5)
    return model, folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
@pytest.mark.parametrize("name", ["model.keras", "one.weights.h5", "shards", "shards/model.weights.json"])
def test_a_compiled_keras_model_without_its_optimizer(tmp_path, compiled, name):
    model, folder = compiled
    (tmp_path / "config.json").write_text(model.config.to_json_string())
    report = convert(folder / name, tmp_path / "out", config=tmp_path / "config.json")
    assert same(load_file(tmp_path / "out/model.safetensors"), state_dict(model))
    assert len(report.dropped) > 200 and set(report.dropped.values()) == {"the optimizer's state, not the model's"}
    code, out, _ = run("inspect", folder / name)
    assert code == 0 and "the optimizer's state" in out and "unknown" not in out
    assert diff(folder / name, tmp_path / "out").values == {}


def test_what_a_compiled_model_lacks_is_initialised_in_the_models_dtype(tmp_path, compiled):
    """Not in that of the optimizer's counters, which come first."""
    _, folder = compiled
    report = convert(folder / "one.weights.h5", tmp_path / "out", task="pretraining", allow_missing=True)
    assert report.dtypes == ["float32"] and report.initialised


# PyTorch


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_a_state_dict_beside_other_things(tmp_path, key):
    state = torch.load(SOURCES["hf-pt-bin"], weights_only=True)
    torch.save({"epoch": 3, key: state, "optimizer": {"state": {0: {"step": 1}}, "lr": [0.1]}}, tmp_path / "last.pth")
    assert same(converted(tmp_path / "last.pth"), golden())


def test_names_of_very_old_releases(tmp_path):
    """LayerNorm had gamma and beta, and the positions were saved."""
    old = {
        name.replace("orm.weight", "orm.gamma").replace("orm.bias", "orm.beta"): torch.from_numpy(array)
        for name, array in golden().items()
    }
    assert sum(name.endswith(("gamma", "beta")) for name in old) > 40
    old["lxmert.embeddings.position_ids"] = torch.arange(24)[None]
    torch.save(old, tmp_path / "pytorch_model.bin")
    assert same(converted(tmp_path / "pytorch_model.bin"), golden())


@pytest.mark.parametrize("prefix", ["module.", "lxrt_encoder.model.module.bert."], ids=["whole", "inside"])
def test_fine_tuned_on_several_devices(tmp_path, prefix):
    """The original wraps the whole model, or the encoder in it, in DataParallel."""
    state = torch.load(GOLDEN / "original/nlvr2_BEST.pth", weights_only=True)
    plain = "lxrt_encoder.model.bert."
    renamed = {
        f"module.{name}" if prefix == "module." else name.replace(plain, prefix): value for name, value in state.items()
    }
    torch.save(renamed, tmp_path / "BEST.pth", _use_new_zipfile_serialization=False)
    assert diff(tmp_path / "BEST.pth", GOLDEN / "original/nlvr2_BEST.pth").same


# Directories and names

NAMES = ("model.safetensors", "x.h5", "pytorch_model.bin", "x.keras", "x.pth", "weights", "x.json")


def test_a_full_repository_of_the_hub(tmp_path):
    """Every format at once, of which the first is taken, beside what does not belong to the weights."""
    for source in ("hf-pt", "hf-pt-bin", "hf-tf"):
        shutil.copy(SOURCES[source], tmp_path)
    shutil.copy(CONFIG, tmp_path)
    for name in ("README.md", ".gitattributes", "flax_model.msgpack", "training_args.bin", "optimizer.pt", "vocab.txt"):
        (tmp_path / name).write_text("other")
    assert find_weights(tmp_path).name == "model.safetensors"
    assert run("convert", tmp_path, tmp_path.parent / "out")[0] == 0
    assert (tmp_path.parent / "out/vocab.txt").read_text() == "other"
    (tmp_path / "model.safetensors").unlink()
    assert find_weights(tmp_path).name == "pytorch_model.bin"


def test_the_index_of_a_directory_is_preferred_to_its_shards(tmp_path):
    convert(PRETRAINED, tmp_path / "out", shard_size=50_000)
    for file in list((tmp_path / "out").iterdir()):
        if file.name.endswith(".index.json"):
            file.rename(file.with_name("lxmert.safetensors.index.json"))
    assert same(converted(tmp_path / "out"), golden())


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("name", NAMES)
def test_the_format_is_told_by_content_whatever_the_name(tmp_path, source, name):
    shutil.copy(SOURCES[source], tmp_path / name)
    assert same(converted(tmp_path / name), golden())


NEWER = {
    "dtype": "float32",
    "tie_word_embeddings": True,
    "pad_token_id": 0,
    "chunk_size_feed_forward": 0,
    "is_encoder_decoder": False,
    "problem_type": None,
    "_name_or_path": "",
    "num_hidden_layers": {"vision": 1, "cross_encoder": 2, "language": 2},
    "quantization_config": {"a": [1, {"b": None}]},
}


@pytest.mark.parametrize("changes", [{}, NEWER, {"architectures": ["TFLxmertForPreTraining"]}], ids=["none", "5", "tf"])
def test_a_config_of_any_release_passes_through(tmp_path, changes):
    source = saved(tmp_path / "source", golden(), **changes)
    config = json.loads((source / "config.json").read_text())
    del config["model_type"]  # very old
    (source / "config.json").write_text(json.dumps(config))
    convert(source, tmp_path / "out")
    written = json.loads((tmp_path / "out/config.json").read_text())
    assert written == {**config, "model_type": "lxmert", "architectures": ["LxmertForPreTraining"]} | {
        name: written[name] for name in set(written) - set(config)
    }
    assert set(NEWER if changes is NEWER else ()) <= set(written)


def test_a_tensor_larger_than_the_memory_limit_of_a_bomb_is_read(tmp_path):
    """Large and real: only what expands is refused."""
    config = LxmertConfig.from_json_file(CONFIG, vocab_size=60_000)
    words = np.zeros((60_000, 32), "f4")
    tensors = {
        **golden(),
        "lxmert.embeddings.word_embeddings.weight": words,
        "cls.predictions.bias": words[:, 0].copy(),
    }
    for to in ("hf-pt", "hf-pt-bin", "hf-tf", "keras"):
        write_checkpoint(tmp_path / to, tensors, config, "pretraining", to)
        assert diff(tensors, tmp_path / to).same


def test_half_precision_shards_from_upstream(tmp_path):
    convert(PRETRAINED, tmp_path / "half", to="hf-pt-bin", dtype="bfloat16", shard_size="40KB")
    report = convert(tmp_path / "half", tmp_path / "out", to="original")
    assert report.dtypes == ["bfloat16"]
    assert diff(tmp_path / "half", tmp_path / "out").same


def test_links_of_the_hubs_cache(tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for number, name in enumerate(("config.json", "model.safetensors")):
        shutil.copy(PRETRAINED / name, blobs / str(number))
        (snapshot / name).symlink_to(Path("../../blobs") / str(number))
    convert(snapshot, tmp_path / "out")
    assert same(load_file(tmp_path / "out/model.safetensors"), golden())
    assert (tmp_path / "out/config.json").is_file() and BIAS in golden() and KERNEL in golden()
