"""Both frameworks agree in float64 at other sizes, depths, activations and task switches, gradients included."""

import numpy as np
import pytest
import tensorflow as tf
from support.golden import REL64, assert_close, assert_gradients_close
from support.models import batch, flat, labels, tiny_model

torch = pytest.importorskip("torch")

import lxmert_pt  # noqa: E402
from conversion import names  # noqa: E402
from conversion.models import state_dict, task_of_model  # noqa: E402
from lxmert_tf import (  # noqa: E402
    TFLxmertForPreTraining,
    TFLxmertForQuestionAnswering,
    TFLxmertForVisualReasoning,
    TFLxmertModel,
)

CONFIGS = {
    "relu": {"hidden_act": "relu"},
    "silu": {"hidden_act": "silu", "num_attention_heads": 1},
    "tanh gelu": {"hidden_act": "gelu_new", "num_attention_heads": 12},
    "no cross layers": {"x_layers": 0},
    "cross layers only": {"l_layers": 0, "r_layers": 0, "x_layers": 3},
    "wide": {"hidden_size": 24, "intermediate_size": 7, "type_vocab_size": 4, "visual_pos_dim": 6},
    "large epsilon": {"layer_norm_eps": 0.1, "visual_loss_normalizer": 0.5},
}
SWITCHED_OFF = [
    {"task_qa": False},
    {"task_obj_predict": False},
    {"task_mask_lm": False, "task_matched": False},
    {"visual_obj_loss": False, "visual_feat_loss": False},
]


def tensors(values):
    if isinstance(values, dict):
        return {name: tensors(value) for name, value in values.items()}
    if isinstance(values, tuple):
        return tuple(map(tensors, values))
    values = torch.from_numpy(values)
    return values.long() if values.dtype == torch.int32 else values


def assert_frameworks_agree(model_class, **changes):
    """Outputs, hidden states, attentions, each loss and every gradient, of the same weights on the same batch."""
    ours = tiny_model(model_class, dtype="float64", **changes)
    theirs = getattr(lxmert_pt, model_class.__name__.removeprefix("TF"))(ours.config).double().eval()
    theirs.load_state_dict(tensors(state_dict(ours)))
    inputs = batch(ours)
    if "visual_pos_dim" in changes:
        inputs["visual_pos"] = np.resize(inputs["visual_pos"], (3, 5, 6))
    given = {} if model_class is TFLxmertModel else labels(ours)
    options = {"output_attentions": True, "output_hidden_states": True}

    with tf.GradientTape() as tape:
        output = ours(**inputs, **given, **options)
        total = output.loss if given else tf.reduce_sum(output.pooled_output**2)
    wanted = theirs(**tensors(inputs), **tensors(given), **options)
    (wanted.loss if given else (wanted.pooled_output**2).sum()).backward()

    assert list(output) == list(wanted) and list(output.losses) == list(wanted.losses)
    for name, value in flat(output).items():
        key, _, index = name.partition(".")
        reference = wanted[key][int(index)] if index else wanted[key]
        assert_close(value, reference.detach().numpy(), REL64, name)
    for name, value in output.losses.items():
        assert_close(value, wanted.losses[name].item(), REL64, name)

    row = {row.keras: row for row in names.rows(ours.config, task_of_model(ours))}
    gradients = {}
    for variable, gradient in zip(ours.trainable_weights, tape.gradient(total, ours.trainable_weights), strict=True):
        if gradient is not None:
            it = row[variable.path.partition("/")[2]]
            gradients[it.torch] = names.LAYOUTS[it.layout].inverse(gradient.numpy())
    reference = {name: p.grad.numpy() for name, p in theirs.named_parameters() if p.grad is not None}
    assert_gradients_close(gradients, reference, REL64)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "name"),
    [
        *((TFLxmertForPreTraining, name) for name in CONFIGS),
        (TFLxmertModel, "cross layers only"),
        (TFLxmertForQuestionAnswering, "no cross layers"),
    ],
)
def test_other_sizes_depths_and_activations(model_class, name):
    assert_frameworks_agree(model_class, **CONFIGS[name])


def test_pairs_of_images():
    assert_frameworks_agree(TFLxmertForVisualReasoning)


@pytest.mark.slow
@pytest.mark.parametrize("changes", SWITCHED_OFF, ids=lambda changes: ", ".join(changes))
def test_tasks_switched_off(changes):
    assert_frameworks_agree(TFLxmertForPreTraining, **changes)


def test_labels_of_tasks_switched_off_give_no_loss():
    model = tiny_model(TFLxmertForPreTraining, task_qa=False, task_matched=False, visual_attr_loss=False)
    output = model(**batch(model), **labels(model))
    assert list(output.losses) == ["masked_lm_loss", "obj_loss", "feat_loss"]
    assert output.question_answering_score is None and not hasattr(model, "answer_head")
