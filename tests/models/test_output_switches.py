"""A config's switches of outputs, in every combination, with whatever is done with a model."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.models import TASK_MODELS, batch, labels, tiny_model

from lxmert_tf import (
    TFLxmertForPreTraining,
    TFLxmertForQuestionAnswering,
    TFLxmertForVisualReasoning,
    TFLxmertModel,
)
from lxmert_tf.outputs import named_outputs

SWITCHES = [
    dict(zip(("output_attentions", "output_hidden_states", "return_dict"), values, strict=True))
    for values in itertools.product((False, True), repeat=3)
]
DEFAULT, EVERYTHING = SWITCHES[1], SWITCHES[-1]
SMALL = {"l_layers": 2, "r_layers": 1}
SHALLOW = {"l_layers": 1, "r_layers": 0}


def name_of(value) -> str:
    if not isinstance(value, dict):
        return value.__name__
    return "+".join(name for name, on in value.items() if on) or "none"


@pytest.fixture(scope="module")
def plain():
    """What models without switches report, by class: computed once."""
    results = {}

    def of(model_class):
        if model_class not in results:
            results[model_class] = trained(tiny_model(model_class, **SHALLOW))
        return results[model_class]

    return of


def trained(model) -> list[dict]:
    """The logs of steps with labels beside the inputs and among them, metrics included."""
    x, y = batch(model), labels(model)
    metrics = ["accuracy"] if len(y) == 1 else {"matched": "accuracy"}
    model.compile(keras.optimizers.SGD(0.01), metrics=metrics, run_eagerly=True, jit_compile=False)
    return [
        model.fit(x, y, verbose=0).history,
        model.evaluate(x, y, verbose=0, return_dict=True),
        model.evaluate({**x, **y}, verbose=0, return_dict=True),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "switches"),
    [
        *((TFLxmertForQuestionAnswering, switches) for switches in SWITCHES if switches != DEFAULT),
        *((model_class, {**EVERYTHING, "return_dict": False}) for model_class in TASK_MODELS[::2]),
    ],
    ids=name_of,
)
def test_training_is_the_same(plain, model_class, switches):
    for got, wanted in zip(trained(tiny_model(model_class, **SHALLOW, **switches)), plain(model_class), strict=True):
        assert got.keys() == wanted.keys()
        for name, value in wanted.items():
            np.testing.assert_allclose(got[name], value, rtol=2e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("switches", [EVERYTHING, {**DEFAULT, "return_dict": False}], ids=name_of)
def test_a_loss_of_ones_own_sees_the_answers_alone(switches):
    model = tiny_model(**SHALLOW, **switches)
    x, y = batch(model), labels(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.0), loss=loss, metrics=["accuracy"], run_eagerly=True)
    wanted = float(tiny_model(**SHALLOW)(**x, **y, return_dict=True).loss)
    for given in ((x, y["labels"]), (x, y), ({**x, **y}, None)):
        assert model.fit(*given, verbose=0).history["loss"][0] == pytest.approx(wanted, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("switches", [EVERYTHING, {**EVERYTHING, "return_dict": False}], ids=name_of)
def test_predict_and_wrapping(switches):
    model = tiny_model(TFLxmertModel, **SMALL, **switches)
    x = batch(model)
    wanted = model(x)
    predicted = model.predict(x, batch_size=2, verbose=0)
    assert type(predicted) is type(wanted)
    keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-5), predicted, wanted)
    inputs = {name: keras.Input(value.shape[1:], dtype=value.dtype.name, name=name) for name, value in x.items()}
    around = keras.Model(inputs, keras.tree.flatten(model(inputs)))
    for got, one in zip(around(x), keras.tree.flatten(wanted), strict=True):
        np.testing.assert_allclose(got, one, rtol=2e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "switches"),
    [(TFLxmertForVisualReasoning, {**EVERYTHING, "return_dict": False}), (TFLxmertForPreTraining, EVERYTHING)],
    ids=name_of,
)
def test_export_gives_one_tensor_for_all_layers(model_class, switches, tmp_path):
    model = tiny_model(model_class, **SMALL, **switches)
    model.export(tmp_path / "saved_model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "saved_model")
    x = batch(model)
    outputs = loaded.signatures["serving_default"](**{name: tf.constant(value) for name, value in x.items()})
    with named_outputs():
        wanted = model(x)
    assert set(outputs) == set(wanted)
    for name, value in wanted.items():
        if isinstance(value, tuple):
            value = np.stack([each.numpy() for each in value], axis=1)
            if model.num_images == 2:
                value = value.reshape(3, 2, *value.shape[1:])
        np.testing.assert_allclose(outputs[name], value, rtol=2e-5, atol=2e-5, err_msg=name)
