"""lxmert_pt's relevance, which is written independently, is upstream's and lxmert_tf's."""

import numpy as np
import pytest
from support.explain import CHECKPOINTS, METHODS, ROUNDING, WHICH, Golden
from support.golden import GOLDEN, REL64, assert_close, golden_inputs

from lxmert_tf import TFLxmertForQuestionAnswering
from lxmert_tf.explain import relevance

torch = pytest.importorskip("torch")

from lxmert_pt import LxmertForQuestionAnswering  # noqa: E402
from lxmert_pt import explain as reference  # noqa: E402


@pytest.fixture(scope="module", params=CHECKPOINTS)
def golden(request):
    checkpoint = CHECKPOINTS[request.param]
    model = LxmertForQuestionAnswering.from_pretrained(GOLDEN / checkpoint, dtype=torch.float64).eval()
    return model, Golden.of(checkpoint)


@pytest.fixture(scope="module")
def inputs():
    return {name: torch.tensor(value) for name, value in golden_inputs().items()}


def test_maps(golden, inputs):
    model, wanted = golden
    maps = reference.attention_maps(model, inputs)
    assert set(maps) == set(wanted.only_maps())
    for name, value in maps.items():
        assert_close(value.detach(), wanted.maps[name], REL64, name, scale=1.0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("which", WHICH)
def test_relevance(golden, inputs, method, which):
    model, wanted = golden
    answer = None if which == "top" else torch.tensor(wanted.maps["answer_other"])
    why = reference.relevance(model, inputs, answer, method)
    for row, matrices in wanted.matrices(method, which):
        tokens, boxes = matrices["ti"].shape
        assert_close(why.tokens[row], np.pad(matrices["tt"][0], (0, 9 - tokens)), ROUNDING, "tokens", scale=1.0)
        assert_close(why.boxes[row], np.pad(matrices["ti"][0], (0, 6 - boxes)), ROUNDING, "boxes", scale=1.0)


def test_attributions_are_those_of_lxmert_tf(inputs):
    checkpoint = GOLDEN / "hf_pt_qa"
    theirs = LxmertForQuestionAnswering.from_pretrained(checkpoint, dtype=torch.float64).eval()
    ours = TFLxmertForQuestionAnswering.from_pretrained(checkpoint, dtype="float64")
    wanted = reference.relevance(theirs, inputs, 2, "integrated_gradients", steps=3)
    found = relevance(ours, golden_inputs(), 2, "integrated_gradients", steps=3)
    assert_close(found.tokens, wanted.tokens, REL64, "tokens")
    assert_close(found.boxes, wanted.boxes, REL64, "boxes")
