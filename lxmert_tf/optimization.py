"""The optimiser and learning rate schedule of BERT and of the original LXMERT code, and AdamW."""

import keras
from keras import ops

from lxmert_tf.layers.common import matmul


def global_norm(gradients):
    """The root of the sum of all squares; not finite where one of the gradients is not.

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


class _ByUpdates:
    """Mixin before a Keras optimiser: schedules count updates, and `global_clipnorm` takes less time on a CPU.

    With `gradient_accumulation_steps` Keras' own schedules count batches, of which only every so many is an update.
    """

    def _get_current_learning_rate(self):
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _clip_gradients(self, gradients):
        if self.clipnorm or not self.global_clipnorm:
            return super()._clip_gradients(gradients)
        norm = global_norm(gradients)
        # The difference is 0, or NaN where the norm is not finite: as in Keras, all gradients are NaN then.
        scale = 1.0 / ops.maximum(norm / self.global_clipnorm, 1.0) + (norm - norm)
        return [gradient if gradient is None else gradient * ops.cast(scale, gradient.dtype) for gradient in gradients]


@keras.saving.register_keras_serializable("lxmert_tf")
class AdamW(_ByUpdates, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, whose schedule counts updates and whose `global_clipnorm` takes less time on a CPU."""


@keras.saving.register_keras_serializable("lxmert_tf")
class BertAdam(_ByUpdates, keras.optimizers.Optimizer):
    """Adam without bias correction, with decoupled weight decay.

    The update is `w -= lr * (m / (sqrt(v) + epsilon) + weight_decay * w)`. Without bias correction the first updates
    are larger than Adam's, which is why it goes with a warm-up.

    Args:
        learning_rate: float or schedule, such as `LinearWarmup`; it counts updates, however many batches each takes.
        beta_1, beta_2: decay of the first and second moment.
        epsilon: added to the root of the second moment.
        weight_decay: decoupled decay; `exclude_from_weight_decay` names variables without it.
        **kwargs: as of every Keras optimiser, such as `global_clipnorm=5.0` (the original's fine-tuning).

    Source: the original code's `BertAdam`; Devlin et al. 2019.
    """

    def __init__(
        self,
        learning_rate=5e-5,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-6,
        weight_decay: float | None = 0.01,
        name: str = "bert_adam",
        **kwargs,
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
        index = self._get_variable_index(variable)
        momentum, velocity = self.momentums[index], self.velocities[index]
        self.assign(momentum, self.beta_1 * momentum + (1 - self.beta_1) * gradient)
        self.assign(velocity, self.beta_2 * velocity + (1 - self.beta_2) * ops.square(gradient))
        self.assign_sub(variable, learning_rate * momentum / (ops.sqrt(velocity) + self.epsilon))

    def get_config(self) -> dict:
        config = super().get_config()
        return {**config, "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}


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
