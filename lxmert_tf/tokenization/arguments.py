"""The arguments of a tokenizer's call: texts and options, checked, with their defaults filled in."""

import re
from typing import Any, NamedTuple

from lxmert_tf.configuration import checked_size
from lxmert_tf.tokenization.vocabulary import brief, one_of

_PADDING: dict[Any, str | None] = {True: "longest", "longest": "longest", "max_length": "max_length"}
_PADDING |= dict.fromkeys((False, None, "do_not_pad"))
_TRUNCATION: dict[Any, str | None] = {True: "longest_first"}
_TRUNCATION |= {name: name for name in ("longest_first", "only_first", "only_second")}
_TRUNCATION |= dict.fromkeys((False, None, "do_not_truncate"))
_NO_LIMIT = 10**20  # upstream writes 1e30 for "no limit" into tokenizer_config.json


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
    for name, value, least in (("max_length", max_length, 0), ("pad_to_multiple_of", multiple, 1)):
        if value is not None:
            checked_size(name, value, least)
    if max_length is None and model_max_length is not None and model_max_length < _NO_LIMIT:
        max_length = int(model_max_length)
    if max_length is None and pad == "max_length":
        raise ValueError("padding='max_length' needs max_length, because this tokenizer has no model_max_length.")
    if max_length is None:
        truncate = None
    elif truncate and pad and multiple and max_length % multiple:
        raise ValueError(f"max_length must be a multiple of pad_to_multiple_of={multiple}, got {max_length}.")
    return Limits(truncate, pad, max_length)
