"""Relevance beyond what upstream can do: attributions, pairs of images, names of answers, rows of nothing."""

import numpy as np
import pytest
from keras import ops
from support.explain import ROUNDING
from support.golden import assert_close
from support.models import batch, tiny_config, tiny_model

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertForVisualReasoning, TFLxmertModel
from lxmert_tf.explain import attention_maps, relevance
from lxmert_tf.explain.methods import answer_ids


@pytest.fixture(scope="module")
def small():
    return tiny_model(l_layers=1, dtype="float64")


def test_gradient_times_input(small):
    inputs = batch(small)
    check_padding(relevance(small, inputs, answer=1, method="gradient_times_input"), inputs)


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True])
def test_integrated_gradients_sum_up_to_what_the_score_gains(small, fresh):
    # Of a fresh model, whose embeddings are small, nearly all of the way is gone within 1e-4 of it.
    model = TFLxmertForQuestionAnswering(tiny_config(l_layers=1), dtype="float64") if fresh else small
    inputs = batch(model)
    why = relevance(model, inputs, answer=[0, 1, 2], method="integrated_gradients", steps=40)
    check_padding(why, inputs)
    nothing = {**inputs, "visual_feats": 0 * inputs["visual_feats"], "inputs_embeds": np.zeros((3, 7, 12))}
    del nothing["input_ids"]
    gained = why.scores - ops.convert_to_numpy(model(nothing).question_answering_score)
    delta = why.tokens.sum(1) + why.boxes.sum(1) - gained[range(3), range(3)]
    assert_close(why.convergence_delta, delta, 1e-12, scale=1.0)
    assert np.abs(delta).max() < 1e-6  # the error of the quadrature: 1e-7 is measured


def test_only_the_end_of_the_quadrature_is_seen_in_its_delta(small):
    rough = relevance(small, batch(small), 1, "integrated_gradients", steps=2)
    assert np.abs(rough.convergence_delta).max() > 1e-3
    assert relevance(small, batch(small), 1, "raw_attention").convergence_delta is None


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32", "mixed_float16"])
def test_all_floats_have_one_dtype(dtype):
    model = tiny_model(l_layers=1, dtype=dtype)
    for method in ("gradcam", "integrated_gradients"):
        why = relevance(model, batch(model), 1, method, steps=2)
        wanted = "float64" if dtype == "float64" else "float32"
        assert {each.dtype for each in (why.tokens, why.boxes, why.scores)} == {np.dtype(wanted)}


def test_inputs_may_be_lists(small):
    inputs = batch(small)
    lists = {name: value.tolist() for name, value in inputs.items()}
    for method in ("chefer", "integrated_gradients"):
        ours, theirs = (relevance(small, each, 1, method, steps=2) for each in (inputs, lists))
        assert_close(ours.tokens, theirs.tokens, ROUNDING)
    assert set(attention_maps(small, lists)) == set(attention_maps(small, inputs))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"visual_feat": 1}, ValueError, "^unknown input 'visual_feat'; did you mean 'visual_feats'"),
        ({"x": 1}, ValueError, "^unknown input 'x'; inputs are input_ids, visual_feats"),
        ({"visual_pos": None}, ValueError, "^visual_pos is missing"),
        ({"input_ids": [[1, 2], [3], [4]]}, ValueError, "^input_ids has rows of different lengths"),
        (None, TypeError, "^inputs must be a dict of arrays by name, got list"),
    ],
)
def test_wrong_inputs(small, changes, error, message):
    inputs = [1] if changes is None else {**batch(small), **changes}
    for function in (attention_maps, relevance):
        with pytest.raises(error, match=message):
            function(small, inputs)


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
    assert list(answer_ids(small, ["2", "0", "4"], 3, 5)) == [4, 0, 4]  # a name comes before an id


@pytest.mark.parametrize("answer", ["True", True, 1])
def test_answers_of_visual_reasoning(answer):
    model = tiny_model(TFLxmertForVisualReasoning, l_layers=1)
    assert list(relevance(model, batch(model), answer, "raw_attention").answers) == [1, 1, 1]


def test_true_is_no_id(small):
    for answer in (True, np.True_, [0, False, 1]):
        with pytest.raises(TypeError, match=r"answer must be a name or a row, got (True|False)"):
            relevance(small, batch(small), answer, "raw_attention")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lime"}, "method must be one of chefer, rollout"),
        ({"answer": 5}, r"id in 0\.\.4 or a name, got 5"),
        ({"answer": [0, 1]}, "one for each of 3 examples, got 2"),
        ({"answer": "purple"}, "'purple' is none of the model's 5 answers"),
        ({"answer": 1.5}, "got 1.5"),
        ({"steps": 0}, "steps must be a whole number from 1 up, got 0"),
        ({"steps": 2.5}, "got 2.5"),
    ],
)
def test_errors(small, options, message):
    with pytest.raises(ValueError, match=message):
        relevance(small, batch(small), **options)


def test_a_model_without_answers():
    model = tiny_model(TFLxmertModel)
    with pytest.raises(ValueError, match="TFLxmertModel has no answers to explain"):
        relevance(model, batch(model))
