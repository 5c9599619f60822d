"""Every number that `fit` and `evaluate` report is the mean over what was counted, however a set is divided."""

from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import TASK_MODELS, batch, flat, labels
from support.models import tiny_model as tiny_model_of_any_depth

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertForVisualReasoning
from lxmert_tf.losses import IGNORE_INDEX, answer_loss
from lxmert_tf.metrics import AnswerAccuracy

tiny_model = partial(tiny_model_of_any_depth, l_layers=1, r_layers=0)
EXAMPLES, BOXES = 7, 5
SIZES = (1, 2, 3, 4, 7)
TOLERANCE = 1e-12  # float64, sums of a few dozen numbers


def the_set(model, seed: int):
    """Inputs and labels of 7 examples; of some everything is ignored, and some boxes only fill up their image."""
    rng = np.random.default_rng(seed)
    x, y = batch(model, EXAMPLES, boxes=BOXES, seed=seed), labels(model, EXAMPLES, boxes=BOXES, seed=seed + 1)
    for name in set(y) - {"obj_labels"}:
        y[name][rng.random(EXAMPLES) < 0.4] = IGNORE_INDEX
    if "obj_labels" in y:
        padding = np.arange(BOXES) >= rng.integers(1, BOXES + 1, EXAMPLES)[:, None]
        x["visual_attention_mask"] = (~padding).astype("int32")
        x["visual_feats"][padding] = 0
        for targets, weights in y["obj_labels"].values():
            targets[padding], weights[padding] = 0, 0
    return x, y


def cross_entropies(logits, wanted) -> np.ndarray:
    """The cross entropy of each label that is not ignored."""
    shifted = logits - logits.max(-1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    kept = wanted != IGNORE_INDEX
    return -log_probabilities[kept, wanted[kept]]


def mean(values) -> float:
    return float(np.mean(values)) if len(values) else 0.0


def by_hand(model, x, y) -> dict[str, float]:
    """The losses over the whole set, from the model's outputs."""
    outputs = flat(model(**x))
    if not isinstance(model, TFLxmertForPreTraining):
        logits = outputs.get("question_answering_score", outputs.get("logits"))
        return {"loss": mean(cross_entropies(logits, y["labels"]))}
    regions = model.obj_predict_head(model.lxmert(**x).vision_output)
    regions = {name: keras.ops.convert_to_numpy(value) for name, value in regions.items()}
    real = x["visual_attention_mask"] == 1
    losses = {
        "masked_lm_loss": mean(cross_entropies(outputs["prediction_logits"], y["masked_lm_labels"])),
        "matched_loss": mean(cross_entropies(outputs["cross_relationship_score"], y["matched_label"])),
        "ans_loss": mean(cross_entropies(outputs["question_answering_score"], y["ans"])),
    }
    for name in ("obj", "attr"):
        wanted, weight = y["obj_labels"][name]
        losses[f"{name}_loss"] = mean(cross_entropies(regions[name][real], wanted[real]) * weight[real]) * 6.67
    wanted, weight = y["obj_labels"]["feat"]
    distance = np.abs(regions["feat"] - wanted)
    smooth = np.where(distance < 1, 0.5 * distance**2, distance - 0.5).mean(-1)
    losses["feat_loss"] = mean(smooth[real] * weight[real]) * 6.67
    return {"loss": sum(losses.values()), **losses}


@pytest.fixture(scope="module", params=TASK_MODELS, ids=lambda model_class: model_class.__name__)
def model(request):
    model = tiny_model(request.param, dtype="float64")
    model.compile(optimizer=keras.optimizers.SGD(0.0), jit_compile=False)
    return model


@pytest.mark.slow
@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), size=st.sampled_from(SIZES))
def test_evaluate_reports_the_mean_over_all_labels(model, seed, size):
    x, y = the_set(model, seed)
    wanted = by_hand(model, x, y)
    evaluated = model.evaluate(x, y, batch_size=size, verbose=0, return_dict=True)
    assert evaluated.keys() == wanted.keys()
    for name, value in wanted.items():
        assert evaluated[name] == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE), name


@pytest.mark.slow
def test_fit_reports_the_mean_over_all_labels(model):
    x, y = the_set(model, 11)
    wanted = by_hand(model, x, y)
    fitted = model.fit(x, y, batch_size=3, verbose=0).history
    assert fitted.keys() == wanted.keys()
    for name, value in wanted.items():
        assert fitted[name][0] == pytest.approx(value, rel=TOLERANCE, abs=TOLERANCE), name


@pytest.mark.slow
def test_xla_reports_the_same():
    model = tiny_model(TFLxmertForPreTraining, dtype="float64", l_layers=0)
    x, y = the_set(model, 3)
    model.compile(jit_compile=True)
    wanted = by_hand(model, x, y)
    for name, value in model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True).items():
        assert value == pytest.approx(wanted[name], rel=1e-11), name


def test_a_loss_that_is_not_computed_is_not_reported():
    model = tiny_model(TFLxmertForPreTraining)
    x, y = the_set(model, 3)
    model.compile(run_eagerly=True, jit_compile=False)
    model.evaluate(x, y, verbose=0)
    results = model.evaluate(x, {"matched_label": y["matched_label"]}, verbose=0, return_dict=True)
    assert results.keys() == {"loss", "matched_loss"}
    assert results["loss"] == results["matched_loss"]


def test_what_layers_add_to_the_loss_is_reported_with_it():
    model = tiny_model(TFLxmertForQuestionAnswering, dtype="float64")
    x, y = the_set(model, 3)
    layer = model.get_qa_logit_layer()
    layer.kernel_regularizer = layer._kernel.regularizer = keras.regularizers.L2(0.125)
    model.compile(run_eagerly=True, jit_compile=False)
    added = 0.125 * float((layer.kernel.numpy() ** 2).sum())
    got = model.evaluate(x, y, batch_size=2, verbose=0, return_dict=True)
    assert got["loss"] == pytest.approx(by_hand(model, x, y)["loss"] + added, rel=TOLERANCE)


def test_metrics_are_of_the_labels_that_are_not_ignored():
    model = tiny_model()
    top_two = keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top_two")
    right_class = keras.metrics.SparseCategoricalAccuracy
    model.compile(jit_compile=False, metrics=["accuracy", right_class, top_two])
    for seed, size in ((0, 1), (1, 3), (2, 4), (3, 7)):
        x, y = the_set(model, seed)
        scores, wanted = model(**x).question_answering_score.numpy(), y["labels"]
        kept = wanted != IGNORE_INDEX
        right = mean((scores.argmax(-1) == wanted)[kept])
        among = mean((np.argsort(-scores, -1)[:, :2] == wanted[:, None]).any(-1)[kept])
        got = model.evaluate(x, y, batch_size=size, verbose=0, return_dict=True)
        assert got["accuracy"] == got["sparse_categorical_accuracy"] == pytest.approx(right)
        assert got["top_two"] == pytest.approx(among)


@pytest.mark.parametrize("model_class", [TFLxmertForQuestionAnswering, TFLxmertForVisualReasoning])
def test_labels_with_an_axis_of_one_are_the_same_labels(model_class):
    model = tiny_model(model_class, dtype="float64")
    x, y = the_set(model, 5)
    column = {"labels": y["labels"][:, None]}
    assert float(model(**x, **column).loss) == float(model(**x, **y).loss)
    model.compile(run_eagerly=True, metrics=[AnswerAccuracy()], jit_compile=False)
    flat_result = model.evaluate(x, y, verbose=0, return_dict=True)
    assert model.evaluate(x, column, verbose=0, return_dict=True) == flat_result


@pytest.mark.slow
def test_labels_are_not_broadcast():
    model, pretraining = tiny_model(), tiny_model(TFLxmertForPreTraining)
    x, scores = batch(model, EXAMPLES), np.full((1, 5), 0.5, "float32")
    with pytest.raises(ValueError, match=r"Labels must have shape \[7, 5\]"):
        model(**x, labels=scores)
    of_any_size = {name: tf.TensorSpec((None, *value.shape[1:]), value.dtype) for name, value in x.items()}
    for labels_of_one in (scores, np.array([1])):  # a graph that does not know how many there are
        spec = tf.TensorSpec((None, *labels_of_one.shape[1:]), labels_of_one.dtype)
        loss = tf.function(lambda x, y: model(**x, labels=y).loss, input_signature=[of_any_size, spec])
        with pytest.raises(tf.errors.InvalidArgumentError, match="Labels must have the shape of their predictions"):
            loss(x, labels_of_one)
    x, given = batch(pretraining, BOXES, boxes=BOXES), labels(pretraining, BOXES, boxes=BOXES)["obj_labels"]
    (classes, confidence), (targets, weight) = given["obj"], given["feat"]
    for wrong in (
        {"obj": (classes, confidence[..., None])},
        {"obj": (classes, confidence[0])},
        {"feat": (targets[..., :1], weight)},
        {"feat": (targets[:1], weight)},
        {"feat": (targets, weight[:, :1])},
    ):
        with pytest.raises(ValueError, match="Labels must have shape"):
            pretraining(**x, obj_labels=wrong)


@pytest.mark.parametrize("problem_type", [None, "single_label_classification"])
@pytest.mark.parametrize("wrong", [-100.0, 1.5])
def test_scores_outside_their_range_are_refused(problem_type, wrong):
    model = tiny_model(problem_type=problem_type)
    x, scores = batch(model), np.full((3, 5), 0.5, "float32")
    scores[1, 2] = wrong
    with pytest.raises(ValueError, match=r"labels must be soft scores in 0\.\.1, got"):
        model(**x, labels=scores)
    assert np.isnan(answer_loss(model(**x).question_answering_score, scores, problem_type).value)  # as under XLA


@pytest.mark.parametrize("problem_type", [None, "single_label_classification"])
def test_nothing_to_take_the_mean_of_is_zero(problem_type):
    model = tiny_model(problem_type=problem_type)
    x = {name: value[:0] for name, value in batch(model).items()}
    assert float(model(**x, labels=np.zeros((0, 5), "float32")).loss) == 0
    assert float(model(**x, labels=np.zeros(0, "int32")).loss) == 0
