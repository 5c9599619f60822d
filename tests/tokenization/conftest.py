"""Tokenizers on a vocabulary of a few words."""

import pytest
from support.tokens import CLASSES, WORDS


@pytest.fixture
def vocab_file(tmp_path):
    path = tmp_path / "vocabulary" / "vocab.txt"
    path.parent.mkdir()
    path.write_text("\n".join(WORDS.split()) + "\n", encoding="utf-8")
    return path


@pytest.fixture(params=CLASSES.values(), ids=CLASSES)
def make(request, vocab_file):
    """Makes a tokenizer of either class on the small vocabulary."""
    return lambda **options: request.param(vocab_file, **options)


@pytest.fixture
def tokenizer(make):
    return make()
