"""Keras and PyTorch, from the same weights over the same batches, train to the same weights."""

import keras
import numpy as np
import pytest
from support.golden import GOLDEN, golden_inputs, golden_labels

torch = pytest.importorskip("torch")

from conversion.models import state_dict  # noqa: E402
from lxmert_pt import LxmertForPreTraining  # noqa: E402
from lxmert_pt.optimizers import BertAdam as TorchBertAdam  # noqa: E402
from lxmert_pt.optimizers import linear_warmup_schedule  # noqa: E402
from lxmert_tf import BertAdam, LinearWarmup, LxmertConfig, TFLxmertForPreTraining  # noqa: E402

STEPS = 20
RATES = {"bert_adam": 2.0**-10, "adamw": 2.0**-13}  # exact in float32, in which Keras keeps them

# BertAdam is the same formula in both, so only rounding differs, and training multiplies it.
# AdamW is not: PyTorch adds epsilon after dividing by the bias correction, Keras before. And the true gradient of a key
# bias is zero, so that Adam normalises the rounding noise of the two frameworks into steps of full size; these biases
# do not change the outputs, and are left out.
TOLERANCES = {"bert_adam": 1e-9, "adamw": 1e-6}


def batches():
    """The golden batch with its examples and words rolled, another one for every step."""
    inputs, labels = golden_inputs(), golden_labels()
    for step in range(STEPS):
        yield roll(inputs, step), roll(labels, step)


def roll(values, step):
    if isinstance(values, dict):
        return {name: roll(value, step) for name, value in values.items()}
    if isinstance(values, tuple):
        return tuple(roll(value, step) for value in values)
    return np.roll(values, (step, step) if values.ndim > 1 else step, axis=(0, 1) if values.ndim > 1 else 0)


def tensors(values):
    if isinstance(values, dict):
        return {name: tensors(value) for name, value in values.items()}
    if isinstance(values, tuple):
        return tuple(map(tensors, values))
    return torch.from_numpy(values.copy())


def optimizers(name, parameters):
    """The optimiser in Keras and in PyTorch, and PyTorch's learning rate factor by step."""
    rate = RATES[name]
    if name == "bert_adam":
        keras_optimizer = BertAdam(LinearWarmup(rate, STEPS, warmup=0.125))
        return (
            keras_optimizer,
            TorchBertAdam(parameters, lr=rate),
            lambda step: linear_warmup_schedule(step, STEPS, 0.125),
        )
    options = {"weight_decay": 2.0**-6}
    keras_optimizer = keras.optimizers.AdamW(rate, epsilon=1e-12, **options)
    return keras_optimizer, torch.optim.AdamW(parameters, lr=rate, eps=1e-12, **options), lambda step: 1.0


@pytest.fixture
def float64():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


@pytest.mark.slow
@pytest.mark.parametrize("name", TOLERANCES)
def test_twenty_steps_end_in_the_same_weights(name, float64):
    config = LxmertConfig.from_pretrained(
        GOLDEN / "hf_pt_pretraining", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    ours = TFLxmertForPreTraining.from_pretrained(GOLDEN / "hf_pt_pretraining", dtype="float64", config=config)
    theirs = LxmertForPreTraining.from_pretrained(
        GOLDEN / "hf_pt_pretraining", dtype=torch.float64, config=config
    ).train()
    before = state_dict(ours)
    keras_optimizer, torch_optimizer, factor = optimizers(name, theirs.parameters())
    ours.compile(optimizer=keras_optimizer, jit_compile=False)

    for step, (inputs, labels) in enumerate(batches()):
        given = {"masked_lm_labels" if key == "labels" else key: value for key, value in labels.items()}
        keras_loss = ours.train_on_batch({**inputs, **given}, return_dict=True)["loss"]
        ours.reset_metrics()
        for group in torch_optimizer.param_groups:
            group["lr"] = RATES[name] * factor(step)
        torch_optimizer.zero_grad()
        loss = theirs(**tensors(inputs), **tensors(labels)).loss
        loss.backward()
        torch_optimizer.step()
        np.testing.assert_allclose(keras_loss, loss.item(), rtol=10 * TOLERANCES[name])

    after = {key: value.detach().numpy() for key, value in theirs.state_dict().items()}
    moved = 0.0
    for key, value in state_dict(ours).items():
        if name == "adamw" and key.endswith("key.bias"):
            continue
        assert np.abs(value - after[key]).max() <= TOLERANCES[name], key
        moved = max(moved, np.abs(value - before[key]).max())
    assert moved > 5 * RATES[name]  # they did train
