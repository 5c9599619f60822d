"""One epoch of the VQA recipe in Keras and in plain PyTorch: same batches, same losses, same weights."""

import keras
import numpy as np
import pytest
from support.training import MemoryDataset, compiled, plain_batches, small_config

torch = pytest.importorskip("torch")

from conversion.models import state_dict  # noqa: E402
from lxmert_pt import LxmertForQuestionAnswering  # noqa: E402
from lxmert_pt.optimizers import BertAdam, linear_warmup_schedule  # noqa: E402
from lxmert_tf.training.callbacks import Progress  # noqa: E402
from lxmert_tf.training.run import fit  # noqa: E402

STEPS = 20
RATE = 2.0**-10
EPSILON, CLIP, BETA_1, BETA_2 = 1e-6, 5.0, 0.9, 0.999


class Losses(keras.callbacks.Callback):
    """The loss of each batch on its own, from the running mean."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        self.values.append(logs["loss"])
        self.model.reset_metrics()


@pytest.fixture
def float64():
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    yield
    keras.config.set_floatx(before)


def clip(parameters) -> None:
    """To the global norm. `torch.nn.utils.clip_grad_norm_` divides by the norm plus 1e-6, which is in the way here."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    for gradient in gradients:
        gradient.mul_(CLIP / max(norm, CLIP))


def in_pytorch(state: dict, config, data, optimizer: str) -> tuple[list[float], dict[str, np.ndarray]]:
    """The recipe, written out."""
    model = LxmertForQuestionAnswering(config).double()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    model.train()
    kind = {"bertadam": BertAdam, "adamw": torch.optim.AdamW}[optimizer]
    steps = kind(model.parameters(), lr=RATE, eps=EPSILON, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(steps, lambda step: linear_warmup_schedule(step, STEPS, 0.1))
    losses = []
    for step in range(STEPS):
        x, y = data.batch(step)
        inputs = {name: torch.from_numpy(value) for name, value in x.items()}
        for name in ("visual_feats", "visual_pos"):
            inputs[name] = inputs[name].double()
        logits = model(**inputs).question_answering_score
        scores = torch.from_numpy(y["labels"]).double()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, scores) * logits.shape[1]
        steps.zero_grad()
        loss.backward()
        clip(model.parameters())
        if optimizer == "adamw":  # PyTorch adds epsilon after the bias correction, Keras before
            steps.param_groups[0]["eps"] = EPSILON / (1 - BETA_2 ** (step + 1)) ** 0.5
        steps.step()
        schedule.step()
        losses.append(loss.item())
    return losses, {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["bertadam", "adamw"])
def test_same_loss_curve_and_weights(optimizer, float64):
    config = small_config(r_layers=1)
    data = MemoryDataset(config, STEPS * 8)
    options = {"optimizer": optimizer, "learning_rate": RATE}
    model = compiled(config, data, epochs=1, dtype="float64", **options)
    if optimizer == "adamw":  # Keras' own rounds them to float32, which changes the first bias corrections by 1e-5
        model.optimizer.beta_1, model.optimizer.beta_2 = np.float64(BETA_1), np.float64(BETA_2)
    rng = np.random.default_rng(1)
    for variable in model.weights:
        variable.assign(variable + 0.2 * rng.standard_normal(variable.shape))
    before = state_dict(model)
    losses = Losses()

    class Steps(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            progress.step += 1

    progress = Progress()
    fit(model, data, 1, progress, [losses, Steps()], plain_batches, verbose=0)
    expected, after = in_pytorch(before, config, data, optimizer)

    error = np.abs(np.array(losses.values) - expected).max()
    assert len(expected) == STEPS
    assert error <= 1e-8, error
    assert expected[-1] < expected[0] - 0.1
    for name, value in state_dict(model).items():
        # The gradient of a key's bias is 0 but for rounding, which Adam makes into whole steps; nothing depends on it.
        if not name.endswith("key.bias"):
            np.testing.assert_allclose(value, after[name], rtol=0, atol=2e-8, err_msg=name)
