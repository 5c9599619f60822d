"""An example's answer is its own: no other example, no padding and no order of boxes changes it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import batch, flat, tiny_model

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForVisualReasoning

TOLERANCE = 1e-13  # float64
PER_TOKEN = ("language_output", "prediction_logits")


@pytest.fixture(
    scope="module",
    params=[TFLxmertForPreTraining, TFLxmertForVisualReasoning],
    ids=lambda model_class: model_class.__name__,
)
def model(request):
    return tiny_model(request.param, dtype="float64")


def visual_axis(model) -> int:
    return 2 if isinstance(model, TFLxmertForVisualReasoning) else 1


def padded(model, x: dict, tokens: int, boxes: int, rng) -> dict:
    """The inputs with more tokens and boxes that are masked and hold anything."""
    longer = {}
    for name, value in x.items():
        axis, more = (visual_axis(model), boxes) if name.startswith("visual") else (1, tokens)
        shape = [*value.shape[:axis], more, *value.shape[axis + 1 :]]
        junk = rng.integers(0, 2, shape) if value.dtype.kind == "i" else 9 * rng.standard_normal(shape)
        junk = np.zeros(shape) if name.endswith("mask") else junk
        longer[name] = np.concatenate([value, junk.astype(value.dtype)], axis=axis)
    return longer


def assert_same(model, got: dict, wanted: dict, rows=slice(None), tokens: int = 7, boxes: int = 5) -> None:
    """Asserts that the outputs of some rows, places that were padded left out, are the same."""
    for name, value in wanted.items():
        part = got[name][rows]
        part = part[:, :tokens] if name in PER_TOKEN else part[:, :boxes] if name == "vision_output" else part
        np.testing.assert_allclose(part, value, rtol=TOLERANCE, atol=TOLERANCE, err_msg=name)


SEEDS = st.integers(0, 10**6)
GIVEN = settings(max_examples=3, deadline=None, derandomize=True)


@pytest.mark.slow
@GIVEN
@given(seed=SEEDS, place=st.integers(0, 4), masked=st.booleans())
def test_an_example_does_not_see_the_others(model, seed, place, masked):
    x = batch(model, examples=1, seed=seed)
    if masked:  # all of its boxes
        x["visual_attention_mask"] = np.zeros_like(x["visual_attention_mask"])
    others = batch(model, examples=4, seed=seed + 1)
    together = {name: np.insert(others[name], place, value[0], axis=0) for name, value in x.items()}
    assert_same(model, flat(model(**together)), flat(model(**x)), rows=slice(place, place + 1))


@pytest.mark.slow
@GIVEN
@given(seed=SEEDS, tokens=st.integers(0, 6), boxes=st.integers(0, 6))
def test_padding_changes_nothing(model, seed, tokens, boxes):
    x = batch(model, seed=seed)
    longer = padded(model, x, tokens, boxes, np.random.default_rng(seed))
    assert_same(model, flat(model(**longer)), flat(model(**x)))


@pytest.mark.slow
@GIVEN
@given(seed=SEEDS)
def test_the_order_of_boxes_changes_nothing(model, seed):
    x, order = batch(model, seed=seed), np.random.default_rng(seed).permutation(5)
    axis = visual_axis(model)
    shuffled = {name: value.take(order, axis) if name.startswith("visual") else value for name, value in x.items()}
    wanted = flat(model(**x))
    if "vision_output" in wanted:
        wanted["vision_output"] = wanted["vision_output"][:, order]
    assert_same(model, flat(model(**shuffled)), wanted)
