"""Exports for OpenVINO, ONNX Runtime and LiteRT: what they compute, their folders, and what a precision costs."""

import json
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from support.serving import LABELS, REL, write_checkpoint

import lxmert_tf
from lxmert_tf.cli import main
from lxmert_tf.input_table import ENCODED_IMAGE_INPUTS
from lxmert_tf.serving.check import sample_inputs
from lxmert_tf.serving.client.padding import server_proof
from lxmert_tf.serving.metadata import read_metadata
from lxmert_tf.serving.runtimes import comparison
from lxmert_tf.serving.runtimes.base import Runtime, runtime
from lxmert_tf.serving.runtimes.fallback import quantize_within


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint of one layer of each kind, which answers."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint("qa", folder, l_layers=1)
    return folder


@pytest.fixture(scope="module")
def model(checkpoint):
    return lxmert_tf.TFLxmertForQuestionAnswering.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def openvino_base(checkpoint, tmp_path_factory):
    pytest.importorskip("openvino", reason="needs the extra `openvino`")
    pytest.importorskip("nncf", reason="needs the extra `openvino`")
    base = tmp_path_factory.mktemp("openvino")
    assert main(["export", str(checkpoint), str(base), "--name", "vqa", "--format", "openvino", "--compare"]) == 0
    return base


def load(base, name, format="openvino", precision="float32"):
    return runtime(format).load(Path(base) / name / "1", precision)


@pytest.mark.parametrize("examples", [1, 4])
def test_openvino_answers_as_keras_does_for_any_sizes(openvino_base, model, examples):
    inputs = sample_inputs(model.config, examples=examples, seed=examples)
    shorter = {**inputs, **{name: inputs[name][:, :5] for name in ("input_ids", "attention_mask", "token_type_ids")}}
    for given in (inputs, shorter):
        got = load(openvino_base, "vqa").run(given)
        wanted = np.asarray(model(given).question_answering_score)
        np.testing.assert_allclose(got["logits"], wanted, rtol=0, atol=REL * np.abs(wanted).max())
        best = np.argsort(-wanted, axis=-1)
        np.testing.assert_array_equal(got["top_ids"], best)
        np.testing.assert_allclose(got["probabilities"], 1 / (1 + np.exp(-wanted)), atol=REL)


def test_openvino_encodes_an_image_for_several_questions(openvino_base, model):
    image = sample_inputs(model.config, examples=1)
    text = sample_inputs(model.config, examples=3, seed=1)
    encoded = {**image, **load(openvino_base, "vqa_encode_image").run(image)}
    given = {name: encoded[name] for name in ENCODED_IMAGE_INPUTS}
    got = load(openvino_base, "vqa_answer_encoded").run({**text, **given})["logits"]
    repeated = {name: np.repeat(image[name], 3, axis=0) for name in image if name.startswith("visual")}
    wanted = np.asarray(model({**text, **repeated}).question_answering_score)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=REL * np.abs(wanted).max())


def test_openvino_reads_the_masks_of_clients(openvino_base, model):
    inputs = sample_inputs(model.config, examples=2)
    proof = {name: server_proof(value) if name.endswith("mask") else value for name, value in inputs.items()}
    answer = load(openvino_base, "vqa").run
    np.testing.assert_array_equal(answer(proof)["logits"], answer(inputs)["logits"])


def test_a_folder_for_openvino_model_server(openvino_base):
    config = json.loads((openvino_base / "config.json").read_text())["model_config_list"]
    models = {entry["config"]["name"]: entry["config"] for entry in config}
    assert set(models) == {"vqa", "vqa_encode_image", "vqa_answer_encoded"}
    for name, entry in models.items():
        assert entry["base_path"] == f"/models/{name}"
        assert entry["plugin_config"] == {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 where processors have it
        assert {"model.xml", "model.bin"} <= {path.name for path in (openvino_base / name / "1").iterdir()}
    metadata = read_metadata(openvino_base / "vqa" / "1")
    assert metadata["format"] == "openvino" and metadata["labels"] == LABELS and not metadata["kept_in_float32"]
    assert metadata["signatures"]["serving_default"]["inputs"]["input_ids"] == {"dtype": "int32", "shape": [None, None]}
    assert metadata["comparison"]["equal_answers"] == 1 and metadata["comparison"]["largest_error"] < 1e-4


def test_check_runs_openvino_itself(openvino_base, checkpoint, tmp_path, capsys):
    arguments = ["export", str(checkpoint), "--name", "vqa", "--format", "openvino", "--check-only"]
    assert main([*arguments[:2], str(openvino_base), *arguments[2:]]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "equal to the checkpoint within" in lines[-1]
    copy = tmp_path / "vqa" / "1"
    copy.mkdir(parents=True)
    for file in (openvino_base / "vqa" / "1").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = bytearray((copy / "model.bin").read_bytes())
    weights[-4000:] = bytes(4000)
    (copy / "model.bin").write_bytes(weights)
    assert main([*arguments[:2], str(tmp_path), *arguments[2:]]) == 1
    assert "model.bin is damaged" in capsys.readouterr().out
    metadata = json.loads((copy / "serving_metadata.json").read_text())
    metadata["files"] = {}
    (copy / "serving_metadata.json").write_text(json.dumps(metadata))
    assert main([*arguments[:2], str(tmp_path), *arguments[2:]]) == 1
    assert "differs from the checkpoint by" in capsys.readouterr().out


def test_openvino_converts_the_saved_model_itself(exports):
    openvino = pytest.importorskip("openvino", reason="needs the extra `openvino`")
    model = openvino.convert_model(exports / "models" / "qa" / "1")
    assert "Cumprod" not in {operation.get_type_name() for operation in model.get_ops()}


# What is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--format", "onnx", "--precision", "bfloat16"], "has no bfloat16 products on CPUs"),
        (
            ["--format", "openvino", "--precision", "float16"],
            "not come in float16: it has float32, bfloat16, int8",
        ),
        (["--format", "litert", "--precision", "bfloat16"], "does not come in bfloat16"),
        (["--precision", "int8"], "--precision int8 is for --format openvino, onnx or litert"),
        (["--format", "openvino", "--text"], "--text has no effect with --format openvino"),
        (["--format", "openvino", "--label", "canary"], "--label has no effect with --format openvino"),
        (["--format", "openvino", "--data", "a.json"], "--data needs the region features"),
    ],
)
def test_pairs_that_cannot_be_are_refused(options, said, checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lxmert_tf.serving.runtimes.base.find_spec", lambda name: name)  # as if all were installed
    assert main(["export", str(checkpoint), str(tmp_path / "base"), "--name", "m", *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "base").exists()


def test_a_runtime_that_is_missing_says_what_to_install(checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lxmert_tf.serving.runtimes.base.find_spec", lambda name: None)
    assert main(["export", str(checkpoint), str(tmp_path), "--name", "m", "--format", "onnx"]) != 0
    assert "pip install 'lxmert-tf[onnx]'" in capsys.readouterr().err


def test_one_folder_holds_one_format(openvino_base, exports, checkpoint, capsys, monkeypatch):
    monkeypatch.setattr("lxmert_tf.serving.runtimes.base.find_spec", lambda name: name)
    assert main(["export", str(checkpoint), str(openvino_base), "--name", "vqa", "--format", "onnx"]) == 2
    assert "is of format openvino" in capsys.readouterr().err
    base = str(exports / "models")
    assert main(["export", str(checkpoint), base, "--name", "new", "--format", "openvino"]) == 2
    assert "another server's folder" in capsys.readouterr().err


# What a precision costs


def test_a_comparison_counts_what_differs():
    wanted = [{"logits": np.array([[1.0, 2.0, 0.0], [3.0, 0.0, -4.0]], "float32")}]
    got = {"logits": np.array([[1.0, 2.5, 0.0], [0.0, 1.0, -4.0]], "float32")}
    labels = [np.array([[0.0, 0.6, 0.0], [1.0, 0.3, 0.0]], "float32")]
    examples = comparison.Examples([{}], labels, "two")
    found = comparison.measure(lambda batch: got, wanted, examples, answers=True)
    assert found["largest_error"] == 3 and found["mean_error"] == pytest.approx(4.5 / 6) and found["largest_value"] == 4
    assert found["equal_answers"] == 0.5 and found["examples"] == 2
    assert found["accuracy"] == pytest.approx(0.45) and found["accuracy_float32"] == pytest.approx(0.8)
    assert comparison.loss(found) == pytest.approx(35)
    ids = comparison.Examples([{}], [np.array([1, 2])], "two")
    assert comparison.measure(lambda batch: got, wanted, ids, answers=True)["accuracy"] == 0.5


class Rounding(Runtime):
    """A runtime whose model is the sum of layers, each of which costs accuracy and error when it is quantized."""

    format, file, modules, precisions = "rounding", "model", (), {}
    costs: ClassVar = {"a": 0.2, "b": 1.5, "c": 0.4, "d": 0.0}

    def convert(self, source, options, folders):
        raise NotImplementedError

    def load(self, folder, precision):
        raise NotImplementedError

    def layers(self, folder):
        return {name: [f"{name}/1", f"{name}/2"] for name in self.costs}

    def quantize(self, folder, target, batches, excluded):
        (target / self.file).write_text(",".join(excluded))

    def measure(self, folder):
        excluded = (folder / self.file).read_text().split(",")
        cost = sum(cost for name, cost in self.costs.items() if not {f"{name}/1", f"{name}/2"} <= set(excluded))
        return {"accuracy_float32": 0.9, "accuracy": 0.9 - cost / 100, "mean_error": cost}


def test_the_layers_that_cost_most_stay_float32(tmp_path):
    fake = Rounding()
    kept, found = quantize_within(fake, tmp_path, tmp_path / "int8", [], fake.measure, max_loss=0.3)
    assert kept == ["b", "c"] and comparison.loss(found) == pytest.approx(0.2)
    assert (tmp_path / "int8" / "model").read_text() == "b/1,b/2,c/1,c/2"
    kept, _ = quantize_within(fake, tmp_path, tmp_path / "int8", [], fake.measure, max_loss=3)
    assert kept == []
    with pytest.raises(ValueError, match="int8 loses more than -1 points"):
        quantize_within(fake, tmp_path, tmp_path / "int8", [], fake.measure, max_loss=-1)
