"""Fused projections are those of the model, to the last bits of float64, and take the place of its weights."""

import numpy as np
import pytest
from support.golden import assert_close
from support.models import batch, flat, tiny_model

import lxmert_tf
from lxmert_tf.serving.fused_projection import FusedProjection, fuse_projections

# The same sums in another order of additions
TOLERANCE = 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["TFLxmertModel", "TFLxmertForQuestionAnswering", "TFLxmertForVisualReasoning"])
def test_outputs_are_those_of_the_model(kind):
    model = tiny_model(getattr(lxmert_tf, kind), dtype="float64", l_layers=2, r_layers=2, x_layers=3)
    inputs, all_outputs = batch(model), {"output_attentions": True, "output_hidden_states": True}
    wanted, brief = flat(model(inputs, **all_outputs)), flat(model(inputs))
    count = model.count_params()
    weights = fuse_projections(model)
    for layer in model.get_backbone().encoder.stack("layer"):  # which is computed without them
        layer.attention.self.query.kernel.assign(np.full((12, 12), np.nan))
    assert sum(int(np.prod(weight.shape)) for weight in weights) == count
    for found, expected in ((model(inputs, **all_outputs), wanted), (model(inputs), brief)):
        for name, value in flat(found).items():
            assert_close(value, expected[name], TOLERANCE, name)


def test_every_stream_but_the_last_cross_layer_s_is_fused():
    model = tiny_model(lxmert_tf.TFLxmertModel, l_layers=2, r_layers=1, x_layers=2)
    fuse_projections(model)
    encoder = model.encoder
    for layer in encoder.stack("layer") + encoder.stack("r_layers"):
        assert isinstance(layer.attention.self.project, FusedProjection)
    for layer, fused in zip(encoder.stack("x_layers"), (True, False), strict=True):
        for attention in (
            layer.visual_attention.att,
            layer.lang_self_att.self,
            layer.visn_self_att.self,
        ):
            assert isinstance(attention.project, FusedProjection) == fused


def test_another_context_is_projected_by_the_layers_own_kernels():
    model = tiny_model(lxmert_tf.TFLxmertModel, dtype="float64")
    attention, rng = model.encoder.layer_0.attention.self, np.random.default_rng(0)
    states, context = rng.standard_normal((2, 2, 3, 12))
    wanted, _ = attention(states, context)
    fuse_projections(model)
    assert_close(attention(states, context)[0], wanted, TOLERANCE)
