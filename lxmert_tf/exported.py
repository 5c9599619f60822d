"""A model as the signature of an export can give it."""

from typing import Any

import keras
from keras import ops

from lxmert_tf.keras_private import mark_called
from lxmert_tf.outputs import ModelOutput, named_outputs


class Exported(keras.Model):
    """A model whose outputs all have names, and are tensors: those of layers are one, float[B, L, ...].

    Args:
        model: one of the TFLxmert models.
    """

    def __init__(self, model: keras.Model):
        super().__init__(autocast=False, dtype=model.dtype_policy, name=model.name)
        self.model = model
        self.built = True
        mark_called(self)

    def call(self, inputs: Any) -> Any:
        with named_outputs():
            output = self.model(inputs)
        if not isinstance(output, ModelOutput):  # of a subclass with a call of its own
            return output
        return {
            name: stack_layers(value, self.model.num_images) if isinstance(value, tuple) else value
            for name, value in output.items()
            if not isinstance(value, tuple) or value
        }


def stack_layers(layers: tuple, num_images: int = 1):
    """L tensors [B, ...] -> [B, L, ...], which a server can split along its first axis.

    Tensors with a row per image, [B * images, ...], give [B, images, L, ...].
    """
    stacked = ops.stack(layers, axis=1)
    return stacked if num_images == 1 else ops.reshape(stacked, (-1, num_images, *ops.shape(stacked)[1:]))
