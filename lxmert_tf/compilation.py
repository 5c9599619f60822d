"""Whether `fit` compiles its steps with XLA, where the caller leaves that open."""

import logging
import math
from typing import Any

import keras

logger = logging.getLogger("lxmert_tf")

# Parameters times steps from which on compilation, which takes up to a minute whatever the size of the model, is taken
# to save more than it costs: about 1000 steps of the published size.
WORTH_COMPILING = 2e11


def is_worth_compiling(parameters: int, steps: int | None) -> bool:
    """Whether steps of a model of so many parameters are worth the compilation; an unknown number of them is not."""
    return steps is not None and parameters * steps >= WORTH_COMPILING


class ChooseCompilation(keras.callbacks.Callback):
    """Chooses before the first step of `fit`, once the number of steps is known, and logs what it has chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.chosen: bool | None = None

    def set_params(self, params: dict[str, Any]) -> None:
        super().set_params(params)
        if self.model is None or self.chosen:
            return
        steps = params.get("steps")
        steps = steps and steps * params["epochs"]
        parameters = sum(math.prod(weight.shape) for weight in self.model.weights)
        before, self.chosen = self.chosen, is_worth_compiling(parameters, steps)
        if self.chosen:  # functions that an earlier `fit` has made are without
            self.model.jit_compile, self.model.train_function, self.model.test_function = True, None, None
        if self.chosen != before:
            logger.info(
                "fit runs %s XLA, with %s and %s parameters; compile(jit_compile=True) or False decides it.",
                "with" if self.chosen else "without",
                "an unknown number of steps" if steps is None else f"{steps:,} steps",
                f"{parameters:,}",
            )
