"""Bad requests get an error that says what is wrong, over gRPC and REST, and the server goes on."""

import contextlib

import numpy as np
import pytest
from support.models import tiny_model
from support.serving import random_inputs

import lxmert_tf
from lxmert_tf.input_table import IMAGE_INPUTS
from lxmert_tf.serving.client import GrpcClient, InvalidRequestError, ModelNotFoundError, RestClient


def changed(name, value=None, at=None):
    def change(inputs):
        inputs = dict(inputs)
        if value is None:
            del inputs[name]
        elif at is None:
            inputs[name] = value(inputs[name])
        else:
            inputs[name] = inputs[name].copy()
            inputs[name][at] = value
        return inputs

    return change


def of_one_example(*names):
    return lambda inputs: {n: v[0] if n in names else v for n, v in inputs.items()}


def empty(inputs):
    return {name: value[:0] for name, value in inputs.items()}


BAD = {
    "a missing input": (changed("visual_pos"), "visual_pos"),
    "an unknown input": (lambda inputs: {**inputs, "labels": inputs["input_ids"]}, "labels"),
    "token ids as floats": (changed("input_ids", lambda x: x + 0.5), "int32"),
    "features as integers": (changed("visual_feats", lambda x: x.astype("int64")), "float"),
    "a token id above the vocabulary": (changed("input_ids", 37, (1, 2)), "input_ids must lie in 0..36"),
    "a token id below 0": (changed("input_ids", -1, (0, 0)), "input_ids must lie in 0..36"),
    "a token type out of range": (changed("token_type_ids", 2, (0, 0)), "token_type_ids must lie in 0..1"),
    "a mask of other numbers": (changed("attention_mask", 3, (0, 0)), "attention_mask must hold 1 for tokens"),
    "a visual mask of other numbers": (
        changed("visual_attention_mask", 3, (0, 0)),
        "visual_attention_mask must hold 1",
    ),
    "a box fewer than features": (changed("visual_pos", lambda x: x[:, :-1]), "visual_feats and visual_pos must agree"),
    "a mask of another box count": (
        changed("visual_attention_mask", lambda x: x[:, :-1]),
        "visual_feats and visual_attention_mask must agree",
    ),
    "a mask of another text length": (
        changed("attention_mask", lambda x: x[:, :-1]),
        "input_ids and attention_mask must agree",
    ),
    "more texts than images": (
        lambda inputs: {n: v if n in IMAGE_INPUTS else np.repeat(v, 2, 0) for n, v in inputs.items()},
        "must have the same number of examples",
    ),
    "NaN features": (changed("visual_feats", np.nan, (1, 2, 3)), "visual_feats must be finite"),
    "infinite features": (changed("visual_feats", np.inf, (0, 0, 0)), "visual_feats must be finite"),
    "boxes in pixels": (changed("visual_pos", lambda x: x * 640), "boxes in 0..1, not in pixels, got values between"),
    "a NaN box": (changed("visual_pos", np.nan, (0, 0, 0)), "visual_pos must be finite"),
    "features without a batch": (of_one_example("visual_feats"), "must be [batch, boxes, 9], got shape [4 9]"),
    "boxes without a batch": (of_one_example("visual_pos"), "visual_pos must be [batch, boxes, 4], got shape [4 4]"),
    "ids without a batch": (of_one_example("input_ids"), "input_ids must be [batch, tokens], got shape 5"),
    "a visual mask without a batch": (of_one_example("visual_attention_mask"), "must be [batch, boxes], got shape 4"),
    "features with an axis too many": (
        changed("visual_feats", lambda x: x[None]),
        "visual_feats must be [batch, boxes, 9], got shape [1 2 4 9]",
    ),
    "features of another width": (changed("visual_feats", lambda x: np.repeat(x, 2, 2)), "9 values per box"),
    "boxes of another width": (changed("visual_pos", lambda x: x[..., :2]), "visual_pos must have 4 values per box"),
    "an empty batch": (empty, "must not be empty"),
    "no boxes": (
        lambda inputs: {n: v[:, :0] if n in IMAGE_INPUTS else v for n, v in inputs.items()},
        "must not be empty",
    ),
    "10,000 tokens": (
        lambda inputs: {n: v if n in IMAGE_INPUTS else np.repeat(v, 2000, 1) for n, v in inputs.items()},
        "input_ids must have at most 64 tokens",
    ),
}


@pytest.fixture(scope="module")
def inputs(exports):
    return random_inputs(lxmert_tf.LxmertConfig.from_pretrained(exports / "qa"), 2, 5, 4, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BAD)
def test_a_bad_request_is_an_error_that_tells_and_the_server_goes_on(kind, inputs, server):
    change, said = BAD[kind]
    client = GrpcClient(server["grpc"], "qa")
    with pytest.raises(InvalidRequestError) as caught:
        client.predict(change(inputs))
    assert said in str(caught.value)
    assert "node" not in str(caught.value)  # what the graph's nodes are called is nobody's business
    assert np.isfinite(client.predict(inputs)["logits"]).all()
    client.close()


# JSON has neither NaN nor empty tensors with a shape, and TF Serving reads an integer as a float where one is wanted
NOT_IN_JSON = ("NaN", "infinite", "empty", "no boxes", "features as integers", "unknown")


@pytest.mark.parametrize("kind", [kind for kind in BAD if not any(words in kind for words in NOT_IN_JSON)])
def test_rest_says_the_same(kind, inputs, server):
    change, said = BAD[kind]
    with pytest.raises(InvalidRequestError) as caught:
        RestClient(server["rest"], "qa").predict(change(inputs))
    assert said in str(caught.value) and caught.value.code == 400


def visual(inputs):
    return {name: value for name, value in inputs.items() if name in IMAGE_INPUTS}


@pytest.mark.parametrize(
    ("questions", "said"),
    [
        (["what " * 70, "is"], "questions must have at most 64 tokens"),
        ([b"what \xff", b"is"], "questions must be UTF-8 text"),
        (["what"], "must have the same number of examples"),
        ([["what"], ["is"]], "questions must be [batch], got shape [2 1]"),
    ],
)
def test_bad_questions(questions, said, inputs, server):
    client = GrpcClient(server["grpc"], "qa")
    with pytest.raises(InvalidRequestError) as caught:
        client.predict({"questions": questions, **visual(inputs)}, "answer_text")
    assert said in str(caught.value)
    client.close()


@pytest.mark.parametrize("signature", ["serving_default_unmasked", "encode_image", "encode_image_unmasked"])
def test_one_image_without_a_batch_is_told_so_by_every_signature(signature, inputs, server):
    names = {"serving_default_unmasked": ("input_ids", "visual_feats", "visual_pos")}.get(
        signature, tuple(visual(inputs))
    )
    names = [n for n in names if "mask" not in n or signature == "encode_image"]
    with GrpcClient(server["grpc"], "qa") as client, pytest.raises(InvalidRequestError) as caught:
        client.predict({n: inputs[n][0] for n in names}, signature)
    assert "must be [batch, " in str(caught.value)


def test_bad_encoded_images(inputs, server):
    client = GrpcClient(server["grpc"], "qa")
    encoded = client.predict(visual(inputs), "encode_image")
    text = {name: np.repeat(value, 3, 0)[:5] for name, value in inputs.items() if name not in IMAGE_INPUTS}
    with pytest.raises(InvalidRequestError, match="as many examples as vision_states, or a multiple"):
        client.predict({**text, **encoded}, "answer_encoded")
    text = {name: value[:2] for name, value in text.items()}
    with pytest.raises(InvalidRequestError, match="vision_states must be finite"):
        client.predict({**text, **encoded, "vision_states": encoded["vision_states"] * np.nan}, "answer_encoded")
    with pytest.raises(InvalidRequestError, match="visual_feats must be finite"):
        client.predict({**visual(inputs), "visual_feats": inputs["visual_feats"] * np.nan}, "encode_image")
    client.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "largest", "fits", "too_large"), [("float16", "65504", 65504, 65520), ("bfloat16", "3.3", 65520, 3.4e38)]
)
def test_numbers_that_half_precision_does_not_hold(dtype, largest, fits, too_large):
    import tensorflow as tf

    from lxmert_tf.serving.signatures import Options, Servable

    model = tiny_model(dtype=dtype, l_layers=1)
    servable = Servable(model, Options())  # which holds the weights
    given = random_inputs(model.config, 2, 5, 4, seed=0)

    def predict(signature, inputs):
        names = servable.signatures[signature].structured_input_signature[1]
        return servable.signatures[signature](**{name: tf.constant(inputs[name]) for name in names})

    encoded = {name: value.numpy() for name, value in predict("encode_image", given).items()}
    for signature, name in (
        ("serving_default", "visual_feats"),
        ("encode_image", "visual_feats"),
        ("answer_encoded", "vision_states"),
    ):
        inputs = {**given, **(encoded if name == "vision_states" else {}), name: {**given, **encoded}[name].copy()}
        if name == "visual_feats":
            inputs[name][1, 2, 3] = fits
            assert all(np.isfinite(v).all() for v in predict(signature, inputs).values())
        inputs[name][1, 2, 3] = too_large
        said = f"{name} must be finite in {dtype}, whose largest number is {largest}.*, got values between"
        with pytest.raises(tf.errors.InvalidArgumentError, match=said):
            predict(signature, inputs)
    inputs = {**given, "visual_feats": np.full_like(given["visual_feats"], 60000)}
    for signature, name in (("serving_default", "question_answering_score"), ("encode_image", "vision_states")):
        said = f"visual_feats must be smaller for float16, whose largest number is 65504: {name} overflows"
        refused = pytest.raises(tf.errors.InvalidArgumentError, match=said)
        with refused if dtype == "float16" else contextlib.nullcontext():
            assert all(np.isfinite(v).all() for v in predict(signature, inputs).values())


def test_an_unknown_signature_model_and_version(inputs, server):
    for make, port in ((GrpcClient, "grpc"), (RestClient, "rest")):
        with pytest.raises(InvalidRequestError, match="answer_everything"):
            make(server[port], "qa").predict(inputs, "answer_everything")
        with pytest.raises(ModelNotFoundError, match="nobody"):
            make(server[port], "nobody").predict(inputs)
        with pytest.raises(ModelNotFoundError, match="9"):
            make(server[port], "qa", version=9).predict(inputs)
        with pytest.raises(InvalidRequestError, match="canary"):
            make(server[port], "qa", label="canary").predict(inputs)
