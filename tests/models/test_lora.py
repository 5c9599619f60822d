"""With Keras' LoRA, whatever reads a model's weights reads what its layers compute with."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.golden import REL32, assert_close
from support.models import batch, flat, labels, tiny_model

from conversion import load_into, load_state_dict
from conversion.convert import convert
from conversion.diff import diff
from conversion.models import state_dict
from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering
from lxmert_tf.serving.fused_projection import fuse_projections

TABLE = "lxmert.embeddings.word_embeddings.weight"
KERNEL = "answer_head.logit_fc.3.weight"


def adapted(layers):
    return [each for each in layers if isinstance(each, keras.layers.Dense | keras.layers.Embedding)]


def with_lora(model_class=TFLxmertForQuestionAnswering, dtype=None):
    """A model with LoRA in every dense layer and embedding, its factors random."""
    model = tiny_model(model_class, dtype=dtype)
    rng = np.random.default_rng(2)
    for layer in adapted(model._flatten_layers()):
        layer.enable_lora(2, lora_alpha=3)
    for variable in model.weights:
        if "/lora_" in variable.path:
            variable.assign(0.3 * rng.standard_normal(variable.shape))
    return model


def assert_same(one, other, tolerance=REL32):
    for name, value in flat(other(batch(other))).items():
        assert_close(flat(one(batch(one)))[name], value, tolerance, name)


@pytest.fixture(scope="module")
def pretraining():
    return with_lora(TFLxmertForPreTraining)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["keras", "hf-pt", "hf-pt-bin", "hf-tf"])
def test_every_format_holds_the_merged_weights(pretraining, form, tmp_path):
    pretraining.save_pretrained(tmp_path, format=form)
    assert_same(TFLxmertForPreTraining.from_pretrained(tmp_path), pretraining)


def test_conversion_reads_the_merged_weights(pretraining, tmp_path):
    convert(pretraining, tmp_path / "out", to="hf-pt")
    assert_same(TFLxmertForPreTraining.from_pretrained(tmp_path / "out"), pretraining)
    assert_same(TFLxmertForPreTraining.from_pretrained(pretraining), pretraining)
    merged = load_state_dict(pretraining)
    layer = pretraining.get_qa_logit_layer()
    delta = 1.5 * np.asarray(layer.lora_kernel_a) @ np.asarray(layer.lora_kernel_b)
    np.testing.assert_allclose(merged[KERNEL].T, layer.get_weights()[0] + delta, atol=1e-6)
    assert diff(pretraining, tmp_path / "out").same


@pytest.mark.parametrize("dtype", ["float64", "mixed_bfloat16"])
def test_what_is_read_has_the_variables_dtype(dtype):
    model = with_lora(dtype=dtype)
    assert {array.dtype for array in state_dict(model).values()} == {np.dtype(model.variable_dtype)}
    again = TFLxmertForQuestionAnswering.from_pretrained(model, dtype=dtype)
    assert_same(again, model, {"float64": 1e-6, "mixed_bfloat16": 0.1}[dtype])


def test_weights_replace_what_lora_adds():
    model, other = with_lora(), tiny_model(seed=3)
    load_into(model, other)
    assert_same(model, other, 1e-6)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.fit(batch(model), labels(model), verbose=0)  # and is trained again
    assert np.abs(np.asarray(model.get_qa_logit_layer().lora_kernel_b)).max() > 0


def test_only_the_factors_train_and_row_0_of_a_table_stays():
    model = with_lora(TFLxmertForPreTraining)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model.get_input_embeddings()(np.array([[0, 0], [3, 0]])) ** 2)
    factor = model.get_input_embeddings().lora_embeddings_a
    gradient = np.asarray(tf.convert_to_tensor(tape.gradient(loss, factor.value)))
    assert gradient[3].any() and not np.delete(gradient, 3, axis=0).any()
    names = {variable.name for variable in model.trainable_variables}
    assert {"lora_kernel_a", "lora_embeddings_b", "gamma", "bias"} <= names and not {"kernel", "weight"} & names


def test_the_tied_decoder_takes_the_merged_table(pretraining):
    plain = TFLxmertForPreTraining.from_pretrained(pretraining)
    x, y = batch(plain), labels(plain)
    y = {"masked_lm_labels": y["masked_lm_labels"]}
    for training in (False, True):  # logits, and the loss of hidden words alone
        losses = [float(model(**x, **y, training=training).loss) for model in (pretraining, plain)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_answers_and_pieces_are_resized_with_their_factors():
    model = with_lora()
    before, pieces = model(batch(model)), np.asarray(model.get_input_embeddings().weight)
    model.resize_num_qa_labels(8)
    model.resize_token_embeddings(41)
    after = model(batch(tiny_model()))
    assert_close(after.question_answering_score[:, :5], before.question_answering_score, REL32)
    np.testing.assert_allclose(np.asarray(model.get_input_embeddings().weight)[:37], pieces, atol=1e-6)
    assert not any(variable.trainable for variable in model.weights if variable.name in ("kernel", "weight"))
    model.resize_num_qa_labels(3)
    model.resize_token_embeddings(38)
    assert state_dict(model)[KERNEL].shape == (3, 24) and state_dict(model)[TABLE].shape == (38, 12)
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.fit(batch(tiny_model()), np.array([0, 1, 2]), verbose=0)


def test_exports_fuse_the_merged_projections(tmp_path):
    model = with_lora(dtype="float64")
    wanted = flat(model(batch(model)))
    fuse_projections(model)
    for name, value in flat(model(batch(model))).items():
        assert_close(value, wanted[name], 1e-12, name)


@pytest.mark.slow
def test_saved_models_and_weights_files_compute_the_same(pretraining, tmp_path):
    model = pretraining
    model.save_weights(tmp_path / "model.weights.h5")
    loaded = tiny_model(TFLxmertForPreTraining, seed=1)
    loaded.load_weights(tmp_path / "model.weights.h5")
    assert_same(loaded, model)
    model.export(tmp_path / "served", verbose=False)
    inputs = {name: tf.constant(value) for name, value in batch(model).items()}
    served = tf.saved_model.load(tmp_path / "served").signatures["serving_default"](**inputs)
    for name, value in flat(model(batch(model))).items():
        assert_close(served[name], value, REL32, name)


def test_paths_of_the_factors_lie_in_their_layers():
    paths = {variable.path.partition("/")[2] for variable in with_lora().weights}
    assert "lxmert/encoder/layer_0/attention/self/query/lora_kernel_a" in paths
    assert "lxmert/embeddings/word_embeddings/lora_embeddings_b" in paths
