"""The perturbation test removes what upstream's removes, and its answers are upstream's."""

import numpy as np
import pytest
from support.explain import METHODS, Golden
from support.golden import GOLDEN, REL64, assert_close, golden_inputs
from support.models import tiny_model

from lxmert_tf import TFLxmertForQuestionAnswering
from lxmert_tf.explain.perturbation import (
    DIRECTIONS,
    PARTS,
    STEPS,
    area,
    completed,
    kept_positions,
    make_answer_function,
    perturbation_test,
    select,
)

MASKS = {"image": "visual_attention_mask", "text": "attention_mask"}


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "explain" / "perturbation.npz"))


@pytest.fixture(scope="module")
def scores():
    """Relevance by method and part, as upstream has it, padded."""
    found = {}
    for method in ("chefer", "raw_attention", "rollout"):
        of = {"image": np.zeros((3, 6)), "text": np.zeros((3, 9))}
        for row, matrices in Golden.of("hf_pt_qa").matrices(method, "top"):
            tokens, boxes = matrices["ti"].shape
            of["image"][row, :boxes], of["text"][row, :tokens] = matrices["ti"][0], matrices["tt"][0]
        found[method] = of
    return found


@pytest.fixture(scope="module")
def answer():
    return make_answer_function(TFLxmertForQuestionAnswering.from_pretrained(GOLDEN / "hf_pt_qa", dtype="float64"))


def prefix(row: int, method: str, part: str, direction: str) -> str:
    return f"{row}/{'top/' if method == 'chefer' else ''}{METHODS[method]}/{part}/{direction}"


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_is_kept(golden, scores, part, direction):
    mask = golden_inputs()[MASKS[part]]
    for method, of in scores.items():
        for number, step in enumerate(STEPS):
            for row, kept in enumerate(kept_positions(of[part], mask, part, direction, step)):
                wanted = golden[f"{prefix(row, method, part, direction)}/kept/{number}"]
                assert list(kept) == list(wanted), (method, row, step)


@pytest.mark.parametrize(("part", "direction"), [*zip(PARTS, DIRECTIONS, strict=True)])
def test_the_answers(golden, scores, answer, part, direction):
    inputs = completed(golden_inputs())
    for number, step in [*list(enumerate(STEPS))[1::3], (8, STEPS[8])]:
        kept = kept_positions(scores["chefer"][part], inputs[MASKS[part]], part, direction, step)
        for row, found in enumerate(answer(select(inputs, part, kept))):
            wanted = golden[f"{prefix(row, 'chefer', part, direction)}/score"][number]
            assert_close(found, wanted, REL64, f"{row} {step}")


def test_numbers_that_are_kept_of_36_boxes():
    kept = [len(kept_positions(np.ones((1, 36)), np.ones((1, 36)), "image", "negative", step)[0]) for step in STEPS]
    assert kept == [36, 27, 18, 9, 7, 5, 3, 1, 0]


def test_area():
    assert area([1] * len(STEPS)) == pytest.approx(1)
    assert area([1 - step for step in STEPS]) == pytest.approx(0.5)  # steps are uneven


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(([], ["random"]), "no examples"), (([], ["lime"]), "methods must be of chefer, .*, random, got 'lime'")],
)
def test_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        perturbation_test(tiny_model(l_layers=1, r_layers=0), *arguments)
