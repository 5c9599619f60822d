"""Every attention map can be had, and the entries that upstream has stay what they are."""

import numpy as np
import pytest
import tensorflow as tf
from support.golden import GOLDEN, REL64, assert_close, golden_inputs
from support.models import batch, flat, tiny_model

from lxmert_tf import TFLxmertForQuestionAnswering, TFLxmertForVisualReasoning, TFLxmertModel
from lxmert_tf.explain import attention_gradients, attention_maps
from lxmert_tf.layers.attention import recorded_attention
from lxmert_tf.outputs import ATTENTION_FIELDS

NEW = ATTENTION_FIELDS[3:]
KINDS = dict(zip(NEW, ("vision_to_language", "language_self", "vision_self"), strict=True))


@pytest.fixture(scope="module")
def model():
    return tiny_model(l_layers=1, x_layers=2)


@pytest.mark.parametrize("model_class", [TFLxmertModel, TFLxmertForVisualReasoning])
def test_all_attentions_come_after_those_of_upstream(model_class):
    model = tiny_model(model_class, l_layers=1)
    inputs = batch(model)
    some, every = model(inputs, output_attentions=True), model(inputs, output_attentions="all")
    assert list(every) == [*some, *NEW]
    maps = attention_maps(model, inputs)
    for name, kind in KINDS.items():
        assert_close(every[name][0], maps[f"cross/0/{kind}"], 0, name)
    for name, value in flat(some).items():
        assert_close(flat(every)[name], value, 2e-6, name)
    assert len(every.to_tuple()) == len(some.to_tuple()) + 3


def test_in_a_graph(model):
    inputs = batch(model)
    wanted = flat(model(inputs, output_attentions="all"))
    graph = tf.function(lambda x: model(x, output_attentions="all"))(inputs)
    for name, value in flat(graph).items():
        assert_close(value, wanted[name], 2e-5, name)


def test_the_output_differentiates(model):
    """Gradients of an output are taken with respect to its own entries, too, where the backend has a tape."""
    inputs = batch(model)
    with tf.GradientTape(persistent=True) as tape:
        output = model(inputs, output_attentions="all")
        score = output.question_answering_score[:, 2]
    found = attention_gradients(model, inputs, lambda output: output.question_answering_score[:, 2])
    crossed = tape.gradient(score, output.cross_language_self_attentions)
    for i, slope in enumerate(crossed):
        assert_close(slope, found[f"cross/{i}/language_self"], 2e-5)
    assert not found["cross/1/vision_self"].any()  # the answer is read off the first token


def test_in_training_maps_are_those_before_dropout():
    model = tiny_model(TFLxmertModel, attention_probs_dropout_prob=0.5)
    output = model(batch(model), output_attentions="all", training=True)
    sums = np.asarray(output.cross_vision_self_attentions[0]).sum(-1)
    np.testing.assert_allclose(sums, 1, rtol=1e-5)


def test_with_gradient_checkpointing():
    """What is inside a layer that is computed again has no gradient; so none is."""
    model = tiny_model(TFLxmertModel, l_layers=1)
    model.gradient_checkpointing_enable()
    with tf.GradientTape() as tape:
        output = model(batch(model), output_attentions="all", training=True)
        loss = tf.reduce_sum(output.vision_output**2)
    assert tape.gradient(loss, output.cross_vision_self_attentions[0]) is not None


def test_recording_ends(model):
    with recorded_attention() as maps:
        model(batch(model), output_attentions=True)
    number = len(maps)
    model(batch(model))
    assert len(maps) == number == 1 + 1 + 4 * 2


def test_layers_that_are_not_there():
    model = tiny_model(l_layers=1, r_layers=0, x_layers=1)
    assert list(attention_maps(model, batch(model)))[:2] == ["language/0", "cross/0/language_to_vision"]


def test_another_word():
    model = tiny_model(TFLxmertModel)
    with pytest.raises(ValueError, match="output_attentions must be True, False or \"all\", got 'every'"):
        model(batch(model), output_attentions="every")


def test_the_reference_has_them_too():
    torch = pytest.importorskip("torch")
    import lxmert_pt

    ours = TFLxmertForQuestionAnswering.from_pretrained(GOLDEN / "hf_pt_qa", dtype="float64")
    theirs = lxmert_pt.LxmertForQuestionAnswering.from_pretrained(GOLDEN / "hf_pt_qa", dtype=torch.float64).eval()
    inputs = golden_inputs()
    found = theirs(**{name: torch.tensor(value) for name, value in inputs.items()}, output_attentions="all")
    wanted = ours(inputs, output_attentions="all")
    assert list(found) == list(wanted)
    for name in ATTENTION_FIELDS:
        for one, other in zip(found[name], wanted[name], strict=True):
            assert_close(one.detach(), other, REL64, name)


@pytest.mark.slow
def test_an_export_has_them_on_request():
    from lxmert_tf.serving.signatures import Options, Servable

    servable = Servable(tiny_model(TFLxmertModel, l_layers=1, r_layers=1), Options(outputs=["all_attentions"]))
    assert set(ATTENTION_FIELDS) < set(servable.signatures["serving_default"].structured_outputs)
