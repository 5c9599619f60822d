"""Relevance beyond what upstream can do: attributions, pairs of images, names of answers, rows of nothing."""

import numpy as np
import pytest
from keras import ops
from support.explain import ROUNDING
from support.golden import assert_close
from support.models import batch, tiny_model

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForVisualReasoning, TFLxmertModel
from lxmert_tf.explain import relevance
from lxmert_tf.explain.methods import answer_ids


@pytest.fixture(scope="module")
def small():
    return tiny_model(l_layers=1, dtype="float64")


def test_gradient_times_input(small):
    inputs = batch(small)
    check_padding(relevance(small, inputs, answer=1, method="gradient_times_input"), inputs)


def test_integrated_gradients_sum_up_to_what_the_score_gains(small):
    inputs = batch(small)
    why = relevance(small, inputs, answer=[0, 1, 2], method="integrated_gradients", steps=40)
    check_padding(why, inputs)
    nothing = {**inputs, "visual_feats": 0 * inputs["visual_feats"], "inputs_embeds": np.zeros((3, 7, 12))}
    del nothing["input_ids"]
    gained = why.scores - ops.convert_to_numpy(small(nothing).question_answering_score)
    # What is left is the error of the quadrature.
    assert_close(why.tokens.sum(1) + why.boxes.sum(1), gained[range(3), range(3)], 1e-4)


def check_padding(why, inputs):
    for found, mask in ((why.tokens, inputs["attention_mask"]), (why.boxes, inputs["visual_attention_mask"])):
        assert (found[mask == 0] == 0).all()
        assert (found[mask == 1] != 0).all()


@pytest.mark.parametrize("method", ["chefer", "gradient_times_input"])
def test_images_of_pairs_each_have_their_boxes(method):
    model = tiny_model(TFLxmertForVisualReasoning, dtype="float64", l_layers=1)
    inputs = batch(model, examples=2)
    why = relevance(model, inputs, answer=1, method=method)
    assert (why.tokens.shape, why.boxes.shape) == ((2, 7), (2, 2, 5))
    assert (why.boxes[inputs["visual_attention_mask"] == 0] == 0).all()
    alone = relevance(model, {name: value[1:] for name, value in inputs.items()}, answer=1, method=method)
    assert_close(alone.tokens[0], why.tokens[1], ROUNDING)
    assert_close(alone.boxes[0], why.boxes[1], ROUNDING)


def test_answers_of_a_pretraining_model():
    model = tiny_model(TFLxmertForPreTraining, l_layers=1)
    assert relevance(model, batch(model), method="raw_attention").scores.shape == (3, 5)


def test_answers_by_name(small):
    small.config.id2label = dict(enumerate(["yes", "no", "red", "blue", "2"]))
    assert list(relevance(small, batch(small), ["red", "2", 1], "raw_attention").answers) == [2, 4, 1]
    assert list(answer_ids(small, "blue", 3, 5)) == [3, 3, 3]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lime"}, "method must be one of chefer, rollout"),
        ({"answer": 5}, r"id in 0\.\.4 or a name, got 5"),
        ({"answer": [0, 1]}, "one for each of 3 examples, got 2"),
        ({"answer": "purple"}, "'purple' is unknown"),
        ({"answer": 1.5}, "got 1.5"),
    ],
)
def test_errors(small, options, message):
    with pytest.raises(ValueError, match=message):
        relevance(small, batch(small), **options)


def test_a_model_without_answers():
    model = tiny_model(TFLxmertModel)
    with pytest.raises(ValueError, match="TFLxmertModel has no answers to explain"):
        relevance(model, batch(model))
