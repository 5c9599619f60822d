"""The batching trap: TF Serving fills up what it batches with the first number of each tensor, in masks too."""

import numpy as np
import pytest
from helpers import assert_close
from serving_helpers import REL, TASKS, random_inputs

import lxmert_tf
from lxmert_tf.serving.client import GrpcClient
from lxmert_tf.serving.padding import pad_boxes, pad_text, server_proof

CLS, SEP = 2, 3  # in the tests' vocabulary


def batched(requests: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The requests in one batch, as TF Serving makes it with pad_variable_length_inputs."""
    columns = {name: [request[name] for request in requests] for name in requests[0]}
    return {name: np.concatenate([_filled_up(value, values) for value in values]) for name, values in columns.items()}


def _filled_up(value: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
    longest = [max(v.shape[axis] for v in values) for axis in range(1, value.ndim)]
    widths = [(0, 0), *((0, size - had) for size, had in zip(longest, value.shape[1:], strict=True))]
    return np.pad(value, widths, constant_values=value.ravel()[0])


@pytest.fixture(scope="module")
def client(server):
    client = GrpcClient(server["grpc"], "qa")
    yield client
    client.close()


@pytest.fixture(scope="module")
def requests(exports):
    """Texts of different lengths, `[CLS] ... [SEP]`, 1, 2 and 1 a request, without padding of their own."""
    config = lxmert_tf.LxmertConfig.from_pretrained(exports / "qa")
    made = [random_inputs(config, *sizes, seed) for seed, sizes in enumerate([(1, 3, 2), (2, 9, 7), (1, 5, 9)])]
    for request in made:
        request["input_ids"][:, 0], request["input_ids"][:, -1] = CLS, SEP
        for name in ("attention_mask", "visual_attention_mask"):
            request[name][:] = 1
    return made


def alone(client, requests, signature="serving_default"):
    return np.concatenate([client.predict(request, signature)["logits"] for request in requests])


def test_a_batch_filled_up_by_the_server_gives_what_each_request_gives(client, requests):
    wanted = alone(client, requests)
    assert_close(client.predict(batched(requests))["logits"], wanted, REL)
    trusting = batched(requests)
    assert trusting["attention_mask"].all() and trusting["visual_attention_mask"].all()  # so masks alone do not help


def test_masks_that_begin_with_minus_one_tell_padding_in_any_text(client, requests):
    """Where the texts do not begin with [CLS], or the boxes look like padding."""
    odd = [{name: value.copy() for name, value in request.items()} for request in requests]
    for request in odd:
        request["input_ids"][:, 0] = 7
        for name in ("attention_mask", "visual_attention_mask"):
            request[name] = server_proof(request[name])
    plain = [{n: np.abs(v) if "mask" in n else v for n, v in request.items()} for request in odd]
    assert_close(client.predict(batched(odd))["logits"], alone(client, plain), REL)


def test_without_masks_filled_up_requests_still_answer_alike(client, requests):
    kept = ("input_ids", "visual_feats", "visual_pos")
    bare = [{name: request[name] for name in kept} for request in requests]
    wanted = alone(client, bare, "serving_default_unmasked")
    assert_close(client.predict(batched(bare), "serving_default_unmasked")["logits"], wanted, REL)


def test_encoded_images_of_different_box_counts_share_a_batch(client, requests):
    visual = [{n: v for n, v in request.items() if n.startswith("visual")} for request in requests]
    encoded = [client.predict(each, "encode_image") for each in visual]
    text = [{n: v for n, v in request.items() if not n.startswith("visual")} for request in requests]
    pairs = [{**words, **image} for words, image in zip(text, encoded, strict=True)]
    wanted = alone(client, requests)
    assert_close(client.predict(batched(pairs), "answer_encoded")["logits"], wanted, REL)
    together = client.predict(batched(visual), "encode_image")
    np.testing.assert_array_equal(together["visual_attention_mask"].sum(1), [2, 7, 7, 9])


def test_padding_of_a_client_changes_nothing(client, requests):
    examples = [{name: value[row] for name, value in r.items()} for r in requests for row in range(len(r["input_ids"]))]
    padded = {
        **pad_text([e["input_ids"] for e in examples], token_type_ids=[e["token_type_ids"] for e in examples]),
        **pad_boxes([e["visual_feats"] for e in examples], [e["visual_pos"] for e in examples]),
    }
    assert padded["visual_feats"].shape[:2] == (4, 9)
    assert_close(client.predict(padded)["logits"], alone(client, requests), REL)


@pytest.mark.parametrize("task", ["qa", "reasoning"])
def test_padding_is_not_computed(exports, task, monkeypatch):
    """Places at the end that no example uses cost nothing, and a row without any place keeps what it attends to."""
    import tensorflow as tf

    from lxmert_tf.serving.signatures import Options, Servable

    model = getattr(lxmert_tf, TASKS[task]).from_pretrained(exports / task)
    sizes = []
    call = type(model).call

    def recorded(self, inputs, **options):
        shapes = tf.shape(inputs["input_ids"])[1], tf.shape(inputs["visual_feats"])[-2]
        tf.numpy_function(lambda *shown: sizes.append(tuple(map(int, shown))), shapes, [])
        return call(self, inputs, **options)

    monkeypatch.setattr(type(model), "call", recorded)
    answer = Servable(model, Options()).signatures["serving_default"]
    inputs = random_inputs(model.config, 2, 12, 9, seed=3, images=getattr(model, "images", None))
    inputs["attention_mask"][:], inputs["visual_attention_mask"][:] = [[0] * 12, [1] * 12], 1
    answer(**{name: tf.constant(value) for name, value in inputs.items()})
    inputs["attention_mask"][0], inputs["attention_mask"][:, 5:] = 1, 0
    inputs["visual_attention_mask"][..., 7:] = 0
    padded = answer(**{name: tf.constant(value) for name, value in inputs.items()})["logits"]
    boxes = np.s_[:, :7] if task == "qa" else np.s_[:, :, :7]
    cut = {name: value[boxes if name.startswith("visual") else np.s_[:, :5]] for name, value in inputs.items()}
    assert_close(padded, answer(**{name: tf.constant(value) for name, value in cut.items()})["logits"], REL)
    assert sizes == [(12, 9), (5, 7), (5, 7)]


def test_padding_of_questions_about_encoded_images_is_not_computed(exports, monkeypatch):
    import tensorflow as tf

    from lxmert_tf.serving.signatures import Options, Servable

    model = lxmert_tf.TFLxmertForQuestionAnswering.from_pretrained(exports / "qa")
    sizes = []
    answer_encoded = type(model).answer_encoded

    def recorded(self, **inputs):
        shapes = tf.shape(inputs["input_ids"]), tf.shape(inputs["vision_states"])
        tf.numpy_function(lambda *shown: sizes.append([shape.tolist() for shape in shown]), shapes, [])
        return answer_encoded(self, **inputs)

    monkeypatch.setattr(type(model), "answer_encoded", recorded)
    signatures = Servable(model, Options()).signatures
    inputs = random_inputs(model.config, 3, 12, 9, seed=3)
    for mask, used in (("attention_mask", 5), ("visual_attention_mask", 7)):
        inputs[mask][:, used - 1], inputs[mask][:, used:] = 1, 0
    visual = {name: tf.constant(value[:1]) for name, value in inputs.items() if name.startswith("visual")}
    encoded = signatures["encode_image"](**visual)
    text = {name: tf.constant(inputs[name]) for name in ("input_ids", "attention_mask", "token_type_ids")}
    padded = signatures["answer_encoded"](**text, **encoded)["logits"]
    for name in ("visual_feats", "visual_pos", "visual_attention_mask"):
        inputs[name] = np.repeat(inputs[name][:1], 3, axis=0)
    assert sizes == [[[3, 5], [1, 7, model.config.hidden_size]]]
    whole = signatures["serving_default"](**{name: tf.constant(value) for name, value in inputs.items()})
    assert_close(padded, whole["logits"], REL)


def test_boxes_of_zeros_count_beside_an_example_whose_features_begin_with_zero():
    from lxmert_tf.serving.inputs import real_rows

    features, boxes = np.ones((2, 3, 5), "float32"), np.full((2, 3, 4), 0.5, "float32")
    features[0, 1:], boxes[0, 1:], features[1, 0, 0], boxes[:, 0, 0] = 0, 0, 0, 0.3
    mask = np.ones((2, 3), "int32")
    assert real_rows(mask, features, boxes).numpy().tolist() == [[1, 1, 1], [1, 1, 1]]
    boxes[1, 0, 0] = 0  # now it is what a server fills up with
    assert real_rows(mask, features, boxes).numpy().tolist() == [[1, 0, 0], [1, 1, 1]]


def test_texts_and_boxes_that_only_resemble_padding_count(client, exports):
    """[CLS] inside a text, or at its end but not after [SEP], equal boxes: none of it is padding."""
    import torch
    from serving_helpers import pytorch_model

    config = lxmert_tf.LxmertConfig.from_pretrained(exports / "qa")
    inputs = random_inputs(config, 2, 6, 4, seed=5)
    inputs["input_ids"][0] = [CLS, 5, SEP, CLS, 9, SEP]
    inputs["input_ids"][1] = [CLS, 5, 7, 9, CLS, CLS]
    inputs["visual_feats"][0] = np.arange(4, dtype="float32")[:, None]  # constant boxes, but of different constants
    inputs["visual_pos"][0] = np.linspace(0.1, 0.9, 4, dtype="float32")[:, None]
    inputs["attention_mask"][:], inputs["visual_attention_mask"][:] = 1, 1
    with torch.no_grad():
        model = pytorch_model("qa", exports / "qa")
        wanted = model(**{name: torch.from_numpy(value) for name, value in inputs.items()}).question_answering_score
    assert_close(client.predict(inputs)["logits"], wanted.numpy(), REL)
