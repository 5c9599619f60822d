"""Checkpoints in and out of the Keras and PyTorch models."""

import json

import h5py
import numpy as np
import pytest
import torch
from support.golden import GOLDEN, golden_state_dict

import lxmert_pt
import lxmert_tf
from conversion.formats import open_checkpoint
from conversion.models import state_dict
from lxmert_tf.tasks import ARCHITECTURES

FOLDERS = {"model": "hf_pt_model", "pretraining": "hf_pt_pretraining", "qa": "hf_pt_qa"}
SOURCES = {**FOLDERS, "visual-reasoning": "original/nlvr2_BEST.pth"}
DECODER = "cls.predictions.decoder.weight"


def keras_class(task: str):
    return getattr(lxmert_tf, f"TF{ARCHITECTURES[task]}")


def pytorch_class(task: str):
    return getattr(lxmert_pt, ARCHITECTURES[task])


def assert_identical(actual, expected) -> None:
    assert set(actual) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(actual[name], array), name
        assert actual[name].dtype == array.dtype, name


def dataset_names(path) -> set[str]:
    names = set()
    with h5py.File(path) as file:
        file.visititems(lambda name, item: names.add(name) if isinstance(item, h5py.Dataset) else None)
    return names


@pytest.mark.parametrize("task", FOLDERS)
def test_keras_models_hold_upstreams_weights(task):
    model = keras_class(task).from_pretrained(GOLDEN / FOLDERS[task])
    assert_identical(state_dict(model), golden_state_dict(FOLDERS[task]))


@pytest.mark.parametrize("task", FOLDERS)
def test_pytorch_models_hold_upstreams_weights(task):
    model = pytorch_class(task).from_pretrained(GOLDEN / FOLDERS[task])
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    state.pop(DECODER, None)
    assert_identical(state, golden_state_dict(FOLDERS[task]))
    assert not model.training


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "format"),
    [
        *(("pretraining", format) for format in ("keras", "hf-pt", "hf-pt-bin", "hf-tf")),
        *((task, "keras") for task in SOURCES if task != "pretraining"),
    ],
)
def test_from_pytorch_to_keras_and_back(tmp_path, task, format):
    original = pytorch_class(task).from_pretrained(GOLDEN / SOURCES[task])
    original.save_pretrained(tmp_path / "pt", format=format)
    keras_class(task).from_pretrained(tmp_path / "pt").save_pretrained(tmp_path / "keras", format=format)
    back = pytorch_class(task).from_pretrained(tmp_path / "keras").state_dict()
    assert_identical(
        {name: value.numpy() for name, value in back.items()},
        {name: value.numpy() for name, value in original.state_dict().items()},
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras' own
@pytest.mark.parametrize("task", ["pretraining", "visual-reasoning"])
def test_keras_own_loading_and_saving_agree_with_ours(tmp_path, task):
    model = keras_class(task).from_pretrained(GOLDEN / SOURCES[task])
    model.save_pretrained(tmp_path)
    fresh = keras_class(task)(model.config)
    fresh.load_weights(tmp_path / "model.weights.h5")
    assert_identical(state_dict(fresh), state_dict(model))

    fresh.save_weights(tmp_path / "own.weights.h5")
    assert dataset_names(tmp_path / "own.weights.h5") == dataset_names(tmp_path / "model.weights.h5")
    fresh.save(tmp_path / "own.keras")
    checkpoint = open_checkpoint(tmp_path / "own.keras")
    assert (checkpoint.format, checkpoint.task) == ("keras", task)
    assert checkpoint.config.to_dict() == model.config.to_dict()
    assert_identical(checkpoint.tensors, state_dict(model))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtype_is_asked_for_not_the_files(tmp_path, dtype):
    model = keras_class("qa").from_pretrained(GOLDEN / "hf_pt_qa", dtype=dtype)
    assert {str(variable.dtype) for variable in model.weights} == {dtype}
    model.save_pretrained(tmp_path, "hf-pt")
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == dtype
    other = pytorch_class("qa").from_pretrained(tmp_path, dtype=getattr(torch, dtype))
    assert {value.dtype for value in other.state_dict().values()} == {getattr(torch, dtype)}
    assert_identical(
        {name: value.double().numpy() for name, value in other.state_dict().items()},
        {name: array.astype("float64") for name, array in state_dict(model).items()},
    )


def test_one_line_says_what_was_loaded(caplog):
    caplog.set_level("INFO", "lxmert_tf")
    keras_class("qa").from_pretrained(GOLDEN / "hf_pt_model")
    assert len(caplog.records) == 1
    assert "147 tensors loaded, 6 missing and initialised (answer_head.logit_fc.0.bias" in caplog.text


@pytest.mark.parametrize("family", [keras_class, pytorch_class])
def test_a_checkpoint_that_does_not_fit_changes_nothing_and_is_named(family):
    config = lxmert_tf.LxmertConfig.from_pretrained(GOLDEN / "hf_pt_qa", num_qa_labels=3)
    with pytest.raises(ValueError, match=r"model\.safetensors: .* 2 misshapen"):
        family("qa").from_pretrained(GOLDEN / "hf_pt_qa", config=config)
    model = family("qa").from_pretrained(GOLDEN / "hf_pt_qa", config=config, ignore_mismatched_sizes=True)
    assert model.config.num_qa_labels == 3


def test_shards_from_models(tmp_path):
    model = pytorch_class("pretraining").from_pretrained(GOLDEN / "hf_pt_pretraining")
    model.save_pretrained(tmp_path, max_shard_size=50_000)
    assert_identical(
        state_dict(keras_class("pretraining").from_pretrained(tmp_path)), golden_state_dict("hf_pt_pretraining")
    )
