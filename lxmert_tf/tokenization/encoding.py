"""What a tokenizer returns: a `BatchEncoding`, its spans, and its entries as tensors.

Shapes: B rows, T tokens after padding.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import optree
from tokenizers import Encoding

from lxmert_tf.tokenization.vocabulary import brief

logger = logging.getLogger(__name__)

_ONE_PER_ROW = ("length", "overflow_to_sample_mapping")


class TokenSpan(NamedTuple):
    """The tokens `start` to `end - 1` of a row."""

    start: int
    end: int


class CharSpan(NamedTuple):
    """The characters `start` to `end - 1` of a text, or of a word where words were given."""

    start: int
    end: int


class BatchEncoding(dict):
    """What a tokenizer returns: a dict whose entries are attributes too, ready for `model(encoding)` and `tf.data`.

    An integer as key gives the `tokenizers.Encoding` of a row, a slice the entries of some rows. The methods that lead
    from tokens to words, characters and texts and back take the row first, or leave it out where there is one only:
    `char_to_token(row, character)` or `char_to_token(character)`.

    Args:
        data: entries by name: lists, or tensors once converted.
        encoding: of each row, or of the only one; without it, entries are all there is.
        tensor_type, prepend_batch_axis: as for `convert_to_tensors`.
        n_sequences: texts in a row; by default what `encoding` says.
    """

    def __init__(
        self,
        data: Mapping[str, Any] | None = None,
        encoding: Encoding | Sequence[Encoding] | None = None,
        tensor_type: str | None = None,
        prepend_batch_axis: bool = False,
        n_sequences: int | None = None,
    ):
        super().__init__(data or {})
        rows = [encoding] if isinstance(encoding, Encoding) else encoding
        self._encodings = None if rows is None else list(rows)
        self._n_sequences = n_sequences
        self.convert_to_tensors(tensor_type, prepend_batch_axis)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"BatchEncoding has no entry {name!r}; it has {', '.join(self) or 'none'}.") from None

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, slice):
            return {name: values[key] for name, values in self.items()}
        return self._row(key) if isinstance(key, int) else super().__getitem__(key)

    @property
    def data(self) -> dict[str, Any]:
        """The entries by name: the BatchEncoding itself."""
        return self

    @property
    def encodings(self) -> list[Encoding] | None:
        """The `tokenizers.Encoding` of each row; None where there are entries only."""
        return self._encodings

    @property
    def is_fast(self) -> bool:
        """Whether there are `encodings`."""
        return self._encodings is not None

    @property
    def n_sequences(self) -> int | None:
        """1 where rows are of one text, 2 where they are of pairs, None where that is not known."""
        if self._n_sequences is None and self._encodings:
            return self._encodings[0].n_sequences
        return self._n_sequences

    def _row(self, index: int) -> Encoding:
        if self._encodings is None:
            raise ValueError(
                "This BatchEncoding has entries only: the one that the tokenizer returned knows the texts."
            )
        return self._encodings[index]

    def _at(self, row_or_place: int, place: int | None) -> tuple[Encoding, int]:
        return (self._row(0), row_or_place) if place is None else (self._row(row_or_place), place)

    # Of a whole row

    def tokens(self, batch_index: int = 0) -> list[str]:
        """The tokens of a row as strings."""
        return self._row(batch_index).tokens

    def word_ids(self, batch_index: int = 0) -> list[int | None]:
        """The word index of each token of a row, counted from 0 in each text; None for special tokens and padding."""
        return self._row(batch_index).word_ids

    def words(self, batch_index: int = 0) -> list[int | None]:
        """An older name of `word_ids`."""
        return self.word_ids(batch_index)

    def sequence_ids(self, batch_index: int = 0) -> list[int | None]:
        """0 for each token of the first text of a row and 1 for the second; None for special tokens and padding."""
        return self._row(batch_index).sequence_ids

    # Of a token, a word, or a character; None where there is none

    def token_to_sequence(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """Which text a token is of: 0 or 1."""
        row, token = self._at(batch_or_token_index, token_index)
        return row.token_to_sequence(_from_start(token, len(row)))

    def token_to_word(self, batch_or_token_index: int, token_index: int | None = None) -> int | None:
        """The index of the word that a token is of."""
        row, token = self._at(batch_or_token_index, token_index)
        word = row.token_to_word(_from_start(token, len(row)))
        return word[1] if isinstance(word, tuple) else word

    def token_to_chars(self, batch_or_token_index: int, token_index: int | None = None) -> CharSpan | None:
        """The characters that a token stands for."""
        row, token = self._at(batch_or_token_index, token_index)
        return _span(CharSpan, row.token_to_chars(_from_start(token, len(row))))

    def word_to_tokens(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> TokenSpan | None:
        """The tokens of a word of the first text (`sequence_index=0`) or the second (1)."""
        row, word = self._at(batch_or_word_index, word_index)
        return _span(TokenSpan, row.word_to_tokens(word, sequence_index))

    def word_to_chars(
        self, batch_or_word_index: int, word_index: int | None = None, sequence_index: int = 0
    ) -> CharSpan | None:
        """The characters of a word."""
        row, word = self._at(batch_or_word_index, word_index)
        return _span(CharSpan, row.word_to_chars(word, sequence_index))

    def char_to_token(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The index of the token that a character became part of; None for a space."""
        row, character = self._at(batch_or_char_index, char_index)
        return row.char_to_token(character, sequence_index)

    def char_to_word(
        self, batch_or_char_index: int, char_index: int | None = None, sequence_index: int = 0
    ) -> int | None:
        """The index of the word that a character is part of; None for a space."""
        row, character = self._at(batch_or_char_index, char_index)
        return row.char_to_word(character, sequence_index)

    # Tensors

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> "BatchEncoding":
        """Turns every entry, in place, into an array: np int64[B, T], tf int32[B, T] or pt int64[B, T].

        Numbers with a fraction, such as labels put in by hand, become float32; arrays that are there stay.

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

    def to(self, device: Any, *, non_blocking: bool = False) -> "BatchEncoding":
        """Moves the PyTorch tensors among the entries, in place, to a device such as "cpu", "cuda:1" or 1."""
        if not isinstance(device, (str, int)) and type(device).__name__ != "device":  # such as torch.float16
            logger.warning("BatchEncoding.to() moves to a device and leaves dtypes as they are, got %s.", brief(device))
            return self
        for name, values in self.items():
            if hasattr(values, "to"):
                self[name] = values.to(device=device, non_blocking=non_blocking)
        return self


def _from_start(index: int, length: int) -> int:
    return index + length if index < 0 else index


def _span(kind: Any, ends: tuple[int, int] | None) -> Any:
    return None if ends is None else kind(*ends)


def _flattened(encoding: Any) -> tuple[list, tuple[str, ...]]:
    names = tuple(sorted(encoding))
    return [encoding[name] for name in names], names


def _unflattened(names: Any, values: Any) -> Any:
    return BatchEncoding(dict(zip(names, values, strict=True)))


# Keras flattens inputs through optree, which takes a dict subclass for a leaf unless told otherwise.
optree.register_pytree_node(BatchEncoding, _flattened, _unflattened, namespace="keras")


def _tensor(name: str, values: Any, kind: str) -> Any:
    if kind not in ("np", "tf", "pt"):
        raise ValueError(f"return_tensors must be 'np', 'tf' or 'pt', got {kind!r}.")
    array = _array(name, values)
    if kind == "tf":
        import tensorflow as tf

        return values if tf.is_tensor(values) else tf.constant(array, tf.int32 if array.dtype == np.int64 else None)
    if kind == "pt":
        import torch

        return values if torch.is_tensor(values) else torch.from_numpy(array)
    return array


def _array(name: str, values: Any) -> np.ndarray:
    """Lists of whole numbers as int64, of others as float32; arrays, and lists of them, in their own dtype."""
    try:
        array = np.array(values)
    except ValueError:
        raise ValueError(
            f"{name} has rows of different lengths, which no tensor can hold: pass padding=True, "
            "or padding='max_length' with truncation=True."
        ) from None
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} must be numbers to become a tensor, got {brief(values)}.")
    if array.size == 0 and name not in _ONE_PER_ROW:
        array = array.reshape(0, 0) if array.ndim == 1 else array
    if not _has_dtype(values):
        array = array.astype(np.float32 if array.dtype.kind == "f" and array.size else np.int64)
    return array


def _has_dtype(values: Any) -> bool:
    """Whether there are arrays at any depth of the lists."""
    while isinstance(values, (list, tuple)) and values:
        values = values[0]
    return hasattr(values, "dtype")
