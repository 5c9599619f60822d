"""What a model is called with: put into one dict and checked, with errors that say what to change.

Values are checked where they can be seen: at once in eager mode, and when the graph runs under TensorFlow. Programs of
XLA and of other backends cannot stop; there the layers and losses give NaN for what is refused elsewhere, and the steps
of `fit` and `evaluate` count it. Where Keras only asks for shapes, only those are checked.
"""

import numbers
from collections.abc import Iterable, Mapping

import keras
import numpy as np
from keras import ops

from lxmert_tf.backend import asserted, in_graph
from lxmert_tf.checks import current_count
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.head_masks import ATTENTIONS, check_head_mask, named_masks
from lxmert_tf.input_table import ENCODED_IMAGE_INPUTS, IMAGE_INPUTS, TABLE, TEXT_INPUTS
from lxmert_tf.keras_private import is_default_signature, is_symbolic
from lxmert_tf.losses import IGNORE_INDEX, class_ids

LARGEST_FLOAT16 = 65504.0


def gather_inputs(names: tuple[str, ...], first, *others) -> dict:
    """All call arguments by name, whether they came by keyword, as one dict, or as one list in order.

    Args:
        names: the call's argument names, in order.
        first: the first argument: `input_ids`, or a dict or list of inputs.
        *others: the other arguments, in order; those that are not None win over what `first` holds.

    Raises:
        ValueError: `first` holds a name the call does not take, or more entries than it takes.
    """
    if isinstance(first, Mapping):
        unknown = sorted(set(first) - set(names))
        if unknown:
            raise ValueError(f"The inputs hold {unknown[0]!r}, which is none of {', '.join(names)}.")
        packed = dict(first)
    elif isinstance(first, (list, tuple)) and _depth(first) != 2:  # which is the ids of a batch
        if len(first) > len(names):
            raise ValueError(f"The inputs are a list of {len(first)} entries; at most {len(names)} are taken.")
        packed = dict(zip(names, first, strict=False))
    else:
        packed = {names[0]: first}
    packed |= {name: value for name, value in zip(names[1:], others, strict=True) if value is not None}
    return dict.fromkeys(names) | {name: _arrays(name, value) for name, value in packed.items()}


def _arrays(name: str, value):
    """An input or a label as `_array` gives it; labels of boxes one by one."""
    if isinstance(value, Mapping):
        return {key: _arrays(f"{name}[{key!r}]", each) for key, each in value.items()}
    if isinstance(value, (list, tuple)) and len(value) == 2 and "[" in name:
        return tuple(_array(name, each) for each in value)
    return _array(name, value)


def _array(name: str, value):
    """Nested lists of numbers, such as a tokenizer gives, as an array; anything else as it is."""
    if _depth(value) == 0:
        return value
    try:
        return np.asarray(value)
    except ValueError:
        raise ValueError(f"{name} has rows of different lengths, which no tensor can hold: pad them.") from None


def _depth(value) -> int:
    """How deep lists of numbers are nested; 0 for anything else."""
    depth = 0
    while isinstance(value, (list, tuple)) and value:
        value, depth = value[0], depth + 1
    return depth if isinstance(value, numbers.Number) else 0


def as_tensors(inputs: dict) -> dict:
    """Arrays and lists as tensors, which is what Keras itself does for a model's call."""
    return {
        name: value if value is None else ops.convert_to_tensor(_array(name, value)) for name, value in inputs.items()
    }


def label_tensors(labels: Mapping) -> dict:
    """Labels by name as tensors, and those of boxes one by one, as Keras makes them of what a model is called with."""
    return {name: keras.tree.map_structure(ops.convert_to_tensor, _arrays(name, each)) for name, each in labels.items()}


def check_inputs(inputs: dict, config: LxmertConfig, dtype: str, num_images: int = 1) -> None:
    """Checks presence, ranks and sizes, the range of the ids, masks, and features that `dtype` cannot hold.

    Args:
        inputs: as from `gather_inputs`; in a graph, tensors are replaced by such as are checked when it runs.
        config: sizes to hold the inputs to.
        dtype: what the model computes with.
        num_images: images per example; where there are several, the image's inputs have an axis for them.

    Raises:
        ValueError: naming the input, what was expected and what came.
    """
    _check_text_is_there(inputs)
    _check_image_is_there(inputs)
    _check_shapes(inputs, TEXT_INPUTS + IMAGE_INPUTS, config, num_images)
    _check_text(inputs, config)
    _check_image(inputs, dtype)


def check_image_inputs(inputs: dict, config: LxmertConfig, dtype: str) -> None:
    """Checks an image's part of the inputs, as `check_inputs` does."""
    _check_image_is_there(inputs)
    _check_shapes(inputs, IMAGE_INPUTS, config)
    _check_image(inputs, dtype)


def check_encoded_inputs(inputs: dict, config: LxmertConfig) -> None:
    """Checks a text and the `vision_states` of encoded images, as `check_inputs` does.

    Raises:
        ValueError: as `check_inputs`, or the number of texts or of images is no multiple of the other.
    """
    _check_text_is_there(inputs)
    if inputs["vision_states"] is None:
        raise ValueError("vision_states is missing; encode_image gives it.")
    _check_shapes(inputs, TEXT_INPUTS, config)
    _check_text(inputs, config)
    _check_shapes(inputs, ENCODED_IMAGE_INPUTS, config)
    _check_mask(inputs, "visual_attention_mask", "boxes")
    text = "input_ids" if inputs["inputs_embeds"] is None else "inputs_embeds"
    texts, images = inputs[text].shape[0], inputs["vision_states"].shape[0]
    if texts is not None and images is not None and not _one_divides_the_other(texts, images):
        raise ValueError(
            f"vision_states has {images} images and {text} has {texts} texts; one number must be a multiple of the "
            "other."
        )


def head_masks(head_mask, config: LxmertConfig, dtype: str) -> dict:
    """The masks of heads as float[layers, A], by attention, of what a call is given: see `TFLxmertModel.call`.

    Raises:
        ValueError: naming the attention, what was expected and what came.
    """
    masks = {}
    for name, mask in named_masks(head_mask, config).items():
        mask = ops.cast(ops.convert_to_tensor(mask), dtype)
        check_head_mask(name, tuple(mask.shape), config)
        layers = getattr(config, ATTENTIONS[name])
        mask = _checked(mask, f"The head_mask of {name} must hold numbers", lambda x: x == x)
        masks[name] = ops.broadcast_to(mask, (layers, config.num_attention_heads))
    return masks


def _one_divides_the_other(one: int, other: int) -> bool:
    fewer, more = sorted((one, other))
    return more % fewer == 0 if fewer else more == 0


def _check_image_is_there(inputs: dict) -> None:
    for name in IMAGE_INPUTS:
        if inputs[name] is None and TABLE[name].default is None:
            raise ValueError(f"{name} is missing; LXMERT needs region features (visual_feats) and boxes (visual_pos).")


def _check_text_is_there(inputs: dict) -> None:
    if (inputs["input_ids"] is None) == (inputs["inputs_embeds"] is None):
        both = "both" if inputs["input_ids"] is not None else "neither"
        raise ValueError(f"Give either input_ids or inputs_embeds; got {both}.")


def _check_shapes(inputs: dict, names: Iterable[str], config: LxmertConfig, num_images: int = 1) -> None:
    """Holds each given input to its shape; sizes of the same name must agree."""
    sizes: dict[str, tuple[int, str]] = {}
    for name in names:
        if inputs[name] is not None:
            shape = TABLE[name].shape(config, num_images)
            if getattr(inputs[name].shape, "rank", 0) is None:
                pattern = "[" + ", ".join(["None"] * len(shape)) + "]"
                raise ValueError(f"The rank of {name} is unknown; give its tf.TensorSpec a shape such as {pattern}.")
            _check_shape(name, tuple(inputs[name].shape), shape, sizes)


def _check_text(inputs: dict, config: LxmertConfig) -> None:
    """Checks the length of the text, the range of its ids, and its mask."""
    name = "input_ids" if inputs["inputs_embeds"] is None else "inputs_embeds"
    length = inputs[name].shape[1]
    if length == 0:
        raise ValueError(f"{name} has no tokens; a text has at least its [CLS] and [SEP].")
    if length is not None and length > config.max_position_embeddings:
        raise ValueError(
            f"{name} has {length} tokens, more than max_position_embeddings={config.max_position_embeddings}; "
            "truncate the text."
        )
    for name in TEXT_INPUTS:
        limit = TABLE[name].limit
        if limit:
            inputs[name] = _checked_ids(name, inputs[name], getattr(config, limit), limit)
    _check_mask(inputs, "attention_mask", "tokens")


def _check_image(inputs: dict, dtype: str) -> None:
    _check_mask(inputs, "visual_attention_mask", "boxes")
    if dtype == "float16":
        rule = f"visual_feats must be at most {LARGEST_FLOAT16:.0f}, the largest number that float16 holds"
        features = inputs["visual_feats"]
        inputs["visual_feats"] = _checked(features, rule, lambda x: ~(abs(x) > LARGEST_FLOAT16), "; use bfloat16")


def _check_mask(inputs: dict, name: str, what: str) -> None:
    mask = inputs[name]
    if mask is None or keras.backend.standardize_dtype(mask.dtype) == "bool":
        return
    rule = f"{name} must hold 1 for {what} to attend to (or any number up to it) and 0 for padding"
    inputs[name] = _checked(mask, rule, lambda x: (x >= 0) & (x <= 1))


def _check_shape(name: str, got: tuple, expected: tuple, sizes: dict) -> None:
    """Holds one shape to its pattern; named sizes must agree with where they were first seen."""
    pattern = "[" + ", ".join(map(str, expected)) + "]"
    if len(got) != len(expected):
        raise ValueError(f"{name} must have shape {pattern} (rank {len(expected)}), got shape {list(got)}.")
    for size, want in zip(got, expected, strict=True):
        if size is None:
            continue
        if isinstance(want, int) and size != want:
            raise ValueError(f"{name} must have shape {pattern}, got shape {list(got)}.")
        if isinstance(want, str):
            first_size, first_name = sizes.setdefault(want, (size, name))
            if size != first_size:
                raise ValueError(
                    f"{name} and {first_name} must have the same number of {want}, got {size} and {first_size}: "
                    f"{name} must have shape {pattern}, got shape {list(got)}."
                )


def check_labels(name: str, labels, classes: int):
    """The labels, once they are known to be integers in range or -100.

    Raises:
        ValueError: they are not; naming the labels, the range and what came.
    """
    return _checked_ids(name, labels, classes, "number of classes", ignored=IGNORE_INDEX)


def check_scores(scores):
    """The soft scores, once none is known to lie outside 0..1; NaN passes, and gives NaN.

    Raises:
        ValueError: they do not.
    """
    dtype = keras.backend.standardize_dtype(scores.dtype)
    if dtype == "bool":
        return scores
    return _checked(scores, "labels must be soft scores in 0..1", lambda x: ~((x < 0) | (x > 1)))


def _checked_ids(name: str, ids, limit: int, limit_name: str, ignored: int | None = None):
    if ids is None:
        return None
    dtype = keras.backend.standardize_dtype(ids.dtype)
    if "int" not in dtype:
        if not (is_symbolic() or _is_of_signature(ids)):
            raise ValueError(f"{name} must hold integers, got dtype {dtype}.")
        ids = _whole(ids)
    also = "" if ignored is None else f", or be {ignored} to be ignored"
    rule = f"{name} must lie in 0..{limit - 1} ({limit_name}={limit}){also}"

    def holds(x):
        inside = (x >= 0) & (x < limit)
        return inside if ignored is None else inside | (x == ignored)

    return _checked(ids, rule, holds)


def _is_of_signature(ids) -> bool:
    """Whether these floats are inputs of a signature that Keras has made, or of another for batches of any size.

    It exports a model around ours with a signature of floats throughout, unless it is given one.
    """
    wide = keras.backend.standardize_dtype(ids.dtype) in ("float32", "float64")  # others do not hold all ids
    return wide and in_graph(ids) and (ids.shape[0] is None or is_default_signature(ids))


def _whole(ids):
    """int32 of floats; -1, which is no id, for one with a fraction."""
    ids = ops.convert_to_tensor(ids)
    return ops.where(ops.equal(ids, ops.floor(ids)), ops.cast(ids, "int32"), -1)


def _checked(x, rule: str, holds, advice: str = ""):
    """`x`, of whose values `holds` must give True, now or when the graph runs."""
    if is_symbolic() or isinstance(x, keras.KerasTensor):
        return x
    values = _values(x)
    if values is not None:
        wrong = values[~holds(values)]
        if wrong.size:
            raise ValueError(f"{rule}, got {wrong[0]}{advice}.")
        return x
    values = class_ids(x) if "int" in keras.backend.standardize_dtype(x.dtype) else x
    count = current_count()
    if count is not None:
        count.add(f"{rule}{advice}", holds(values), values)
    elif in_graph(x):
        shown = (ops.min(values), "and", ops.max(values))
        return asserted(x, ops.all(holds(values)), f"{rule}{advice}; got values between", *shown)
    return x


def _values(x):
    """The numbers in a tensor as numpy, or None while a graph is traced and there are none."""
    try:
        return ops.convert_to_numpy(x)
    except Exception:  # each backend has its own error for a tensor without values
        return None
