"""Wrong inputs are refused with a sentence that says what to change, eagerly and in a graph."""

import numpy as np
import pytest
import tensorflow as tf
from support.models import batch, labels, tiny_model

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForVisualReasoning, TFLxmertModel
from lxmert_tf.input_table import IMAGE_INPUTS


def without(*names):
    return lambda inputs: {name: value for name, value in inputs.items() if name not in names}


def with_(**changes):
    return lambda inputs: {**inputs, **{name: change(inputs) for name, change in changes.items()}}


WRONG = {
    "neither ids nor embeddings": (without("input_ids"), "either input_ids or inputs_embeds; got neither"),
    "both ids and embeddings": (with_(inputs_embeds=lambda i: np.zeros((3, 7, 12), "float32")), "got both"),
    "no features": (without("visual_feats"), "visual_feats is missing"),
    "no boxes": (without("visual_pos"), "visual_pos is missing"),
    "flat ids": (with_(input_ids=lambda i: i["input_ids"][0]), r"input_ids must have shape \[examples, tokens\]"),
    "flat features": (with_(visual_feats=lambda i: i["visual_feats"][0]), r"visual_feats must have shape .*rank 3"),
    "feature width": (with_(visual_feats=lambda i: i["visual_feats"][..., :4]), r"\[examples, boxes, 9\], got shape"),
    "box width": (with_(visual_pos=lambda i: i["visual_pos"][..., :3]), r"\[examples, boxes, 4\], got shape"),
    "batch": (with_(visual_feats=lambda i: i["visual_feats"][:2]), "same number of examples, got 2 and 3"),
    "box count": (with_(visual_pos=lambda i: i["visual_pos"][:, :4]), "same number of boxes, got 4 and 5"),
    "mask length": (with_(attention_mask=lambda i: i["attention_mask"][:, :3]), "same number of tokens, got 3 and 7"),
    "visual mask": (with_(visual_attention_mask=lambda i: i["attention_mask"]), "same number of boxes, got 7 and 5"),
    "too long": (
        lambda i: {**without("attention_mask", "token_type_ids")(i), "input_ids": np.ones((3, 17), "int32")},
        "more than max_position_embeddings=16",
    ),
    "float ids": (with_(input_ids=lambda i: i["input_ids"].astype("float32")), "input_ids must hold integers"),
    "no tokens": (
        lambda i: {**without("attention_mask", "token_type_ids")(i), "input_ids": np.ones((3, 0), "int32")},
        "input_ids has no tokens",
    ),
    "unknown name": (with_(pixels=lambda i: i["visual_feats"]), "hold 'pixels', which is none of"),
}


@pytest.fixture(scope="module")
def backbone():
    return tiny_model(TFLxmertModel)


@pytest.mark.slow
@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("graph", [False, True], ids=["eager", "graph"])
def test_wrong_inputs(backbone, name, graph):
    change, message = WRONG[name]
    model = backbone
    call = tf.function(lambda x: model(x)) if graph else model
    with pytest.raises(ValueError, match=message):
        call(change(batch(model)))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("input_ids", 37, r"input_ids must lie in 0..36 \(vocab_size=37\), got 37"),
        ("input_ids", -1, "got -1"),
        ("token_type_ids", 2, r"token_type_ids must lie in 0..1 \(type_vocab_size=2\), got 2"),
    ],
)
def test_ids_out_of_range_are_refused_eagerly(name, value, message):
    model = tiny_model(TFLxmertModel)
    inputs = batch(model)
    inputs[name][1, 2] = value
    with pytest.raises(ValueError, match=message):
        model(inputs)


def test_inputs_of_unknown_rank():
    model = tiny_model()
    signature = {name: tf.TensorSpec(None, value.dtype) for name, value in batch(model).items()}
    call = tf.function(lambda x: model(x), input_signature=[signature])
    with pytest.raises(ValueError, match=r"rank of input_ids is unknown; .* a shape such as \[None, None\]"):
        call(batch(model))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [-1, -99, 5])
def test_answer_ids_out_of_range(wrong):
    model = tiny_model()
    given = np.array([0, wrong, -100], "int32")
    with pytest.raises(ValueError, match=rf"labels must lie in 0..4 .* or be -100 to be ignored, got {wrong}"):
        model(**batch(model), labels=given)
    model.compile(optimizer="sgd", jit_compile=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match=rf"labels must lie in 0..4 .*\[{min(wrong, -100)}\]"):
        model.evaluate(batch(model), given, verbose=0)


@pytest.mark.parametrize("name", ["masked_lm_labels", "matched_label", "ans", "obj_labels"])
def test_pretraining_labels_out_of_range(name):
    model = tiny_model(TFLxmertForPreTraining)
    given = labels(model)
    if name == "obj_labels":
        given[name]["attr"][0][1, 2] = 6
    else:
        given[name][1] = 99
    with pytest.raises(ValueError, match=f"{name}.* must lie in"):
        model(**batch(model), **given)


def test_another_number_of_labels():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"Labels must have shape \[3\], as their predictions have, got \[2\]"):
        model(**batch(model), labels=np.zeros(2, "int32"))


def test_visual_reasoning_wants_two_images():
    model = tiny_model(TFLxmertForVisualReasoning)
    inputs = batch(model)
    with pytest.raises(ValueError, match=r"\[examples, 2, boxes, 9\]"):
        model({**inputs, "visual_feats": inputs["visual_feats"][:, 0]})


def test_labels_of_a_wrong_shape():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"labels must be int\[B\] answer ids or float\[B, 5\] soft scores"):
        model(**batch(model), labels=np.zeros((3, 4), "float32"))


def test_pretraining_labels_under_both_names():
    model = tiny_model(TFLxmertForPreTraining)
    words = labels(model)["masked_lm_labels"]
    with pytest.raises(ValueError, match="another name for masked_lm_labels"):
        model(**batch(model), masked_lm_labels=words, labels=words)


def test_unknown_visual_label():
    model = tiny_model(TFLxmertForPreTraining)
    with pytest.raises(ValueError, match="obj_labels holds 'color', which is none of obj, attr, feat"):
        model(**batch(model), obj_labels={"color": (np.zeros((3, 5)), np.ones((3, 5)))})


def test_fit_without_labels():
    model = tiny_model()
    model.compile(optimizer="sgd", jit_compile=False)
    with pytest.raises(ValueError, match="no labels to train on"):
        model.fit(batch(model), verbose=0)


def test_fit_with_bare_labels_where_there_are_several():
    model = tiny_model(TFLxmertForPreTraining)
    model.compile(optimizer="sgd", jit_compile=False)
    with pytest.raises(ValueError, match="several labels: y must be a dict"):
        model.fit(batch(model), np.zeros(3), verbose=0)


def test_config_of_a_wrong_type():
    with pytest.raises(TypeError, match="config must be an LxmertConfig, got dict"):
        TFLxmertModel({"hidden_size": 12})


def test_lists_of_numbers_are_arrays():
    """A tokenizer without `return_tensors` gives such."""
    model = tiny_model()
    inputs, given = batch(model), labels(model)
    wanted = model({**inputs, **given})
    lists = {name: value.tolist() for name, value in {**inputs, **given}.items()}
    for output in (model(lists), model(**lists), model(lists.pop("input_ids"), **lists)):
        np.testing.assert_allclose(output.loss, wanted.loss, rtol=1e-6)
    encoded = model.encode_image(**{name: value for name, value in lists.items() if name in IMAGE_INPUTS})
    text = {name: lists[name] for name in ("attention_mask", "token_type_ids")}
    answered = model.answer_encoded(inputs["input_ids"].tolist(), **encoded, **text)
    np.testing.assert_allclose(answered.question_answering_score, wanted.question_answering_score, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="input_ids has rows of different lengths"):
        model([[2, 5, 3], [2, 3]], inputs["visual_feats"][:2], inputs["visual_pos"][:2])


def test_an_image_without_features_or_boxes():
    model = tiny_model()
    with pytest.raises(ValueError, match="visual_pos is missing"):
        model.encode_image(np.zeros((1, 2, 9), "float32"), None)
    with pytest.raises(ValueError, match="visual_feats is missing"):
        model.encode_image(None, np.zeros((1, 2, 4), "float32"))


@pytest.mark.slow
def test_batches_of_nothing():
    """What a data set without examples for one of several workers gives."""
    for model in (tiny_model(), tiny_model(TFLxmertForVisualReasoning)):
        inputs = {name: value[:0] for name, value in batch(model).items()}
        specs = {name: tf.TensorSpec((None, *value.shape[1:]), value.dtype) for name, value in inputs.items()}
        call = tf.function(lambda x, model=model: flat_scores(model(x)), input_signature=[specs])
        assert flat_scores(model(inputs)).shape[0] == 0 and call(inputs).shape[0] == 0
    model, inputs = tiny_model(), batch(tiny_model())
    encoded = model.encode_image(inputs["visual_feats"], inputs["visual_pos"])
    with pytest.raises(ValueError, match="vision_states has 3 images and input_ids has 0 texts"):
        model.answer_encoded(inputs["input_ids"][:0], **encoded)


def flat_scores(output):
    return output["logits"] if "logits" in output else output["question_answering_score"]
