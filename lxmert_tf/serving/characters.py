"""What the `tokenizers` library makes of each character of Unicode, for graphs that are to do the same.

TensorFlow's own string operations know other versions of Unicode, and lower-case by words and locales. So the library
is asked about every character.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import NamedTuple

from tokenizers.normalizers import NFD, BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

_BLOCK = 256
_SURROGATES = range(0xD800, 0xE000)  # no characters
_HIGHEST_MARK = "\u0345"  # canonical order puts any other mark before it


class Classes(NamedTuple):
    """Classes of characters as RE2 patterns: what cleaning drops and makes a space, what counts as Chinese, and at what
    and around what words are split."""

    dropped: str
    cleaned_spaces: str
    chinese: str
    spaces: str
    punctuation: str


@functools.cache
def classes() -> Classes:
    """The classes by which BERT's normaliser and pre-tokenizer clean and split."""
    cleaned = _changes(_normalizer(clean_text=True))
    pre_tokenize = BertPreTokenizer().pre_tokenize_str
    split = _changes(lambda text: " ".join(word for word, _ in pre_tokenize(f"a{text}a"))[1:-1])
    return Classes(
        dropped=_pattern(c for c, becomes in cleaned.items() if not becomes),
        cleaned_spaces=_pattern(c for c, becomes in cleaned.items() if becomes == " "),
        chinese=_pattern(_changes(_normalizer(handle_chinese_chars=True))),
        spaces=_pattern([" ", *(c for c, becomes in split.items() if becomes == " ")]),
        punctuation=_pattern(c for c, becomes in split.items() if becomes == f" {c} "),
    )


@functools.cache
def decompositions() -> dict[str, str]:
    """The canonical decomposition of each character that has one."""
    return _changes(NFD().normalize_str)


@functools.cache
def letters(strip_accents: bool, lowercase: bool) -> dict[str, str]:
    """What becomes of each character that changes; to strip accents, of those that have no decomposition."""
    changes = _changes(_normalizer(strip_accents=strip_accents, lowercase=lowercase))
    return {c: becomes for c, becomes in changes.items() if not strip_accents or c not in decompositions()}


@functools.cache
def mark_ranks() -> dict[str, int]:
    """The rank of each combining mark, from 1: canonical order sorts marks that follow each other by it, stably."""
    decompose = NFD().normalize_str
    led = (_HIGHEST_MARK + _HIGHEST_MARK.join(block) for block in _blocks())
    characters = (c for text in led if decompose(text) != text for c in text[1::2])
    marks = [c for c in characters if c == _HIGHEST_MARK or decompose(_HIGHEST_MARK + c) == c + _HIGHEST_MARK]
    first, *others = list(decompose("".join(marks)))
    ranks = {first: 1}
    for before, mark in pairwise([first, *others]):
        ranks[mark] = ranks[before] + (decompose(mark + before) != mark + before)
    return dict(sorted(ranks.items()))


def _normalizer(**steps: bool) -> Callable[[str], str]:
    none = {"clean_text": False, "handle_chinese_chars": False, "strip_accents": False, "lowercase": False}
    return BertNormalizer(**none | steps).normalize_str


def _blocks() -> Iterator[str]:
    """The characters of Unicode in order, without planes 4 to 13, which are empty in every version."""
    for plane in (0, 1, 2, 3, 14, 15, 16):
        for start in range(plane << 16, (plane + 1) << 16, _BLOCK):
            yield "".join(chr(c) for c in range(start, start + _BLOCK) if c not in _SURROGATES)


def _changes(function: Callable[[str], str]) -> dict[str, str]:
    """What a function makes of each character, where it is something else."""
    changed = (block for block in _blocks() if function(block) != block)
    return {c: becomes for block in changed for c in block if (becomes := function(c)) != c}


def _pattern(characters: Iterable[str]) -> str:
    """Characters in the order of Unicode as a class of RE2."""
    runs: list[list[int]] = []
    for code in map(ord, characters):
        if runs and code == runs[-1][1] + 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "[" + "".join(f"\\x{{{first:X}}}-\\x{{{last:X}}}" for first, last in runs) + "]"
