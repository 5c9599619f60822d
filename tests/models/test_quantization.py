"""`model.quantize`, quantized policies and maps of policies do what they do in a Keras model."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.golden import GOLDEN, REL32, assert_close
from support.models import batch, flat, labels, tiny_config, tiny_model

from conversion import load_into, open_checkpoint
from conversion.convert import convert
from conversion.models import state_dict
from lxmert_tf import AdamW, BertAdam, TFLxmertForPreTraining, TFLxmertForQuestionAnswering
from lxmert_tf.serving.fused_projection import FusedProjection, fuse_projections

# Keras says so of tables in float8, which it quantizes as little
no_float8_tables = pytest.mark.filterwarnings("ignore:Invalid quantization mode. Expected one of:UserWarning")
newer_keras = pytest.mark.skipif(not hasattr(keras.quantizers, "Int8QuantizationConfig"), reason="of Keras 3.13")

STEPS = 3 / 127  # of activations in int8

LOAD = """
import sys
import keras, lxmert_tf, numpy as np
model = keras.saving.load_model(sys.argv[1])
with np.load(sys.argv[2]) as arrays:
    np.save(sys.argv[3], model(dict(arrays)).question_answering_score)
"""


def quantized(mode="int8", model_class=TFLxmertForQuestionAnswering, **options):
    model = tiny_model(model_class, l_layers=1, r_layers=0)
    model.quantize(mode, **options)
    return model


def dense(model):
    return [each for each in model._flatten_layers() if isinstance(each, keras.layers.Dense)]


def assert_same(one, other, tolerance=REL32):
    for name, value in flat(other(batch(other))).items():
        assert_close(flat(one(batch(one)))[name], value, tolerance, name)


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_every_kernel_and_table_is_quantized_without_a_warning(mode):
    model = quantized(mode, TFLxmertForPreTraining)  # a warning is an error here
    assert {each.quantization_mode for each in dense(model)} == {mode}
    assert model.get_input_embeddings().quantization_mode == mode
    kept = {variable.name for variable in model.weights if variable.dtype == "int8"}
    assert {"kernel", "weight"} <= kept  # and what 4 bits in groups have for zeros
    assert not any(variable.trainable for variable in model.weights if variable.dtype == "int8")


def test_int8_stays_close():
    """0.025 of the largest logit was measured."""
    model = TFLxmertForQuestionAnswering.from_pretrained(GOLDEN / "hf_pt_qa")
    exact = np.asarray(model(batch(model)).question_answering_score)
    model.quantize("int8")
    got = np.asarray(model(batch(model)).question_answering_score)
    assert np.abs(got - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_what_is_read_are_the_floats_that_it_computes_with(mode, tmp_path):
    model = quantized(mode, TFLxmertForPreTraining)
    found, before = state_dict(model), state_dict(tiny_model(TFLxmertForPreTraining, l_layers=1, r_layers=0))
    steps = {"int8": 127, "int4": 7}[mode]
    for name, array in found.items():
        assert array.dtype == np.float32
        assert np.abs(array - before[name]).max() <= 0.51 * np.abs(before[name]).max() / steps, name
    model.save_pretrained(tmp_path / "directory")
    convert(model, tmp_path / "converted", to="hf-pt")
    for path in (tmp_path / "directory", tmp_path / "converted"):
        checkpoint = open_checkpoint(path)
        assert all(np.array_equal(checkpoint.tensors[name], array) for name, array in found.items())
    ids = batch(model)["input_ids"]
    again = TFLxmertForPreTraining.from_pretrained(tmp_path / "directory")
    assert_close(again.get_input_embeddings()(ids), model.get_input_embeddings()(ids), 1e-6)
    x = np.eye(12, dtype="float32")  # one-hot rows are quantized exactly
    layer, plain = (each.lxmert.pooler.dense for each in (model, again))
    assert_close(layer(x), plain(x), 1e-5)


@newer_keras
def test_int4_in_groups_is_read_rightly():
    model, plain = tiny_model(TFLxmertForPreTraining), tiny_model(TFLxmertForPreTraining)
    model.quantize(config=keras.quantizers.Int4QuantizationConfig(block_size=4))
    load_into(plain, model)
    for ours, theirs in zip(dense(model), dense(plain), strict=True):
        x = np.eye(theirs.kernel.shape[0], dtype="float32")
        assert_close(ours(x), theirs(x), 1e-5, ours.path)
    ids = batch(model)["input_ids"]
    assert_close(model.get_input_embeddings()(ids), plain.get_input_embeddings()(ids), 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_lora_on_quantized_layers_trains_and_is_read(mode):
    model = quantized(mode)
    for layer in [*dense(model), model.get_input_embeddings()]:
        layer.enable_lora(2)
    model.compile(keras.optimizers.Adam(0.01), run_eagerly=True)
    history = model.fit(batch(model), labels(model), epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    layer = model.get_qa_logit_layer()
    plain = TFLxmertForQuestionAnswering.from_pretrained(model)
    x = np.eye(24, dtype="float32")
    assert_close(layer(x), plain.get_qa_logit_layer()(x), 1e-5)
    ids = batch(model)["input_ids"]
    assert_close(model.get_input_embeddings()(ids), plain.get_input_embeddings()(ids), 1e-6)


@pytest.mark.slow
@no_float8_tables
@pytest.mark.parametrize("optimizer", [AdamW, BertAdam])
def test_float8_trains_and_its_scales_follow(optimizer, tmp_path):
    model = quantized("float8")
    before = state_dict(model)
    model.compile(optimizer(0.001, global_clipnorm=1.0), jit_compile=False)
    history = model.fit(batch(model), labels(model), epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    layer = model.lxmert.encoder.layer_0.intermediate.dense
    assert np.asarray(layer.inputs_amax_history).max() > 0.1  # of the inputs, and not an update of an optimizer
    assert np.abs(state_dict(model)["lxmert.pooler.dense.weight"] - before["lxmert.pooler.dense.weight"]).max() > 0
    model.save_pretrained(tmp_path)
    TFLxmertForQuestionAnswering.from_pretrained(tmp_path)


@pytest.mark.slow
def test_a_fresh_process_and_a_saved_model_compute_the_same(tmp_path):
    model = quantized()
    inputs = batch(model)
    wanted = np.asarray(model(inputs).question_answering_score)
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "inputs.npz", **inputs)
    paths = [str(tmp_path / name) for name in ("model.keras", "inputs.npz", "outputs.npy")]
    subprocess.run([sys.executable, "-c", LOAD, *paths], check=True)
    assert_close(np.load(tmp_path / "outputs.npy"), wanted, REL32)
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"]
    got = served(**{name: tf.constant(value) for name, value in inputs.items()})["question_answering_score"]
    # Where rounding to integers meets the last bit of a float, a graph may take the next of 127 steps.
    assert_close(got, wanted, STEPS)
    model.save_weights(tmp_path / "model.weights.h5")
    other = tiny_model(seed=1, l_layers=1, r_layers=0)
    other.quantize("int8")
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same(other, model, 1e-6)


@newer_keras
def test_a_config_of_quantization_is_kept(tmp_path):
    config = keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)  # weights only
    model = tiny_model()
    model.quantize(config=config, filters="query|word_embeddings")
    assert {each.name for each in model._flatten_layers() if each.quantization_mode} == {"query", "word_embeddings"}
    model.save(tmp_path / "model.keras")
    assert_same(keras.saving.load_model(tmp_path / "model.keras"), model, 1e-6)


def test_quantized_projections_are_not_fused():
    model = tiny_model()
    model.quantize("int8")
    wanted = flat(model(batch(model)))
    weights = fuse_projections(model)
    assert len(weights) == len(model.weights)
    assert not isinstance(model.lxmert.encoder.layer_0.attention.self.project, FusedProjection)
    assert_close(flat(model(batch(model)))["question_answering_score"], wanted["question_answering_score"], 0)


def test_what_would_be_wrong_is_refused(tmp_path):
    model = quantized()
    for change in (lambda: model.resize_num_qa_labels(3), lambda: model.resize_token_embeddings(40)):
        with pytest.raises(ValueError, match=r"is quantized to int8\. Resize first, then quantize\."):
            change()
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"quantized to int8\. Load the weights first, then quantize\."):
        load_into(model, tiny_model(l_layers=1, r_layers=0))
    assert all(map(np.array_equal, model.get_weights(), before))
    assert model.config.num_qa_labels == 5 and model.config.vocab_size == 37
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"holds a quantized model: load it with keras\.saving\.load_model"):
        open_checkpoint(tmp_path / "model.keras")


@pytest.mark.parametrize("name", ["model.weights.h5", "model.keras"])
def test_weights_of_one_kind_are_not_loaded_into_the_other(tmp_path, name):
    floats, integers = tiny_model(l_layers=1, r_layers=0), quantized()
    path = tmp_path / name
    for source, target, message in (
        (integers, floats, rf"{name} has the weights of a quantized model, which this one is not\. Quantize it"),
        (floats, integers, rf"{name} has weights of floats, but the model is quantized to int8\. Load them, then"),
    ):
        source.save_weights(path) if name.endswith("h5") else source.save(path)
        before = target.get_weights()
        with pytest.raises(ValueError, match=message):
            target.load_weights(path)
        assert all(map(np.array_equal, target.get_weights(), before))
        source.load_weights(path)


def test_an_id_outside_the_table_stays_nan_and_row_0_is_a_row():
    layer = quantized().get_input_embeddings()
    rows = np.asarray(layer(np.array([0, 36, 37, -1])))
    assert np.isfinite(rows[:2]).all() and np.isnan(rows[2:]).all()


# Policies


@pytest.mark.parametrize("policy", ["int8_from_float32", "float8_from_mixed_bfloat16"])
def test_a_quantized_policy_is_that_of_kernels_and_tables(policy):
    model = TFLxmertForQuestionAnswering(tiny_config(), dtype=policy)
    mode = policy.partition("_")[0]
    assert {each.quantization_mode for each in dense(model)} == {mode}
    again = TFLxmertForQuestionAnswering.from_config(model.get_config())
    assert [each.dtype for each in again.weights] == [each.dtype for each in model.weights]
    output = model(batch(model)).question_answering_score
    assert output.shape == (3, 5)


def test_a_map_gives_layers_policies_of_their_own(tmp_path):
    policies = keras.dtype_policies.DTypePolicyMap("mixed_bfloat16")
    policies["maps/answer_head/.*"] = keras.DTypePolicy("float32")
    model = TFLxmertForQuestionAnswering(tiny_config(), dtype=policies, name="maps")
    assert model.answer_head.logit_fc_3.compute_dtype == "float32"
    assert model.lxmert.pooler.dense.compute_dtype == "bfloat16"
    assert model(batch(model)).question_answering_score.dtype == "float32"
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.answer_head.logit_fc_3.compute_dtype == "float32"
    assert_same(loaded, model, 1e-6)
