"""Weights of examples and classes act on the models' own losses as on those of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.models import TASK_MODELS, batch, labels, tiny_model

from lxmert_tf import TFLxmertForPreTraining
from lxmert_tf.losses import masked_word_loss

SMALL = {"l_layers": 1, "r_layers": 0}
EXAMPLES = 5
WEIGHTS = np.array([0.0, 2.0, 0.5, 1.0, 3.0])
TOLERANCE = 1e-12  # float64


@pytest.fixture(scope="module", params=TASK_MODELS, ids=lambda model_class: model_class.__name__)
def model(request):
    return tiny_model(request.param, dtype="float64", **SMALL)


def one_by_one(model, x, y) -> tuple[dict, dict]:
    """What each example alone gives: the sum of each loss, and over how many it is."""
    sums, counts = {}, {}
    for i in range(EXAMPLES):
        output = model(**keras.tree.map_structure(lambda each, i=i: each[i : i + 1], {**x, **y}))
        for name, value in output.losses.items():
            count = float(output.counts[name])
            sums.setdefault(name, []).append(float(value) * count)
            counts.setdefault(name, []).append(count)
    return sums, counts


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 5])
def test_each_example_weighs_as_it_is_told_in_batches_of_any_size(model, size):
    x, y = batch(model, EXAMPLES), labels(model, EXAMPLES)
    sums, counts = one_by_one(model, x, y)
    wanted = {name: np.dot(WEIGHTS, each) / max(sum(counts[name]), 1) for name, each in sums.items()}
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    for given in (model.evaluate(x, y, sample_weight=WEIGHTS, batch_size=size, verbose=0, return_dict=True),):
        assert given["loss"] == pytest.approx(sum(wanted.values()), rel=TOLERANCE)
        for name in set(given) - {"loss"}:
            assert given[name] == pytest.approx(wanted[name], rel=TOLERANCE), name
    inside = model.evaluate({**x, **y}, sample_weight=WEIGHTS, batch_size=size, verbose=0, return_dict=True)
    assert inside["loss"] == pytest.approx(given["loss"], rel=TOLERANCE)


def test_fit_takes_the_weighted_gradient(model):
    x, y = batch(model, EXAMPLES), labels(model, EXAMPLES)
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(0.125), run_eagerly=True)
    model.fit(x, y, sample_weight=WEIGHTS, batch_size=EXAMPLES, verbose=0)
    after = model.get_weights()
    model.set_weights(before)
    with tf.GradientTape() as tape:
        loss = sum(
            loss.value for loss in model.compute_losses(model(**x), y, tf.constant(WEIGHTS), training=False).values()
        )
    variables = model.trainable_variables
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        if gradient is not None:
            variable.assign_sub(0.125 * tf.convert_to_tensor(gradient))
    for one, other in zip(model.get_weights(), after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)
    model.set_weights(before)


def test_the_loss_of_an_answer_is_that_of_keras():
    model = tiny_model(dtype="float64", **SMALL)
    x, y = batch(model, EXAMPLES), labels(model, EXAMPLES)["labels"]
    scores = model(x).question_answering_score
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype="float64")
    model.compile(keras.optimizers.SGD(0.0), weighted_metrics=["accuracy"], run_eagerly=True)
    got = model.evaluate(x, y, sample_weight=WEIGHTS, verbose=0, return_dict=True)
    assert got["loss"] == pytest.approx(float(loss(y, scores, WEIGHTS)), rel=TOLERANCE)
    right = scores.numpy().argmax(-1) == y
    assert got["accuracy"] == pytest.approx(np.average(right, weights=WEIGHTS))
    soft = np.random.default_rng(0).random((EXAMPLES, 5))
    binary = keras.losses.BinaryCrossentropy(from_logits=True, dtype="float64")
    got = model.evaluate(x, soft, sample_weight=WEIGHTS, verbose=0, return_dict=True)
    assert got["loss"] == pytest.approx(5 * float(binary(soft, scores, WEIGHTS)), rel=1e-9)  # as TensorFlow rounds it


@pytest.mark.parametrize("style", ["bare", "dict", "inside", "dataset"])
def test_class_weights_wherever_the_labels_are(style):
    model = tiny_model(dtype="float64", **SMALL)
    x, y = batch(model, EXAMPLES), labels(model, EXAMPLES)
    y["labels"][1] = -100
    by_class = {0: 1.0, 1: 4.0, 2: 0.0, 3: 2.5, 4: 1.0}
    weights = np.array([by_class.get(label, 1.0) for label in y["labels"]])
    wanted = sum(each.value for each in model.compute_losses(model(**x), y, tf.constant(weights)).values())
    data = {"bare": (x, y["labels"]), "dict": (x, y), "inside": ({**x, **y}, None)}.get(style)
    if style == "dataset":
        y["labels"][1], wanted = 0, None  # Keras' own look-up of a class in a dataset knows no -100
        data = (tf.data.Dataset.from_tensor_slices((x, y["labels"])).batch(EXAMPLES), None)
        weights = np.array([by_class[label] for label in y["labels"]])
        wanted = sum(each.value for each in model.compute_losses(model(**x), y, tf.constant(weights)).values())
    model.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    history = model.fit(*data, class_weight=by_class, shuffle=False, verbose=0).history
    assert history["loss"][0] == pytest.approx(float(wanted), rel=1e-6)  # Keras makes its weights float32


def test_weights_of_hidden_words():
    rng = np.random.default_rng(0)
    tensors = [tf.constant(rng.standard_normal(shape)) for shape in ((70, 7), (41, 7), (41,))]
    words = tf.constant(np.where(rng.random(70) < 0.5, rng.integers(0, 41, 70), -100))
    doubled = masked_word_loss(*tensors, words, tf.constant(np.full(70, 2.0)))
    np.testing.assert_allclose(doubled, 2 * masked_word_loss(*tensors, words), rtol=TOLERANCE)


@pytest.mark.parametrize("weights", [np.ones(2), np.ones((3, 4)), np.ones(())], ids=["number", "axes", "scalar"])
def test_weights_of_another_shape_are_refused(weights):
    model = tiny_model(TFLxmertForPreTraining, **SMALL)
    with pytest.raises(ValueError, match=r"sample_weight must have shape \[3\], one for each example, got"):
        model.compute_loss(batch(model), {"ans": np.array([1, 0, 2])}, model(batch(model)), weights)


def test_weights_by_the_names_of_labels():
    model = tiny_model(TFLxmertForPreTraining, dtype="float64", **SMALL)
    x, y = batch(model), labels(model)
    output = model(**x)
    once = model.compute_losses(output, y)
    twice = model.compute_losses(output, y, {"ans": np.full(3, 2.0), "obj_labels": {"attr": (np.full(3, 2.0), None)}})
    for name, loss in once.items():
        factor = 2 if name in ("ans_loss", "attr_loss") else 1
        np.testing.assert_allclose(twice[name].value, factor * loss.value, rtol=TOLERANCE)
