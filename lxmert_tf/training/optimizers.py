"""The recipes' optimisers: BertAdam and AdamW with decay exclusions, layer-wise rates, and a guard against NaN.

Everything that differs from Keras' optimisers is in `_RecipeOptimizer`:

- Gradients are summed over all replicas *before* they are clipped. Keras clips each replica's share on its own, so that
  two workers would train otherwise than one.
- Learning rate and decay have a factor per variable.
- `nonfinite` counts the updates whose gradients were not finite; with `skip_nonfinite` they change nothing
  and are not counted as updates.
"""

import re

import keras
from keras import ops

from lxmert_tf.optimization import AdamW, BertAdam, LinearWarmup, global_norm
from lxmert_tf.training.recipes import Recipe

# Variables without weight decay where biases and layer normalisation are excluded.
NO_DECAY = re.compile(r"(^|/)(bias|gamma|beta)$")


class _RecipeOptimizer:
    """Mixin before a Keras optimiser with decoupled weight decay.

    Args:
        exclude_from_decay: whether biases and layer normalisation have no decay.
        rate_factors: path of a variable -> factor of its learning rate, decay included; 1 where not named.
        skip_nonfinite: whether an update with a gradient that is not finite leaves weights and moments as they are.
    """

    def __init__(
        self,
        *args,
        weight_decay: float = 0.01,
        exclude_from_decay: bool = False,
        rate_factors: dict[str, float] | None = None,
        skip_nonfinite: bool = False,
        **kwargs,
    ):
        # The base class decays nothing: update_step does, where the factor of the variable is known.
        super().__init__(*args, weight_decay=0.0, **kwargs)
        self.decay, self.exclude_from_decay = weight_decay, exclude_from_decay
        self.rate_factors, self.skip_nonfinite = rate_factors or {}, skip_nonfinite
        if skip_nonfinite and self.gradient_accumulation_steps:
            raise ValueError("skip_nonfinite cannot go with gradient accumulation: drop one of them.")
        self.nonfinite = keras.Variable(
            0, name="nonfinite", dtype="int32", trainable=False, aggregation="only_first_replica"
        )
        self._track_variable(self.nonfinite)

    def build(self, variables) -> None:
        if self.built:
            return
        super().build(variables)
        paths = [variable.path.partition("/")[2] for variable in variables]
        self._factors = [self.rate_factors.get(path, 1.0) for path in paths]
        self._decays = [0.0 if self.exclude_from_decay and NO_DECAY.search(path) else self.decay for path in paths]

    def update_step(self, gradient, variable, learning_rate) -> None:
        index = self._get_variable_index(variable)
        rate = ops.cast(learning_rate, variable.dtype) * self._factors[index]
        self._kept = ops.isfinite(ops.ravel(gradient)[0]) if self.skip_nonfinite else None
        if self._decays[index]:
            self.assign_sub(variable, variable * rate * self._decays[index])
        super().update_step(gradient, variable, rate)

    def assign(self, variable, value) -> None:
        if self._kept is not None:
            value = ops.where(self._kept, value, variable)
        super().assign(variable, value)

    def assign_add(self, variable, value) -> None:
        self.assign(variable, variable + value)

    def assign_sub(self, variable, value) -> None:
        self.assign(variable, variable - value)

    def _apply_weight_decay(self, variables) -> None:
        """Nothing: see `update_step`."""

    def _clip_gradients(self, gradients):
        import tensorflow as tf

        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, list(gradients))
        finite = ops.isfinite(global_norm(gradients))
        self.nonfinite.assign_add(ops.cast(ops.logical_not(finite), "int32"))
        clipped = super()._clip_gradients(gradients)
        if not self.skip_nonfinite:
            return clipped
        # What tells every update_step, wherever it runs, that one of the gradients was not finite.
        return [ops.where(finite, gradient, ops.full_like(gradient, float("nan"))) for gradient in clipped]

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # `_clip_gradients` has done it

    @property
    def iterations(self):
        """Updates done; one that was skipped is none, so that it moves neither schedule nor bias correction."""
        return super().iterations - self.nonfinite if self.skip_nonfinite else super().iterations

    def get_config(self) -> dict:
        return {
            **super().get_config(),
            "weight_decay": self.decay,
            "exclude_from_decay": self.exclude_from_decay,
            "rate_factors": self.rate_factors,
            "skip_nonfinite": self.skip_nonfinite,
        }


@keras.saving.register_keras_serializable("lxmert_tf")
class RecipeBertAdam(_RecipeOptimizer, BertAdam):
    """`BertAdam` with the recipe's additions."""


@keras.saving.register_keras_serializable("lxmert_tf")
class RecipeAdamW(_RecipeOptimizer, AdamW):
    """`AdamW` with the recipe's additions."""


def make_optimizer(
    recipe: Recipe, total_steps: int, rate_factors: dict[str, float] | None = None, skip_nonfinite: bool = False
) -> keras.optimizers.Optimizer:
    """The recipe's optimiser, with a linear warm-up and decay over `total_steps` batches.

    Args:
        recipe: which optimiser, and its rates.
        total_steps: batches of the whole training; with `accumulate` there are as many times fewer updates.
        rate_factors: as from `layer_rate_factors`.
        skip_nonfinite: see `_RecipeOptimizer`.
    """
    updates = max(total_steps // recipe.accumulate, 1)
    options = {"rate_factors": rate_factors, "skip_nonfinite": skip_nonfinite}
    if recipe.accumulate > 1:
        options["gradient_accumulation_steps"] = recipe.accumulate
    optimizer = {"bertadam": RecipeBertAdam, "adamw": RecipeAdamW}[recipe.optimizer]
    return optimizer(
        LinearWarmup(recipe.learning_rate, updates, recipe.warmup),
        epsilon=recipe.epsilon,
        weight_decay=recipe.weight_decay,
        exclude_from_decay=recipe.exclude_from_decay,
        global_clipnorm=recipe.clip,
        **options,
    )


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
        path = variable.path.partition("/")[2]
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
        factors[path] = decay**distance
    return factors
