"""Two devices train, measure and drop as one does."""

import json

import keras
import numpy as np
import pytest

from lxmert_tf import backend
from lxmert_tf.layers.dropout import fold_in_replica, random_bits


@pytest.fixture
def trained(forked):
    """What `devices.py` prints."""
    return lambda *arguments: json.loads(forked.run("-m", "support.devices", *arguments).splitlines()[-1])


@pytest.mark.slow
def test_two_devices_compute_what_one_does(trained):
    one, two = trained("one"), trained("two")
    assert one["history"].keys() == two["history"].keys()
    for name, values in one["history"].items():
        np.testing.assert_allclose(two["history"][name], values, rtol=1e-10, err_msg=name)
    for name, value in one["evaluated"].items():
        assert two["evaluated"][name] == pytest.approx(value, rel=1e-10), name
    np.testing.assert_allclose(two["weights"], one["weights"], rtol=1e-10)


@pytest.mark.slow
def test_two_devices_draw_two_masks(trained):
    one, two = trained("one", 0.5), trained("two", 0.5)
    assert one["history"]["loss"][0] != pytest.approx(two["history"]["loss"][0], rel=1e-3)
    assert one["evaluated"]["loss"] != pytest.approx(two["evaluated"]["loss"], rel=1e-6)


def bits(replica, monkeypatch) -> np.ndarray:
    monkeypatch.setattr("lxmert_tf.layers.dropout.replica_id", lambda: replica)
    seed = keras.ops.convert_to_tensor(np.array([17, 3]))
    return keras.ops.convert_to_numpy(random_bits(keras.ops.zeros(50_000), fold_in_replica(seed)))


def test_masks_of_replicas_are_independent_and_the_first_is_that_of_one_device(monkeypatch):
    assert backend.replica_id() == 0
    drawn = [bits(replica, monkeypatch) for replica in range(6)]
    seed = keras.ops.convert_to_tensor(np.array([17, 3]))
    np.testing.assert_array_equal(drawn[0], keras.ops.convert_to_numpy(random_bits(keras.ops.zeros(50_000), seed)))
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert abs(np.corrcoef(one, other)[0, 1]) < 4.5 / len(one) ** 0.5
