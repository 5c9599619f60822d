"""Products in bfloat16 change what is learned by less than chance does."""

import keras
import numpy as np
import pytest
from support.models import tiny_model

from lxmert_tf import TFLxmertForQuestionAnswering

EXAMPLES, TOKENS, BOXES, EPOCHS = 64, 5, 4, 12


def losses(dtype: str, seed: int) -> np.ndarray:
    """float[EPOCHS], of the same model and data, with another order and other dropout for each seed."""
    keras.utils.set_random_seed(0)
    model = tiny_model(TFLxmertForQuestionAnswering, dtype=dtype, l_layers=1, num_qa_labels=4)
    rng = np.random.default_rng(0)
    inputs = {
        "input_ids": rng.integers(5, model.config.vocab_size, (EXAMPLES, TOKENS)),
        "visual_feats": rng.standard_normal((EXAMPLES, BOXES, model.config.visual_feat_dim)).astype("float32"),
        "visual_pos": rng.random((EXAMPLES, BOXES, 4), "float32"),
    }
    answers = inputs["visual_feats"][:, :, :4].sum(axis=1).argmax(axis=-1)
    keras.utils.set_random_seed(seed)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), jit_compile=False)
    history = model.fit(inputs, {"labels": answers}, batch_size=16, epochs=EPOCHS, verbose=0).history
    return np.array(history["loss"])


@pytest.mark.slow
def test_the_loss_falls_as_in_float32():
    float32, bfloat16 = (
        np.stack([losses(dtype, seed) for seed in (1, 2, 3)]) for dtype in ("float32", "mixed_bfloat16")
    )
    assert float32[:, -1].max() < 0.8 * float32[:, 0].min(), "there is something to learn"
    noise = float32.max(axis=0) - float32.min(axis=0)
    assert (abs(float32.mean(axis=0) - bfloat16.mean(axis=0)) <= noise.mean()).all()
