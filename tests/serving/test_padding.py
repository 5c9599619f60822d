"""The batching trap: TF Serving fills up what it batches with the first number of each tensor, in masks too."""

import numpy as np
import pytest
from support.golden import assert_close
from support.serving import REL, TASKS, batched, random_inputs

import lxmert_tf
from lxmert_tf.input_table import IMAGE_INPUTS
from lxmert_tf.serving.client import GrpcClient
from lxmert_tf.serving.client.padding import pad_boxes, pad_text, server_proof

CLS, SEP = 2, 3  # in the tests' vocabulary


@pytest.fixture(scope="module")
def client(server):
    client = GrpcClient(server["grpc"], "qa")
    yield client
    client.close()


def requests_of(exports, *sizes):
    """Requests of these many examples, tokens and boxes: texts `[CLS] ... [SEP]`, and no padding of their own."""
    config = lxmert_tf.LxmertConfig.from_pretrained(exports / "qa")
    made = [random_inputs(config, *size, seed) for seed, size in enumerate(sizes)]
    for request in made:
        request["input_ids"][:, 0], request["input_ids"][:, -1], request["token_type_ids"][:, 0] = CLS, SEP, 0
        for name in ("attention_mask", "visual_attention_mask"):
            request[name][:] = 1
    return made


@pytest.fixture(scope="module")
def requests(exports):
    """Of them, the one of two examples has the most boxes: those of its second example could not be told."""
    return requests_of(exports, (1, 3, 2), (2, 5, 9), (1, 9, 7))


def alone(client, requests, signature="serving_default"):
    return np.concatenate([client.predict(request, signature)["logits"] for request in requests])


def test_a_batch_filled_up_by_the_server_gives_what_each_request_gives(client, requests):
    wanted = alone(client, requests)
    assert_close(client.predict(batched(requests))["logits"], wanted, REL)
    trusting = batched(requests)
    assert trusting["attention_mask"].all() and trusting["visual_attention_mask"].all()  # so masks alone do not help


def test_masks_that_begin_with_minus_one_tell_padding_in_any_request(client, exports):
    """Where texts do not begin with [CLS], boxes look like padding, and requests have several examples."""
    plain = requests_of(exports, (1, 3, 2), (3, 9, 7), (1, 5, 9))
    for request in plain:
        request["input_ids"][:, 0] = 7
    plain[0]["visual_feats"][:], plain[0]["visual_pos"][:] = 0, 0
    plain[1]["visual_feats"][:, -2:], plain[1]["visual_pos"][:, -2:] = 0, 0
    plain[1]["visual_feats"][1, 0, 0] = plain[1]["visual_pos"][1, 0, 0] = 0
    for name in ("attention_mask", "visual_attention_mask"):
        plain[1][name][2, 0] = 0
    odd = [{n: server_proof(v) if n.endswith("attention_mask") else v for n, v in request.items()} for request in plain]
    wanted = alone(client, odd)
    assert_close(client.predict(batched(odd))["logits"], wanted, REL)
    model = lxmert_tf.TFLxmertForQuestionAnswering.from_pretrained(exports / "qa")
    assert_close(wanted, np.concatenate([model(request).question_answering_score for request in plain]), REL)


def test_without_masks_filled_up_requests_still_answer_alike(client, requests):
    kept = ("input_ids", "visual_feats", "visual_pos")
    bare = [{name: request[name] for name in kept} for request in requests]
    wanted = alone(client, bare, "serving_default_unmasked")
    assert_close(client.predict(batched(bare), "serving_default_unmasked")["logits"], wanted, REL)


def test_encoded_images_of_different_box_counts_share_a_batch(client, requests):
    visual = [{n: v for n, v in request.items() if n in IMAGE_INPUTS} for request in requests]
    encoded = [client.predict(each, "encode_image") for each in visual]
    text = [{n: v for n, v in request.items() if n not in IMAGE_INPUTS} for request in requests]
    pairs = [{**words, **image} for words, image in zip(text, encoded, strict=True)]
    wanted = alone(client, requests)
    assert_close(client.predict(batched(pairs), "answer_encoded")["logits"], wanted, REL)
    together = client.predict(batched(visual), "encode_image")
    np.testing.assert_array_equal(together["visual_attention_mask"].sum(1), [2, 9, 9, 7])


def test_padding_of_a_client_changes_nothing(client, requests):
    examples = [{name: value[row] for name, value in r.items()} for r in requests for row in range(len(r["input_ids"]))]
    padded = {
        **pad_text([e["input_ids"] for e in examples], token_type_ids=[e["token_type_ids"] for e in examples]),
        **pad_boxes([e["visual_feats"] for e in examples], [e["visual_pos"] for e in examples]),
    }
    assert padded["visual_feats"].shape[:2] == (4, 9)
    assert_close(client.predict(padded)["logits"], alone(client, requests), REL)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["qa", "reasoning"])
def test_padding_is_not_computed(exports, task, monkeypatch):
    """Places at the end that no example uses cost nothing."""
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
    inputs = random_inputs(model.config, 2, 12, 9, seed=3, num_images=model.num_images)
    inputs["attention_mask"][:], inputs["visual_attention_mask"][:] = [[0] * 12, [1] * 12], 1
    answer(**{name: tf.constant(value) for name, value in inputs.items()})
    inputs["attention_mask"][0], inputs["attention_mask"][:, 5:] = 1, 0
    inputs["visual_attention_mask"][..., 7:] = 0
    padded = answer(**{name: tf.constant(value) for name, value in inputs.items()})["logits"]
    boxes = np.s_[:, :7] if task == "qa" else np.s_[:, :, :7]
    cut = {name: value[boxes if name in IMAGE_INPUTS else np.s_[:, :5]] for name, value in inputs.items()}
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
    visual = {name: tf.constant(value[:1]) for name, value in inputs.items() if name in IMAGE_INPUTS}
    encoded = signatures["encode_image"](**visual)
    text = {name: tf.constant(inputs[name]) for name in ("input_ids", "attention_mask", "token_type_ids")}
    padded = signatures["answer_encoded"](**text, **encoded)["logits"]
    for name in ("visual_feats", "visual_pos", "visual_attention_mask"):
        inputs[name] = np.repeat(inputs[name][:1], 3, axis=0)
    assert sizes == [[[3, 5], [1, 7, model.config.hidden_size]]]
    whole = signatures["serving_default"](**{name: tf.constant(value) for name, value in inputs.items()})
    assert_close(padded, whole["logits"], REL)


def test_padding_is_told_from_the_example_alone():
    from lxmert_tf.serving.graph_inputs import real_rows

    features, boxes = np.ones((4, 3, 5), "float32"), np.full((4, 3, 4), 0.5, "float32")
    features[:, 1:], boxes[:, 1:], boxes[:, 0, 0] = 0, 0, 0.3
    features[1, 0, 0] = features[2:, 0, 0] = boxes[2:, 0, 0] = 0
    mask = np.array([[1, 1, 1], [1, 1, 1], [1, 1, 1], [-1, 1, 1]], "int32")
    # Only what begins with zeros is filled up with them, and only where the mask is filled up with 1
    assert real_rows(mask, features, boxes).numpy().tolist() == [[1, 1, 1], [1, 1, 1], [1, 0, 0], [1, 1, 1]]
    mask[2] = [1, 1, 0]
    assert real_rows(mask, features, boxes).numpy()[2].tolist() == [1, 1, 0]  # nothing is filled up inside


def test_the_second_image_of_an_example_is_filled_up_with_the_first_number_of_the_first():
    from lxmert_tf.serving.graph_inputs import real_rows

    rng = np.random.default_rng(0)
    features, boxes = rng.random((2, 2, 4, 5), "float32"), rng.random((2, 2, 4, 4), "float32")
    for value in (features, boxes):
        value[0, 1, 2:], value[1, 1, 2:] = value[0, 0, 0, 0], value[1, 1, 0, 0]
    mask = np.ones((2, 2, 4), "int32")
    assert real_rows(mask, features, boxes).numpy()[:, 1].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    mask[0, 0, 0] = -1
    assert real_rows(mask, features, boxes).numpy()[0].tolist() == [[1, 1, 1, 1], [1, 1, 1, 1]]


def test_a_text_masked_throughout_is_its_first_token_and_an_image_one_box_of_zeros(client, exports):
    """Whatever they are filled up to; the model would attend to all places, padding too."""
    model = lxmert_tf.TFLxmertForQuestionAnswering.from_pretrained(exports / "qa")
    inputs = random_inputs(model.config, 2, 6, 4, seed=6)
    inputs["attention_mask"][0], inputs["visual_attention_mask"][1] = 0, 0
    plain = {name: value.copy() for name, value in inputs.items()}
    plain["attention_mask"][0, 0] = plain["visual_attention_mask"][1, 0] = 1
    plain["visual_feats"][1], plain["visual_pos"][1] = 0, 0
    wanted = model(plain).question_answering_score
    text = {name: value for name, value in inputs.items() if name not in IMAGE_INPUTS}
    visual = {name: value for name, value in inputs.items() if name in IMAGE_INPUTS}
    encoded = client.predict(visual, "encode_image")
    assert_close(client.predict(inputs)["logits"], wanted, REL)
    assert_close(client.predict({**text, **encoded}, "answer_encoded")["logits"], wanted, REL)
    longer = {name: np.pad(v, [(0, 0), (0, 3), (0, 0)][: v.ndim]) for name, v in inputs.items()}
    assert_close(client.predict(longer)["logits"], wanted, REL)


def test_texts_and_boxes_that_only_resemble_padding_count(client, exports):
    """[CLS] inside a text, or at its end but not after [SEP], equal boxes: none of it is padding."""
    import torch
    from support.serving import pytorch_model

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
