"""lxmert_tf gives what upstream and the original code give, entry by entry, under each Keras backend."""

from functools import cache

import keras
import numpy as np
import pytest
from support.golden import (
    GOLDEN,
    PRETRAINING_LOSSES,
    REL32,
    REL64,
    REL_FLOAT32_SUM,
    assert_close,
    assert_gradients_close,
    expected,
    golden_inputs,
    golden_labels,
)
from support.models import flat, to_numpy

from conversion import names
from lxmert_tf import (
    LxmertConfig,
    TFLxmertForPreTraining,
    TFLxmertForQuestionAnswering,
    TFLxmertForVisualReasoning,
    TFLxmertModel,
)

BACKEND = keras.backend.backend()
PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [("float64", REL64), ("float32", REL32)])
EVERYTHING = {"output_attentions": True, "output_hidden_states": True}


@cache
def loaded(model_class, folder, dtype):
    """A model that tests only call."""
    return model_class.from_pretrained(GOLDEN / folder, dtype=dtype)


def labels():
    given = golden_labels()
    given["masked_lm_labels"] = given.pop("labels")
    return given


@PRECISIONS
@pytest.mark.parametrize("folder", ["hf_pt_model", "hf_tf_model", "hf_pt_pretraining"])
@pytest.mark.parametrize("name", ["model", "model_required_inputs_only"])
def test_model(folder, name, dtype, tolerance):
    inputs = golden_inputs()
    if name == "model_required_inputs_only":
        inputs = {key: inputs[key] for key in ("input_ids", "visual_feats", "visual_pos")}
    model = loaded(TFLxmertModel, folder, dtype)
    actual, wanted = flat(model(**inputs, **EVERYTHING)), expected(name)
    assert list(actual) == list(wanted)
    for key, value in wanted.items():
        assert actual[key].dtype == dtype
        assert_close(actual[key], value, tolerance, key)


@PRECISIONS
def test_pretraining_logits(dtype, tolerance):
    model = loaded(TFLxmertForPreTraining, "hf_pt_pretraining", dtype)
    output, wanted = model(**golden_inputs()), expected("pretraining")
    assert output.loss is None
    for name in ("prediction_logits", "cross_relationship_score", "question_answering_score"):
        assert_close(to_numpy(output[name]), wanted[name], tolerance, name)
    regions = model.obj_predict_head(model.lxmert(**golden_inputs()).vision_output)
    for name in ("obj", "attr", "feat"):
        assert_close(to_numpy(regions[name]), wanted[f"visual_{name}_logits"], tolerance, name)


@PRECISIONS
@pytest.mark.parametrize("name", PRETRAINING_LOSSES)
def test_pretraining_loss_alone(name, dtype, tolerance):
    given = labels()
    argument = {"masked_lm": "masked_lm_labels", "matched": "matched_label"}.get(name, name)
    chosen = {argument: given[argument]} if argument in given else {"obj_labels": {name: given["obj_labels"][name]}}
    output = loaded(TFLxmertForPreTraining, "hf_pt_pretraining", dtype)(**golden_inputs(), **chosen)
    assert list(output.losses) == [f"{name}_loss"]
    assert_close(to_numpy(output.loss), expected("pretraining")[f"loss.{name}"], max(tolerance, REL_FLOAT32_SUM), name)


@PRECISIONS
def test_pretraining_losses_together_and_gradients(dtype, tolerance):
    model = loaded(TFLxmertForPreTraining, "hf_pt_pretraining", dtype)
    loss, gradients = loss_and_gradients(model, "pretraining", **golden_inputs(), **labels())
    assert_close(loss, expected("pretraining")["loss"], max(tolerance, REL_FLOAT32_SUM), "loss")
    if gradients is not None:
        assert_gradients_close(gradients, expected("pretraining_gradients"), tolerance)


@PRECISIONS
def test_question_answering_and_gradients(dtype, tolerance):
    model = TFLxmertForQuestionAnswering.from_pretrained(GOLDEN / "hf_pt_qa", dtype=dtype)
    inputs = {**golden_inputs(), "labels": golden_labels()["ans"]}
    score = to_numpy(model(**inputs).question_answering_score)
    assert_close(score, expected("qa")["question_answering_score"], tolerance, "question_answering_score")
    loss, gradients = loss_and_gradients(model, "qa", **inputs)
    assert_close(loss, expected("qa")["loss"], tolerance, "loss")
    if gradients is not None:
        assert_gradients_close(gradients, expected("qa_gradients"), tolerance)


@PRECISIONS
def test_original_pretraining(dtype, tolerance):
    pytest.importorskip("torch", reason="the original's checkpoints are pickles, which torch reads")
    config = LxmertConfig.from_pretrained(GOLDEN / "hf_pt_pretraining", visual_loss_normalizer=1 / 0.15)
    model = TFLxmertForPreTraining.from_pretrained(GOLDEN / "original" / "Epoch20_LXRT.pth", dtype=dtype, config=config)
    output, wanted = model(**golden_inputs(visual_mask=False), **labels()), expected("original/pretraining")
    assert_close(to_numpy(output.loss), wanted["loss"], tolerance, "loss")
    assert_close(to_numpy(output.question_answering_score), wanted["answer_score"], tolerance, "answer_score")
    each = wanted["losses_masked_lm_matched_obj_attr_feat_ans"]
    for name, value in zip(PRETRAINING_LOSSES, each, strict=True):
        assert_close(to_numpy(output.losses[f"{name}_loss"]), value, tolerance, name)


@PRECISIONS
def test_original_vqa(dtype, tolerance):
    pytest.importorskip("torch", reason="the original's checkpoints are pickles, which torch reads")
    config = LxmertConfig.from_pretrained(GOLDEN / "hf_pt_qa")
    path = GOLDEN / "original" / "vqa_BEST.pth"
    model = TFLxmertForQuestionAnswering.from_pretrained(path, dtype=dtype, config=config)
    inputs, wanted = golden_inputs(visual_mask=False), expected("original/vqa")
    assert_close(to_numpy(model.lxmert(**inputs).pooled_output), wanted["pooled"], tolerance, "pooled")
    assert_close(to_numpy(model(**inputs).question_answering_score), wanted["logit"], tolerance, "logit")


@PRECISIONS
def test_original_nlvr2(dtype, tolerance):
    pytest.importorskip("torch", reason="the original's checkpoints are pickles, which torch reads")
    config = LxmertConfig.from_pretrained(GOLDEN / "hf_pt_qa")
    path = GOLDEN / "original" / "nlvr2_BEST.pth"
    model = TFLxmertForVisualReasoning.from_pretrained(path, dtype=dtype, config=config)
    inputs, wanted = golden_inputs(visual_mask=False), expected("original/nlvr2")
    for name in ("visual_feats", "visual_pos"):
        inputs[name] = np.stack([inputs[name], np.roll(inputs[name], 1, axis=0)], axis=1)  # image i and image i - 1
    assert_close(to_numpy(model(**inputs).logits), wanted["logit"], tolerance, "logit")


def loss_and_gradients(model, task, **inputs):
    """The loss and its gradients by PyTorch name, in PyTorch layout; no gradients outside TensorFlow."""
    if BACKEND != "tensorflow":
        return to_numpy(model(**inputs).loss), None
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = model(**inputs).loss
    row = {row.keras: row for row in names.rows(model.config, task)}
    variables = model.trainable_weights
    gradients = {}
    for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
        if gradient is not None:
            it = row[variable.path.partition("/")[2]]
            gradients[it.torch] = names.LAYOUTS[it.layout].inverse(tf.convert_to_tensor(gradient).numpy())
    return loss.numpy(), gradients
