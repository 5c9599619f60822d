"""Attention by Keras' fused kernel computes what the written-out formula does; it exists under PyTorch only."""

import keras
import pytest
from support.golden import assert_close
from support.models import batch, flat, tiny_model

from lxmert_tf import TFLxmertModel
from lxmert_tf.layers.attention import LxmertAttention

BACKEND = keras.backend.backend()
torch_only = pytest.mark.skipif(BACKEND != "torch", reason="run under PyTorch by the last test")


def inputs(model):
    """With a text that is masked throughout: its weight spreads evenly over its tokens."""
    given = batch(model)
    given["attention_mask"][1] = 0
    return given


# float64 does not use the kernel; of float32 and bfloat16 some units in the last of 24 and 8 bits are measured.
@torch_only
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-6), ("bfloat16", 0.03)])
def test_it_gives_what_a_call_with_probabilities_gives(dtype, tolerance):
    model = tiny_model(TFLxmertModel, dtype=dtype)
    for masks in ({}, {"head_mask": {"language": [1.0, 0.0, 1.0], "cross_vision": [0.0, 1.0, 0.5]}}):
        wanted = flat(model(**inputs(model), **masks, output_attentions=True))
        for name, value in flat(model(**inputs(model), **masks)).items():
            assert_close(value, wanted[name], tolerance, name)


@torch_only
@pytest.mark.parametrize(
    ("dtype", "call", "used"),
    [
        ("float32", {}, True),
        ("bfloat16", {}, True),
        ("float64", {}, False),
        ("float16", {}, False),
        ("float32", {"output_attentions": True}, False),
        ("float32", {"training": True}, False),
    ],
)
def test_where_it_is_used(dtype, call, used, monkeypatch):
    calls = []
    attend_fused = LxmertAttention.attend_fused
    monkeypatch.setattr(LxmertAttention, "attend_fused", lambda *args: calls.append(1) or attend_fused(*args))
    model = tiny_model(TFLxmertModel, dtype=dtype, attention_probs_dropout_prob=0.1)
    model(**inputs(model), **call)
    unseen = 2 * model.config.x_layers  # the streams' attention to themselves, whose probabilities no one can ask for
    every = model.config.l_layers + model.config.r_layers + 2 * model.config.x_layers + unseen
    assert len(calls) == (every if used else unseen if call.get("output_attentions") else 0)
