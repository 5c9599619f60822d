"""Values out of range stop `fit` and `evaluate` also where the compiled step cannot."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.models import batch, tiny_model

from lxmert_tf.checks import CountedChecks, StopOnBrokenChecks, count_in
from lxmert_tf.inputs import check_labels

SMALL = {"l_layers": 1, "r_layers": 0}


def counted(*batches, compiled=True) -> CountedChecks:
    """What steps of XLA count that check these labels, of 5 classes."""
    checks = CountedChecks()

    def step(values):
        with count_in(checks):
            return check_labels("labels", values, 5)

    run = tf.function(step, jit_compile=compiled)
    for values in batches:
        run(tf.constant(values))
    return checks


def test_good_labels_pass():
    counted([0, 4, -100], [1, 2, 3]).raise_broken()


@pytest.mark.parametrize("compiled", [True, False])
def test_the_first_value_and_the_number_are_told(compiled):
    checks = counted([0, 1, 2], [3, -1, 7], [9, 0, 0], compiled=compiled)
    message = r"labels must lie in 0\.\.4 \(number of classes=5\), or be -100 to be ignored, got -1 \(and 2 more\)\.$"
    with pytest.raises(ValueError, match=message):
        checks.raise_broken()
    checks.reset_state()
    checks.raise_broken()


def test_it_looks_after_ever_more_batches():
    checks = CountedChecks()
    looked: list[int] = []
    callback = StopOnBrokenChecks(checks)
    for index in range(17):
        checks.raise_broken = lambda index=index: looked.append(index + 1)  # type: ignore[method-assign]
        callback.on_train_batch_end(index)
    assert looked == [1, 2, 4, 8, 16]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["fit", "evaluate"])
def test_the_steps_of_a_model_count(step, monkeypatch):
    """As if this were a program that cannot stop, but without the time that XLA takes."""
    model = tiny_model(**SMALL)
    model.compile("sgd", jit_compile=False)
    monkeypatch.setattr(type(model), "counts_checks", True)
    x, y, message = batch(model), np.array([1, 7, -100]), r"^labels must lie in 0\.\.4 .*, got 7"
    if step == "fit":
        x["input_ids"][:, 3], y = 99, np.array([1, 2, -100])
        message = r"^input_ids must lie in 0\.\.36 \(vocab_size=37\), got 99 \(and 2 more\)"
    with pytest.raises(ValueError, match=message):
        getattr(model, step)(x, y, verbose=0)


def test_the_state_is_no_metric_of_the_model():
    model = tiny_model(**SMALL)
    model.compile("sgd", jit_compile=False)
    assert [metric.name for metric in model.metrics] == ["loss"]
    assert len(model.metrics_variables) > len(keras.metrics.Mean().variables)
