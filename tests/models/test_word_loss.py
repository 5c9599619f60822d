"""The loss of hidden words alone is the loss over all logits, and so are its gradients."""

import keras
import numpy as np
import pytest
from support.models import batch, labels, tiny_model

from lxmert_tf import TFLxmertForPreTraining
from lxmert_tf.losses import CHUNK, cross_entropy, masked_word_loss

if keras.backend.backend() != "tensorflow":
    pytest.skip("training steps of the other backends compute all logits", allow_module_level=True)
tf = pytest.importorskip("tensorflow")

N, H, V = 3 * CHUNK + 5, 7, 41


def given(share: float, seed: int = 0):
    rng = np.random.default_rng(seed)
    tensors = [tf.constant(rng.standard_normal(shape)) for shape in ((N, H), (V, H), (V,))]
    return tensors, tf.constant(np.where(rng.random(N) < share, rng.integers(0, V, N), -100))


def over_all_logits(hidden, table, bias, words):
    return cross_entropy(hidden @ tf.transpose(table) + bias, words).value


def loss_and_gradients(function, tensors, words, compiled: bool = False):
    def run():
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            loss = 1.7 * function(*tensors, words)
        return loss, *tape.gradient(loss, tensors)

    return tf.function(run, jit_compile=compiled)()


@pytest.mark.slow
@pytest.mark.parametrize(("share", "compiled"), [(0.0, False), (0.01, True), (0.15, False), (0.5, True), (1.0, False)])
def test_loss_and_gradients_are_those_over_all_logits(share, compiled):
    tensors, words = given(share)
    found = loss_and_gradients(masked_word_loss, tensors, words, compiled)
    for one, other in zip(found, loss_and_gradients(over_all_logits, tensors, words), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-13)
    assert share == 0 or float(found[0]) > 1


def test_small_gradients_of_many_words_survive_half_precision():
    """Among many words each is unlikely, and the gradient for its logit too small for float16."""
    rng, known = np.random.default_rng(0), 40
    shapes = {(600, 16): 1.0, (4096, 16): 0.02, (4096,): 0.02}  # with deviations
    half = [tf.constant(rng.standard_normal(shape) * deviation, "float16") for shape, deviation in shapes.items()]
    words = tf.constant(rng.integers(0, known, 600))
    exact = loss_and_gradients(over_all_logits, [tf.cast(tensor, "float32") for tensor in half], words)[2][known:]
    found = loss_and_gradients(lambda *given: 2.0**15 * masked_word_loss(*given), half, words)[2][known:]
    found = tf.cast(found, "float32") / 2.0**15
    assert float(tf.norm(found - exact) / tf.norm(exact)) < 2e-3  # float16 has 11 bits


@pytest.mark.parametrize("wrong", [V, -1, 10**6])
def test_a_label_that_is_no_word_is_not_passed_over(wrong):
    tensors, words = given(0.15)
    words = tf.tensor_scatter_nd_update(words, [[3]], [wrong])
    assert np.isnan(loss_and_gradients(masked_word_loss, tensors, words)[0])
    assert np.isnan(loss_and_gradients(over_all_logits, tensors, words)[0])


def test_a_model_trains_on_it_as_on_all_logits(monkeypatch):
    model = tiny_model(TFLxmertForPreTraining, dtype="float64")
    inputs = {**batch(model), **labels(model)}

    def step():
        with tf.GradientTape() as tape:
            output = model(inputs, training=True)
        return output.losses["masked_lm_loss"], tape.gradient(output.loss, model.trainable_weights)

    loss, gradients = step()
    used = []

    def over_all(self, output, words, sample_weight, training):
        used.append(1)
        return cross_entropy(output.prediction_logits, words)

    monkeypatch.setattr(TFLxmertForPreTraining, "word_loss", over_all)
    expected, others = step()
    assert used
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    for variable, one, other in zip(model.trainable_weights, gradients, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13, err_msg=variable.path)


@pytest.mark.slow
def test_fit_computes_no_logits_that_nothing_reads():
    model = tiny_model(TFLxmertForPreTraining)
    inputs = {name: tf.constant(value) for name, value in batch(model).items()}
    given = labels(model)
    inputs["masked_lm_labels"] = tf.constant(given["masked_lm_labels"])
    step = tf.function(lambda: model(inputs, training=True).loss, jit_compile=True)
    compiled = step.experimental_get_compiler_ir()(stage="optimized_hlo")
    tokens = inputs["input_ids"].shape[1]
    assert f"f32[{CHUNK},{model.config.vocab_size}]" in compiled
    assert f"f32[3,{tokens},{model.config.vocab_size}]" not in compiled
    assert f"f32[{3 * tokens},{model.config.vocab_size}]" not in compiled


def test_labels_of_another_shape_are_told():
    model = tiny_model(TFLxmertForPreTraining)
    inputs = batch(model)
    with pytest.raises(ValueError, match="shape"):
        model({**inputs, "masked_lm_labels": np.zeros((3, 4), "int32")}, training=True)
