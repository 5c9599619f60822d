"""With gradient checkpointing training takes less memory, and every number stays the same."""

import keras
import numpy as np
import pytest
from support.models import batch, labels, tiny_model

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering
from lxmert_tf.layers.dropout import Dropout
from lxmert_tf.layers.transformer import LxmertIntermediate

tf = pytest.importorskip("tensorflow")
if keras.backend.backend() != "tensorflow":
    pytest.skip("gradients are taken by TensorFlow here", allow_module_level=True)

SHALLOW = {"l_layers": 0, "r_layers": 0}


def generators(model) -> list:
    return [layer.seed_generator for layer in model._flatten_layers() if isinstance(layer, Dropout)]


def two_steps(model_class, checkpointing: bool, jit_compile: bool | None, **sizes):
    """Loss, gradients and seeds of the second of two training steps with dropout; None: eager."""
    rates = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.2}
    model = tiny_model(model_class, dtype="float64", **rates, **sizes)
    for i, generator in enumerate(generators(model)):
        generator.state.assign([i, 0])
    if checkpointing:
        model.gradient_checkpointing_enable()
    inputs = {**batch(model), **labels(model)}

    def step():
        with tf.GradientTape() as tape:
            loss = model(inputs, training=True).loss
        gradients = tape.gradient(loss, model.trainable_weights)
        return loss, [tf.zeros(()) if gradient is None else tf.convert_to_tensor(gradient) for gradient in gradients]

    if jit_compile is not None:
        step = tf.function(step, jit_compile=jit_compile, autograph=False)
    step()
    return *step(), [generator.state.numpy() for generator in generators(model)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "jit_compile", "sizes"),
    [
        (TFLxmertForPreTraining, None, {"x_layers": 2}),
        (TFLxmertForPreTraining, False, SHALLOW),
        (TFLxmertForQuestionAnswering, True, {**SHALLOW, "x_layers": 2}),
    ],
    ids=["eager", "graph", "xla"],
)
def test_loss_gradients_and_dropout_stay_the_same(model_class, jit_compile, sizes):
    """Those of an eager step without it."""
    loss, gradients, seeds = two_steps(model_class, True, jit_compile, **sizes)
    expected, others, other_seeds = two_steps(model_class, False, None, **sizes)
    np.testing.assert_allclose(loss, expected, rtol=1e-13 if jit_compile is None else 1e-12)
    for one, other in zip(gradients, others, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(seeds, other_seeds)
    assert np.max(np.array(seeds)[:, 1]) == 4  # the dropout of cross attention, twice in a step


@pytest.mark.parametrize("checkpointing", [True, False])
def test_layers_are_computed_again_for_the_gradient(checkpointing, monkeypatch):
    model = tiny_model(TFLxmertForPreTraining)
    if checkpointing:
        model.gradient_checkpointing_enable()
    computed = []
    call = LxmertIntermediate.call
    monkeypatch.setattr(LxmertIntermediate, "call", lambda self, x: (computed.append(self.path), call(self, x))[1])
    with tf.GradientTape() as tape:
        loss = model({**batch(model), **labels(model)}, training=True).loss
    forward = sorted(computed)
    assert len(forward) == 5  # two language layers, one vision layer, both streams of a cross layer
    tape.gradient(loss, model.trainable_weights)
    assert sorted(computed) == sorted(forward * (2 if checkpointing else 1))


def test_it_can_be_switched_off_again_and_what_was_compiled_is_forgotten():
    model = tiny_model()
    model.compile(optimizer="sgd", run_eagerly=True)
    model.train_on_batch({**batch(model), **labels(model)})
    assert model.train_function is not None
    model.gradient_checkpointing_enable()
    assert model.train_function is None
    assert model.lxmert.encoder.gradient_checkpointing and model.is_gradient_checkpointing
    model.gradient_checkpointing_disable()
    assert not model.lxmert.encoder.gradient_checkpointing and not model.is_gradient_checkpointing
