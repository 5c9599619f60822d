"""Dropout whose random numbers cost next to nothing."""

import math
from contextvars import ContextVar

import keras
from keras import ops

from lxmert_tf.backend import replica_id
from lxmert_tf.layers.quantization import InFloat

# A function from a dropout layer to its next seed, in place of the layer's own generator.
seed_source: ContextVar = ContextVar("seed_source", default=None)


@keras.saving.register_keras_serializable("lxmert_tf")
class Dropout(InFloat, keras.layers.Dropout):
    """Keras' dropout, with a mask that is a hash of the place of each number and of the layer's seed and step.

    Keras draws the mask by a cryptographic generator, which on a CPU under XLA takes longer than the products between
    the masks. A hash of independent inputs has no such demands to meet: it is a dozen integer operations that compile
    into the product that follows.

    Source: the hash is "lowbias32" of C. Wellons' hash prospector.
    """

    def call(self, inputs, training: bool = False):
        """float[...] -> float[...], in training with a share of `rate` set to 0 and the rest divided by 1 - `rate`"""
        if not training or self.rate == 0:
            return inputs
        if self.rate == 1:
            return ops.zeros_like(inputs)
        source = seed_source.get()
        seed = self.seed_generator.next() if source is None else source(self)
        kept = random_bits(inputs, fold_in_replica(seed)) >= int(self.rate * 2**32) - 2**31
        return ops.where(kept, inputs / (1.0 - self.rate), ops.zeros_like(inputs))


def fold_in_replica(seed):
    """The seed int[2] for this replica of a `tf.distribute` strategy, whose generators all give the same.

    That of the first replica is the one of a single device.
    """
    replica = replica_id()
    if isinstance(replica, int) and replica == 0:
        return seed
    key = _mixed(ops.convert_to_tensor(replica, "int32"))  # 0 for 0
    return ops.bitwise_xor(ops.cast(seed, "int32"), ops.stack([key, ops.zeros_like(key)]))


def random_bits(like, seed):
    """Random int32 of the shape of `like`, uniform over all int32.

    Args:
        like: a tensor; only its shape counts.
        seed: int[2], such as a `keras.random.SeedGenerator` gives: a seed, and the number of times it was used.
    """
    seed = ops.cast(seed, "int32")
    first = _mixed(ops.bitwise_xor(_mixed(seed[0]), seed[1]))
    second = _mixed(ops.bitwise_not(first))
    shape = ops.shape(like)
    size = math.prod(shape) if all(isinstance(length, int) for length in shape) else ops.size(like)
    places = ops.reshape(ops.arange(size, dtype="int32"), shape)
    # A second key comes in half way, since with the first alone two masks would be one, in another order.
    return _second_half(ops.bitwise_xor(_first_half(ops.bitwise_xor(places, first)), second))


# Products wrap around, as those of int32 do in every framework.


def _mixed(x):
    return _second_half(_first_half(x))


def _first_half(x):
    return _xor_shifted(_xor_shifted(x, 16) * 0x7FEB352D, 15)


def _second_half(x):
    return _xor_shifted(x * (0x846CA68B - 2**32), 16)


def _xor_shifted(x, places: int):
    """x ^ (x >> places), zeros coming in from the left."""
    return ops.bitwise_xor(x, ops.bitwise_and(ops.right_shift(x, places), 2 ** (32 - places) - 1))
