"""Attribution to what the model reads: word embeddings and region features. Boxes, as places, are left alone."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from lxmert_tf.backend import compiled, gradients
from lxmert_tf.explain.maps import as_array
from lxmert_tf.outputs import ModelOutput

Attributions = tuple[np.ndarray, np.ndarray]


def gradient_times_input(
    model: keras.Model, inputs: Mapping[str, Any], objective: Callable[[ModelOutput], Any]
) -> Attributions:
    """Gradient times input, summed over each token's embedding and each box's features.

    Args:
        model, inputs, objective: as of `attention_gradients`.

    Returns:
        float[B, T] and float[B, N], or [B, 2, N] for pairs of images; of either sign.

    Source: Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713.
    """
    read = _what_is_read(model, inputs)
    return _summed(read, _slopes(model, inputs, read, objective))


def integrated_gradients(
    model: keras.Model, inputs: Mapping[str, Any], objective: Callable[[ModelOutput], Any], steps: int = 50
) -> Attributions:
    """Gradients averaged along the way from embeddings and features of zeros, times the input.

    Tokens and boxes together sum up to how far the objective is from that of zeros.

    Args:
        model, inputs, objective: as of `attention_gradients`.
        steps: points of the Gauss-Legendre quadrature; each costs a backward pass.

    Returns:
        As `gradient_times_input`.

    Source: Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365.
    """
    read = _what_is_read(model, inputs)
    points, weights = np.polynomial.legendre.leggauss(steps)
    slopes_at = compiled(lambda *at: tuple(_slopes(model, inputs, list(at), objective)))
    total: list[Any] = [0.0, 0.0]
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        slopes = slopes_at(*(each * float(point) for each in read))
        total = [sum_ + float(weight) * slope for sum_, slope in zip(total, slopes, strict=True)]
    return _summed(read, total)


def _what_is_read(model: keras.Model, inputs: Mapping[str, Any]) -> list:
    """Word embeddings float[B, T, H] and region features float[B, N, D], in the dtype of the computation."""
    words = inputs.get("inputs_embeds")
    if words is None:
        words = model.get_input_embeddings()(ops.convert_to_tensor(inputs["input_ids"]))
    return [ops.cast(each, model.compute_dtype) for each in (words, inputs["visual_feats"])]


def _slopes(model: keras.Model, inputs: Mapping[str, Any], read: list, objective: Callable) -> list:
    others = {name: value for name, value in inputs.items() if name not in ("input_ids", "inputs_embeds")}

    def call(read: list) -> tuple:
        given = {**others, "inputs_embeds": read[0], "visual_feats": read[1]}
        output = model(given, output_attentions=False, output_hidden_states=False, return_dict=True, training=False)
        return ops.sum(objective(output)), ()

    return gradients(call, read)[0]


def _summed(read: list, slopes: list) -> Attributions:
    tokens, boxes = (as_array(ops.sum(x * slope, axis=-1)) for x, slope in zip(read, slopes, strict=True))
    return tokens, boxes
