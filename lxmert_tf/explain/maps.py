"""Every attention map of a call by name, and gradients with respect to them.

| map | of each | looks from, to |
|---|---|---|
| language/i | language layer | tokens, tokens |
| vision/i | vision layer | boxes, boxes |
| cross/i/language_to_vision, cross/i/language_self | cross layer | tokens, boxes; tokens, tokens |
| cross/i/vision_to_language, cross/i/vision_self | cross layer | boxes, tokens; boxes, boxes |

Shapes: B examples, A heads, Q queries, K keys. A model of pairs of images has 2B rows, the images of an example
adjacent.
"""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import keras
import numpy as np
from keras import ops

from lxmert_tf.backend import gradients
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.input_table import INPUTS
from lxmert_tf.inputs import gather_inputs
from lxmert_tf.layers.attention import recorded_attention
from lxmert_tf.outputs import ModelOutput

Arrays = dict[str, np.ndarray]


def attention_maps(model: keras.Model, inputs: Mapping[str, Any]) -> Arrays:
    """Every attention map of a call: softmax over the keys, before dropout.

    Args:
        model: any TFLxmert model.
        inputs: of its call, by name.

    Returns:
        The maps by name, float[B, A, Q, K], in the order of computation. Masked keys have 0; masked queries look
        somewhere, too, which is of no consequence.

    Raises:
        TypeError, ValueError: as `named_inputs`, and as the model's call.
    """
    return observed(model, named_inputs(model, inputs))[1]


def attention_gradients(
    model: keras.Model, inputs: Mapping[str, Any], objective: Callable[[ModelOutput], Any]
) -> Arrays:
    """Gradients of any output with respect to every attention map, in one backward pass.

    Args:
        model: any TFLxmert model.
        inputs: of its call, by name.
        objective: the model's output -> a tensor of any shape, whose sum is differentiated. Examples do not mix: a sum
            over them gives each its own gradient.

    Returns:
        The gradients by the names of `attention_maps`, float[B, A, Q, K]; 0 where the objective depends on no map.

    Raises:
        TypeError, ValueError: as `named_inputs`, and as the model's call.
        NotImplementedError: Keras' backend has no gradients.

    Examples:
        >>> attention_gradients(model, inputs, lambda output: output.question_answering_score[:, 3])
    """
    inputs = named_inputs(model, inputs)

    def call(probes: list) -> tuple:
        with recorded_attention(probes):
            return ops.sum(objective(_call(model, inputs))), ()

    shapes = map_shapes(model.config, *_sizes(model, inputs)).values()
    return _named(model.config, gradients(call, [ops.zeros(shape, model.compute_dtype) for shape in shapes])[0])


def named_inputs(model: keras.Model, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """What a call needs of its inputs, without labels and switches; lists as arrays.

    Raises:
        TypeError: they are not by name.
        ValueError: a name is unknown or missing, or the rows of a list differ in length.
    """
    if not isinstance(inputs, Mapping):
        raise TypeError(f"inputs must be a dict of arrays by name, got {type(inputs).__name__}.")
    known = inspect.signature(model.call).parameters
    for name in inputs:
        if name not in known:
            near = get_close_matches(str(name), INPUTS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"inputs are {', '.join(INPUTS)}."
            raise ValueError(f"unknown input {name!r}; {hint}")
    first, *others = (inputs.get(name) for name in INPUTS)
    given = {**gather_inputs(INPUTS, {INPUTS[0]: first}, *others), "head_mask": inputs.get("head_mask")}
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("input_ids", "visual_feats", "visual_pos"):
        if name not in given and not (name == "input_ids" and "inputs_embeds" in given):
            raise ValueError(f"{name} is missing in the inputs.")
    return given


def observed(model: keras.Model, inputs: Mapping[str, Any]) -> tuple[ModelOutput, Arrays]:
    """A call's output, and what `attention_maps` returns."""
    with recorded_attention() as maps:
        output = _call(model, inputs)
    return output, _named(model.config, maps)


def map_shapes(config: LxmertConfig, rows: int, tokens: int, boxes: int) -> dict[str, tuple[int, ...]]:
    """The name and shape [rows, A, Q, K] of every map, in the order of computation."""
    sizes = {f"language/{i}": (tokens, tokens) for i in range(config.l_layers)}
    sizes |= {f"vision/{i}": (boxes, boxes) for i in range(config.r_layers)}
    for i in range(config.x_layers):
        sizes[f"cross/{i}/language_to_vision"] = tokens, boxes
        sizes[f"cross/{i}/vision_to_language"] = boxes, tokens
        sizes[f"cross/{i}/language_self"] = tokens, tokens
        sizes[f"cross/{i}/vision_self"] = boxes, boxes
    return {name: (rows, config.num_attention_heads, *size) for name, size in sizes.items()}


def as_array(x: Any) -> np.ndarray:
    """A tensor as numpy, half precision as float32."""
    wide = keras.backend.standardize_dtype(x.dtype) == "float64"
    return np.asarray(ops.convert_to_numpy(ops.cast(x, "float64" if wide else "float32")))


def _call(model: keras.Model, inputs: Mapping[str, Any]) -> ModelOutput:
    # With the attentions asked for, no model takes a shorter way that leaves maps out.
    return model(inputs, output_attentions=True, output_hidden_states=False, return_dict=True, training=False)


def _sizes(model: keras.Model, inputs: Mapping[str, Any]) -> tuple[int, int, int]:
    """Rows of the maps, tokens and boxes."""
    text = inputs.get("input_ids")
    rows, tokens = np.shape(inputs["inputs_embeds"] if text is None else text)[:2]
    return rows * model.num_images, tokens, np.shape(inputs["visual_feats"])[-2]


def _named(config: LxmertConfig, maps: list) -> Arrays:
    return dict(zip(map_shapes(config, 0, 0, 0), map(as_array, maps), strict=True))
