"""Two checkpoints side by side: what differs is named, whatever the formats, and what does not is not."""

import json

import ml_dtypes
import numpy as np
import pytest
from support.checkpoints import BIAS, KERNEL, PRETRAINED, SOURCES, golden, modules_imported, run, saved

from conversion.compare import error_between, nonfinite_values
from conversion.convert import convert
from conversion.diff import diff

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")


# Errors


@pytest.mark.parametrize("chunk", [1, 2, 3, 1000])
def test_errors_are_relative_to_the_largest_magnitude_of_either(monkeypatch, chunk):
    monkeypatch.setattr("conversion.compare.CHUNK", chunk)
    error = error_between(np.float32([[1, -2], [3, 0]]), np.float64([[1, -2.5], [3, -4]]))
    assert (error.max, error.mean, error.scale) == (1.0, 4.5 / 4 / 4, 4.0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([np.nan, np.inf, -np.inf, 1], [np.nan, np.inf, -np.inf, 1], 0),
        ([np.nan, 1], [0, 1], np.inf),
        ([np.inf, 1], [-np.inf, 1], np.inf),
        ([np.inf, 1], [1, 1], np.inf),
        ([0.0, 0.0], [-0.0, 0.0], 0),
        ([0.0], [1e-30], 1),
        ([], [], 0),
        ([np.finfo("float64").max], [-np.finfo("float64").max], np.inf),
    ],
)
def test_errors_of_special_values(a, b, expected):
    error = error_between(np.array(a, "float64"), np.array(b, "float64"))
    assert error.max == expected
    assert json.loads(json.dumps(error.to_dict(), allow_nan=False))["max_error"] == (
        None if np.isinf(expected) else expected
    )


def test_values_that_are_not_finite_are_counted(monkeypatch):
    monkeypatch.setattr("conversion.compare.CHUNK", 2)
    a, b = np.float32([[np.nan, 1, np.inf], [2, 3, np.nan]]), np.float32([[np.nan, np.inf, 1], [2, 3, 4]])
    assert error_between(a, b).nonfinite == 4 and error_between(a[1:, :2], b[1:, :2]).nonfinite == 0
    assert [nonfinite_values(each) for each in (a, a.T, a.astype(ml_dtypes.bfloat16), b[1], a > 0)] == [3, 3, 3, 0, 0]
    assert nonfinite_values(np.zeros(2, "V8")) == 0


# Checkpoints


@pytest.mark.parametrize("format", SOURCES)
def test_the_same_weights_are_the_same_in_every_format(format):
    report = diff(PRETRAINED, SOURCES[format])
    assert report.same and report.compared == len(golden())
    assert ("of b: there is no config.json, so configs are not compared" in report.notes) == (format == "original")


def test_names_shapes_dtypes_values_and_config_are_told(tmp_path):
    tensors = golden()
    tensors["cls.strange"] = tensors.pop("cls.predictions.bias")
    tensors[BIAS] = tensors[BIAS][:5]
    tensors["lxmert.embeddings.LayerNorm.bias"] = tensors["lxmert.embeddings.LayerNorm.bias"].astype("float64")
    tensors[KERNEL] = tensors[KERNEL] * np.float32(1.5)
    scale = float(np.abs(tensors[KERNEL]).max())
    report = diff(PRETRAINED, saved(tmp_path, tensors, hidden_act="relu"))
    assert (report.only_a, report.only_b) == (["cls.predictions.bias"], ["cls.strange"])
    assert report.shapes == {BIAS: ([32], [5])}
    assert report.dtypes == {"lxmert.embeddings.LayerNorm.bias": ("float32", "float64")}
    assert list(report.values) == [KERNEL]
    assert report.values[KERNEL].max == pytest.approx(1 / 3) and report.values[KERNEL].scale == pytest.approx(scale)
    assert report.config == {"hidden_act": ("gelu", "relu")}
    assert report.compared == len(golden()) - 2 and not report.same
    lines = report.lines()
    assert f"shape: {BIAS}: [32], [5]" in lines and "config: hidden_act: 'gelu', 'relu'" in lines
    assert "1 only in b: cls.strange" in lines and lines[-1] == "different"


def test_one_bit_is_enough(tmp_path):
    tensors = golden()
    tensors[BIAS][3] = 0.0
    first = saved(tmp_path / "a", tensors)
    tensors[BIAS][3] = -0.0
    report = diff(first, saved(tmp_path / "b", tensors))
    assert list(report.values) == [BIAS] and report.values[BIAS].max == 0 and not report.same


@pytest.mark.parametrize("wider", [False, True])
def test_what_is_not_finite_in_both_is_the_same_with_a_note(tmp_path, wider):
    tensors = golden()
    tensors[BIAS][:2], tensors[KERNEL][1, 2] = np.nan, np.inf
    first = saved(tmp_path / "a", tensors)
    report = diff(first, saved(tmp_path / "b", {n: a.astype("f8") for n, a in tensors.items()} if wider else tensors))
    assert report.same is not wider and not report.values and report.nonfinite == {KERNEL: 1, BIAS: 2}
    told = f"{KERNEL} holds 1 value that is not finite, {BIAS} holds 2 values that are not finite"
    assert report.notes == [told] and f"note: {told}" in report.lines() and "nonfinite" not in report.to_dict()
    tensors[BIAS][0] = 0
    report = diff(first, saved(tmp_path / "b", tensors))
    assert list(report.values) == [BIAS] and np.isinf(report.values[BIAS].max) and report.nonfinite[BIAS] == 2


def test_other_bits_of_nan_are_told(tmp_path):
    tensors = golden()
    tensors[BIAS].view("u4")[3] = 0x7FC12345
    first = saved(tmp_path / "a", tensors)
    tensors[BIAS].view("u4")[3] = 0x7FC12346
    report = diff(first, saved(tmp_path / "b", tensors))
    assert list(report.values) == [BIAS] and report.nonfinite == {BIAS: 1} and not report.same


def test_a_wider_dtype_of_the_same_values_is_told_as_a_dtype_only(tmp_path):
    convert(PRETRAINED, tmp_path / "half", dtype="bfloat16")
    convert(tmp_path / "half", tmp_path / "full", to="keras", dtype="float32")
    report = diff(tmp_path / "half", tmp_path / "full")
    assert not report.values and set(report.dtypes.values()) == {("bfloat16", "float32")}
    assert len(report.dtypes) == report.compared and not report.same


def test_tensors_come_in_the_order_of_the_table(tmp_path):
    report = diff(PRETRAINED, saved(tmp_path, {name: array + 1 for name, array in reversed(golden().items())}))
    names = list(report.values)
    assert names[0] == "lxmert.embeddings.word_embeddings.weight" and names[-1] == "answer_head.logit_fc.3.bias"


def test_tasks_have_their_backbones_in_common():
    report = diff(PRETRAINED, PRETRAINED.parent / "hf_pt_model")
    assert report.compared == 147 and not report.values and not report.only_b
    assert all(name.startswith(("cls.", "obj_predict_head.", "answer_head.")) for name in report.only_a)


def test_a_decoder_of_its_own_is_told_and_left_aside(tmp_path):
    decoder = "cls.predictions.decoder.weight"
    words = golden()["lxmert.embeddings.word_embeddings.weight"]
    tied, untied = (saved(tmp_path / str(add), {**golden(), decoder: words + add}) for add in (0, 1))
    assert diff(SOURCES["hf-pt"], tied).same and not diff(SOURCES["hf-pt"], tied).notes
    report = diff(SOURCES["hf-pt"], untied)
    assert report.same and f"in b, {decoder} is not" in report.notes[0]


def test_models_and_state_dicts_in_memory(tmp_path):
    assert diff(golden(), PRETRAINED).same
    changed = {**golden(), BIAS: golden()[BIAS].astype(ml_dtypes.bfloat16)}
    assert set(diff(PRETRAINED, changed).dtypes) == {BIAS}


def test_the_json_of_diff_is_stable():
    code, out, err = run("diff", PRETRAINED, PRETRAINED.parent / "hf_pt_qa", "--json")
    report = json.loads(out)
    assert (code, err) == (1, "")
    assert list(report) == [
        *("a", "b", "only_a", "only_b", "shapes", "dtypes", "values", "config", "compared", "notes", "same"),
    ]
    assert report["b"] == {"path": f"{PRETRAINED.parent}/hf_pt_qa/model.safetensors", "format": "hf-pt", "task": "qa"}
    assert all(list(error) == ["max_error", "mean_error", "scale"] for error in report["values"].values())
    assert run("diff", PRETRAINED, SOURCES["original"])[0] == 0
    assert run("diff", PRETRAINED, "/no/such/file")[0] == 2


def test_diff_needs_no_framework():
    imported = modules_imported("diff", PRETRAINED, SOURCES["hf-tf"])
    assert not imported & {"tensorflow", "keras", "torch", "jax"} and "h5py" in imported
