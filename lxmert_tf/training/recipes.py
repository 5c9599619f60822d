"""The published recipes as data: the defaults of each task.

Source: Tan & Bansal 2019, sections 3.3 and 4; the original code's `run/*.bash`.
"""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lxmert_tf.configuration import MULTI_LABEL, SINGLE_LABEL
from lxmert_tf.tasks import TASKS

if TYPE_CHECKING:
    import keras

OPTIMIZERS = ("bertadam", "adamw")
LOSSES = ("bce", "ce")
# As a config names them. Source: upstream `PretrainedConfig.problem_type`.
PROBLEM_TYPES = {"bce": MULTI_LABEL, "ce": SINGLE_LABEL}


def _check(name: str, value: Any, holds: bool, rule: str) -> None:
    if not holds:
        raise ValueError(f"{name} must be {rule}, got {value!r}.")


@dataclass(frozen=True)
class Recipe:
    """How to train for one task.

    Args:
        task: "vqa", "gqa", "nlvr2" or "pretrain".
        epochs: passes over the training set.
        batch_size: examples per step, of all devices and machines together.
        learning_rate: the peak.
        optimizer: "bertadam" (the original's Adam without bias correction) or "adamw".
        warmup: share of all steps in which the learning rate rises, in [0, 1).
        weight_decay: decoupled, of every weight unless `exclude_from_decay`.
        exclude_from_decay: no decay of biases and of layer normalisation.
        clip: global norm to which gradients are clipped; None for no clipping.
        epsilon: of the optimiser.
        layer_decay: factor of the learning rate for each layer further from the heads; 1 for all alike.
        accumulate: batches whose gradients are averaged for one update.
        loss: "bce" against soft scores (VQA, GQA) or "ce" against the best answer, the first of equal ones; a question
            none of whose answers is known then has no loss.
        max_length: longest text in tokens, [CLS] and [SEP] among them.
        load_answers: start the answer head from the checkpoint's, matched answer by answer.
        monitor: the validation metric by which the best checkpoint is chosen; larger is better unless it is a loss.
    """

    task: str
    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str = "bertadam"
    warmup: float = 0.1
    weight_decay: float = 0.01
    exclude_from_decay: bool = False
    clip: float | None = 5.0
    epsilon: float = 1e-6
    layer_decay: float = 1.0
    accumulate: int = 1
    loss: str = "bce"
    max_length: int = 20
    load_answers: bool = True
    monitor: str = "val_accuracy"

    def __post_init__(self) -> None:
        _check("task", self.task, self.task in TASKS, f"one of {', '.join(TASKS)}")
        _check("optimizer", self.optimizer, self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
        _check("loss", self.loss, self.loss in LOSSES, f"one of {', '.join(LOSSES)}")
        for name in ("epochs", "batch_size", "accumulate"):
            _check(name, getattr(self, name), getattr(self, name) >= 1, "at least 1")
        _check("learning_rate", self.learning_rate, 0 < self.learning_rate < float("inf"), "above 0")
        _check("warmup", self.warmup, 0 <= self.warmup < 1, "in [0, 1)")
        _check("weight_decay", self.weight_decay, 0 <= self.weight_decay < float("inf"), "at least 0")
        _check("clip", self.clip, self.clip is None or self.clip > 0, "above 0")
        _check("layer_decay", self.layer_decay, 0 < self.layer_decay <= 1, "above 0 and at most 1")
        _check("max_length", self.max_length, self.max_length >= 3, "at least 3")

    def replace(self, **changes: Any) -> "Recipe":
        """A copy with changes; None leaves a value as it is."""
        return dataclasses.replace(self, **{name: value for name, value in changes.items() if value is not None})


# What suits a model with random weights better: without bias correction the first updates are too large for it.
FROM_SCRATCH = {"optimizer": "adamw", "clip": 1.0}

RECIPES = {
    "vqa": Recipe("vqa", epochs=4, batch_size=32, learning_rate=5e-5),
    "gqa": Recipe("gqa", epochs=4, batch_size=32, learning_rate=1e-5),
    "nlvr2": Recipe("nlvr2", epochs=4, batch_size=32, learning_rate=5e-5, load_answers=False),
    "pretrain": Recipe(
        "pretrain", epochs=20, batch_size=256, learning_rate=1e-4, warmup=0.05, clip=1.0, monitor="val_loss"
    ),
}


def make_optimizer(
    recipe: Recipe, total_steps: int, rate_factors: dict[str, float] | None = None, skip_nonfinite: bool = False
) -> "keras.optimizers.Optimizer":
    """The recipe's optimizer, a `keras.optimizers.Optimizer`, with a linear warm-up and decay.

    Args:
        recipe: which optimizer, and its rates.
        total_steps: batches of the whole training; with `accumulate` there are as many times fewer updates.
        rate_factors: as from `lxmert_tf.optimizers.layer_rate_factors`.
        skip_nonfinite: whether updates with gradients that are not finite are skipped; counted they always are.
    """
    from lxmert_tf.optimizers import AdamW, BertAdam, LinearWarmup

    updates = max(total_steps // recipe.accumulate, 1)
    return {"bertadam": BertAdam, "adamw": AdamW}[recipe.optimizer](
        LinearWarmup(recipe.learning_rate, updates, recipe.warmup),
        epsilon=recipe.epsilon,
        weight_decay=recipe.weight_decay,
        exclude_from_decay=recipe.exclude_from_decay,
        global_clipnorm=recipe.clip,
        gradient_accumulation_steps=recipe.accumulate if recipe.accumulate > 1 else None,
        rate_factors=rate_factors,
        on_nonfinite="skip" if skip_nonfinite else "count",
    )
