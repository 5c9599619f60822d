"""Every input of the models: the one table that calls, checks, signatures, exports and clients derive from.

A new input of all models begins here. Imports no framework.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lxmert_tf.configuration import LxmertConfig

TEXT, IMAGE, ENCODED = "text", "image", "encoded image"


@dataclass(frozen=True)
class Input:
    """One input.

    Args:
        name: of the call argument.
        stream: `TEXT`, `IMAGE`, or `ENCODED` for what stands in the place of an image once it is encoded.
        axes: "examples", "tokens" and "boxes", whose sizes are free, and the config fields that give the others.
        dtype: in signatures and files; calls take any integers or floats.
        kind: "ids", "mask" or "numbers".
        limit: the config field that ids stay below.
        default: what each entry is where the input may be left out, else None.
    """

    name: str
    stream: str
    axes: tuple[str, ...]
    dtype: str
    kind: str
    limit: str | None = None
    default: int | None = None

    def shape(self, config: LxmertConfig, num_images: int = 1) -> tuple[str | int, ...]:
        """The sizes of a config, and the names of the axes that are free.

        Args:
            config: of the model.
            num_images: of each example; where there are several, images have an axis for them after the first.
        """
        examples, *others = (getattr(config, axis, axis) for axis in self.axes)
        images = (num_images,) if num_images > 1 and self.stream == IMAGE else ()
        return (examples, *images, *others)


_WORDS, _BOXES = ("examples", "tokens"), ("examples", "boxes")

TABLE = {
    each.name: each
    for each in (
        Input("input_ids", TEXT, _WORDS, "int32", "ids", limit="vocab_size"),
        Input("visual_feats", IMAGE, (*_BOXES, "visual_feat_dim"), "float32", "numbers"),
        Input("visual_pos", IMAGE, (*_BOXES, "visual_pos_dim"), "float32", "numbers"),
        Input("attention_mask", TEXT, _WORDS, "int32", "mask", default=1),
        Input("visual_attention_mask", IMAGE, _BOXES, "int32", "mask", default=1),
        Input("token_type_ids", TEXT, _WORDS, "int32", "ids", limit="type_vocab_size", default=0),
        Input("inputs_embeds", TEXT, (*_WORDS, "hidden_size"), "float32", "numbers"),
        Input("vision_states", ENCODED, (*_BOXES, "hidden_size"), "float32", "numbers"),
    )
}

# In upstream's order, which is that of the call's arguments.
INPUTS = tuple(name for name, each in TABLE.items() if each.stream != ENCODED)
TEXT_INPUTS = tuple(name for name in INPUTS if TABLE[name].stream == TEXT)
IMAGE_INPUTS = tuple(name for name in INPUTS if TABLE[name].stream == IMAGE)
# Of a text together with an image that was encoded before; the mask is the image's.
ENCODED_IMAGE_INPUTS = ("vision_states", "visual_attention_mask")
ENCODED_INPUTS = ("input_ids", *ENCODED_IMAGE_INPUTS, "attention_mask", "token_type_ids", "inputs_embeds")
# What files, signatures and requests hold: word embeddings are for calls in Python.
SIGNATURE_INPUTS = tuple(name for name in INPUTS if name != "inputs_embeds")
REQUIRED_INPUTS = tuple(name for name in SIGNATURE_INPUTS if TABLE[name].default is None)
OPTIONAL_INPUTS = tuple(name for name in INPUTS if TABLE[name].default is not None)


def image_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the inputs that belong to the image."""
    return {name: value for name, value in inputs.items() if name in IMAGE_INPUTS}


def text_inputs(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the inputs that belong to the text."""
    return {name: value for name, value in inputs.items() if name in TEXT_INPUTS}


def dummy_inputs(config: LxmertConfig, num_images: int = 1) -> dict[str, Any]:
    """Arrays of the inputs that a call needs: 2 examples of 3 tokens and 2 boxes each.

    Args:
        config: of the model.
        num_images: of each example.
    """
    import numpy as np

    sizes: dict[Any, Any] = {"examples": 2, "tokens": 3, "boxes": 2}
    rng, inputs = np.random.default_rng(0), {}
    for name in REQUIRED_INPUTS:
        shape = [sizes.get(size, size) for size in TABLE[name].shape(config, num_images)]
        array = rng.random(shape) * (config.vocab_size if name == "input_ids" else 1)
        inputs[name] = array.astype(TABLE[name].dtype)
    return inputs
