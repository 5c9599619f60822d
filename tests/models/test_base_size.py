"""The published size: 9/5/5 layers of width 768, built, run and converted both ways."""

import numpy as np
import pytest
from support.golden import REL32, assert_close, golden_inputs
from support.models import flat

from conversion.models import state_dict
from lxmert_tf import LxmertConfig, TFLxmertForPreTraining

torch = pytest.importorskip("torch")


@pytest.mark.slow
def test_base_size_runs_and_converts_both_ways_bit_for_bit(tmp_path):
    from lxmert_pt import LxmertForPreTraining

    config = LxmertConfig()
    torch.manual_seed(0)
    reference = LxmertForPreTraining(config).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    assert sum(parameter.numel() for parameter in reference.parameters()) == 228_051_752
    before = {name: value.numpy() for name, value in reference.state_dict().items()}

    reference.save_pretrained(tmp_path / "torch", format="hf-pt")
    model = TFLxmertForPreTraining.from_pretrained(tmp_path / "torch")
    assert model.count_params() == 228_051_752
    model.save_pretrained(tmp_path / "keras", format="keras")
    again = LxmertForPreTraining.from_pretrained(tmp_path / "keras")
    for name, value in again.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name], err_msg=name)
    for name, value in state_dict(model).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)

    rng = np.random.default_rng(0)
    small = golden_inputs()
    inputs = {name: small[name] for name in ("attention_mask", "token_type_ids", "visual_attention_mask", "visual_pos")}
    inputs["input_ids"] = rng.integers(1, config.vocab_size, small["input_ids"].shape)
    inputs["visual_feats"] = rng.random((3, 6, config.visual_feat_dim)).astype("float32")
    ours = flat(model(inputs))
    with torch.no_grad():
        theirs = reference(**{name: torch.from_numpy(value) for name, value in inputs.items()})
    for name, value in ours.items():
        assert_close(value, theirs[name].numpy(), REL32, name)
