"""Vocabulary files: reading vocab.txt and tokenizer.json, and the tokens that upstream's JSON files describe."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

ADDED_TOKEN_FIELDS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")


def read_spec(vocab_file: Any, tokenizer_file: Any, prefix: str) -> dict[str, Any]:
    """The contents of a tokenizer.json: the file's, or those that go with a vocab.txt."""
    if tokenizer_file is not None:
        spec = read_json(tokenizer_file)
        model = spec.get("model")
        if not isinstance(model, dict) or model.get("type") != "WordPiece" or not isinstance(model.get("vocab"), dict):
            raise ValueError(f"{tokenizer_file} holds no WordPiece vocabulary, the only kind that LXMERT knows.")
        return spec
    if vocab_file is None:
        raise ValueError("A tokenizer needs a vocabulary: pass vocab_file or tokenizer_file, or use from_pretrained.")
    return {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": prefix, "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "",
            "continuing_subword_prefix": prefix,
            "max_input_chars_per_word": 100,
            "vocab": _read_vocab(vocab_file),
        },
    }


def _read_vocab(path: str | os.PathLike) -> dict[str, int]:
    vocab: dict[str, int] = {}
    for index, token in enumerate(_read_text(path).rstrip("\n").split("\n")):
        if token in vocab:
            raise ValueError(f"{path} has the token {token!r} on lines {vocab[token] + 1} and {index + 1}: keep one.")
        vocab[token] = index
    return vocab


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """The object in a JSON file; ValueError where there is none."""
    try:
        values = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a JSON file: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object, got {brief(values)}.")
    return values


def _read_text(path: str | os.PathLike) -> str:
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no file {os.fspath(path)!r} to read a tokenizer from.")
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}.") from error


def token_text(token: Any) -> Any:
    """The text of a token given as text, as AddedToken, or as the dict that upstream's files hold; None for None."""
    text = token.get("content") if isinstance(token, Mapping) else getattr(token, "content", token)
    if text is not None and not isinstance(text, str):
        raise TypeError(f"A token must be a string, got {brief(token)}.")
    return text


def added_token(token: Any) -> AddedToken:
    """The AddedToken that a text or a dict of upstream's files describes."""
    if not isinstance(token, Mapping):
        return token if isinstance(token, AddedToken) else AddedToken(token_text(token))
    return AddedToken(token_text(token), **{name: token[name] for name in ADDED_TOKEN_FIELDS[1:] if name in token})


def brief(value: Any) -> str:
    """The type and the beginning of a value, for messages."""
    shown = ascii(value)
    return f"{type(value).__name__} {shown if len(shown) <= 60 else shown[:57] + '...'}"


def one_of(name: str, value: Any, allowed: Iterable[Any]) -> Any:
    """`value`, if it is among `allowed`."""
    try:
        if value in allowed:
            return value
    except TypeError:  # not hashable
        pass
    raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {brief(value)}.")
