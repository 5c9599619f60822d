"""The clients against real sockets: answers, choice of version, deadlines, retries, and errors that tell."""

import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from support.serving import LABELS, random_inputs, serving

import lxmert_tf
from lxmert_tf.input_table import IMAGE_INPUTS
from lxmert_tf.serving.client import (
    Answer,
    DeadlineExceeded,
    GrpcClient,
    InvalidRequestError,
    ModelNotFoundError,
    RestClient,
    ServingError,
    Unavailable,
    connect,
)

CLIENTS = {"rest": RestClient, "grpc": GrpcClient}
both = pytest.mark.parametrize("protocol", CLIENTS)


@pytest.fixture(scope="module")
def inputs(exports):
    return random_inputs(lxmert_tf.LxmertConfig.from_pretrained(exports / "qa"), 3, 6, 5, seed=1)


@pytest.fixture(scope="module")
def visual(inputs):
    return {name: value for name, value in inputs.items() if name in IMAGE_INPUTS}


def same(one: list[list[Answer]], other: list[list[Answer]]) -> None:
    assert [[(a.text, a.id) for a in row] for row in one] == [[(a.text, a.id) for a in row] for row in other]
    scores = ([[a.score for a in row] for row in rows] for rows in (one, other))
    np.testing.assert_allclose(*scores, rtol=0, atol=1e-5)


@both
def test_strings_ids_and_encoded_images_get_the_same_answers(protocol, visual, exports, server):
    client = CLIENTS[protocol](server[protocol], "qa")
    questions = ["what is in the picture?", "cafés color", "is it"]
    answers = client.answer(questions, **visual)
    assert [len(row) for row in answers] == [5, 5, 5] and all(a.text == LABELS[a.id] for row in answers for a in row)
    assert all(row == sorted(row, key=lambda a: -a.score) for row in answers)
    tokenizer = lxmert_tf.LxmertTokenizer.from_pretrained(exports / "qa")
    text = tokenizer(questions)  # lists of different length
    same(client.answer_ids(text, **visual), answers)
    same(client.answer([question.encode() for question in questions], **visual), answers)
    encoded = client.encode_image(**visual)
    same(client.answer_encoded(questions, encoded), answers)
    same(client.answer_encoded(text, encoded), answers)
    one = {name: value[:1] for name, value in encoded.items()}
    shared = client.answer_encoded(questions, one)
    same(shared[:1], answers[:1])
    ragged = (
        [visual["visual_feats"][0], visual["visual_feats"][1, :2]],
        [visual["visual_pos"][0], visual["visual_pos"][1, :2]],
    )
    alone = [client.answer([q], [f], [b])[0] for q, f, b in zip(questions, *ragged, strict=False)]
    same(client.answer(questions[:2], *ragged), alone)


def test_both_protocols_give_the_same_numbers(inputs, server):
    rest, grpc = (CLIENTS[p](server[p], "qa").predict(inputs) for p in CLIENTS)
    assert set(rest) == set(grpc)
    for name, value in grpc.items():
        assert rest[name].shape == value.shape
        if value.dtype.kind == "f":
            np.testing.assert_allclose(rest[name], value, rtol=0, atol=1e-6)
        else:
            np.testing.assert_array_equal(rest[name], value)
    assert rest["top_ids"].dtype == np.int32


def test_a_server_that_batches_gets_an_image_for_every_question(visual, server, monkeypatch):
    """TF Serving with batching takes only inputs of one length, and says so."""
    client = GrpcClient(server["grpc"], "qa")
    encoded = {name: value[:1] for name, value in client.encode_image(**visual).items()}
    wanted = client.answer_encoded(["what", "is", "color"], encoded)
    whole = client._predict

    def batching(inputs, signature, timeout):
        if len({len(value) for value in inputs.values()}) > 1:
            raise InvalidRequestError("Batching session Run() input tensors must have equal 0th-dimension size")
        return whole(inputs, signature, timeout)

    monkeypatch.setattr(client, "_predict", batching)
    same(client.answer_encoded(["what", "is", "color"], encoded), wanted)


@both
def test_versions_and_labels(protocol, exports, server, inputs):
    make = CLIENTS[protocol]
    assert make(server[protocol], "qa").versions() == {1: "AVAILABLE"}
    latest = make(server[protocol], "qa").predict(inputs)["logits"]
    for choice in ({"version": 1}, {"label": "stable"}):
        np.testing.assert_array_equal(make(server[protocol], "qa", **choice).predict(inputs)["logits"], latest)
    with pytest.raises(ModelNotFoundError):
        make(server[protocol], "qa", version=2).predict(inputs)
    with pytest.raises(ValueError, match="not both"):
        make(server[protocol], "qa", version=1, label="stable")


def test_a_deadline_ends_the_call_and_the_server_goes_on(exports, inputs):
    with serving(f"model={exports / 'models' / 'model'}", options=("--delay", "0.6")) as slow:
        for protocol, make in CLIENTS.items():
            start = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=r"no answer within 0\.2 s"):
                make(slow[protocol], "model", timeout=0.2).predict(inputs)
            assert time.monotonic() - start < 0.55
            with pytest.raises(TimeoutError):
                make(slow[protocol], "model", timeout=0.2).predict(inputs)
            assert np.isfinite(make(slow[protocol], "model").predict(inputs)["pooled_output"]).all()


@pytest.mark.slow
@both
def test_a_server_that_is_not_ready_is_asked_again(protocol, exports, inputs):
    with serving(f"model={exports / 'models' / 'model'}", options=("--unavailable", "5")) as starting:
        make = CLIENTS[protocol]
        with pytest.raises(Unavailable, match="not available yet"):
            make(starting[protocol], "model", retries=1).predict(inputs)  # two attempts
        assert len(make(starting[protocol], "model", retries=3).predict(inputs)["pooled_output"]) == 3


@both
def test_where_no_server_is_the_error_says_where(protocol):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ConnectionError, match=address):
        CLIENTS[protocol](address, "qa", retries=0, timeout=2).versions()
    with pytest.raises(ValueError, match="HOST:PORT"):
        CLIENTS[protocol]("localhost", "qa")


def test_connect_finds_out_the_protocol(server):
    assert isinstance(connect(server["rest"], "qa"), RestClient)
    assert isinstance(connect(server["grpc"], "qa"), GrpcClient)


def test_http_to_the_grpc_port_is_told_as_such(server):
    with pytest.raises(ServingError, match="does not speak HTTP") as caught:
        RestClient(server["grpc"], "qa", retries=0).versions()
    assert str(caught.value).isprintable()


def test_models_without_answers_say_what_they_give(inputs, server):
    with pytest.raises(ServingError, match="pooled_output"):
        GrpcClient(server["grpc"], "model").answer_ids({"input_ids": inputs["input_ids"]}, *list(inputs.values())[3:])


def test_the_rest_client_needs_no_tensorflow(visual, server, tmp_path):
    np.savez(tmp_path / "visual.npz", **visual)
    code = """
import sys
import numpy as np
from lxmert_tf.serving.client import RestClient, connect
client = connect(sys.argv[1], "qa")
answers = client.answer(["what is", "in the", "picture"], **np.load(sys.argv[2]))
assert len(answers) == 3 and isinstance(client, RestClient)
heavy = {"tensorflow", "keras", "grpc", "torch"} & set(sys.modules)
assert not heavy, heavy
"""
    command = [sys.executable, "-c", code, server["rest"], str(tmp_path / "visual.npz")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
