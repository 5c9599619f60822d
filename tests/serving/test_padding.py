"""The batching trap: TF Serving fills up what it batches with the first number of each tensor, in masks too."""

import numpy as np
import pytest
from helpers import assert_close
from serving_helpers import REL, random_inputs

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
