"""What a tokenizer does around word pieces: check examples, truncate, pad, and return a `BatchEncoding`."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import optree

from lxmert_tf.tokenization.vocabulary import brief, one_of

_PADDING: dict[Any, str | None] = {True: "longest", "longest": "longest", "max_length": "max_length"}
_PADDING |= dict.fromkeys((False, None, "do_not_pad"))
_TRUNCATION: dict[Any, str | None] = {True: "longest_first"}
_TRUNCATION |= {name: name for name in ("longest_first", "only_first", "only_second")}
_TRUNCATION |= dict.fromkeys((False, None, "do_not_truncate"))
_NO_LIMIT = 10**20  # upstream writes 1e30 for "no limit" into tokenizer_config.json
_ONE_PER_EXAMPLE = ("length", "overflow_to_sample_mapping")


class BatchEncoding(dict):
    """What a tokenizer returns: a dict whose entries are attributes too, ready for `model(encoding)` and `tf.data`.

    Args:
        data: entries by name: lists, or tensors once converted.
        words: for each example the index of the word that each token came from, None for special tokens.
    """

    def __init__(self, data: Mapping[str, Any] | None = None, words: list[list[int | None]] | None = None):
        super().__init__(data or {})
        self._words = words

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"BatchEncoding has no entry {name!r}; it has {', '.join(self) or 'none'}.") from None

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """The word index of each token of one example, None for special tokens and padding."""
        if self._words is None:
            raise ValueError("This BatchEncoding was rebuilt from its entries and no longer knows the words.")
        return self._words[batch_index]

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> "BatchEncoding":
        """Turns every entry, in place, into an array: np int64[B, T], tf int32[B, T] or pt int64[B, T].

        Args:
            tensor_type: "np", "tf" or "pt"; None leaves lists.
            prepend_batch_axis: the entries are of one example: add the axis B = 1.

        Raises:
            ValueError: unknown `tensor_type`, or rows of different lengths.
        """
        if tensor_type is not None:
            for name, values in self.items():
                self[name] = _tensor(name, [values] if prepend_batch_axis else values, tensor_type)
        return self


def _flattened(encoding: Any) -> tuple[list, tuple[str, ...]]:
    names = tuple(sorted(encoding))
    return [encoding[name] for name in names], names


def _unflattened(names: Any, values: Any) -> Any:
    return BatchEncoding(dict(zip(names, values, strict=True)))


# Keras flattens inputs through optree, which takes a dict subclass for a leaf unless told otherwise.
optree.register_pytree_node(BatchEncoding, _flattened, _unflattened, namespace="keras")


def _tensor(name: str, values: list, kind: str) -> Any:
    if kind not in ("np", "tf", "pt"):
        raise ValueError(f"return_tensors must be 'np', 'tf' or 'pt', got {kind!r}.")
    try:
        array = np.array(values, dtype=np.int64)
    except ValueError:
        raise ValueError(
            f"{name} has rows of different lengths, which no tensor can hold: pass padding=True, "
            "or padding='max_length' with truncation=True."
        ) from None
    if not values and name not in _ONE_PER_EXAMPLE:
        array = array.reshape(0, 0)
    if kind == "tf":
        import tensorflow as tf

        return tf.constant(array, dtype=tf.int32)
    if kind == "pt":
        import torch

        return torch.from_numpy(array)
    return array


# Examples as given


def checked_examples(text: Any, text_pair: Any, split: bool) -> tuple[list[tuple[Any, Any]], bool]:
    """The (first, second or None) texts to encode, and whether they were given as a batch."""
    if not _is_batch(text, split):
        return [checked_example(text, text_pair, split)], False
    if text_pair is None:
        pairs = [item if _is_pair(item, split) else (item, None) for item in text]
    elif not _is_batch(text_pair, split):
        raise TypeError(f"text_pair must be a list of texts because text is one, got {brief(text_pair)}.")
    elif len(text) != len(text_pair):
        raise ValueError(f"text and text_pair must be as many, got {len(text)} and {len(text_pair)}.")
    else:
        pairs = list(zip(text, text_pair, strict=True))
    return [checked_example(first, second, split) for first, second in pairs], True


def _is_batch(text: Any, split: bool) -> bool:
    if not isinstance(text, (list, tuple)):
        return False
    return not split or (len(text) > 0 and isinstance(text[0], (list, tuple)))


def _is_pair(item: Any, split: bool) -> bool:
    return (
        isinstance(item, (list, tuple))
        and len(item) == 2
        and all(isinstance(x, (list, tuple) if split else str) for x in item)
    )


def checked_example(text: Any, text_pair: Any, split: bool) -> tuple[Any, Any]:
    """One example's (first, second or None) text, or lists of words with `split`."""
    first = _checked_text("text", text, split)
    return first, None if text_pair is None else _checked_text("text_pair", text_pair, split)


def _checked_text(name: str, text: Any, split: bool) -> Any:
    if split and not isinstance(text, (list, tuple)):
        raise TypeError(f"{name} must be a list of words because is_split_into_words=True, got {brief(text)}.")
    for string in text if split else [text]:
        if not isinstance(string, str):
            raise TypeError(
                f"{name} must be {'a list of words' if split else 'a string'}, got {brief(string)} in its place."
            )
        if not string.isascii() and re.search(r"[\ud800-\udfff]", string):
            raise ValueError(
                f"{name} has half a surrogate pair, which is no character: {brief(string)}; decode it first."
            )
    return list(text) if split else text


# Options


class Limits(NamedTuple):
    """How to truncate and pad; None for not at all."""

    truncation: str | None
    padding: str | None
    length: int | None


def limits(
    padding: Any, truncation: Any, max_length: int | None, multiple: int | None, model_max_length: float | None
) -> Limits:
    """The options of a call, checked, with their defaults filled in."""
    pad = _PADDING[one_of("padding", padding, _PADDING)]
    truncate = _TRUNCATION[one_of("truncation", truncation, _TRUNCATION)]
    if truncation is None and max_length is not None and pad is None:
        truncate = "longest_first"
    _check_size("max_length", max_length, 0)
    _check_size("pad_to_multiple_of", multiple, 1)
    if max_length is None and model_max_length is not None and model_max_length < _NO_LIMIT:
        max_length = int(model_max_length)
    if max_length is None and pad == "max_length":
        raise ValueError("padding='max_length' needs max_length, because this tokenizer has no model_max_length.")
    if max_length is None:
        truncate = None
    elif truncate and pad and multiple and max_length % multiple:
        raise ValueError(f"max_length must be a multiple of pad_to_multiple_of={multiple}, got {max_length}.")
    return Limits(truncate, pad, max_length)


def _check_size(name: str, value: Any, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer or None, got {brief(value)}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")


# Sequences of tokens


class Token(NamedTuple):
    id: int
    text: str
    offsets: tuple[int, int] = (0, 0)  # characters of the text, or of the word where words were given
    word: int | None = None


class Row(NamedTuple):
    """One example with its special tokens, before padding."""

    tokens: list[Token]
    type_ids: list[int]
    special: list[int]


def truncated(
    first: list, second: list | None, strategy: str, room: int, side: str, stride: int | None = None
) -> list[tuple[list, list | None]]:
    """The example cut to `room` tokens; with a `stride` also what was cut off, in windows that share so many tokens.

    Raises:
        ValueError: the cut cannot be made so.
    """
    if room < 0:
        raise ValueError(f"max_length leaves no room for the special tokens: raise it by {-room} at least.")
    sizes = len(first), len(second or ())
    if sum(sizes) <= room:
        return [(first, second)]
    if strategy == "only_second" and second is None:
        raise ValueError("truncation='only_second' needs a text_pair; use 'only_first' or True for single texts.")
    keep_first, keep_second = _shares(*sizes, room, strategy)
    if min(keep_first, keep_second) < 0:
        other = "second" if strategy == "only_first" else "first"
        raise ValueError(f"truncation={strategy!r} cannot reach max_length: the {other} text alone is too long.")
    if stride is None:
        return [(_cut(first, keep_first, side), second if second is None else _cut(second, keep_second, side))]
    if keep_first < sizes[0] and keep_second < sizes[1]:
        raise ValueError(
            "return_overflowing_tokens cannot cut both texts: use truncation='only_first' or 'only_second'."
        )
    if keep_first < sizes[0]:
        return [(window, second) for window in _sliding(first, keep_first, side, stride)]
    return [(first, window) for window in _sliding(second or [], keep_second, side, stride)]


def _cut(tokens: list, size: int, side: str) -> list:
    return tokens[:size] if side == "right" else tokens[len(tokens) - size :]


def _sliding(tokens: list, size: int, side: str, stride: int) -> list[list]:
    if not 0 <= stride < size:
        raise ValueError(f"stride must be at least 0 and below the {size} tokens that fit, got {stride}.")
    starts = range(0, max(len(tokens) - stride, 1), size - stride)
    if side == "right":
        return [tokens[start : start + size] for start in starts]
    ends = [len(tokens) - start for start in starts]
    return [tokens[max(end - size, 0) : end] for end in ends]


def _shares(first: int, second: int, room: int, strategy: str) -> tuple[int, int]:
    """How many tokens each text keeps so that together they fill `room`."""
    if strategy == "only_first":
        return room - second, second
    if strategy == "only_second":
        return first, room - first
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def padded(values: list, fill: Any, width: int, side: str) -> list:
    """`values` filled up to `width`."""
    padding = [fill] * (width - len(values))
    return values + padding if side == "right" else padding + values
