"""AdamW, the BertAdam of the original LXMERT code, its learning rate schedule, and learning rates by layer.

Both optimizers differ from Keras' own in what training over many devices, layers and batches needs:

- Schedules count updates. With `gradient_accumulation_steps` Keras' own count batches, of which only every so many is
  an update.
- Gradients are summed over all replicas before they are clipped. Keras clips each replica's share on its own, so that
  two workers would train otherwise than one.
- Learning rate and decay have a factor per variable.
- An update whose gradients are not finite can be counted or skipped.
"""

import re
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from lxmert_tf.backend import sum_over_replicas
from lxmert_tf.keras_private import OptimizerHooks
from lxmert_tf.layers.primitives import matmul

# Variables without weight decay where biases and layer normalization are excluded.
NO_DECAY = re.compile(r"(^|/)(bias|gamma|beta)$")
NONFINITE = (None, "count", "skip")


def global_norm(gradients):
    """float[], the root of the sum of all squares; not finite where one of the gradients is not.

    Keras' own takes five times as long on a CPU under XLA, whose sums add up one number at a time; products do not.
    """
    squares = []
    for gradient in gradients:
        if gradient is not None:
            gradient = ops.convert_to_tensor(gradient)
            width = gradient.shape[-1] if len(gradient.shape) else 1
            square = ops.reshape(ops.square(gradient), (-1, width))
            squares.append(ops.sum(matmul(square, ops.ones((width, 1), square.dtype))))
    return ops.sqrt(ops.sum(ops.stack(squares)))


class _Optimizer(OptimizerHooks):
    """Mixin before a Keras optimizer with decoupled weight decay.

    Args:
        exclude_from_decay: whether biases and layer normalization have no decay.
        rate_factors: path of a variable without the model's name -> factor of its learning rate, decay included; 1
            where not named. `layer_rate_factors` makes such.
        on_nonfinite: what an update does whose gradients are not all finite. None: what it computes. "count": that,
            and `nonfinite` is one more. "skip": nothing but that, and it is no update to the schedule.

    Attributes:
        nonfinite: int32[], updates with gradients that were not finite; None where they are not looked for.
    """

    nonfinite: Any
    _kept: Any = None  # bool[] while a variable is updated: whether the update takes place; None where all do

    def __init__(
        self,
        *args: Any,
        exclude_from_decay: bool = False,
        rate_factors: dict[str, float] | None = None,
        on_nonfinite: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if on_nonfinite not in NONFINITE:
            raise ValueError(f"on_nonfinite must be None, 'count' or 'skip', got {on_nonfinite!r}.")
        if not isinstance(exclude_from_decay, bool):
            raise TypeError(
                f"exclude_from_decay must be True or False, got {exclude_from_decay!r}; "
                "exclude_from_weight_decay() takes names."
            )
        if not isinstance(rate_factors, Mapping | None) or any(
            not factor >= 0 for factor in (rate_factors or {}).values()
        ):
            raise ValueError(
                f"rate_factors must map paths of variables to numbers of at least 0, got {rate_factors!r}."
            )
        if on_nonfinite == "skip" and self.gradient_accumulation_steps:
            raise ValueError("on_nonfinite='skip' cannot go with gradient accumulation: drop one of them.")
        self.exclude_from_decay, self.rate_factors = exclude_from_decay, dict(rate_factors or {})
        self.on_nonfinite, self.nonfinite = on_nonfinite, None
        if on_nonfinite:
            self.nonfinite = self.track(
                keras.Variable(0, name="nonfinite", dtype="int32", trainable=False, aggregation="only_first_replica")
            )

    def build(self, variables) -> None:
        if self.built:
            return
        super().build(variables)
        paths = [variable.path.partition("/")[2] for variable in variables]
        if unknown := sorted(set(self.rate_factors) - set(paths)):
            raise ValueError(
                f"rate_factors names {unknown[0]!r}, which is none of the variables to train, such as {paths[0]!r}; "
                "give whole paths without the model's name."
            )
        self._factors = [self.rate_factors.get(path, 1.0) for path in paths]
        self._decays = [
            0.0 if self.exclude_from_decay and NO_DECAY.search(path) else self.decay_of(variable)
            for path, variable in zip(paths, variables, strict=True)
        ]

    def update_step(self, gradient, variable, learning_rate) -> None:
        index = self.index_of(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self._factors[index]
        self._kept = ops.isfinite(ops.ravel(gradient)[0]) if self.on_nonfinite == "skip" else None
        if self._decays[index]:
            self.assign_sub(variable, variable * self._decays[index] * rate)
        super().update_step(gradient, variable, rate)

    def assign(self, variable, value) -> None:
        super().assign(variable, value if self._kept is None else ops.where(self._kept, value, variable))

    def assign_add(self, variable, value) -> None:
        if self._kept is None:
            super().assign_add(variable, value)
        else:
            self.assign(variable, variable + value)

    def assign_sub(self, variable, value) -> None:
        if self._kept is None:
            super().assign_sub(variable, value)
        else:
            self.assign(variable, variable - value)

    def clip_gradients(self, gradients):
        """The gradients of all replicas together, clipped; all of them NaN where an update is to be skipped."""
        gradients = sum_over_replicas(list(gradients))
        by_norm = bool(self.global_clipnorm) and not self.clipnorm
        if not by_norm and not self.on_nonfinite:
            return super().clip_gradients(gradients)
        norm = global_norm(gradients)
        if not by_norm:
            clipped = super().clip_gradients(gradients)
        else:
            # The difference is 0, or NaN where the norm is not finite: as in Keras, all gradients are NaN then.
            scale = 1.0 / ops.maximum(norm / self.global_clipnorm, 1.0) + (norm - norm)
            clipped = [each if each is None else each * ops.cast(scale, each.dtype) for each in gradients]
        if not self.on_nonfinite:
            return clipped
        finite = ops.isfinite(norm)
        self.nonfinite.assign_add(ops.cast(ops.logical_not(finite), "int32"))
        if self.on_nonfinite == "count":
            return clipped
        # What tells every update_step, wherever it runs, that one of the gradients was not finite.
        return [
            each if each is None else ops.where(finite, each, ops.full_like(each, float("nan"))) for each in clipped
        ]

    @property
    def iterations(self):
        """Updates done; one that was skipped is none, so that it moves neither schedule nor bias correction."""
        return super().iterations - self.nonfinite if self.on_nonfinite == "skip" else super().iterations

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "exclude_from_decay": self.exclude_from_decay,
            "rate_factors": self.rate_factors,
            "on_nonfinite": self.on_nonfinite,
        }


@keras.saving.register_keras_serializable("lxmert_tf")
class AdamW(_Optimizer, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, with the arguments and differences described in this module.

    Args:
        exclude_from_decay: whether biases and layer normalization have no decay.
        rate_factors: path of a variable -> factor of its learning rate, such as from `layer_rate_factors`.
        on_nonfinite: None, "count" or "skip": what becomes of an update whose gradients are not all finite.
        **kwargs: of `keras.optimizers.AdamW`.
    """


class _BertAdam(OptimizerHooks, keras.optimizers.Optimizer):
    """The update of `BertAdam`, without decay."""

    def __init__(
        self,
        learning_rate=5e-5,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: float | None = 0.01,
        name: str = "bert_adam",
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.beta_1, self.beta_2, self.epsilon = beta_1, beta_2, epsilon

    def build(self, variables) -> None:
        if self.built:
            return
        super().build(variables)
        self.momentums, self.velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])

    def update_step(self, gradient, variable, learning_rate) -> None:
        learning_rate = ops.cast(learning_rate, variable.dtype)
        # Added up, where TensorFlow gives the rows that an embedding looked up, one by one.
        gradient = ops.cast(ops.add(ops.zeros_like(variable), gradient), variable.dtype)
        index = self.index_of(variable)
        momentum, velocity = self.momentums[index], self.velocities[index]
        self.assign(momentum, self.beta_1 * momentum + (1 - self.beta_1) * gradient)
        self.assign(velocity, self.beta_2 * velocity + (1 - self.beta_2) * ops.square(gradient))
        self.assign_sub(variable, learning_rate * momentum / (ops.sqrt(velocity) + self.epsilon))

    def get_config(self) -> dict:
        config = super().get_config()
        return {**config, "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


@keras.saving.register_keras_serializable("lxmert_tf")
class BertAdam(_Optimizer, _BertAdam):
    """Adam without bias correction, with decoupled weight decay.

    The update is `w -= lr * (m / (sqrt(v) + epsilon) + weight_decay * w)`. Without bias correction the first updates
    are larger than Adam's, which is why it goes with a warm-up.

    Args:
        learning_rate: float or schedule, such as `LinearWarmup`; it counts updates, however many batches each takes.
        beta_1, beta_2: decay of the first and second moment.
        epsilon: added to the root of the second moment.
        weight_decay: decoupled decay; `exclude_from_weight_decay` names variables without it; Keras does not save it.
        **kwargs: `exclude_from_decay`, `rate_factors` and `on_nonfinite` as of `AdamW`, and those of every Keras
            optimizer, such as `global_clipnorm=5.0` (the original's fine-tuning).

    Source: the original code's `BertAdam`; Devlin et al. 2019.
    """


@keras.saving.register_keras_serializable("lxmert_tf")
class LinearWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises linearly from 0 over the warm-up, then falls linearly to 0 at the last step.

    Args:
        learning_rate: the peak.
        total_steps: updates of the whole training: batches, divided by `gradient_accumulation_steps` if there are any.
        warmup: share of them that is warm-up, in [0, 1).

    Raises:
        ValueError: an argument is out of its range, or the only update would be one of warm-up, with the rate 0.

    Source: the original code's `warmup_linear`.
    """

    def __init__(self, learning_rate: float, total_steps: int, warmup: float = 0.1):
        if total_steps < 1 or not 0 <= warmup < 1:
            raise ValueError(
                f"total_steps must be at least 1 and warmup in [0, 1), got total_steps={total_steps}, warmup={warmup}."
            )
        if total_steps == 1 and warmup > 0:
            raise ValueError(
                f"total_steps=1 with warmup={warmup} trains nothing: the first update of a warm-up has the rate 0. "
                "Train for more updates, or without warm-up."
            )
        self.learning_rate, self.total_steps, self.warmup = learning_rate, total_steps, warmup

    def __call__(self, step):
        progress = ops.cast(step, keras.config.floatx()) / self.total_steps
        falling = ops.maximum((1.0 - progress) / (1.0 - self.warmup), 0.0)
        if self.warmup == 0:
            return self.learning_rate * falling
        return self.learning_rate * ops.where(progress < self.warmup, progress / self.warmup, falling)

    def get_config(self) -> dict:
        return {"learning_rate": self.learning_rate, "total_steps": self.total_steps, "warmup": self.warmup}


def layer_rate_factors(model, decay: float) -> dict[str, float]:
    """Path of each variable -> factor of its learning rate: `decay` to the power of its distance from the heads.

    Heads have the factor 1; the last cross layer, the pooler with it, `decay`; each layer before it once more; the
    language and the vision stack go on, each at its own pace, and the embeddings lie one below the deeper of them.
    """
    if decay == 1:
        return {}
    config = model.config
    depths = {"layer": config.l_layers, "r_layers": config.r_layers}
    factors = {}
    for variable in model.trainable_variables:
        path = variable.path.removeprefix(f"{model.path}/")
        inside = re.search(r"encoder/(layer|r_layers|x_layers)(?:_|/)(\d+)", path)
        if not path.startswith("lxmert/"):
            distance = 0
        elif "pooler" in path:
            distance = 1
        elif inside is None:
            vision = "visn_fc" in path
            distance = config.x_layers + (config.r_layers if vision else config.l_layers) + 1
        elif inside[1] == "x_layers":
            distance = config.x_layers - int(inside[2])
        else:
            distance = config.x_layers + depths[inside[1]] - int(inside[2])
        factors[variable.path.partition("/")[2]] = decay**distance
    return factors


# What recipes of 0.1 trained with, in the files that it saved


class _Recipe(_Optimizer):
    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> keras.optimizers.Optimizer:
        config = dict(config)
        if "skip_nonfinite" in config:
            config["on_nonfinite"] = "skip" if config.pop("skip_nonfinite") else "count"
        return super().from_config(config, custom_objects)

    def load_own_variables(self, store) -> None:
        arrays = [store[str(number)] for number in range(len(store.keys()))]
        if len(arrays) == len(self.variables) + 1:  # 0.1 wrote `nonfinite` twice
            del arrays[next(number for number, each in enumerate(self.variables) if each is self.nonfinite)]
        super().load_own_variables({str(number): array for number, array in enumerate(arrays)})


@keras.saving.register_keras_serializable("lxmert_tf")
class RecipeBertAdam(_Recipe, BertAdam):
    """`BertAdam`."""


@keras.saving.register_keras_serializable("lxmert_tf")
class RecipeAdamW(_Recipe, AdamW):
    """`AdamW`."""
