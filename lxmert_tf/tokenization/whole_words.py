"""Words that are kept whole (`never_split`), as a pre-tokenizer of the `tokenizers` library."""

from typing import Any

from tokenizers import NormalizedString, PreTokenizedString, Regex, Token, models

_SPACES = Regex(r"[\s\x1c-\x1f]+")  # where Python's str.split() splits


class WholeWords:
    """Splits as another pre-tokenizer does, but for some words, which become one token each.

    Args:
        words: to keep whole where they stand between spaces, or are what the other pre-tokenizer makes.
        split: the other pre-tokenizer.
        model: the word pieces; a word that they lack gets the id of the unknown token.
    """

    def __init__(self, words: frozenset[str], split: Any, model: models.WordPiece):
        self._words, self._split, self._model = words, split, model
        self._unknown: Any = model.token_to_id(model.unk_token)

    def pre_tokenize(self, text: PreTokenizedString) -> None:
        """Splits the text and makes its tokens, in place."""
        text.split(lambda _, part: [word for chunk in part.split(_SPACES, "removed") for word in self._parts(chunk)])
        text.tokenize(self._tokens)

    def _parts(self, chunk: NormalizedString) -> list[Any]:
        if chunk.normalized in self._words:
            return [chunk]
        return [chunk[start:end] for _, (start, end) in self._split.pre_tokenize_str(chunk.normalized)]

    def _tokens(self, word: str) -> list[Token]:
        if word not in self._words:
            return self._model.tokenize(word)
        index = self._model.token_to_id(word)
        return [Token(self._unknown if index is None else index, word, (0, len(word.encode())))]
