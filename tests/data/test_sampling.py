"""The order of examples in an epoch where texts of similar length share a batch."""

import numpy as np
import pytest

from lxmert_tf.data import sampling
from lxmert_tf.data.sampling import Sampler

SIZES = [(45, 8), (5, 8), (215, 8), (17, 16)]  # examples, and those of a global batch: the last batch is not full


def lengths_of(size):
    return np.random.default_rng(size).permutation(size) // 3


@pytest.mark.parametrize(("size", "batch"), SIZES)
def test_a_last_batch_that_is_not_full_is_a_random_draw(size, batch, monkeypatch):
    monkeypatch.setattr(sampling, "POOL", 4)  # 215 examples are several pools
    lengths, left = lengths_of(size), size % batch
    sampler = Sampler(size, batch, seed=5)
    epochs = 2000
    drawn = np.array([sampler.order(epoch, lengths)[-left:] for epoch in range(epochs)])
    # Drawn without regard to length: the mean of so many has this deviation around that of all examples.
    deviation = lengths.std() * np.sqrt((1 / left - 1 / size) / epochs)
    assert abs(lengths[drawn].mean() - lengths.mean()) <= 4 * deviation
    times = np.bincount(drawn.reshape(-1), minlength=size)
    share = left / size
    assert (abs(times - epochs * share) <= 5 * np.sqrt(epochs * share * (1 - share))).all()


@pytest.mark.parametrize(("size", "batch"), SIZES)
def test_an_epoch_has_every_example_once_and_its_full_batches_are_those_without_the_rest(size, batch):
    lengths = lengths_of(size)
    for epoch in range(3):
        order = Sampler(size, batch, seed=1).order(epoch, lengths)
        assert sorted(order) == list(range(size))
        if size > batch:
            dropped = Sampler(size, batch, seed=1, drop_remainder=True).order(epoch, lengths)
            np.testing.assert_array_equal(order[: len(dropped)], dropped)
            shares = np.sort(lengths[dropped].reshape(-1, batch), axis=1)
            shares = shares[np.argsort(shares[:, 0])]
            assert (shares[:-1, -1] <= shares[1:, 0]).all()  # all one pool: no batch reaches into the next


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_share_the_same_global_batches(workers):
    lengths = lengths_of(45)
    one = Sampler(45, 8, seed=1)
    parts = [Sampler(45, 8 // workers, seed=1, shard=(index, workers)) for index in range(workers)]
    for epoch in range(2):
        order = one.order(epoch, lengths)
        for part in parts:
            np.testing.assert_array_equal(part.order(epoch, lengths), order)
        last = one.batch(len(one) - 1, order)
        np.testing.assert_array_equal(np.concatenate([last[part.shard_of(last)] for part in parts]), last)
