"""Attention maps, their gradients and relevance are those of upstream's own code, under TensorFlow and PyTorch."""

import keras
import pytest
from keras import ops
from support.explain import CHECKPOINTS, ROUNDING, Golden
from support.golden import GOLDEN, REL64, assert_close, golden_inputs

from lxmert_tf import TFLxmertForQuestionAnswering
from lxmert_tf.explain import attention_gradients, attention_maps, relevance

BACKEND = keras.backend.backend()


@pytest.fixture(scope="module")
def golden():
    """A model in float64, and what upstream makes of it."""
    checkpoint = CHECKPOINTS["three cross layers"]
    model = TFLxmertForQuestionAnswering.from_pretrained(GOLDEN / checkpoint, dtype="float64")
    return model, Golden.of(checkpoint)


def test_maps(golden):
    model, wanted = golden
    maps = attention_maps(model, golden_inputs())
    assert set(maps) == set(wanted.only_maps())
    for name, value in maps.items():
        assert_close(value, wanted.maps[name], REL64, name, scale=1.0)


def test_gradients(golden):
    model, wanted = golden
    ids = ops.convert_to_tensor(wanted.maps["answer_other"])[:, None]

    def objective(output):
        return ops.take_along_axis(output.question_answering_score, ids, axis=1)

    found = attention_gradients(model, golden_inputs(), objective)
    for name, value in wanted.only_maps("gradient_other/").items():
        assert_close(found[name], value, REL64, name)


@pytest.mark.parametrize(("method", "which"), [("chefer", "other"), ("rollout", "top")])
def test_relevance_of_a_padded_batch(golden, method, which):
    model, wanted = golden
    ids = wanted.maps[f"answer_{which}"]
    why = relevance(model, golden_inputs(), None if which == "top" else ids, method)
    assert list(why.answers) == list(ids)
    assert_close(why.scores, wanted.maps["score"], REL64, "scores")
    for row, matrices in wanted.matrices(method, which):
        tokens, boxes = matrices["ti"].shape
        assert_close(why.tokens[row, :tokens], matrices["tt"][0], ROUNDING, "tokens", scale=1.0)
        assert_close(why.boxes[row, :boxes], matrices["ti"][0], ROUNDING, "boxes", scale=1.0)
        assert not why.tokens[row, tokens:].any()
        assert not why.boxes[row, boxes:].any()
