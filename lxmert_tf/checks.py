"""Checks of values in a compiled step, which cannot stop by itself: it counts what is wrong, and `fit` looks later."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

RULES = 32  # of a model, and more than any has


class CountedChecks(keras.metrics.Metric):
    """How many values have broken each rule since the last reset, and the first of them. A metric, so that it is part
    of a step's state under every backend, and replicas add up.
    """

    def __init__(self, name: str = "checks"):
        super().__init__(name=name)
        self.rules: dict[str, int] = {}
        self.broken = self.add_variable((RULES,), initializer="zeros", dtype="int32", name="broken")
        self.first = self.add_variable((RULES,), initializer="zeros", dtype="float32", name="first")

    def update_state(self, rule: str, holds, values) -> None:
        """Counts.

        Args:
            rule: what must hold.
            holds: bool[...], whether it does.
            values: of the same shape.
        """
        number = self.rules.setdefault(rule, len(self.rules))
        wrong = ops.cast(ops.reshape(ops.logical_not(holds), (-1,)), "int32")
        here = ops.cast(ops.arange(RULES, dtype="int32") == number, "int32") * ops.sum(wrong)
        # A batch of no examples has no first value
        flat = ops.concatenate([ops.cast(ops.reshape(values, (-1,)), "float32"), ops.zeros((1,), "float32")])
        value = ops.take(flat, ops.argmax(wrong) if wrong.shape[0] != 0 else 0)
        # JAX' functions take no variables
        broken, known = ops.convert_to_tensor(self.broken), ops.convert_to_tensor(self.first)
        self.first.assign(ops.where(ops.logical_and(here > 0, broken == 0), value, known))
        self.broken.assign_add(here)

    def result(self):
        return ops.sum(self.broken)

    def raise_broken(self) -> None:
        """Raises a ValueError with the first rule that was broken and the first value that did, if any was."""
        if not self.rules:  # no step counts, and a device need not wait
            return
        broken = ops.convert_to_numpy(self.broken)
        for rule, number in self.rules.items():
            if broken[number]:
                value = ops.convert_to_numpy(self.first)[number]
                more = f" (and {broken[number] - 1} more)" if broken[number] > 1 else ""
                raise ValueError(f"{rule}, got {value:.10g}{more}.")


class Count:
    """What a step finds wrong while it is traced, on its way into `CountedChecks`.

    JAX has the state of metrics at hand where the loss is computed, and not where the model is called: what is found
    there waits until `flush`.
    """

    def __init__(self, checks: CountedChecks):
        self.checks = checks
        self.waiting: list[tuple[str, Any, Any]] = []

    def add(self, rule: str, holds, values) -> None:
        """Arguments as of `CountedChecks.update_state`."""
        self.waiting.append((rule, holds, values))
        if keras.backend.backend() != "jax":
            self.flush()

    def flush(self) -> None:
        for each in self.waiting:
            self.checks.update_state(*each)
        self.waiting.clear()


_current: ContextVar[Count | None] = ContextVar("current_count", default=None)


@contextmanager
def count_in(checks: CountedChecks | None) -> Iterator[None]:
    """Has `current_count` give one of these within it."""
    token = _current.set(None if checks is None else Count(checks))
    try:
        yield
    finally:
        _current.reset(token)


def current_count() -> Count | None:
    """Where the step that is being traced counts what is wrong, or None where it need not or cannot."""
    return _current.get()


class StopOnBrokenChecks(keras.callbacks.Callback):
    """Stops `fit` and `evaluate` with a ValueError once a compiled step has counted a value that breaks a rule.

    It looks after the batches 1, 2, 4, 8, ... of an epoch and after the last: a device that computes ahead waits for
    none of the others.

    Args:
        checks: of the model.
    """

    async_safe = True  # to Keras: it may run beside the steps

    def __init__(self, checks: CountedChecks):
        super().__init__()
        self.checks = checks

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        # JAX gives the state back at the end of an epoch only.
        if keras.backend.backend() != "jax" and (batch + 1) & batch == 0:
            self.checks.raise_broken()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.checks.raise_broken()

    # Validation within an epoch resets what training has counted.

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self.checks.raise_broken()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self.checks.raise_broken()
