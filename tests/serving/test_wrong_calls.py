"""Calls of the clients that cannot be meant say so before anything is sent."""

import numpy as np
import pytest

from lxmert_tf.serving.client import Client, InvalidRequestError, RestClient
from lxmert_tf.serving.client.padding import pad_boxes

FEATURES, BOXES = np.ones((2, 3, 8), "float32"), np.ones((2, 3, 4), "float32")


class Recording(Client):
    """A client that answers nothing and keeps what it would send."""

    closed = False

    def close(self):
        self.closed = True

    def _predict(self, inputs, signature, timeout):
        self.sent = inputs
        return {"top_ids": np.zeros((1, 0), int), "top_scores": np.zeros((1, 0))}

    def _versions(self, timeout):
        raise NotImplementedError


@pytest.mark.parametrize("as_lists", [True, False], ids=["lists", "arrays"])
def test_features_and_boxes_of_different_number_are_refused_for_each_image(as_lists):
    given = list if as_lists else np.asarray
    with pytest.raises(ValueError, match="image 0: 3 features but 4 boxes"):
        pad_boxes(given(FEATURES), given(np.ones((2, 4, 4))))
    with pytest.raises(ValueError, match="image 0: 3 features but 2 places in the mask"):
        pad_boxes(given(FEATURES), given(BOXES), given(np.ones((2, 2), int)))
    with pytest.raises(ValueError, match="image 1: 3 features but 1 boxes"):
        pad_boxes(list(FEATURES), [BOXES[0], BOXES[1, :1]])
    with pytest.raises(ValueError, match="features of 2 images but boxes of 1"):
        pad_boxes(given(FEATURES), given(BOXES[:1]))
    with pytest.raises(ValueError, match="image 0: 3 features but 5 boxes"):
        pad_boxes(given(np.ones((1, 2, 3, 8))), given(np.ones((1, 2, 5, 4))))


def test_right_boxes_of_images_and_pairs_are_kept():
    padded = pad_boxes([FEATURES[0], FEATURES[1, :2]], [BOXES[0].tolist(), BOXES[1, :2].tolist()])
    assert padded["visual_pos"].shape == (2, 3, 4) and padded["visual_attention_mask"].tolist() == [
        [-1, 1, 1],
        [-1, 1, 0],
    ]
    pairs = pad_boxes(np.ones((1, 2, 3, 8)), np.ones((1, 2, 3, 4)))
    assert pairs["visual_attention_mask"].tolist() == [[[-1, 1, 1], [-1, 1, 1]]]


@pytest.mark.parametrize("as_lists", [True, False], ids=["lists", "arrays"])
def test_one_image_without_the_axis_of_images_is_told_so(as_lists):
    features, boxes = (value[0].tolist() if as_lists else value[0] for value in (FEATURES, BOXES))
    with pytest.raises(
        ValueError, match=r"visual_feats must be \[images, boxes, \.\.\.\], got one image of shape \(3, 8\)"
    ):
        pad_boxes(features, boxes)


def test_questions_that_are_no_list_of_texts_are_refused():
    client = Recording("localhost:1", "m")
    for ask in (
        lambda questions: client.answer(questions, FEATURES, BOXES),
        lambda questions: client.answer_encoded(questions, {"visual_attention_mask": np.ones((1, 3))}),
    ):
        with pytest.raises(TypeError, match=r"must be a list of texts, got one text: pass \['what\?'\]"):
            ask("what?")
        with pytest.raises(TypeError, match="question 1 must be text, got NoneType"):
            ask(["what?", None])
    with pytest.raises(TypeError, match="questions must hold numbers or texts, got NoneType"):
        client.predict({"questions": ["what?", None]})


def test_texts_are_sent_as_bytes_whatever_they_come_as():
    client = Recording("localhost:1", "m")
    for questions in (["é", "what"], ["é".encode(), b"what"], np.array([b"\xc3\xa9", b"what"])):
        client.predict({"questions": questions})
        assert client.sent["questions"].tolist() == ["é".encode(), b"what"]


def test_servers_deadlines_and_retries_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="HOST:PORT without http://"):
        RestClient("http://localhost:8501", "m")
    for timeout in (0, -1, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="timeout must be a finite number of seconds above 0"):
            RestClient("localhost:1", "m", timeout=timeout)
    with pytest.raises(ValueError, match="retries must be 0 or more"):
        RestClient("localhost:1", "m", retries=-1)


@pytest.mark.parametrize("name", ["", "a/b", "a b"])
def test_names_and_labels_that_no_url_could_hold_are_refused(name):
    with pytest.raises(ValueError, match="A model's name must be letters"):
        RestClient("localhost:1", name)
    with pytest.raises(ValueError, match="A version label must be letters"):
        RestClient("localhost:1", "m", label=name)
    with pytest.raises(ValueError, match="HOST:PORT"):
        RestClient("localhost:65536", "m")


def test_ids_that_no_32_bits_hold_are_refused_and_not_wrapped():
    client = Recording("localhost:1", "m")
    for ask in (
        lambda ids: client.predict({"input_ids": ids}),
        lambda ids: client.answer_ids({"input_ids": ids}, FEATURES, BOXES),
    ):
        with pytest.raises(
            ValueError, match="input_ids must hold 32-bit integers, got values between 2 and 4294967301"
        ):
            ask([[2, 2**32 + 5, 3]] * 2)
    with pytest.raises(TypeError, match="input_ids must hold integers, got float64"):
        client.answer_ids({"input_ids": [[2.5, 3.0]] * 2}, FEATURES, BOXES)


def test_requests_with_nothing_in_them_are_refused():
    client = Recording("localhost:1", "m")
    with pytest.raises(ValueError, match="questions must not be empty"):
        client.answer([], FEATURES, BOXES)
    with pytest.raises(ValueError, match="input_ids has no tokens"):
        client.answer_ids({"input_ids": [[], []]}, FEATURES, BOXES)
    for features, boxes in (
        (FEATURES[:, :0], BOXES[:, :0]),
        ([FEATURES[0], FEATURES[1, :0]], [BOXES[0], BOXES[1, :0]]),
    ):
        with pytest.raises(ValueError, match=r"image . has no boxes"):
            client.answer(["a", "b"], features, boxes)
    with pytest.raises(ValueError, match="lacks vision_states, visual_attention_mask"):
        client.answer_encoded(["a"], {})
    with pytest.raises(TypeError, match="inputs must be arrays by name, got str"):
        client.predict("serving_default", {})


def test_a_question_without_an_image_of_its_own_is_told_what_to_do():
    with pytest.raises(ValueError, match=r"3 questions but 2 images: .* use encode_image and answer_encoded"):
        Recording("localhost:1", "m").answer(["a"] * 3, FEATURES, BOXES)


def test_a_client_is_closed_at_the_end_of_its_block():
    with Recording("localhost:1", "m") as client:
        assert not client.closed
    assert client.closed
    with RestClient("localhost:1", "m") as rest:
        rest.close()


def test_what_an_assertion_of_the_graph_says_is_one_readable_sentence():
    client = Recording("localhost:1", "m")
    for message, said in (
        ("[x must be [batch, boxes, 9], got shape] [4 9]", "x must be [batch, boxes, 9], got shape [4 9]"),
        ("[boxes in 0..1, got values between] [3] [and] [640]", "boxes in 0..1, got values between 3 and 640"),
    ):
        message = f"assertion failed: {message}\n\t [[{{{{node serve/Assert}}}}]]"
        assert str(client._failure(InvalidRequestError, message)) == f"localhost:1, model m: {said}"
    assert str(client._failure(InvalidRequestError, "a\x00\x18b")).endswith("a  b")
