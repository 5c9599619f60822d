"""The random numbers of dropout: as many zeros as asked for, in places that tell nothing about one another."""

import keras
import numpy as np
import pytest

from lxmert_tf.layers.dropout import Dropout, random_bits

BACKEND = keras.backend.backend()
SHAPE = (96, 1024)
NUMBERS = SHAPE[0] * SHAPE[1]


def bits(seed: int = 1, step: int = 0, shape=SHAPE) -> np.ndarray:
    seed = keras.ops.convert_to_tensor(np.array([seed, step]))
    return keras.ops.convert_to_numpy(random_bits(keras.ops.zeros(shape), seed))


def mask(layer: Dropout, shape=SHAPE) -> np.ndarray:
    return keras.ops.convert_to_numpy(layer(keras.ops.ones(shape), training=True)) != 0


def correlation(one, other) -> float:
    """In standard deviations of that of independent numbers."""
    return abs(np.corrcoef(np.ravel(one), np.ravel(other))[0, 1]) * np.size(one) ** 0.5


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.9, 1.0])
def test_the_share_of_zeros_is_the_rate_and_the_rest_is_scaled(rate):
    given = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    output = keras.ops.convert_to_numpy(Dropout(rate)(keras.ops.convert_to_tensor(given), training=True))
    kept = output != 0
    deviation = (rate * (1 - rate) / NUMBERS) ** 0.5
    assert abs(np.mean(~kept) - rate) <= 4 * deviation
    if rate < 1:
        np.testing.assert_allclose(output[kept], given[kept] / (1 - rate), rtol=1e-6)


def test_nothing_is_dropped_outside_training():
    given = np.random.default_rng(0).standard_normal(SHAPE).astype("float32")
    np.testing.assert_array_equal(Dropout(0.5)(given), given)


def test_every_bit_is_set_half_of_the_time():
    found = bits().view("uint32")
    for place in range(32):
        share = np.mean(found >> place & 1)
        assert abs(share - 0.5) < 4.5 * 0.5 / NUMBERS**0.5, place


def test_values_fill_their_range_evenly():
    found = np.bincount(bits().view("uint32").ravel() >> 24, minlength=256)
    expected = NUMBERS / 256
    assert abs(np.sum((found - expected) ** 2 / expected) - 255) < 4 * (2 * 255) ** 0.5


@pytest.mark.parametrize("lag", [1, 2, 3, 16, 64, 768, 1024, 4096, 65536 // 2])
def test_neighbours_are_independent(lag):
    found = bits().ravel()
    assert correlation(found[:-lag], found[lag:]) < 4.5
    assert correlation(found[:-lag] < 0, found[lag:] < 0) < 4.5


def test_runs_of_eight_come_equally_often():
    runs = np.packbits((bits() < 0).reshape(-1, 8), axis=1)
    found, expected = np.bincount(runs.ravel(), minlength=256), NUMBERS / 8 / 256
    assert abs(np.sum((found - expected) ** 2 / expected) - 255) < 4 * (2 * 255) ** 0.5


@pytest.mark.slow
def test_other_seeds_and_steps_give_unrelated_numbers():
    seeds = [(seed, step) for seed in (0, 1, 5, 10**9) for step in (0, 1, 2, 2**31)]
    drawn = [bits(*seed) for seed in seeds]
    for i, one in enumerate(drawn):
        for other in drawn[:i]:
            assert correlation(one, other) < 5
            assert correlation(one < -(2**30), other < -(2**30)) < 5
            assert np.intersect1d(one, other).size < NUMBERS / 100  # the same in another order would share all


def test_a_layer_draws_anew_at_every_step_and_the_same_from_the_same_seed():
    one, again = Dropout(0.3, seed=5), Dropout(0.3, seed=5)
    masks = [mask(one) for _ in range(3)]
    for step, drawn in enumerate(masks):
        np.testing.assert_array_equal(drawn, mask(again))
        assert all(correlation(drawn, other) < 5 for other in masks[:step])


def test_sizes_that_are_not_known_before_the_call_change_nothing():
    tf = pytest.importorskip("tensorflow")
    if BACKEND != "tensorflow":
        pytest.skip("only TensorFlow has sizes that are not known before the call")
    seed = tf.constant([3, 4], "int64")
    expected = random_bits(tf.zeros((5, 7)), seed)
    spec = tf.TensorSpec((None, None))
    for compiled in (False, True):
        got = tf.function(lambda x: random_bits(x, seed), input_signature=[spec], jit_compile=compiled)(
            tf.zeros((5, 7))
        )
        np.testing.assert_array_equal(got, expected)


def test_numbers_are_the_same_under_every_backend():
    # Worked out with Python's integers.
    def mixed(x):
        return second(first(x))

    def first(x):
        x = (x ^ x >> 16) * 0x7FEB352D % 2**32
        return x ^ x >> 15

    def second(x):
        x = x * 0x846CA68B % 2**32
        return x ^ x >> 16

    one = mixed(mixed(7) ^ 2)
    other = mixed(one ^ 0xFFFFFFFF)
    expected = [second(first(place ^ one) ^ other) for place in range(12)]
    np.testing.assert_array_equal(bits(7, 2, (3, 4)).view("uint32").ravel(), expected)
