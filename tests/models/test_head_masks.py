"""Masks of attention heads: the same in both packages, and as if the heads gave nothing."""

import json
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.models import MODELS, batch, flat, labels, tiny_config, tiny_model

import lxmert_pt
from lxmert_tf import LxmertConfig, TFLxmertForQuestionAnswering, TFLxmertModel
from lxmert_tf.head_masks import ATTENTIONS

SIZES = {"l_layers": 2, "r_layers": 2, "x_layers": 2}
# By attention: the attribute of the layer's self- or cross-attention block
BLOCKS = {
    "language": ("layer", lambda layer: layer.attention),
    "vision": ("r_layers", lambda layer: layer.attention),
    "cross": ("x_layers", lambda layer: layer.visual_attention),
    "cross_language": ("x_layers", lambda layer: layer.lang_self_att),
    "cross_vision": ("x_layers", lambda layer: layer.visn_self_att),
}
rng = np.random.default_rng(0)
MASKS = {name: rng.random((2, 3)) for name in ATTENTIONS}


@pytest.fixture(scope="module")
def model():
    return tiny_model(TFLxmertModel, "float64", **SIZES)


@pytest.fixture(scope="module")
def inputs(model):
    return batch(model)


def same(got, wanted, tolerance=1e-12):
    got, wanted = flat(got), flat(wanted)
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=tolerance * abs(value).max(), err_msg=name)


def without_head(model, attention, layer, head):
    """The same model, whose head's rows of the dense layer after the attention are zero, so that it gives nothing."""
    silent = type(model)(model.config, dtype="float64")
    silent.set_weights(model.get_weights())
    stack, block = BLOCKS[attention]
    kernel = block(silent.encoder.stack(stack)[layer]).output_layer.dense.kernel
    values = np.array(kernel)
    values[head * 4 : (head + 1) * 4] = 0
    kernel.assign(values)
    return silent


@pytest.mark.slow
@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_masked_head_gives_nothing(model, inputs, attention):
    mask = np.ones((2, 3))
    mask[1, 2] = 0
    plain, wanted = model(inputs), without_head(model, attention, 1, 2)(inputs)
    same(model(inputs, head_mask={attention: mask}), wanted)
    assert max(abs(np.array(wanted[i] - plain[i])).max() for i in (0, 1)) > 1e-3
    if attention == "language":
        same(model(inputs, head_mask=mask), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", [MODELS[1], MODELS[3]])
def test_pytorch_agrees(model_class):
    torch = pytest.importorskip("torch")
    import lxmert_pt

    model = tiny_model(model_class, "float64", **SIZES)
    reference = getattr(lxmert_pt, model_class.__name__.removeprefix("TF")).from_pretrained(model, dtype="float64")
    inputs = batch(model)
    tensors = {name: torch.tensor(array) for name, array in inputs.items()}
    for mask in (MASKS, MASKS["language"], MASKS["language"][0]):
        given = {n: torch.tensor(m) for n, m in mask.items()} if isinstance(mask, dict) else torch.tensor(mask)
        with torch.no_grad():
            wanted = reference(**tensors, head_mask=given, output_attentions="all")
        got = model(inputs, head_mask=mask, output_attentions="all")
        for name, values in flat(got).items():
            entry, _, index = name.partition(".")
            value = (wanted[entry][int(index)] if index else wanted[entry]).numpy()
            np.testing.assert_allclose(values, value, rtol=0, atol=1e-12 * abs(value).max(), err_msg=name)


def test_layers_without_a_mask(model, inputs):
    """As scripts for BERT write it."""
    torch = pytest.importorskip("torch")
    from lxmert_pt import LxmertModel

    reference = LxmertModel.from_pretrained(model, dtype="float64")
    tensors = {name: torch.tensor(array) for name, array in inputs.items()}
    row = [0.0, 1.0, 0.5]
    plain, wanted = model(inputs), model(inputs, head_mask=np.array([np.ones(3), row]))
    same(model(inputs, head_mask=[None, None]), plain)
    same(model(inputs, head_mask={"language": [None, row], "vision": [None, None]}), wanted)
    same(model(inputs, head_mask=[None, tf.constant(row)]), wanted)
    with torch.no_grad():
        for mask, expected in (([None, None], plain), ([None, row], wanted), ([None, torch.tensor(row)], wanted)):
            got = reference(**tensors, head_mask=mask)[2].numpy()
            np.testing.assert_allclose(got, expected[2], rtol=0, atol=1e-12)
        with pytest.raises(ValueError, match="head_mask of language must hold numbers, got nan"):
            reference(**tensors, head_mask=[np.nan, 1, 1])


def test_probabilities_are_those_that_are_used(model, inputs):
    plain = model(inputs, output_attentions=True).language_attentions[0]
    masked = model(inputs, output_attentions=True, head_mask=[1.0, 0.0, 0.5]).language_attentions[0]
    np.testing.assert_allclose(masked, plain * np.reshape([1, 0, 0.5], (3, 1, 1)), atol=1e-15)


def test_ones_change_nothing(model, inputs):
    same(model(inputs, head_mask=dict.fromkeys(ATTENTIONS, np.ones(3))), model(inputs), 0)


def test_in_a_graph_and_in_the_inputs(model, inputs):
    wanted = model(inputs, head_mask=MASKS)
    call = tf.function(lambda mask: model(inputs, head_mask=mask))
    same(call({name: tf.constant(mask) for name, mask in MASKS.items()}), wanted)
    same(model({**inputs, "head_mask": MASKS}), wanted)


def test_autograph_knows_all_of_the_call(inputs, caplog):
    model = tiny_model(TFLxmertModel, "float64", **SIZES)
    logger = logging.getLogger("tensorflow")
    logger.addHandler(caplog.handler)
    try:
        tf.function(lambda: model(inputs, head_mask=MASKS))()
    finally:
        logger.removeHandler(caplog.handler)
    assert "AutoGraph could not transform" not in caplog.text


def test_gradients_reach_masks_of_both_packages(model, inputs):
    torch = pytest.importorskip("torch")
    from lxmert_pt import LxmertModel

    masks = {name: tf.Variable(np.ones((2, 3))) for name in ATTENTIONS}
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(model(inputs, head_mask={n: tf.convert_to_tensor(m) for n, m in masks.items()})[2] ** 2)
    gradients = tape.gradient(total, masks)
    theirs = {name: torch.ones(2, 3, dtype=torch.float64, requires_grad=True) for name in ATTENTIONS}
    reference = LxmertModel.from_pretrained(model, dtype="float64")
    tensors = {name: torch.tensor(array) for name, array in inputs.items()}
    (reference(**tensors, head_mask=theirs)[2] ** 2).sum().backward()
    for name, gradient in gradients.items():
        wanted = theirs[name].grad.numpy()
        np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-11 * max(abs(wanted).max(), 1e-3), err_msg=name)
        assert abs(wanted[0]).min() > 0


@keras.saving.register_keras_serializable("test_head_masks")
class Masked(TFLxmertForQuestionAnswering):
    def call(self, input_ids=None, labels=None, training=False):
        return super().call(input_ids, labels=labels, training=training, head_mask={"cross": [1.0, 0.0, 1.0]})


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_training_leaves_masked_heads_alone(checkpointing):
    """The value projection of a head that gives nothing has no gradient."""
    model = Masked(tiny_config(x_layers=1))
    if checkpointing:
        model.gradient_checkpointing_enable()
    value = model.lxmert.encoder.x_layers_0.visual_attention.att.value.kernel
    before = np.array(value)
    model.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    model.fit(batch(model), labels(model), verbose=0)
    changed = abs(np.array(value) - before).max(axis=0)
    assert not changed[4:8].any()
    assert changed[:4].all() and changed[8:].all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(4), r"head_mask of language must have shape \[3\] or \[2, 3\], .* l_layers; got \[4\]"),
        ({"vision": np.ones((3, 3))}, r"head_mask of vision must have shape .* r_layers; got \[3, 3\]"),
        ([None], r"head_mask of language must have shape .* l_layers; got \[1, 3\]"),
        ({"cross": [np.nan, 1, 1]}, "head_mask of cross must hold numbers, got nan"),
        ({"heads": np.ones(3)}, "head_mask holds 'heads', which is none of language, vision, cross"),
    ],
)
def test_wrong_masks_are_named(model, inputs, mask, message):
    with pytest.raises(ValueError, match=message):
        model(inputs, head_mask=mask)


def test_pruning_is_refused(model):
    with pytest.raises(NotImplementedError, match="heads are not pruned; a call's head_mask switches them off"):
        model.prune_heads({0: [1]})
    assert LxmertConfig().pruned_heads == {}


def test_a_checkpoint_whose_config_alone_is_pruned_loads(tmp_path, caplog):
    """Upstream's `prune_heads` notes them in the config before it fails; the weights are whole."""
    saved = tiny_model(TFLxmertModel)
    saved.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "pruned_heads": {"0": [1]}}))
    for model in (TFLxmertModel.from_pretrained(tmp_path), lxmert_pt.LxmertModel.from_pretrained(tmp_path)):
        assert model.config.pruned_heads == {}
        assert "pruned_heads is left out" in caplog.text
