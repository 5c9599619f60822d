"""Gradient checkpointing: what is inside a layer is computed again for the gradient instead of kept."""

from collections import Counter
from contextlib import contextmanager

import keras
from keras import ops

from lxmert_tf.keras_private import flat_layers
from lxmert_tf.layers.dropout import Dropout, seed_source


def recomputed(layer: keras.layers.Layer, *inputs):
    """`layer(*inputs, training=True)`; for the gradient it is computed again, with the same dropout, instead of kept.

    Args:
        layer: returns tensors only.
        inputs: its tensors, or None.
    """
    seeds = Seeds(layer)
    present = [each is not None for each in inputs]

    def call(*tensors):
        remaining = iter(tensors)
        with seeds.used():
            return layer(*(next(remaining) if there else None for there in present), training=True)

    outputs = keras.remat(call)(*(each for each in inputs if each is not None))
    seeds.finish()
    return outputs


class Seeds:
    """The seeds of the dropout layers inside `layer` for one call of it, which can then be made again.

    Args:
        layer: a layer whose dropout layers have a generator each.
    """

    def __init__(self, layer: keras.layers.Layer):
        self.layers = [each for each in flat_layers(layer) if isinstance(each, Dropout) and each.rate > 0]
        self.first = {id(each): each.seed_generator.next() for each in self.layers}
        self.uses: Counter[int] = Counter()

    @contextmanager
    def used(self):
        """Dropout inside takes these seeds, from the first on, and leaves the generators alone."""
        self.uses.clear()
        token = seed_source.set(self.next)
        try:
            yield
        finally:
            seed_source.reset(token)

    def next(self, layer: Dropout):
        use = self.uses[id(layer)]
        self.uses[id(layer)] += 1
        first = self.first[id(layer)]
        return first + ops.cast(ops.convert_to_tensor([0, use]), first.dtype)

    def finish(self) -> None:
        """Takes the generators to where a call without `used` would have."""
        for layer in self.layers:
            for _ in range(self.uses[id(layer)] - 1):
                layer.seed_generator.next()
