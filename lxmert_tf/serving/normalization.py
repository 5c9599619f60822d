"""BERT's normaliser as a TensorFlow graph: what `tokenizers` does to a text before it splits it, to the character.

Shapes: B texts of C characters together, as int32[C] code points and int64[C] rows, the text that each is of.
"""

from collections.abc import Iterable, Mapping

import tensorflow as tf

from lxmert_tf.serving.characters import classes, decompositions, letters, mark_ranks

_NONE = -1  # no code point


class Normalizer:
    """Texts as `BertNormalizer` of the `tokenizers` library makes them.

    Args:
        clean_text, handle_chinese_chars, strip_accents, lowercase: its switches; strip_accents=None does as lowercase.
    """

    def __init__(self, clean_text: bool, handle_chinese_chars: bool, strip_accents: bool | None, lowercase: bool):
        self._replacements = []
        if clean_text:
            self._replacements += [(classes().cleaned_spaces, " "), (classes().dropped, "")]
        if handle_chinese_chars:
            self._replacements.append((f"({classes().chinese})", r" \1 "))
        self._strip = lowercase if strip_accents is None else strip_accents
        self._letters = letters(self._strip, lowercase)

    def __call__(self, texts: tf.Tensor) -> tf.Tensor:
        """string[B] -> string[B]"""
        for pattern, replacement in self._replacements:
            texts = tf.strings.regex_replace(texts, pattern, replacement)
        if not self._letters:
            return texts
        decoded = tf.strings.unicode_decode(texts, "UTF-8")
        codes, rows = decoded.flat_values, decoded.value_rowids()
        if self._strip:
            codes, rows = _in_canonical_order(*_replaced(codes, rows, decompositions()))
        codes, rows = _replaced(codes, rows, self._letters)
        encoded = tf.RaggedTensor.from_value_rowids(codes, rows, decoded.nrows(), validate=False)
        return tf.strings.unicode_encode(encoded, "UTF-8")


def _replaced(codes: tf.Tensor, rows: tf.Tensor, changes: Mapping[str, str]) -> tuple[tf.Tensor, tf.Tensor]:
    """The characters with what becomes of those that change in their place: nothing, one, or several."""
    width = max(1, *map(len, changes.values()))
    becomes = tf.constant([[*map(ord, new)] + [_NONE] * (width - len(new)) for new in changes.values()], tf.int32)
    place, changed = _find(codes, changes)
    same = tf.pad(codes[:, None], [[0, 0], [0, width - 1]], constant_values=_NONE)
    codes = tf.where(changed[:, None], tf.gather(becomes, place), same)
    kept = tf.where(codes != _NONE)
    return tf.gather_nd(codes, kept), tf.gather(rows, kept[:, 0])


def _in_canonical_order(codes: tf.Tensor, rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Decomposed characters with the marks after each letter sorted by rank."""
    ranks = mark_ranks()
    place, is_mark = _find(codes, ranks)
    rank = tf.where(is_mark, tf.gather(tf.constant([*ranks.values()], tf.int64), place), 0)
    letter = tf.cumsum(tf.cast(~is_mark, tf.int64)) + rows  # counts letters, and texts, which may begin with a mark
    order = tf.argsort(letter * (max(ranks.values()) + 1) + rank, stable=True)
    return tf.gather(codes, order), rows


def _find(codes: tf.Tensor, characters: Iterable[str]) -> tuple[tf.Tensor, tf.Tensor]:
    """int32[C], the place of each code among characters in the order of Unicode, and bool[C], whether it is there."""
    keys = tf.constant([*map(ord, characters)], tf.int32)
    place = tf.minimum(tf.searchsorted(keys, codes), tf.size(keys) - 1)
    return place, tf.gather(keys, place) == codes
