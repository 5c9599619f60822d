"""The signatures as TensorFlow functions of operations that other runtimes have, for their converters."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf

from lxmert_tf.keras_private import flat_layers
from lxmert_tf.layers.primitives import LayerNormalization
from lxmert_tf.serving.signatures import Options, Servable


class PlainServable(Servable):
    """As `Servable`; `encode_image` gives `vision_states` alone: an output cannot have the name of an input."""

    def _image_outputs(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"vision_states": super()._image_outputs(inputs)["vision_states"]}


def make_servable(model: keras.Model, options: Options) -> Servable:
    """A model's signatures without checks of the inputs, which these runtimes leave out.

    Args:
        model: in float32; it can only compute from here on.
        options: as `Servable` takes them.
    """
    model.get_backbone()._meeting = _meeting(model.get_backbone())
    for layer in flat_layers(model):
        if isinstance(layer, LayerNormalization):
            layer.call = _normalization(layer)  # type: ignore[method-assign]
    return PlainServable(model, dataclasses.replace(options, tokenizer=None, labels=None, detection=None, checks=False))


def _meeting(backbone: keras.Model) -> Callable[..., Any]:
    """`backbone._meeting` by indices.

    By a broadcast with free sizes, OpenVINO takes the number of boxes for that of tokens.
    """

    def meeting(inputs: Mapping[str, Any], training: bool) -> tuple[Any, ...]:
        text_bias, image_bias = backbone.biases(inputs)
        language = backbone.encoder.encode_text(backbone.embed(inputs, training), text_bias, training)
        texts, images = tf.shape(language)[0], tf.shape(inputs["vision_states"])[0]
        rows = tf.maximum(texts, images)
        text, image = (tf.range(rows) * size // rows for size in (texts, images))
        return (
            tf.gather(language, text),
            tf.gather(inputs["vision_states"], image),
            tf.gather(text_bias, text),
            tf.gather(image_bias, image),
        )

    return meeting


def _normalization(layer: LayerNormalization) -> Callable[[Any], Any]:
    """`layer.call` by means, which converters know as one operation; sums they do not."""

    def call(inputs: tf.Tensor) -> tf.Tensor:
        centred = inputs - tf.reduce_mean(inputs, axis=-1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True)
        return centred * tf.math.rsqrt(variance + layer.epsilon) * layer.gamma + layer.beta

    return call
