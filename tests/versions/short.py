"""A short look at everything, for interpreters and releases of Keras that the whole suite does not run under.

Needs pytest, and no extra of the package: `make versions` runs it in environments of their own.
"""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.data import files_of
from support.golden import GOLDEN, REL32, REL64, ROOT, assert_close, expected, golden_inputs
from support.models import MODELS, TASK_MODELS, batch, flat, labels, tiny_model

import lxmert_tf

by_name = {"ids": lambda model_class: model_class.__name__}


def run(module: str, *arguments) -> str:
    """What a command line prints; it must succeed."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_forward_pass_is_upstream_s():
    model = lxmert_tf.TFLxmertForPreTraining.from_pretrained(GOLDEN / "hf_pt_pretraining", dtype="float64")
    outputs = flat(model(**golden_inputs(), output_attentions=True, output_hidden_states=True))
    for name, value in expected("pretraining").items():
        if name in outputs:
            assert_close(outputs[name], value, REL64, name)
    assert {"prediction_logits", "cross_encoder_attentions.0"} <= set(outputs)


@pytest.mark.parametrize("model_class", TASK_MODELS, **by_name)
def test_fit_learns_and_measures(model_class):
    model = tiny_model(model_class, hidden_dropout_prob=0.1)
    model.gradient_checkpointing_enable()
    optimizer = lxmert_tf.AdamW(
        lxmert_tf.LinearWarmup(0.01, 20), global_clipnorm=1.0, gradient_accumulation_steps=2, on_nonfinite="count"
    )
    model.compile(
        optimizer, metrics={"matched": "accuracy"} if model_class is MODELS[1] else ["accuracy"], jit_compile=False
    )
    history = model.fit(batch(model), labels(model), epochs=20, batch_size=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert model.evaluate(batch(model), labels(model), verbose=0, return_dict=True)["loss"] > 0
    assert all(np.isfinite(each).all() for each in keras.tree.flatten(model.predict(batch(model), verbose=0)))


@pytest.mark.parametrize("model_class", MODELS, **by_name)
@pytest.mark.parametrize("how", ["archive", "weights", "directory"])
def test_saving_and_loading(model_class, how, tmp_path):
    model = tiny_model(model_class)
    if how == "archive":
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
    elif how == "weights":
        model.save_weights(tmp_path / "model.weights.h5")
        loaded = tiny_model(model_class, seed=1)
        loaded.load_weights(tmp_path / "model.weights.h5")
    else:
        model.save_pretrained(tmp_path)
        loaded = model_class.from_pretrained(tmp_path)
    for name, value in flat(loaded(batch(model))).items():
        assert_close(value, flat(model(batch(model)))[name], 1e-6, name)


def test_what_0_1_saved_loads():
    loaded = keras.models.load_model(GOLDEN / "saved_by_0_1" / "qa_recipe.keras")
    assert type(loaded.optimizer).__name__ == "RecipeBertAdam"
    assert int(loaded.optimizer.iterations) == 2


def test_sizes_change():
    model = tiny_model(lxmert_tf.TFLxmertForQuestionAnswering)
    before = model.get_qa_logit_layer().get_weights()[0]
    model.resize_num_qa_labels(8)
    model.resize_token_embeddings(40)
    assert model(batch(model)).question_answering_score.shape == (3, 8)
    np.testing.assert_array_equal(model.get_qa_logit_layer().get_weights()[0][:, :5], before)


@pytest.mark.parametrize("mode", [None, "int8", "int4"])
def test_lora_and_quantized_weights_are_read(mode, tmp_path):
    model = tiny_model(lxmert_tf.TFLxmertForQuestionAnswering)
    layer, table = model.get_qa_logit_layer(), model.get_input_embeddings()
    if mode:
        model.quantize(mode)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        assert_close(loaded(batch(model))[0], model(batch(model))[0], 1e-6)
    for each in (layer, table):
        each.enable_lora(2, b_initializer="he_uniform")
    model.save_pretrained(tmp_path / "directory")
    plain = lxmert_tf.TFLxmertForQuestionAnswering.from_pretrained(tmp_path / "directory")
    assert_close(layer(np.eye(24, dtype="float32")), plain.get_qa_logit_layer()(np.eye(24, dtype="float32")), 1e-5)
    assert_close(table(np.arange(37)), plain.get_input_embeddings()(np.arange(37)), 1e-5)


@pytest.mark.parametrize("model_class", MODELS, **by_name)
def test_exports_serve(model_class, tmp_path):
    model = tiny_model(model_class)
    model.export(tmp_path / "saved_model", verbose=False)
    inputs = batch(model, examples=2, tokens=6, boxes=4)
    served = tf.saved_model.load(tmp_path / "saved_model").signatures["serving_default"]
    outputs = served(**{name: tf.constant(value) for name, value in inputs.items()})
    for name, value in flat(model(inputs)).items():
        assert_close(outputs[name].numpy(), value, REL32, name)


def test_the_command_lines(tmp_path):
    assert "train" in run("lxmert_tf.cli", "--help")
    run("lxmert_tf.cli", "demo-data", tmp_path / "vqa", "--images", 20, "--dim", 8, "--no-pictures")
    run("lxmert_tf.cli", "features", "build", tmp_path / "vqa/features.tsv", tmp_path / "vqa/features.h5")
    command = ["train", "vqa", *files_of(tmp_path / "vqa"), "--output", tmp_path / "run", "--epochs", 1]
    run("lxmert_tf.cli", *command, "--batch-size", 32)
    found = run(
        *("lxmert_tf.cli", "evaluate", "vqa", "--json", "--model", tmp_path / "run/best"),
        *("--data", tmp_path / "vqa/valid.json", "--features", tmp_path / "vqa/features.h5"),
    )
    assert 0 <= json.loads(found)["accuracy"] <= 1
    assert "reread and identical" in run(
        "conversion", "convert", GOLDEN / "hf_pt_qa", tmp_path / "keras", "--to", "keras"
    )
    assert json.loads(run("conversion", "inspect", tmp_path / "keras", "--json"))["task"] == "qa"
