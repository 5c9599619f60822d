"""Attention maps, their gradients and relevance are those of upstream's own code, under TensorFlow and PyTorch."""

import itertools

import keras
import pytest
from keras import ops
from support.explain import CHECKPOINTS, METHODS, ROUNDING, WHICH, Golden
from support.golden import GOLDEN, REL64, assert_close, assert_passes_under, golden_inputs

from lxmert_tf import TFLxmertForQuestionAnswering
from lxmert_tf.explain import attention_gradients, attention_maps, relevance
from lxmert_tf.explain.methods import relevance_matrices

BACKEND = keras.backend.backend()


@pytest.fixture(scope="module", params=CHECKPOINTS)
def golden(request):
    """A model in float64, and what upstream makes of it."""
    checkpoint = CHECKPOINTS[request.param]
    model = TFLxmertForQuestionAnswering.from_pretrained(GOLDEN / checkpoint, dtype="float64")
    return model, Golden.of(checkpoint)


@pytest.fixture(scope="module")
def maps(golden):
    return attention_maps(golden[0], golden_inputs())


@pytest.fixture(scope="module", params=WHICH)
def gradients(golden, request):
    """The answers of each example, and the gradients of their scores with respect to all maps."""
    model, wanted = golden
    ids = wanted.maps[f"answer_{request.param}"]

    def objective(output):
        scores = output.question_answering_score
        return ops.take_along_axis(scores, ops.convert_to_tensor(ids)[:, None], axis=1)

    return request.param, attention_gradients(model, golden_inputs(), objective)


def test_maps(golden, maps):
    wanted = golden[1].only_maps()
    assert set(maps) == set(wanted)
    for name, value in maps.items():
        assert_close(value, wanted[name], REL64, name, scale=1.0)


def test_gradients(golden, gradients):
    which, found = gradients
    for name, wanted in golden[1].only_maps(f"gradient_{which}/").items():
        assert_close(found[name], wanted, REL64, name)


@pytest.mark.parametrize("method", METHODS)
def test_whole_matrices(golden, maps, gradients, method):
    which, slopes = gradients
    masks = (golden_inputs()[name] > 0 for name in ("attention_mask", "visual_attention_mask"))
    found = relevance_matrices(method, maps, slopes, *masks)
    for row, matrices in golden[1].matrices(method, which):
        for pair, wanted in matrices.items():
            queries, keys = wanted.shape
            assert_close(getattr(found, pair)[row, :queries, :keys], wanted, ROUNDING, f"{row} {pair}", scale=1.0)


@pytest.mark.parametrize(("method", "which"), [*zip(METHODS, itertools.cycle(WHICH), strict=False)])
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


@pytest.mark.skipif(BACKEND != "tensorflow", reason="this starts the other backend itself")
def test_under_pytorch():
    pytest.importorskip("torch")
    assert_passes_under("torch", __file__)
