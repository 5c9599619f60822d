"""Exports for OpenVINO, ONNX Runtime and LiteRT: what they compute, their folders, and what a precision costs."""

import functools
import importlib.util
import json
import shutil
from typing import ClassVar

import numpy as np
import pytest
from support.serving import LABELS, REL, write_checkpoint

import lxmert_tf
from lxmert_tf.cli import main
from lxmert_tf.input_table import ENCODED_IMAGE_INPUTS, IMAGE_INPUTS
from lxmert_tf.serving import comparison
from lxmert_tf.serving.check import sample_inputs
from lxmert_tf.serving.client.padding import server_proof
from lxmert_tf.serving.metadata import read_metadata
from lxmert_tf.serving.runtimes.base import Loaded, Runtime, runtime
from lxmert_tf.serving.runtimes.fallback import quantize_within
from lxmert_tf.serving.runtimes.server_files import update_ovms


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A checkpoint that answers, with a cross layer before the last, which is computed for its first token only."""
    folder = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint("qa", folder, l_layers=1, x_layers=2)
    return folder


@pytest.fixture(scope="module")
def model(checkpoint):
    return lxmert_tf.TFLxmertForQuestionAnswering.from_pretrained(checkpoint)


TEXT = ("input_ids", "attention_mask", "token_type_ids")
FORMATS = ("openvino", "onnx", "litert")


@pytest.fixture(scope="module")
def export_to(checkpoint, tmp_path_factory):
    """A function that exports the checkpoint once to a format and precision, and returns BASE."""

    @functools.cache
    def export(format, precision="float32"):
        if any(importlib.util.find_spec(module) is None for module in runtime(format).modules):
            pytest.skip(f"needs the extra `{format}`")
        base = tmp_path_factory.mktemp(format)
        arguments = [str(checkpoint), str(base), "--name", "vqa", "--format", format, "--precision", precision]
        assert main(["export", *arguments, "--compare"]) == 0
        return base

    return export


@functools.cache
def load(base, format, name="vqa", precision="float32"):
    return runtime(format).load(base / name / "1", precision)


def close(got, wanted):
    np.testing.assert_allclose(got, wanted, rtol=0, atol=REL * np.abs(wanted).max())


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_answers_are_those_of_keras_for_any_sizes(format, export_to, model):
    answer = load(export_to(format), format).run
    for examples, tokens in ((1, 12), (4, 5)):
        inputs = sample_inputs(model.config, examples=examples, seed=examples)
        inputs |= {name: inputs[name][:, :tokens] for name in TEXT}
        got, wanted = answer(inputs), np.asarray(model(inputs).question_answering_score)
        close(got["logits"], wanted)
        close(got["probabilities"], 1 / (1 + np.exp(-wanted)))
        np.testing.assert_array_equal(got["top_ids"], np.argsort(-wanted, axis=-1))
        close(got["top_scores"], -np.sort(-got["probabilities"], axis=-1))


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_an_image_is_encoded_first(format, export_to, model):
    base = export_to(format)
    inputs = sample_inputs(model.config, examples=3)
    encoded = load(base, format, "vqa_encode_image").run(inputs)
    assert set(encoded) == {"vision_states"}
    answer, wanted = load(base, format, "vqa_answer_encoded").run, np.asarray(model(inputs).question_answering_score)
    close(answer({**inputs, **encoded})["logits"], wanted)
    if format != "onnx":  # of one image
        one = {name: value[:1] for name, value in {**inputs, **encoded}.items() if name in ENCODED_IMAGE_INPUTS}
        repeated = {name: np.repeat(inputs[name][:1], 3, axis=0) for name in IMAGE_INPUTS}
        close(answer({**inputs, **one})["logits"], np.asarray(model({**inputs, **repeated}).question_answering_score))


@pytest.mark.slow
def test_openvino_reads_the_masks_of_clients(export_to, model):
    inputs = sample_inputs(model.config, examples=2)
    proof = {name: server_proof(value) if name.endswith("mask") else value for name, value in inputs.items()}
    answer = load(export_to("openvino"), "openvino").run
    np.testing.assert_array_equal(answer(proof)["logits"], answer(inputs)["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_what_a_folder_says_of_itself(format, export_to):
    metadata = read_metadata(export_to(format) / "vqa" / "1")
    assert metadata["format"] == format and metadata["labels"] == LABELS and not metadata["kept_in_float32"]
    inputs = metadata["signatures"]["serving_default"]["inputs"]
    assert set(inputs) == {*TEXT, *IMAGE_INPUTS}
    assert inputs["input_ids"] == {"dtype": "int32", "shape": [None, None]}
    assert inputs["visual_feats"] == {"dtype": "float32", "shape": [None, None, 9]}
    assert metadata["comparison"]["equal_answers"] == 1 and metadata["comparison"]["largest_error"] < 1e-4


@pytest.mark.slow
def test_a_folder_for_openvino_model_server(export_to):
    base = export_to("openvino")
    config = json.loads((base / "config.json").read_text())["model_config_list"]
    models = {entry["config"]["name"]: entry["config"] for entry in config}
    assert set(models) == {"vqa", "vqa_encode_image", "vqa_answer_encoded"}
    for name, entry in models.items():
        assert entry["base_path"] == f"/models/{name}"
        assert entry["plugin_config"] == {"INFERENCE_PRECISION_HINT": "f32"}  # else bfloat16 where processors have it
        assert {"model.xml", "model.bin"} <= {path.name for path in (base / name / "1").iterdir()}


@pytest.mark.slow
def test_a_folder_for_triton(export_to):
    base = export_to("onnx")
    text = (base / "vqa" / "config.pbtxt").read_text()
    assert 'name: "vqa"' in text and 'backend: "onnxruntime"' in text and "max_batch_size: 32" in text
    assert 'input { name: "visual_feats" data_type: TYPE_FP32 dims: [ -1, 9 ] }' in text
    assert 'output { name: "logits" data_type: TYPE_FP32 dims: [ 5 ] }' in text
    written = (base / "vqa" / "1" / "model.onnx").read_bytes()
    assert b"stack_trace" not in written and b"/lxmert_pt/" not in written


@pytest.mark.slow
def test_check_runs_openvino_itself(export_to, checkpoint, model, tmp_path, capsys):
    shutil.copytree(export_to("openvino"), tmp_path, dirs_exist_ok=True)
    arguments = ["export", str(checkpoint), str(tmp_path), "--name", "vqa", "--format", "openvino", "--check-only"]
    copy = tmp_path / "vqa" / "1"
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "sound: answers in batches of 1, 2, 4, 8, 16, 32, equal to the checkpoint within" in said
    weights = (copy / "model.bin").read_bytes()
    bias = np.asarray(model.weights[-1])
    assert weights.count(bias.tobytes()) == 1
    (copy / "model.bin").write_bytes(weights.replace(bias.tobytes(), (bias + 0.1).tobytes()))
    assert main(arguments) == 1
    assert "model.bin is damaged" in capsys.readouterr().out
    metadata = read_metadata(copy)
    (copy / "serving_metadata.json").write_text(json.dumps({**metadata, "files": {}, "batch_sizes": [1]}))
    assert main(arguments) == 1
    assert "differs from the checkpoint by" in capsys.readouterr().out


def test_openvino_converts_the_saved_model_itself(exports):
    openvino = pytest.importorskip("openvino", reason="needs the extra `openvino`")
    model = openvino.convert_model(exports / "models" / "model" / "1")
    assert {"language_output", "vision_output"} <= {name for one in model.outputs for name in one.names}


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_int8_is_smaller_and_close(format, export_to, model):
    """Products of eight bits, with weights of seven where processors would overflow: an error of 1/64 in each."""
    base = export_to(format, "int8")
    metadata = read_metadata(base / "vqa" / "1")
    assert metadata["comparison"]["mean_error"] < 1 / 64 * metadata["comparison"]["largest_value"]
    assert metadata["comparison"]["largest_error"] > 1e-3  # some of it is int8
    inputs = sample_inputs(model.config, examples=3)
    encoded = load(base, format, "vqa_encode_image", "int8").run(inputs)
    got = load(base, format, "vqa_answer_encoded", "int8").run({**inputs, **encoded})["logits"]
    wanted = np.asarray(model(inputs).question_answering_score)
    assert np.abs(got - wanted).mean() < 1 / 16 * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_excluded_layers_stay_float32(format, export_to, tmp_path, model):
    target, folder = runtime(format), export_to(format) / "vqa" / "1"
    batches = comparison.random_examples(model).batches[:2]
    layers = target.layers(folder)
    assert len(layers) >= 6 and len({name for names in layers.values() for name in names}) >= 20
    target.quantize(folder, tmp_path, batches, [name for names in layers.values() for name in names])
    wanted = np.asarray(model(batches[0]).question_answering_score)
    close(target.load(tmp_path, "int8").run(batches[0])["logits"], wanted)


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_pairs_of_images(format, tmp_path):
    if any(importlib.util.find_spec(module) is None for module in runtime(format).modules):
        pytest.skip(f"needs the extra `{format}`")
    model = write_checkpoint("reasoning", tmp_path / "reasoning", l_layers=0, r_layers=0)
    base = tmp_path / "base"
    assert main(["export", str(tmp_path / "reasoning"), str(base), "--name", "vqa", "--format", format]) == 0
    inputs = sample_inputs(model.config, num_images=2, examples=4)
    close(load(base, format).run(inputs)["logits"], np.asarray(model(inputs).logits))


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
        (["--data", "a.json"], "--data has no effect without --compare"),
        (["--precision", "int8"], "--precision int8 is for --format openvino, onnx or litert"),
        (["--format", "openvino", "--text"], "--text has no effect with --format openvino"),
        (["--format", "openvino", "--label", "canary"], "--label has no effect with --format openvino"),
        (["--format", "openvino", "--compare", "--data", "a.json"], "--data needs the region features"),
        (["--precision", "auto", "--data", "a.json"], "--data needs the region features"),
        (["--compare", "--max-loss", "1"], "--max-loss has no effect without --data"),
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


@pytest.mark.slow
def test_one_folder_holds_one_format(export_to, exports, checkpoint, capsys, monkeypatch):
    base = str(export_to("openvino"))
    monkeypatch.setattr("lxmert_tf.serving.runtimes.base.find_spec", lambda name: name)
    assert main(["export", str(checkpoint), base, "--name", "vqa", "--format", "onnx"]) == 2
    assert "is of format openvino" in capsys.readouterr().err
    base = str(exports / "models")
    assert main(["export", str(checkpoint), base, "--name", "new", "--format", "openvino"]) == 2
    assert "is of format saved_model" in capsys.readouterr().err


class Written(Runtime):
    """A runtime that loads quickly: the files are what the Keras model of the test computes."""

    format, file, modules = "openvino", "model.xml", ()
    precisions: ClassVar = {"float32": "", "bfloat16": "", "int8": ""}

    def __init__(self, model, wrong=0.0):
        self.model, self.wrong = model, wrong

    def convert(self, source, options, folders):
        for folder in folders.values():
            (folder / self.file).write_text("")

    def layers(self, folder):
        return {}

    def quantize(self, folder, target, batches, excluded):
        (target / self.file).write_text("")

    def load(self, folder, precision):
        name = folder.parent.name if folder.name.isdigit() else folder.parents[1].name

        def run(inputs):
            encoded = self.model.encode_image(**{each: inputs[each] for each in IMAGE_INPUTS if each in inputs})
            return {"vision_states": np.asarray(encoded["vision_states"]) + self.wrong}

        def answer(inputs):
            given = {each: inputs[each] for each in (*TEXT, "vision_states", "visual_attention_mask")}
            return {"logits": np.asarray(self.model.answer_encoded(**given).question_answering_score) + self.wrong}

        def whole(inputs):
            given = {each: inputs[each] for each in (*TEXT, *IMAGE_INPUTS)}
            return {"logits": np.asarray(self.model(given).question_answering_score)}

        runs = {"m_encode_image": (run, IMAGE_INPUTS), "m_answer_encoded": (answer, (*TEXT, *ENCODED_IMAGE_INPUTS))}
        compute, names = runs.get(name, (whole, (*TEXT, *IMAGE_INPUTS)))
        shapes = {"visual_feats": 9, "visual_pos": 4, "vision_states": self.model.config.hidden_size}
        specs = {
            each: {
                "dtype": "float32" if each in shapes else "int32",
                "shape": [None, None, *([shapes[each]] if each in shapes else [])],
            }
            for each in names
        }
        return Loaded(compute, specs, {}, precision if precision != "int8" else "float32")


@pytest.fixture
def written(model, monkeypatch):
    """Puts a runtime that is quick in the place of OpenVINO's."""
    fake = Written(model)
    for module in ("export", "check"):
        monkeypatch.setattr(f"lxmert_tf.serving.runtimes.{module}.runtime", lambda format: fake)
    return fake


def test_check_compares_every_signature_and_misses_none(checkpoint, written, tmp_path, capsys):
    base = tmp_path / "base"
    arguments = ["export", str(checkpoint), str(base), "--name", "m", "--format", "openvino", "--batch-sizes", "1"]
    assert main([*arguments, "--check"]) == 0
    assert capsys.readouterr().out.count("equal to the checkpoint within") == 3
    for wrong, said in ((0.1, "differs from the checkpoint by"), (np.nan, "are not finite")):
        written.wrong = wrong
        assert main([*arguments, "--check-only"]) == 1
        assert capsys.readouterr().out.count(said) == 2 or np.isnan(wrong)
    written.wrong = 0.0
    config = (base / "config.json").read_text()
    (base / "config.json").unlink()
    assert main([*arguments, "--check-only"]) == 1
    assert "config.json has no model m_encode_image" in capsys.readouterr().out
    (base / "config.json").write_text(config)
    shutil.rmtree(base / "m_answer_encoded")
    assert main([*arguments, "--check-only"]) == 1
    assert "missing, though it is a signature" in capsys.readouterr().out


def test_check_says_what_it_does_not_compare_with(checkpoint, written, tmp_path, capsys):
    write_checkpoint("qa", tmp_path / "other", l_layers=1, x_layers=2, initializer_range=0.5)
    base = tmp_path / "base"
    arguments = [str(base), "--name", "m", "--format", "openvino", "--batch-sizes", "1"]
    assert main(["export", str(checkpoint), *arguments]) == 0
    metadata = read_metadata(base / "m" / "1")
    metadata["source"]["sha256"] = "0" * 64
    (base / "m" / "1" / "serving_metadata.json").write_text(json.dumps(metadata))
    assert main(["export", str(checkpoint), *arguments, "--check-only"]) == 0
    assert "made from another checkpoint" in capsys.readouterr().out
    assert main(["export", str(checkpoint), str(base), "--name", "m", "--format", "litert", "--check-only"]) == 2
    assert "is of format openvino" in capsys.readouterr().err


def test_names_and_folders_that_would_displace_others_are_refused(checkpoint, written, tmp_path, capsys):
    base = tmp_path / "base"
    export = ["export", str(checkpoint), str(base), "--batch-sizes", "1"]
    assert main([*export, "--name", "m", "--format", "openvino"]) == 0
    assert main([*export, "--name", "m_encode_image", "--format", "openvino"]) == 2
    assert "is encode_image of another model" in capsys.readouterr().err
    assert main([*export, "--name", "n"]) == 2
    assert "is of format openvino" in capsys.readouterr().err
    assert main([*export, "--name", "n", "--format", "litert"]) == 2
    assert "is of format openvino" in capsys.readouterr().err
    assert sorted(path.name for path in base.iterdir() if path.is_dir()) == ["m", "m_answer_encoded", "m_encode_image"]


def test_a_foreign_file_is_refused_first_and_nothing_is_left(checkpoint, written, tmp_path, capsys, monkeypatch):
    (tmp_path / "config.json").write_text('{"model_type": "lxmert"}')
    export = ["export", str(checkpoint), str(tmp_path), "--name", "m", "--format", "openvino"]
    assert main(export) == 2
    assert "must be the configuration of OpenVINO Model Server" in capsys.readouterr().err
    (tmp_path / "config.json").unlink()
    monkeypatch.setattr(written, "load", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(export)
    assert not list(tmp_path.iterdir())


def test_settings_of_a_model_on_the_server_are_kept(tmp_path):
    config = {"name": "m", "base_path": "/old", "nireq": 4, "plugin_config": {"NUM_STREAMS": "2"}}
    (tmp_path / "config.json").write_text(json.dumps({"model_config_list": [{"config": config}], "monitoring": {}}))
    update_ovms(tmp_path, "m", "int8")
    wanted = {"NUM_STREAMS": "2", "INFERENCE_PRECISION_HINT": "f32"}
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["model_config_list"] == [{"config": {**config, "base_path": "/models/m", "plugin_config": wanted}}]
    assert "monitoring" in content


def test_each_signature_s_cost_is_its_own(checkpoint, written, tmp_path, capsys):
    written.wrong = 0.25
    export = ["export", str(checkpoint), str(tmp_path), "--name", "m", "--format", "openvino", "--batch-sizes", "1"]
    assert main([*export, "--precision", "int8"]) == 0
    costs = {
        name: read_metadata(tmp_path / name / "1")["comparison"] for name in ("m", "m_encode_image", "m_answer_encoded")
    }
    assert costs["m"]["largest_error"] == 0 and costs["m_encode_image"] is None
    assert costs["m_answer_encoded"]["largest_error"] > 0.1
    written.wrong = np.nan
    assert main([*export, "--precision", "int8"]) == 2
    assert "int8 gives outputs that are not finite" in capsys.readouterr().err


def test_a_checkpoint_that_is_not_finite_proves_nothing(tmp_path, capsys):
    model = write_checkpoint("qa", tmp_path / "qa", l_layers=1, x_layers=1)
    model.weights[-1].assign(np.full(model.weights[-1].shape, np.nan))
    model.save_pretrained(tmp_path / "qa")
    export = ["export", str(tmp_path / "qa"), str(tmp_path / "base"), "--name", "m", "--precision", "bfloat16"]
    assert main(export) == 2
    assert "The checkpoint itself gives logits that is not finite on random inputs" in capsys.readouterr().err


def test_pretraining_models_are_compared(tmp_path, capsys):
    write_checkpoint("pretraining", tmp_path / "p", l_layers=0, r_layers=0, x_layers=1)
    export = ["export", str(tmp_path / "p"), str(tmp_path / "base"), "--name", "m", "--batch-sizes", "1", "--compare"]
    assert main(export) == 0
    assert "float32 beside float32, on random inputs: largest error" in capsys.readouterr().out


# What a precision costs


def test_a_comparison_counts_what_differs():
    wanted = [{"logits": np.array([[1.0, 2.0, 0.0], [3.0, 0.0, -4.0]], "float32")}]
    got = {"logits": np.array([[1.0, 2.5, 0.0], [0.0, 1.0, -4.0]], "float32")}
    labels = [np.array([[0.0, 0.6, 0.0], [1.0, 0.3, 0.0]], "float32")]
    examples = comparison.Examples([{}], labels, "two")
    found = comparison.measure(lambda batch: got, wanted, examples)
    assert found["largest_error"] == 3 and found["mean_error"] == pytest.approx(4.5 / 6) and found["largest_value"] == 4
    assert found["equal_answers"] == 0.5 and found["examples"] == 2
    assert found["accuracy"] == pytest.approx(0.45) and found["accuracy_float32"] == pytest.approx(0.8)
    assert comparison.loss(found) == pytest.approx(35)
    ids = comparison.Examples([{}], [np.array([1, 2])], "two")
    assert comparison.measure(lambda batch: got, wanted, ids)["accuracy"] == 0.5


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
