"""Text to ids and back, with BERT's WordPiece vocabulary, over the `tokenizers` library.

`LxmertTokenizer` and `LxmertTokenizerFast` are one implementation with upstream's two constructors. Texts get the ids
of upstream's classes; where those two differ (`never_split`, which only upstream's slow class heeds; offsets, pairs and
truncation) both do what the more capable one does. Encoding changes nothing in a tokenizer, so threads may share one.

Shapes: B examples (or windows, with `return_overflowing_tokens`), T tokens after padding.
"""

import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar, overload

from tokenizers import AddedToken, Tokenizer, processors

from lxmert_tf.tokenization.encoding import (
    BatchEncoding,
    Row,
    Token,
    checked_example,
    checked_examples,
    limits,
    padded,
    truncated,
)
from lxmert_tf.tokenization.vocabulary import (
    ADDED_TOKEN_FIELDS,
    added_token,
    brief,
    one_of,
    read_json,
    read_spec,
    token_text,
)

logger = logging.getLogger(__name__)

VOCAB_NAME, TOKENIZER_NAME = "vocab.txt", "tokenizer.json"
CONFIG_NAME, SPECIAL_TOKENS_NAME = "tokenizer_config.json", "special_tokens_map.json"

_SPECIAL_NAMES = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SAVED = (
    *("do_lower_case", "do_basic_tokenize", "never_split", "clean_text", "tokenize_chinese_chars", "strip_accents"),
    *("wordpieces_prefix", "model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces"),
    *("model_input_names", "additional_special_tokens"),
)
# The characters at which Python's str.split() splits
_AT_SPACES = {"type": "Split", "pattern": {"Regex": r"[\s\x1c-\x1f]+"}, "behavior": "Removed", "invert": False}
_NOT_OPTIONS = ("vocab_file", "tokenizer_file", "tokenizer_class", "name_or_path", "special_tokens_map_file")


_AnyTokenizer = TypeVar("_AnyTokenizer", bound="_Tokenizer")


class _Tokenizer:
    """BERT's tokenizer: clean, lower-case, split at spaces and punctuation, then the longest word pieces first.

    Where accents are kept (`strip_accents=False`, or None without `do_lower_case`), "e" followed by a combining accent
    stays two characters, as with upstream's fast class. Upstream's slow class, of transformers 4, composes all text
    first (NFC) and so reads "é" there. Where accents are dropped, all of them read "e".

    Args:
        vocab_file: a vocab.txt: one token a line, the id is the line.
        tokenizer_file: a tokenizer.json; wins over `vocab_file`. Its case, accent and Chinese settings are replaced
            by the arguments, as upstream does.
        do_lower_case: lower-case the text.
        do_basic_tokenize: False splits only at spaces, without any cleaning, before word pieces.
        never_split: words, as they are after cleaning, that are kept whole, between spaces or punctuation.
        unk_token, sep_token, pad_token, cls_token, mask_token: special tokens; pad and mask may be None. Those that
            the vocabulary lacks are added behind it, but `unk_token` must be in it.
        clean_text: drop control characters and make every white space a space.
        tokenize_chinese_chars: split around each Chinese character.
        strip_accents: drop accents; None does as `do_lower_case`.
        wordpieces_prefix: what marks a piece that continues a word; a tokenizer.json brings its own.
        model_max_length: the length for truncation and padding without `max_length`.
        padding_side, truncation_side: "right" or "left".
        clean_up_tokenization_spaces: whether `decode` closes the spaces before punctuation.
        model_input_names: the entries returned by default.
        additional_special_tokens: further tokens never split nor lower-cased, skipped by `skip_special_tokens`.
        added_tokens_decoder: tokens behind the vocabulary by id, as tokenizer_config.json has them.
        **extra: anything else, kept and written back by `save_pretrained`.

    Raises:
        FileNotFoundError: the file does not exist.
        TypeError: an argument of the wrong kind.
        ValueError: a file that is no vocabulary, or an argument out of its range.
    """

    is_fast = False
    _files = (VOCAB_NAME, TOKENIZER_NAME)  # the order in which a directory is searched

    def __init__(
        self,
        vocab_file: str | os.PathLike | None = None,
        tokenizer_file: str | os.PathLike | None = None,
        *,
        do_lower_case: bool = True,
        do_basic_tokenize: bool = True,
        never_split: Iterable[str] | None = None,
        unk_token: str = "[UNK]",
        sep_token: str = "[SEP]",
        pad_token: str | None = "[PAD]",
        cls_token: str = "[CLS]",
        mask_token: str | None = "[MASK]",
        clean_text: bool = True,
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        wordpieces_prefix: str = "##",
        model_max_length: int | None = 512,
        padding_side: str = "right",
        truncation_side: str = "right",
        clean_up_tokenization_spaces: bool = True,
        model_input_names: Sequence[str] = ("input_ids", "token_type_ids", "attention_mask"),
        additional_special_tokens: Sequence[str] | None = None,
        added_tokens_decoder: Mapping[int | str, Any] | None = None,
        **extra: Any,
    ):
        if isinstance(never_split, str):
            raise TypeError(f"never_split must be a list of words, got the string {never_split!r}.")
        self.do_lower_case, self.do_basic_tokenize = do_lower_case, do_basic_tokenize
        self.never_split = None if never_split is None else list(never_split)
        self.clean_text, self.tokenize_chinese_chars = clean_text, tokenize_chinese_chars
        self.strip_accents = strip_accents
        if model_max_length is not None and not isinstance(model_max_length, (int, float)):
            raise TypeError(f"model_max_length must be a number, got {brief(model_max_length)}.")
        self.model_max_length = model_max_length
        self.padding_side = one_of("padding_side", padding_side, ("right", "left"))
        self.truncation_side = one_of("truncation_side", truncation_side, ("right", "left"))
        self.clean_up_tokenization_spaces = bool(clean_up_tokenization_spaces)
        self.model_input_names = list(model_input_names)
        self.additional_special_tokens: list[str] = [token_text(token) for token in additional_special_tokens or ()]
        self.extra = extra
        given = (unk_token, sep_token, pad_token, cls_token, mask_token)
        self._special = {name: token_text(token) for name, token in zip(_SPECIAL_NAMES, given, strict=True)}
        for name in ("unk_token", "sep_token", "cls_token"):
            if not self._special[name]:
                raise ValueError(
                    f"{name} must be a token, got {self._special[name]!r}: no text can be encoded without it."
                )

        spec = read_spec(vocab_file, tokenizer_file, wordpieces_prefix)
        self.wordpieces_prefix = spec["model"].get("continuing_subword_prefix", "##")
        self._backend = self._build(spec, added_tokens_decoder or {})
        self._kept_whole = frozenset(self.never_split or ()) if do_basic_tokenize else frozenset()
        special = "|".join(re.escape(token) for token in sorted(self.all_special_tokens, key=len, reverse=True))
        self._word = re.compile(rf"(?:{special})|(?:(?!{special})\S)+")
        self._warned_of_length = False

    # Construction

    def _build(self, spec: dict[str, Any], added_tokens: Mapping[int | str, Any]) -> Tokenizer:
        spec["model"]["unk_token"] = self.unk_token
        spec["truncation"] = spec["padding"] = None  # a saved state, which would apply to every text
        self._set_cleaning(spec)
        try:
            backend = Tokenizer.from_str(json.dumps(spec))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"The tokenizer.json is not one that the tokenizers library reads: {error}.") from error
        if self.unk_token not in spec["model"]["vocab"]:
            raise ValueError(
                f"The vocabulary lacks the unknown token {self.unk_token!r}: pass unk_token=... as it spells it."
            )
        for index, token in sorted((int(index), token) for index, token in added_tokens.items()):
            added = added_token(token)
            backend.add_tokens([added])
            if (found := backend.token_to_id(added.content)) != index:
                raise ValueError(
                    f"added_tokens_decoder puts {added.content!r} at id {index}, but the vocabulary has it at "
                    f"{found}: the files do not belong together."
                )
        specials = [*filter(None, self._special.values()), *self.additional_special_tokens]
        backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
        id_of: Callable[[str], Any] = backend.token_to_id  # never None: both are there by now
        sep, cls = ((token, id_of(token)) for token in (self.sep_token, self.cls_token))
        backend.post_processor = processors.BertProcessing(sep, cls)  # for readers of the saved file; not used here
        return backend

    def _set_cleaning(self, spec: dict[str, Any]) -> None:
        """Writes the arguments into the file's BertNormalizer; another kind of normalizer is left as it is."""
        normalizer = spec.get("normalizer")
        if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
            return
        basic = self.do_basic_tokenize
        was_basic = (spec.get("pre_tokenizer") or {}).get("type") != "Split"
        clean = self.clean_text and (normalizer.get("clean_text", True) or not was_basic)
        spec["normalizer"] = {
            "type": "BertNormalizer",
            "clean_text": basic and clean,
            "handle_chinese_chars": basic and self.tokenize_chinese_chars,
            "strip_accents": self.strip_accents if basic else False,
            "lowercase": basic and self.do_lower_case,
        }
        if basic != was_basic:
            spec["pre_tokenizer"] = {"type": "BertPreTokenizer"} if basic else _AT_SPACES

    @classmethod
    def from_pretrained(
        cls: type[_AnyTokenizer], pretrained_model_name_or_path: str | os.PathLike, **options: Any
    ) -> _AnyTokenizer:
        """A tokenizer from a directory with vocab.txt or tokenizer.json, from such a file, or from a Hub id.

        Args:
            pretrained_model_name_or_path: directory, file, or Hub id such as "unc-nlp/lxmert-base-uncased".
            **options: `revision`, `cache_dir`, `local_files_only`, `token` for the Hub; the rest are constructor
                arguments, which win over tokenizer_config.json and special_tokens_map.json.

        Raises:
            FileNotFoundError: no such path or repository, or no vocabulary in it.
            ValueError: a file that cannot be read as what its name says.
        """
        from lxmert_tf.hub import HUB_OPTIONS, fetch

        source = pretrained_model_name_or_path
        hub_options = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
        if Path(source).suffix in (".txt", ".json") and not Path(source).exists():
            raise FileNotFoundError(f"There is no vocabulary file {os.fspath(source)!r}.")
        path = fetch(source, [*cls._files, CONFIG_NAME, SPECIAL_TOKENS_NAME], **hub_options)
        if path.is_file():
            options["tokenizer_file" if path.suffix == ".json" else "vocab_file"] = path
            return cls(**options)
        name = next((name for name in cls._files if (path / name).is_file()), None)
        if name is None:
            raise FileNotFoundError(f"{os.fspath(source)!r} has neither {VOCAB_NAME} nor {TOKENIZER_NAME}.")
        config = {}
        for file in (path / SPECIAL_TOKENS_NAME, path / CONFIG_NAME):
            config.update(read_json(file) if file.is_file() else {})
        config = {key: value for key, value in config.items() if key not in _NOT_OPTIONS}
        options = {**config, **options, "tokenizer_file" if name == TOKENIZER_NAME else "vocab_file": path / name}
        return cls(**options)

    def save_pretrained(self, directory: str | os.PathLike) -> tuple[str, ...]:
        """Writes vocab.txt, tokenizer.json, tokenizer_config.json and special_tokens_map.json, which upstream reads.

        Returns:
            The paths written.
        """
        from lxmert_tf.files import write_text

        texts = {
            VOCAB_NAME: self._vocab_text(),
            TOKENIZER_NAME: self._backend.to_str(pretty=True),
            CONFIG_NAME: _json(self._config()),
            SPECIAL_TOKENS_NAME: _json(self._special_tokens_map()),
        }
        paths = [Path(directory) / name for name in texts]
        for path, text in zip(paths, texts.values(), strict=True):
            write_text(path, text)
        return tuple(map(str, paths))

    def save_vocabulary(self, save_directory: str | os.PathLike, filename_prefix: str | None = None) -> tuple[str]:
        """Writes `save_directory`/[`filename_prefix`-]vocab.txt, without added tokens; returns its path in a tuple."""
        from lxmert_tf.files import write_text

        path = Path(save_directory) / ((f"{filename_prefix}-" if filename_prefix else "") + VOCAB_NAME)
        write_text(path, self._vocab_text())
        return (str(path),)

    def _vocab_text(self) -> str:
        tokens = sorted(self._backend.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
        for line, (token, index) in enumerate(tokens):
            if line != index or "\n" in token or "\r" in token:
                raise ValueError(f"The token {token!r} with id {index} cannot stand on line {line + 1} of a vocab.txt.")
        return "".join(f"{token}\n" for token, _ in tokens)

    def _special_tokens_map(self) -> dict[str, Any]:
        more = {"additional_special_tokens": self.additional_special_tokens} if self.additional_special_tokens else {}
        return {**{name: token for name, token in self._special.items() if token}, **more}

    def _config(self) -> dict[str, Any]:
        added = self._backend.get_added_tokens_decoder()
        return {
            **self.extra,
            **{name: getattr(self, name) for name in _SAVED},
            **self._special,
            "added_tokens_decoder": {
                str(index): {field: getattr(added[index], field) for field in ADDED_TOKEN_FIELDS}
                for index in sorted(added)
            },
            "tokenizer_class": "LxmertTokenizer",
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, {self._special_tokens_map()})"

    # Vocabulary

    unk_token = property(lambda self: self._special["unk_token"], doc="What stands for a word without pieces.")
    sep_token = property(lambda self: self._special["sep_token"], doc="What ends a text.")
    pad_token = property(lambda self: self._special["pad_token"], doc="What fills rows up, or None.")
    cls_token = property(lambda self: self._special["cls_token"], doc="What begins a row.")
    mask_token = property(lambda self: self._special["mask_token"], doc="What hides a word, or None.")
    unk_token_id = property(lambda self: self._special_id("unk_token"))
    sep_token_id = property(lambda self: self._special_id("sep_token"))
    pad_token_id = property(lambda self: self._special_id("pad_token"))
    cls_token_id = property(lambda self: self._special_id("cls_token"))
    mask_token_id = property(lambda self: self._special_id("mask_token"))
    pad_token_type_id = 0

    def _special_id(self, name: str) -> int | None:
        token = self._special[name]
        return None if token is None else self._backend.token_to_id(token)

    @property
    def all_special_tokens(self) -> list[str]:
        """The special tokens, each once."""
        own = [token for token in self._special.values() if token]
        return list(dict.fromkeys([*own, *self.additional_special_tokens]))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return self.convert_tokens_to_ids(self.all_special_tokens)

    @property
    def vocab_size(self) -> int:
        """The number of tokens in the vocabulary, without added ones; `len(tokenizer)` counts all."""
        return self._backend.get_vocab_size(with_added_tokens=False)

    def __len__(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=True)

    def get_vocab(self) -> dict[str, int]:
        """Every token, added ones too, with its id."""
        return self._backend.get_vocab(with_added_tokens=True)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The special and other added tokens by id: what is found in a text before anything else."""
        return self._backend.get_added_tokens_decoder()

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...

    @overload
    def convert_tokens_to_ids(self, tokens: list[str] | tuple[str, ...]) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> int | list[int]:
        """The id of a token, or of each token of a list; unknown ones get `unk_token_id`."""
        if isinstance(tokens, str):
            index = self._backend.token_to_id(tokens)
            return self.unk_token_id if index is None else index
        if not isinstance(tokens, (list, tuple)) or not all(isinstance(token, str) for token in tokens):
            raise TypeError(f"tokens must be a string or a list of strings, got {brief(tokens)}.")
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> str | list[str]:
        """The token of an id, or of each id of a list or int[T] array.

        Raises:
            TypeError: something other than ids, or more than one row of them.
            ValueError: an id outside the vocabulary.
        """
        ids = _plain(ids)
        if not isinstance(ids, (list, tuple)):
            return self._token_of(ids)
        tokens = [self._token_of(index) for index in ids]
        skipped = set(self.all_special_tokens) if skip_special_tokens else ()
        return [token for token in tokens if token not in skipped]

    def _token_of(self, index: Any) -> str:
        index = _plain(index)
        if not isinstance(index, int):
            raise TypeError(
                f"ids must be integers or one row of them (batch_decode takes several), got {brief(index)}."
            )
        token = self._backend.id_to_token(index) if 0 <= index < 2**32 else None
        if token is None:
            raise ValueError(
                f"The id {index} is outside the vocabulary of {len(self)} tokens: drop it before decoding."
            )
        return token

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The tokens joined by spaces, with word pieces rejoined."""
        return " ".join(tokens).replace(f" {self.wordpieces_prefix}", "").strip()

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> str:
        """The text of one row of ids.

        Args:
            token_ids: an id, a list, or an int[T] array of NumPy, TensorFlow or PyTorch.
            skip_special_tokens: leave special tokens out.
            clean_up_tokenization_spaces: close the spaces before punctuation; None does as the tokenizer was made.

        Raises:
            TypeError, ValueError: as `convert_ids_to_tokens`.
        """
        ids = _plain(token_ids)
        tokens = self.convert_ids_to_tokens(ids if isinstance(ids, (list, tuple)) else [ids], skip_special_tokens)
        text = self.convert_tokens_to_string(tokens)
        clean = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        return _close_spaces(text) if clean else text

    def batch_decode(self, sequences: Any, *args: Any, **options: Any) -> list[str]:
        """The text of each row of int[B, T] ids or of a list of rows; further arguments as for `decode`."""
        return [self.decode(row, *args, **options) for row in _plain(sequences)]

    # Special tokens

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many special tokens encoding adds to a text, or to a pair."""
        return 3 if pair else 2

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """`[CLS] A [SEP]`, or `[CLS] A [SEP] B [SEP]`, as ids."""
        second = [] if token_ids_1 is None else [*token_ids_1, self.sep_token_id]
        return [self.cls_token_id, *token_ids_0, self.sep_token_id, *second]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence, token_ids_1: Sequence | None = None
    ) -> list[int]:
        """0 for each token of `[CLS] A [SEP]`, 1 for each of `B [SEP]`."""
        return [0] * (len(token_ids_0) + 2) + ([] if token_ids_1 is None else [1] * (len(token_ids_1) + 1))

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence,
        token_ids_1: Sequence | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """1 for each special token and 0 for the others.

        Args:
            token_ids_0, token_ids_1: ids without special tokens; the mask is for the row built from them.
            already_has_special_tokens: `token_ids_0` is a whole row; special is what `all_special_ids` lists.

        Raises:
            ValueError: a whole row and `token_ids_1`.
        """
        if not already_has_special_tokens:
            second = [] if token_ids_1 is None else [0] * len(token_ids_1) + [1]
            return [1, *[0] * len(token_ids_0), 1, *second]
        if token_ids_1 is not None:
            raise ValueError(
                "token_ids_1 must be None where already_has_special_tokens=True: pass the whole row first."
            )
        special = set(self.all_special_ids)
        return [int(index in special) for index in token_ids_0]

    # Encoding

    def tokenize(self, text: str, pair: str | None = None, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text, or of a pair one after the other, as strings."""
        first, second = next(self._sequences([checked_example(text, pair, False)], False))
        return [token.text for token in self._row(first, second, add_special_tokens).tokens]

    def encode(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """The ids of one example: list of T ints, or int[1, T] with `return_tensors`; options as for the call."""
        return self.encode_plus(text, text_pair, **options)["input_ids"]

    def encode_plus(self, text: Any, text_pair: Any = None, **options: Any) -> BatchEncoding:
        """The call, for one example only."""
        checked_example(text, text_pair, options.get("is_split_into_words", False))
        return self(text, text_pair, **options)

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **options: Any) -> BatchEncoding:
        """The call, for a batch of texts or of (text, text_pair) tuples only."""
        if not isinstance(batch_text_or_text_pairs, (list, tuple)):
            raise TypeError(f"A batch must be a list of texts or of pairs, got {brief(batch_text_or_text_pairs)}.")
        return self(batch_text_or_text_pairs, **options)

    def __call__(
        self,
        text: Any,
        text_pair: Any = None,
        *,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        is_split_into_words: bool = False,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Encodes a text, a pair, or a batch of either.

        Args:
            text: a string, or a list of strings (a batch); with `is_split_into_words` a list of words, or a batch of
                such lists. Items of a batch may be (text, text_pair) tuples.
            text_pair: the second text of each pair, of the same kind as `text`.
            add_special_tokens: `[CLS] A [SEP] B [SEP]` rather than `A B`.
            padding: True or "longest", "max_length", or False.
            truncation: True or "longest_first", "only_first", "only_second", or False; None truncates if `max_length`
                is given and `padding` is not.
            max_length: for truncation and padding; `model_max_length` by default.
            stride: tokens shared by neighbouring windows, with `return_overflowing_tokens`.
            is_split_into_words: texts are lists of words.
            pad_to_multiple_of: round the padded length up to a multiple of this.
            padding_side: "right" or "left" for this call.
            return_tensors: "np", "tf" or "pt"; lists by default.
            return_token_type_ids, return_attention_mask: None returns what `model_input_names` lists.
            return_overflowing_tokens: give what truncation cuts off as further rows, with their example's index in
                `overflow_to_sample_mapping`.
            return_special_tokens_mask, return_offsets_mapping, return_length: further entries `special_tokens_mask`,
                `offset_mapping` (start and end characters) and `length` (of each row, padding included).
            verbose: warn of texts longer than `model_max_length`.

        Returns:
            BatchEncoding of `input_ids`, `token_type_ids`, `attention_mask` and what was asked for: lists of T (of B
            lists for a batch), np and pt int64[B, T], tf int32[B, T]; `offset_mapping` is [B, T, 2], `length` [B].

        Raises:
            TypeError: texts of another kind. ValueError: counts that differ, or options that cannot be met.
        """
        examples, batched = checked_examples(text, text_pair, is_split_into_words)
        truncate, pad, limit = limits(padding, truncation, max_length, pad_to_multiple_of, self.model_max_length)
        if pad and self.pad_token is None:
            raise ValueError("padding needs a padding token, and this tokenizer has pad_token=None.")
        side = one_of("padding_side", padding_side or self.padding_side, ("right", "left"))
        overlap = stride if return_overflowing_tokens else None
        rows, origins = [], []
        for index, (first, second) in enumerate(self._sequences(examples, is_split_into_words)):
            windows = [(first, second)]
            if truncate and limit is not None:
                room = limit - (self.num_special_tokens_to_add(second is not None) if add_special_tokens else 0)
                windows = truncated(first, second, truncate, room, self.truncation_side, overlap)
            rows += [self._row(*window, add_special_tokens) for window in windows]
            origins += [index] * len(windows)
        if verbose and not truncate:
            self._warn_of_length(rows)

        widths = [len(row.tokens) for row in rows]
        if pad == "longest":
            widths = [max(widths, default=0)] * len(rows)
        elif pad == "max_length" and limit is not None:
            widths = [max(width, limit) for width in widths]
        if pad and pad_to_multiple_of:
            widths = [-(-width // pad_to_multiple_of) * pad_to_multiple_of for width in widths]

        def column(value_of: Callable[[Row], list], fill: Any) -> list[list]:
            return [padded(value_of(row), fill, width, side) for row, width in zip(rows, widths, strict=True)]

        def wanted(answer: bool | None, name: str) -> bool:
            return name in self.model_input_names if answer is None else answer

        data: dict[str, list] = {"input_ids": column(lambda row: [token.id for token in row.tokens], self.pad_token_id)}
        if wanted(return_token_type_ids, "token_type_ids"):
            data["token_type_ids"] = column(lambda row: row.type_ids, self.pad_token_type_id)
        if wanted(return_attention_mask, "attention_mask"):
            data["attention_mask"] = column(lambda row: [1] * len(row.tokens), 0)
        if return_special_tokens_mask:
            data["special_tokens_mask"] = column(lambda row: row.special, 1)
        if return_offsets_mapping:
            data["offset_mapping"] = column(lambda row: [token.offsets for token in row.tokens], (0, 0))
        if return_length:
            data["length"] = list(widths)
        if return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = origins
        elif not batched and return_tensors is None:
            data = {name: values[0] for name, values in data.items()}
        words = column(lambda row: [token.word for token in row.tokens], None)
        return BatchEncoding(data, words).convert_to_tensors(return_tensors)

    def _sequences(self, examples: list[tuple], split: bool) -> Iterator[tuple[list[Token], list[Token] | None]]:
        """The tokens of each example's two texts, without special tokens; None where there is no second."""
        texts = [text for example in examples for text in example if text is not None]
        tokens = iter(self._tokens(texts, split))
        for _, second in examples:
            yield next(tokens), None if second is None else next(tokens)

    def _tokens(self, texts: list, split: bool) -> list[list[Token]]:
        if self._kept_whole and not split:
            return [self._tokens_around_words(text) for text in texts]
        if self._kept_whole:
            return [
                [
                    token._replace(word=index)
                    for index, word in enumerate(words)
                    for token in self._tokens_around_words(word)
                ]
                for words in texts
            ]
        encodings = self._backend.encode_batch(texts, is_pretokenized=split, add_special_tokens=False)
        return [list(map(Token, e.ids, e.tokens, e.offsets, e.word_ids)) for e in encodings]

    def _tokens_around_words(self, text: str) -> list[Token]:
        """Tokens of a text in which the words of `never_split` stay whole."""
        tokens: list[Token] = []
        start = 0
        for match in self._word.finditer(text):
            word = match[0].lower() if self.do_lower_case else match[0]
            if word in self._kept_whole:
                tokens += self._tokens_of_piece(text[start : match.start()], start, tokens)
                tokens.append(Token(self.convert_tokens_to_ids(word), word, match.span(), _next_word(tokens)))
                start = match.end()
        return tokens + self._tokens_of_piece(text[start:], start, tokens)

    def _tokens_of_piece(self, piece: str, start: int, before: list[Token]) -> list[Token]:
        """Tokens of a part of a text; what punctuation leaves of a word stays whole too if it is in `never_split`."""
        e = self._backend.encode(piece, add_special_tokens=False)
        tokens, first_word = [], _next_word(before)
        for index, group in groupby(zip(e.ids, e.tokens, e.offsets, e.word_ids, strict=True), key=itemgetter(3)):
            pieces = [
                Token(id_, token, (start + begin, start + end), first_word + index)
                for id_, token, (begin, end), _ in group
            ]
            span = pieces[0].offsets[0], pieces[-1].offsets[1]
            word = self._cleaned(piece[span[0] - start : span[1] - start])
            if word in self._kept_whole:
                pieces = [Token(self.convert_tokens_to_ids(word), word, span, first_word + index)]
            tokens += pieces
        return tokens

    def _cleaned(self, word: str) -> str:
        normalizer = self._backend.normalizer
        return normalizer.normalize_str(word) if normalizer else word

    def _row(self, first: list[Token], second: list[Token] | None, add_special_tokens: bool) -> Row:
        if not add_special_tokens:
            tokens = first + (second or [])
            return Row(tokens, [0] * len(first) + [1] * len(second or ()), [0] * len(tokens))
        cls, sep = Token(self.cls_token_id, self.cls_token), Token(self.sep_token_id, self.sep_token)
        tokens = [cls, *first, sep, *([] if second is None else [*second, sep])]
        types = self.create_token_type_ids_from_sequences(first, second)
        return Row(tokens, types, self.get_special_tokens_mask(first, second))

    def _warn_of_length(self, rows: list[Row]) -> None:
        longest = max((len(row.tokens) for row in rows), default=0)
        if self._warned_of_length or self.model_max_length is None or longest <= self.model_max_length:
            return
        self._warned_of_length = True
        logger.warning(
            "A text has %d tokens, the model takes %d: pass truncation=True.", longest, int(self.model_max_length)
        )


class LxmertTokenizer(_Tokenizer):
    __doc__ = _Tokenizer.__doc__

    def __init__(
        self,
        vocab_file: str | os.PathLike | None = None,
        do_lower_case: bool = True,
        do_basic_tokenize: bool = True,
        never_split: Iterable[str] | None = None,
        **options: Any,
    ):
        super().__init__(
            vocab_file,
            do_lower_case=do_lower_case,
            do_basic_tokenize=do_basic_tokenize,
            never_split=never_split,
            **options,
        )


class LxmertTokenizerFast(_Tokenizer):
    __doc__ = _Tokenizer.__doc__
    is_fast = True
    _files = (TOKENIZER_NAME, VOCAB_NAME)

    def __init__(
        self,
        vocab_file: str | os.PathLike | None = None,
        tokenizer_file: str | os.PathLike | None = None,
        do_lower_case: bool = True,
        **options: Any,
    ):
        super().__init__(vocab_file, tokenizer_file, do_lower_case=do_lower_case, **options)


def _json(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _plain(ids: Any) -> Any:
    """Arrays and tensors as (lists of) ints; anything else as it is."""
    ids = ids.numpy() if hasattr(ids, "numpy") else ids
    return ids.tolist() if hasattr(ids, "tolist") else ids


def _next_word(tokens: list[Token]) -> int:
    return (tokens[-1].word or 0) + 1 if tokens else 0


def _close_spaces(text: str) -> str:
    """Undoes the spaces that tokenization puts before punctuation and English contractions."""
    for mark in (".", "?", "!", ","):
        text = text.replace(f" {mark}", mark)
    text = text.replace(" ' ", "'")
    for ending in ("n't", "'m", "'s", "'ve", "'re"):
        text = text.replace(f" {ending}", ending)
    return text
