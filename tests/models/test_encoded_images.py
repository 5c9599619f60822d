"""Images encoded once answer their questions as the one-shot call does, in every way a model is run."""

import keras
import numpy as np
import pytest
from support.golden import assert_close
from support.models import batch, flat, labels, tiny_model, to_numpy

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertForVisualReasoning, TFLxmertModel
from lxmert_tf.input_table import ENCODED_INPUTS, INPUTS

# The same sums, of which some leave out what is not read: they differ by the order of additions at most.
TOLERANCE = 1e-12
DEEP = {"l_layers": 2, "r_layers": 2, "x_layers": 3}
IMAGE = ("visual_feats", "visual_pos", "visual_attention_mask")
SHARED = {"one image": 1, "two images of three questions": 2, "an image each": 6}

tensorflow_only = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a test of tf.function or export")


def questions_about(images: int, model, questions: int = 6) -> tuple[dict, dict, dict]:
    """One-shot inputs of `questions` questions, and their text and images apart, each image once."""
    inputs = batch(model, examples=questions)
    image = {name: inputs[name][:images] for name in IMAGE}
    repeated = {name: np.repeat(value, questions // images, axis=0) for name, value in image.items()}
    text = {name: value for name, value in inputs.items() if name not in IMAGE}
    return {**text, **repeated}, text, image


def assert_equal(actual, expected):
    actual, expected = flat(actual), flat(expected)
    for name, value in actual.items():
        assert_close(value, expected[name], TOLERANCE, name)


@pytest.mark.slow
@pytest.mark.parametrize("images", SHARED.values(), ids=SHARED)
def test_answers_equal_the_one_shot_call(images):
    model = tiny_model(dtype="float64", **DEEP)
    inputs, text, image = questions_about(images, model)
    encoded = model.encode_image(**image)
    assert tuple(encoded["vision_states"].shape) == (images, 5, 12)
    np.testing.assert_array_equal(to_numpy(encoded["visual_attention_mask"]), image["visual_attention_mask"])
    given = labels(model, examples=6)
    output, wanted = model.answer_encoded(**text, **encoded, **given), model(**inputs, **given)
    assert type(output) is type(wanted) and list(output) == list(wanted) == ["loss", "question_answering_score"]
    assert list(output.losses) == list(wanted.losses)
    assert_equal(output, wanted)
    assert_equal(model.answer_encoded({**text, **encoded}), wanted)
    assert isinstance(model.answer_encoded(**text, **encoded, return_dict=False), tuple)


def test_without_a_mask_every_box_counts():
    model = tiny_model(dtype="float64")
    inputs = batch(model)
    image = {name: inputs.pop(name) for name in IMAGE[:2]}
    del inputs["visual_attention_mask"]
    encoded = model.encode_image(**image)
    assert to_numpy(encoded["visual_attention_mask"]).dtype == "int32"
    assert to_numpy(encoded["visual_attention_mask"]).all()
    assert_equal(model.answer_encoded(**inputs, **encoded), model(**inputs, **image))


@pytest.mark.slow
@pytest.mark.parametrize("x_layers", [0, 1, 3])
def test_backbone_encodes_text_with_images(x_layers):
    model = tiny_model(TFLxmertModel, dtype="float64", x_layers=x_layers)
    inputs, text, image = questions_about(2, model)
    encoded, wanted = model.encode_image(**image), model(**inputs)
    output = model.encode_text(**text, **encoded)
    assert list(output) == list(wanted)
    assert_equal(output, wanted)
    for pooled in (
        model.pool(dict.fromkeys(INPUTS) | inputs),
        model.pool_encoded(dict.fromkeys(ENCODED_INPUTS) | text | encoded),
    ):
        assert list(pooled) == ["pooled_output"]
        assert_equal(pooled, wanted)


def test_one_text_with_several_images():
    model = tiny_model(TFLxmertModel, dtype="float64")
    inputs = batch(model, examples=6)
    text = {name: value[:2] for name, value in inputs.items() if name not in IMAGE}
    encoded = model.encode_image(**{name: inputs[name] for name in IMAGE})
    for name, value in text.items():
        inputs[name] = np.repeat(value, 3, axis=0)
    assert_equal(model.encode_text(**text, **encoded), model(**inputs))


@pytest.mark.slow
@pytest.mark.parametrize("images", SHARED.values(), ids=SHARED)
def test_matching_scores_equal_the_one_shot_call(images):
    model = tiny_model(TFLxmertForPreTraining, dtype="float64", **DEEP)
    inputs, text, image = questions_about(images, model)
    encoded, wanted = model.encode_image(**image), model(**inputs).cross_relationship_score
    output = model.match_encoded(**text, **encoded)
    assert type(output).__name__ == "TFLxmertForPreTrainingOutput" and list(output) == ["cross_relationship_score"]
    assert_close(to_numpy(output.cross_relationship_score), to_numpy(wanted), TOLERANCE, "matching")
    (score,) = model.match_encoded({**text, **encoded}, return_dict=False)
    assert_close(to_numpy(score), to_numpy(wanted), TOLERANCE, "matching")


@pytest.mark.parametrize("model_class", [TFLxmertForQuestionAnswering, TFLxmertForVisualReasoning])
def test_heads_answer_the_same_whether_all_else_is_computed_or_not(model_class):
    model = tiny_model(model_class, dtype="float64", **DEEP)
    inputs = batch(model)
    everything = model(**inputs, output_hidden_states=True, output_attentions=True)
    assert len(everything.language_hidden_states) == 5
    assert_equal(model(**inputs), everything)


@pytest.mark.slow
@tensorflow_only
def test_compiled_by_xla():
    import tensorflow as tf

    model = tiny_model(dtype="float64", l_layers=1, x_layers=2)
    inputs, text, image = questions_about(2, model)
    encode = tf.function(lambda x: model.encode_image(**x), jit_compile=True)
    answer = tf.function(lambda x: model.answer_encoded(x), jit_compile=True)
    assert_equal(answer({**text, **encode(image)}), model(**inputs))


@pytest.mark.slow
@tensorflow_only
def test_exported_with_sizes_left_open(tmp_path):
    import tensorflow as tf

    model = tiny_model()
    image_spec = {
        "visual_feats": tf.TensorSpec((None, None, 9)),
        "visual_pos": tf.TensorSpec((None, None, 4)),
        "visual_attention_mask": tf.TensorSpec((None, None), "int32"),
    }
    encoded_spec = {
        "input_ids": tf.TensorSpec((None, None), "int32"),
        "attention_mask": tf.TensorSpec((None, None), "int32"),
        "token_type_ids": tf.TensorSpec((None, None), "int32"),
        "vision_states": tf.TensorSpec((None, None, 12)),
        "visual_attention_mask": tf.TensorSpec((None, None), "int32"),
    }
    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("encode_image", lambda x: model.encode_image(**x), input_signature=[image_spec])
    archive.add_endpoint("answer_encoded", lambda x: dict(model.answer_encoded(x)), input_signature=[encoded_spec])
    archive.write_out(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    for images in SHARED.values():
        inputs, text, image = questions_about(images, model)
        answer = served.answer_encoded({**text, **served.encode_image(image)})["question_answering_score"]
        assert_close(answer, model(**inputs).question_answering_score, 2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"vision_states": None}, "vision_states is missing; encode_image gives it"),
        ({"input_ids": None}, "either input_ids or inputs_embeds; got neither"),
        ({"vision_states": np.zeros((6, 5, 9))}, r"vision_states must have shape \[examples, boxes, 12\]"),
        ({"visual_attention_mask": np.ones((6, 4))}, "same number of boxes, got 4 and 5"),
        (
            {"vision_states": np.zeros((4, 5, 12)), "visual_attention_mask": None},
            "vision_states has 4 images and input_ids has 6 texts; one number must be a multiple",
        ),
        ({"input_ids": np.full((6, 7), 37)}, r"input_ids must lie in 0..36"),
    ],
)
def test_wrong_inputs_are_refused(change, message):
    model = tiny_model()
    _, text, image = questions_about(6, model)
    encoded = model.encode_image(**image)
    with pytest.raises(ValueError, match=message):
        model.answer_encoded({**text, **encoded, **change})
    with pytest.raises(ValueError, match=r"visual_feats must have shape \[examples, boxes, 9\]"):
        model.encode_image(image["visual_feats"][..., :4], image["visual_pos"])
