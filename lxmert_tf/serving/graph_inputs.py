"""What the signatures take: names, dtypes and shapes, and the checks and padding masks inside the graph.

TF Serving fills up what it batches together with the first number of each request's tensor, in the masks too, where
that number is mostly 1. So a mask alone does not tell padding: see `real_tokens` and `real_rows`, which tell it from an
example itself, never from those that share its batch.

Shapes: B examples, T tokens, N boxes, D visual_feat_dim, P visual_pos_dim, H hidden_size.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import tensorflow as tf

from lxmert_tf.backend import require
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.input_table import (
    ENCODED_IMAGE_INPUTS,
    IMAGE_INPUTS,
    OPTIONAL_INPUTS,
    SIGNATURE_INPUTS,
    TABLE,
    TEXT_INPUTS,
)

TEXT = tuple(name for name in SIGNATURE_INPUTS if name in TEXT_INPUTS)
BOX_TOLERANCE = 0.01  # boxes of another program's rounding, or of half precision, still lie in 0..1


def specs(config: LxmertConfig, num_images: int = 1) -> dict[str, tf.TensorSpec]:
    """The spec of every input by name; where there are several images per example, they have an axis."""
    found = {"questions": tf.TensorSpec((None,), tf.string, "questions")}
    for name in (*SIGNATURE_INPUTS, *ENCODED_IMAGE_INPUTS):
        sizes = TABLE[name].shape(config, num_images)
        shape = [size if isinstance(size, int) else None for size in sizes]
        found[name] = tf.TensorSpec(shape, TABLE[name].dtype, name)
    return found


def completed(given: Mapping[str, tf.Tensor], names: tuple[str, ...]) -> dict[str, tf.Tensor]:
    """The inputs of `names`, in which masks that were not given are 1 and token types 0."""
    inputs = dict(given)
    for name in set(names) & set(OPTIONAL_INPUTS) - set(inputs):
        if name in TEXT:
            like = tf.shape(inputs["input_ids"])
        else:
            like = tf.shape(inputs["visual_feats" if "visual_feats" in inputs else "vision_states"])[:-1]
        inputs[name] = tf.fill(like, TABLE[name].default)
    return {name: inputs[name] for name in names}


# Checks


def checked(inputs: Mapping[str, tf.Tensor], config: LxmertConfig, dtype: str) -> dict[str, tf.Tensor]:
    """The same inputs, once the graph has found them fit; it raises InvalidArgumentError naming what is not.

    Args:
        dtype: in which the model computes, such as "float16".
    """
    inputs = {name: of_rank(value, name, _axes(name, value)) for name, value in inputs.items()}
    assertions = [require(ok, message, *values) for ok, message, values in _conditions(inputs, config, dtype)]
    with tf.control_dependencies(assertions):
        return {name: tf.identity(value) for name, value in inputs.items()}


def of_rank(value: tf.Tensor, name: str, axes: str) -> tf.Tensor:
    """The same tensor, once it has the rank it is declared with: a server takes any.

    Args:
        name, axes: for the message, such as "batch, tokens".
    """
    # The declared rank must not be known here, or the comparison would be folded to True
    shape = tf.shape(tf.raw_ops.PlaceholderWithDefault(input=value, shape=None))
    fits = tf.equal(tf.size(shape), value.shape.rank)
    with tf.control_dependencies([require(fits, f"{name} must be [{axes}], got shape", shape)]):
        return tf.identity(value)


def _axes(name: str, value: tf.Tensor) -> str:
    second = "tokens" if name in TEXT else "boxes"
    axes = ["batch", *map(str, value.shape[1:])]
    free = [axis for axis in range(1, len(axes)) if value.shape[axis] is None]
    axes[free[0]] = second
    return ", ".join(axes)


Condition = tuple[tf.Tensor, str, list]  # must hold, message, values to show


def _conditions(inputs: Mapping[str, tf.Tensor], config: LxmertConfig, dtype: str) -> Iterator[Condition]:
    """The conditions of everything that can be wrong with the inputs."""
    sizes = {name: tf.shape(value) for name, value in inputs.items()}
    for name, size in sizes.items():
        yield tf.reduce_all(size > 0), f"{name} must not be empty, got shape", [size]
    if "input_ids" in inputs:
        ids, longest = inputs["input_ids"], config.max_position_embeddings
        yield _within(ids, 0, config.vocab_size - 1, f"input_ids must lie in 0..{config.vocab_size - 1} (vocab_size)")
        yield (
            sizes["input_ids"][1] <= longest,
            f"input_ids must have at most {longest} tokens (max_position_embeddings), got",
            [sizes["input_ids"][1]],
        )
        types = config.type_vocab_size - 1
        yield _within(inputs["token_type_ids"], 0, types, f"token_type_ids must lie in 0..{types}")
        yield _within(inputs["attention_mask"], -1, 1, "attention_mask must hold 1 for tokens and 0 for padding")
        for name in ("attention_mask", "token_type_ids"):
            yield _alike(sizes, "input_ids", name)
    regions = "visual_feats" if "visual_feats" in inputs else "vision_states" if "vision_states" in inputs else None
    if regions is None:
        return
    yield _within(
        inputs["visual_attention_mask"], -1, 1, "visual_attention_mask must hold 1 for boxes and 0 for padding"
    )
    for name in (regions, "visual_pos") if regions == "visual_feats" else (regions,):
        yield _finite(inputs[name], name, dtype)
    yield _alike(sizes, regions, "visual_attention_mask", sizes[regions][:-1])
    width = inputs[regions].shape[-1]
    yield sizes[regions][-1] == width, f"{regions} must have {width} values per box, got", [sizes[regions][-1]]
    if regions == "visual_feats":
        low, high = -BOX_TOLERANCE, 1 + BOX_TOLERANCE
        yield _within(inputs["visual_pos"], low, high, "visual_pos must hold boxes in 0..1, not in pixels")
        yield _alike(sizes, "visual_feats", "visual_pos", sizes["visual_feats"][:-1], sizes["visual_pos"][:-1])
        dims = config.visual_pos_dim
        yield (
            sizes["visual_pos"][-1] == dims,
            f"visual_pos must have {dims} values per box, got",
            [sizes["visual_pos"][-1]],
        )
    if "input_ids" in inputs:
        texts, rows = sizes["input_ids"][0], sizes[regions][0]
        if regions == "visual_feats":
            yield texts == rows, "input_ids and visual_feats must have the same number of examples, got", [texts, rows]
        else:
            message = "input_ids must have as many examples as vision_states, or a multiple of it, got"
            yield texts % tf.maximum(rows, 1) == 0, message, [texts, rows]


def _within(values: tf.Tensor, low: float, high: float, message: str) -> Condition:
    # NaN is checked elsewhere: it is neither below nor above
    shown = [tf.reduce_min(values), tf.constant("and"), tf.reduce_max(values)]
    return ~tf.reduce_any((values < low) | (values > high)), f"{message}, got values between", shown


def _finite(values: tf.Tensor, name: str, dtype: str) -> Condition:
    finite = tf.reduce_all(tf.math.is_finite(tf.cast(values, dtype)))
    if tf.as_dtype(dtype).max >= values.dtype.max:
        return finite, f"{name} must be finite, got NaN or infinity in it", []
    message = (
        f"{name} must be finite in {dtype}, whose largest number is {tf.as_dtype(dtype).max:g}, got values between"
    )
    return finite, message, [tf.reduce_min(values), tf.constant("and"), tf.reduce_max(values)]


def _alike(
    sizes: Mapping[str, tf.Tensor],
    first: str,
    second: str,
    first_size: tf.Tensor | None = None,
    second_size: tf.Tensor | None = None,
) -> Condition:
    one = sizes[first] if first_size is None else first_size
    other = sizes[second] if second_size is None else second_size
    return tf.reduce_all(one == other), f"{first} and {second} must agree in size, got", [one, other]


# Padding


class SpecialIds(NamedTuple):
    """The ids of the tokens that begin, end and fill up a text."""

    cls: int
    sep: int
    pad: int


def real_tokens(inputs: Mapping[str, tf.Tensor], special: SpecialIds | None) -> tf.Tensor:
    """int32[B, T], the attention mask without what a server added at the end of rows.

    A mask that begins with -1, as clients here send it, tells padding in any text: -1 is 1 at the first place and 0 at
    all others. In a mask that begins with 1, padding is [CLS] after the end of a text that begins with [CLS].

    Args:
        inputs: input_ids, attention_mask and token_type_ids, int32[B, T].
        special: None where the ids are not known.
    """
    ids, mask, types = inputs["input_ids"], inputs["attention_mask"], inputs["token_type_ids"]
    real = _read(mask)
    if special is None:
        return real
    added = _trailing((ids == special.cls) & (mask == mask[:, :1]) & (types == types[:, :1]))
    ends = (ids == special.sep) | ((ids == special.pad) & (mask == 0))
    after_end = tf.reduce_any(ends[:, :-1] & (added[:, :-1] < added[:, 1:]), axis=1, keepdims=True)
    begins = ids[:, :1] == special.cls
    return real * (1 - added * tf.cast(after_end & begins, tf.int32))


def real_rows(mask: tf.Tensor, *values: tf.Tensor) -> tf.Tensor:
    """int32[B, ..., N], the mask of boxes without what a server added after them.

    A mask of -1 is read as in `real_tokens`. In the mask of an example that begins with 1, padding is boxes at the end
    whose mask is 1 and whose numbers are all the first number of the same example's tensor: for the second image of an
    example, of the first one's.

    Args:
        mask: int32[B, N], or int32[B, images, N].
        values: float[B, ..., N, ...] each, what is known of the boxes.
    """
    added = mask == _first_number(mask)
    for value in values:
        added &= tf.reduce_all(value == _first_number(value), axis=-1)
    return _read(mask) * (1 - _trailing(added) * (1 - _first_place(mask)))


def without_empty_rows(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The inputs, in which a text without any token has its first one, and an image without any box has one of zeros.

    A row that is masked throughout would attend to all its places evenly, padding too.
    """
    filled = dict(inputs)
    for mask, names in (
        ("attention_mask", ()),
        ("visual_attention_mask", ("visual_feats", "visual_pos", "vision_states")),
    ):
        if mask not in inputs:
            continue
        empty = tf.reduce_all(inputs[mask] == 0, axis=-1, keepdims=True)
        filled[mask] = tf.where(empty, _first_place(inputs[mask]), inputs[mask])
        for name in names:
            if name in inputs:
                filled[name] = tf.where(empty[..., None], tf.zeros([], inputs[name].dtype), inputs[name])
    return filled


def without_padding(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The inputs without the places at the end that no example uses; what is computed from the rest is the same.

    Clients fill up to a fixed length, such as the 20 tokens of the original code, and servers to that of others.
    """
    shorter = dict(inputs)
    for mask, names in (("attention_mask", TEXT), ("visual_attention_mask", IMAGE_INPUTS + ENCODED_IMAGE_INPUTS)):
        if mask not in inputs:
            continue
        axis, used = inputs[mask].shape.rank - 1, _used(inputs[mask])
        for name in set(names) & set(inputs):
            shorter[name] = inputs[name][(slice(None),) * axis + (slice(used),)]
    return shorter


def _used(mask: tf.Tensor) -> tf.Tensor:
    """How many places the longest row of a mask int32[..., L] takes."""
    return tf.reduce_max(mask * (tf.range(tf.shape(mask)[-1]) + 1))


def _read(mask: tf.Tensor) -> tf.Tensor:
    """A mask of -1, 0 and 1 as one of 0 and 1."""
    return tf.where(mask < 0, _first_place(mask), mask)


def _first_place(mask: tf.Tensor) -> tf.Tensor:
    """int32[L]: 1, 0, 0, ..."""
    return tf.cast(tf.range(tf.shape(mask)[-1]) == 0, tf.int32)


def _first_number(value: tf.Tensor) -> tf.Tensor:
    """[B, ...] -> [B, 1, 1, ...], the first number of each example."""
    first = slice(None), *[slice(1)] * (len(value.shape) - 1)
    return value[first]


def _trailing(flags: tf.Tensor) -> tf.Tensor:
    """bool[..., L] -> int32[..., L], 1 from where all flags to the end are set."""
    # Not by a product: OpenVINO and LiteRT have cumulative sums only
    return tf.cast(tf.cumsum(tf.cast(~flags, tf.int32), axis=-1, reverse=True) == 0, tf.int32)
