"""Vocabulary files: reading vocab.txt and tokenizer.json, and the tokens that upstream's JSON files describe."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

VOCAB_NAME, TOKENIZER_NAME = "vocab.txt", "tokenizer.json"
CONFIG_NAME, SPECIAL_TOKENS_NAME = "tokenizer_config.json", "special_tokens_map.json"
ADDED_TOKENS_NAME = "added_tokens.json"
SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ADDED_TOKEN_FIELDS = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
_NOT_OPTIONS = (
    *("vocab_file", "tokenizer_file", "tokenizer_class", "name_or_path", "special_tokens_map_file"),
    *("use_fast", "backend", "is_local", "local_files_only"),
)


def read_spec(vocab_file: Any, tokenizer_file: Any, tokenizer: Tokenizer | None, prefix: str) -> dict[str, Any]:
    """The contents of a tokenizer.json: the tokenizer's or the file's, or those that go with a vocab.txt."""
    if tokenizer is not None or tokenizer_file is not None:
        spec = read_json(tokenizer_file) if tokenizer is None else json.loads(tokenizer.to_str())
        model = spec.get("model")
        if not isinstance(model, dict) or model.get("type") != "WordPiece" or not isinstance(model.get("vocab"), dict):
            name = tokenizer_file or "tokenizer_object"
            raise ValueError(f"{name} holds no WordPiece vocabulary, the only kind that LXMERT knows.")
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


def read_config(directory: Path) -> dict[str, Any]:
    """The constructor's arguments as the JSON files of a directory have them, whichever of them are there."""
    config: dict[str, Any] = {}
    for file in (directory / SPECIAL_TOKENS_NAME, directory / CONFIG_NAME):
        config.update(read_json(file) if file.is_file() else {})
    added = directory / ADDED_TOKENS_NAME
    if "added_tokens_decoder" not in config and added.is_file():  # of transformers before 4.34
        special = {token_text(config.get(name)) for name in SPECIAL_NAMES}
        special |= {token_text(token) for token in config.get("additional_special_tokens") or ()}
        tokens = read_json(added).items()
        config["added_tokens_decoder"] = {index: added_token(token, token in special) for token, index in tokens}
    return {name: value for name, value in config.items() if name not in _NOT_OPTIONS}


# Tokens, given as text, as AddedToken, or as the dict that upstream's files hold


def token_text(token: Any) -> Any:
    """The text of a token; None for None."""
    text = token.get("content") if isinstance(token, Mapping) else getattr(token, "content", token)
    if text is not None and not isinstance(text, str):
        raise TypeError(f"A token must be a string, got {brief(token)}.")
    return text


def added_token(token: Any, special: bool = False) -> AddedToken:
    """The AddedToken that is meant; a `special` one is found in the text as it was given, before it is cleaned."""
    text = token_text(token)
    if isinstance(token, str):
        return AddedToken(text, special=special, normalized=not special)
    fields = token if isinstance(token, Mapping) else token_fields(token)
    options = {name: fields[name] for name in ADDED_TOKEN_FIELDS[1:] if name in fields}
    return AddedToken(text, **options | {"special": special or options.get("special", False)})


def token_fields(token: AddedToken) -> dict[str, Any]:
    """The dict that upstream's files hold."""
    return {name: getattr(token, name) for name in ADDED_TOKEN_FIELDS}


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
