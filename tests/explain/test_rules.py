"""The rules give upstream's matrices, whole and within rounding, for its maps and gradients."""

import numpy as np
import pytest
from support.explain import CHECKPOINTS, METHODS, ROUNDING, WHICH, Golden
from support.golden import assert_close, golden_inputs

from lxmert_tf.explain.rules import relevance_matrices


def masks() -> list[np.ndarray]:
    return [golden_inputs()[name] > 0 for name in ("attention_mask", "visual_attention_mask")]


@pytest.mark.parametrize("which", WHICH)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("checkpoint", CHECKPOINTS.values(), ids=list(CHECKPOINTS))
def test_whole_matrices_of_a_padded_batch(checkpoint, method, which):
    golden = Golden.of(checkpoint)
    found = relevance_matrices(method, golden.only_maps(), golden.only_maps(f"gradient_{which}/"), *masks())
    for row, matrices in golden.matrices(method, which):
        for pair, wanted in matrices.items():
            queries, keys = wanted.shape
            assert_close(getattr(found, pair)[row, :queries, :keys], wanted, ROUNDING, f"{row} {pair}", scale=1.0)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_in_padded_cells_does_not_matter(method):
    golden = Golden.of("hf_pt_qa")
    maps, gradients = golden.only_maps(), golden.only_maps("gradient_top/")
    before = relevance_matrices(method, maps, gradients, *masks())
    for values in (*maps.values(), *gradients.values()):
        values[2, :, 4:, 6:] = 7.0  # of the shortest text; its boxes are all there
        if values.shape[2] == 9:
            values[2, :, 4:] = 7.0
        if values.shape[3] == 9:
            values[2, ..., 4:] = 7.0
    after = relevance_matrices(method, maps, gradients, *masks())
    assert (before.tt[:, 0] == after.tt[:, 0]).all()
    assert (before.ti[:, 0] == after.ti[:, 0]).all()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_relevant_is_no_nan(method):
    """Gradients that are negative throughout: upstream divides 0 by 0, and all becomes NaN."""
    golden = Golden.of("hf_pt_qa")
    gradients = {name: np.full_like(values, -1.0) for name, values in golden.only_maps().items()}
    for matrix in relevance_matrices(method, golden.only_maps(), gradients, *masks()):
        assert np.isfinite(matrix).all()
