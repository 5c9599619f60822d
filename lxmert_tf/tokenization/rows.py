"""Rows of tokens as `tokenizers.Encoding`: made from ids, and cut to a length."""

import json
from collections.abc import Sequence

from tokenizers import Encoding, PreTokenizedString, Token


def row_of_ids(ids: Sequence[int], tokens: Sequence[str]) -> Encoding:
    """A row of given ids, of which no text is known."""
    text = PreTokenizedString("x" * len(ids))
    text.tokenize(lambda _: [Token(*token, (0, 0)) for token in zip(ids, tokens, strict=True)])
    return text.to_encoding()


def truncate(
    first: Encoding, second: Encoding | None, strategy: str, room: int, side: str, stride: int | None = None
) -> tuple[Encoding, Encoding | None]:
    """Both texts cut to `room` tokens together, in place where one is cut.

    Args:
        first, second: the texts of a row without special tokens; `second` may be None.
        strategy: "longest_first", "only_first" or "only_second".
        room: tokens to keep.
        side: "right" or "left", where tokens go.
        stride: tokens that neighbouring windows share; None where what is cut off is not needed. With it, the further
            windows are in `overflowing` of the text that was cut.

    Raises:
        ValueError: the cut cannot be made so.
    """
    if room < 0:
        raise ValueError(f"max_length leaves no room for the special tokens: raise it by {-room} at least.")
    sizes = len(first), 0 if second is None else len(second)
    if sum(sizes) <= room:
        return first, second
    if strategy == "only_second" and second is None:
        raise ValueError("truncation='only_second' needs a text_pair; use 'only_first' or True for single texts.")
    kept = _shares(*sizes, room, strategy)
    if min(kept) < 0:
        other = "second" if strategy == "only_first" else "first"
        raise ValueError(f"truncation={strategy!r} cannot reach max_length: the {other} text alone is too long.")
    cut = [(text, keep) for text, size, keep in zip((first, second), sizes, kept, strict=True) if text and keep < size]
    if stride is not None:
        _check_windows([keep for _, keep in cut], stride)
    for text, keep in cut:
        text.truncate(keep, stride=stride or 0, direction=side)
    if stride is None and len(cut) > 1:  # else each window of one is combined with each of the other
        (first, _), (second, _) = cut
        return _changed(first, overflowing=[]), _changed(second, overflowing=[])
    return first, second


def _check_windows(sizes: list[int], stride: int) -> None:
    if len(sizes) > 1:
        raise ValueError(
            "return_overflowing_tokens cannot cut both texts: use truncation='only_first' or 'only_second'."
        )
    if not 0 <= stride < sizes[0]:
        raise ValueError(f"stride must be at least 0 and below the {sizes[0]} tokens that fit, got {stride}.")


def _shares(first: int, second: int, room: int, strategy: str) -> tuple[int, int]:
    """How many tokens each text keeps so that together they fill `room`."""
    if strategy == "only_first":
        return room - second, second
    if strategy == "only_second":
        return first, room - first
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def second_text(text: Encoding) -> Encoding:
    """A text that follows another without special tokens between: the library would take it for the first one."""
    return _changed(text, sequence_ranges={})


def _changed(text: Encoding, **changes: object) -> Encoding:
    changed = Encoding()
    changed.__setstate__(json.dumps(json.loads(text.__getstate__()) | changes).encode())
    return changed


def padded(values: list, fill: object, width: int, side: str) -> list:
    """`values` filled up to `width`."""
    padding = [fill] * (width - len(values))
    return values + padding if side == "right" else padding + values
