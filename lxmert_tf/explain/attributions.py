"""Attribution to what the model reads: word embeddings and region features. Boxes, as places, are left alone."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from lxmert_tf.backend import gradients
from lxmert_tf.explain.maps import as_array
from lxmert_tf.input_table import IMAGE_INPUTS, TEXT_INPUTS
from lxmert_tf.outputs import ModelOutput

ROWS = 16  # of a backward pass, or one example's
GROWTH = 1e6  # of the distance between points of the quadrature, from the first to the last

Objective = Callable[[ModelOutput], Any]


def gradient_times_input(
    model: keras.Model, inputs: Mapping[str, Any], objective: Objective
) -> tuple[np.ndarray, np.ndarray]:
    """Gradient times input, summed over each token's embedding and each box's features.

    Args:
        model, inputs: as of `attention_gradients`.
        objective: the model's output, of all examples or several times all of them -> a tensor of as many rows, whose
            sum is differentiated.

    Returns:
        float[B, T] and float[B, N], or [B, 2, N] for pairs of images; of either sign.

    Source: Shrikumar et al. 2016, https://arxiv.org/abs/1605.01713.
    """
    read = _what_is_read(model, inputs)
    return _products(read, [as_array(slope) for slope in _slopes(model, inputs, read, objective)])


def integrated_gradients(
    model: keras.Model, inputs: Mapping[str, Any], objective: Objective, steps: int = 50
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients averaged along the way from embeddings and features of zeros, times the input.

    Args:
        model, inputs, objective: as of `gradient_times_input`.
        steps: points of the quadrature.

    Returns:
        As `gradient_times_input`; and the convergence delta float[B], by how much they sum up to more than the
        objective's gain over that of zeros.

    Source: Sundararajan et al. 2017, https://arxiv.org/abs/1703.01365.
    """
    read = _what_is_read(model, inputs)
    examples = len(read[0])
    points, weights = quadrature(steps)
    at_once = max(1, ROWS // examples)
    total: list[Any] = [0.0, 0.0]
    for start in range(0, steps, at_once):
        some, shares = points[start : start + at_once], weights[start : start + at_once]
        slopes = _slopes(model, inputs, _on_the_way(read, some), objective)
        for place, slope in enumerate(slopes):
            total[place] += np.tensordot(shares, as_array(slope).reshape(len(some), *read[place].shape), axes=1)
    tokens, boxes = _products(read, total)
    before, after = as_array(objective(_output(model, inputs, _on_the_way(read, (0.0, 1.0))))).reshape(2, examples, -1)
    gain = (after.astype("float64") - before).sum(axis=-1)
    return tokens, boxes, tokens.sum(axis=1) + boxes.reshape(examples, -1).sum(axis=1) - gain


def quadrature(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in 0..1 and their weights: those of Gauss and Legendre, drawn together towards 0.

    What is read is normalised first, so that nearly all of the way is gone near 0.
    """
    points, weights = np.polynomial.legendre.leggauss(steps)
    grown = GROWTH ** ((points + 1) / 2)
    return (grown - 1) / (GROWTH - 1), weights / 2 * np.log(GROWTH) * grown / (GROWTH - 1)


def _what_is_read(model: keras.Model, inputs: Mapping[str, Any]) -> list:
    """Word embeddings float[B, T, H] and region features float[B, N, D], in the dtype of the computation."""
    words = inputs.get("inputs_embeds")
    if words is None:
        words = model.get_input_embeddings()(ops.convert_to_tensor(inputs["input_ids"]))
    return [ops.cast(each, model.compute_dtype) for each in (words, inputs["visual_feats"])]


def _on_the_way(read: list, points: Any) -> list:
    """What is read at these points of the way from zeros, one below the other."""
    return [ops.concatenate([each * float(point) for point in points]) for each in read]


def _slopes(model: keras.Model, inputs: Mapping[str, Any], read: list, objective: Objective) -> list:
    return gradients(lambda read: (ops.sum(objective(_output(model, inputs, read))), ()), read)[0]


def _output(model: keras.Model, inputs: Mapping[str, Any], read: list) -> ModelOutput:
    """The output where this is read, of all examples or several times all of them."""
    times = read[1].shape[0] // len(inputs["visual_feats"])
    given = {name: value for name, value in inputs.items() if name != "input_ids" and value is not None}
    for name in (set(given) & {*TEXT_INPUTS, *IMAGE_INPUTS}) - {"inputs_embeds", "visual_feats"}:
        given[name] = ops.concatenate([ops.convert_to_tensor(given[name])] * times)
    given |= {"inputs_embeds": read[0], "visual_feats": read[1]}
    return model(given, output_attentions=False, output_hidden_states=False, return_dict=True, training=False)


def _products(read: list, slopes: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    tokens, boxes = ((as_array(x) * slope).sum(axis=-1) for x, slope in zip(read, slopes, strict=True))
    return tokens, boxes
