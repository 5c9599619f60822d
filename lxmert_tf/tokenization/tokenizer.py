"""Text to ids and back, with BERT's WordPiece vocabulary, over the `tokenizers` library.

`LxmertTokenizer` and `LxmertTokenizerFast` are one implementation with upstream's two constructors. Texts get the ids
of upstream's classes; where those two differ (`never_split`, which only upstream's slow class heeds; offsets, pairs and
truncation) both do what the more capable one does. Encoding changes nothing in a tokenizer, so threads may share one.

Shapes: B examples (or windows, with `return_overflowing_tokens`), T tokens after padding.
"""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from tokenizers import AddedToken, Encoding, Tokenizer, models, pre_tokenizers, trainers

from lxmert_tf.tokenization.arguments import checked_example, checked_examples, limits
from lxmert_tf.tokenization.encoding import BatchEncoding
from lxmert_tf.tokenization.rows import padded, row_of_ids, second_text, truncate
from lxmert_tf.tokenization.special_tokens import SpecialTokens, plain
from lxmert_tf.tokenization.vocabulary import (
    ADDED_TOKENS_NAME,
    CONFIG_NAME,
    SPECIAL_NAMES,
    SPECIAL_TOKENS_NAME,
    TOKENIZER_NAME,
    VOCAB_NAME,
    added_token,
    brief,
    one_of,
    read_config,
    read_spec,
    token_fields,
    token_text,
)
from lxmert_tf.tokenization.whole_words import WholeWords

logger = logging.getLogger(__name__)

_SAVED = (
    *("do_lower_case", "do_basic_tokenize", "never_split", "clean_text", "tokenize_chinese_chars", "strip_accents"),
    *("wordpieces_prefix", "model_max_length", "padding_side", "truncation_side", "clean_up_tokenization_spaces"),
    *("model_input_names", "additional_special_tokens", "split_special_tokens"),
)
# The characters at which Python's str.split() splits
_AT_SPACES = {"type": "Split", "pattern": {"Regex": r"[\s\x1c-\x1f]+"}, "behavior": "Removed", "invert": False}
_AnyTokenizer = TypeVar("_AnyTokenizer", bound="_Tokenizer")


class _Tokenizer(SpecialTokens):
    """BERT's tokenizer: clean, lower-case, split at spaces and punctuation, then the longest word pieces first.

    Where accents are kept (`strip_accents=False`, or None without `do_lower_case`), "e" followed by a combining accent
    stays two characters, as with upstream's fast class. Upstream's slow class, of transformers 4, composes all text
    first (NFC) and so reads "é" there. Where accents are dropped, all of them read "e".

    Args:
        vocab_file: a vocab.txt: one token a line, the id is the line.
        tokenizer_file: a tokenizer.json; wins over `vocab_file`. Its case, accent and Chinese settings are replaced
            by the arguments, as upstream does.
        tokenizer_object: a `tokenizers.Tokenizer` in place of a file.
        do_lower_case: lower-case the text.
        do_basic_tokenize: False splits only at spaces, without any cleaning, before word pieces.
        never_split: words, as they are after cleaning, that are kept whole, between spaces or punctuation.
        bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token: special tokens, as text or
            `tokenizers.AddedToken`; all but unk, sep and cls may be None. Those that the vocabulary lacks are added
            behind it, but `unk_token` must be in it. LXMERT has no use for bos and eos; scripts may have.
        clean_text: drop control characters and make every white space a space.
        tokenize_chinese_chars: split around each Chinese character.
        strip_accents: drop accents; None does as `do_lower_case`.
        wordpieces_prefix: what marks a piece that continues a word; a tokenizer.json brings its own.
        model_max_length: the length for truncation and padding without `max_length`.
        padding_side, truncation_side: "right" or "left".
        clean_up_tokenization_spaces: whether `decode` closes the spaces before punctuation.
        model_input_names: the entries returned by default.
        additional_special_tokens: further tokens never split nor lower-cased, skipped by `skip_special_tokens`.
        extra_special_tokens: the same, as upstream's newer files name them, or a dict of such tokens.
        split_special_tokens: read special tokens inside a text as any other characters.
        added_tokens_decoder: tokens behind the vocabulary by id, as tokenizer_config.json has them.
        **extra: anything else, kept and written back by `save_pretrained`.

    Raises:
        FileNotFoundError: the file does not exist.
        TypeError: an argument of the wrong kind.
        ValueError: a file that is no vocabulary, or an argument out of its range.
    """

    is_fast = False
    init_inputs: tuple = ()
    vocab_files_names: ClassVar[dict[str, str]] = {"vocab_file": VOCAB_NAME, "tokenizer_file": TOKENIZER_NAME}
    _files = (VOCAB_NAME, TOKENIZER_NAME)  # the order in which a directory is searched

    def __init__(
        self,
        vocab_file: str | os.PathLike | None = None,
        tokenizer_file: str | os.PathLike | None = None,
        *,
        tokenizer_object: Tokenizer | None = None,
        do_lower_case: bool = True,
        do_basic_tokenize: bool = True,
        never_split: Iterable[str] | None = None,
        bos_token: str | AddedToken | None = None,
        eos_token: str | AddedToken | None = None,
        unk_token: str | AddedToken = "[UNK]",
        sep_token: str | AddedToken = "[SEP]",
        pad_token: str | AddedToken | None = "[PAD]",
        cls_token: str | AddedToken = "[CLS]",
        mask_token: str | AddedToken | None = "[MASK]",
        clean_text: bool = True,
        tokenize_chinese_chars: bool = True,
        strip_accents: bool | None = None,
        wordpieces_prefix: str = "##",
        model_max_length: int | None = 512,
        padding_side: str = "right",
        truncation_side: str = "right",
        clean_up_tokenization_spaces: bool = True,
        model_input_names: Sequence[str] = ("input_ids", "token_type_ids", "attention_mask"),
        additional_special_tokens: Sequence[str | AddedToken] | None = None,
        extra_special_tokens: Sequence[str | AddedToken] | Mapping[str, str | AddedToken] | None = None,
        split_special_tokens: bool = False,
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
        self.split_special_tokens = split_special_tokens
        self.name_or_path = ""
        self.vocab_file = vocab_file and os.fspath(vocab_file)
        self.extra = extra
        for name in extra:
            if callable(getattr(type(self), name, None)):
                raise AttributeError(f"{name} is a method of the tokenizer and no option of its constructor.")
        for name, token in {"unk_token": unk_token, "sep_token": sep_token, "cls_token": cls_token}.items():
            if not token_text(token):
                raise ValueError(f"{name} must be a token, got {token!r}: no text can be encoded without it.")

        spec = read_spec(vocab_file, tokenizer_file, tokenizer_object, wordpieces_prefix)
        spec["model"]["unk_token"] = token_text(unk_token)
        self.wordpieces_prefix = spec["model"].get("continuing_subword_prefix", "##")
        super().__init__(self._build(spec))
        self._add_at(added_tokens_decoder or {})
        given = (bos_token, eos_token, unk_token, sep_token, pad_token, cls_token, mask_token)
        for name, special in zip(SPECIAL_NAMES, given, strict=True):
            self._set_special(name, special)
        extra_special = extra_special_tokens or ()
        more = extra_special.values() if isinstance(extra_special, Mapping) else extra_special
        self.additional_special_tokens = [*(additional_special_tokens or ()), *more]
        self._kept_whole = frozenset(self.never_split or ()) if do_basic_tokenize else frozenset()
        self._warned_of_length = False

    # Construction

    def _build(self, spec: dict[str, Any]) -> Tokenizer:
        spec["truncation"] = spec["padding"] = None  # a saved state, which would apply to every text
        self._set_cleaning(spec)
        try:
            return Tokenizer.from_str(json.dumps(spec))
        except Exception as error:  # the library raises nothing narrower
            raise ValueError(f"The tokenizer.json is not one that the tokenizers library reads: {error}.") from error

    def _add_at(self, added_tokens: Mapping[int | str, Any]) -> None:
        for index, token in sorted((int(index), token) for index, token in added_tokens.items()):
            added = added_token(token)
            self.add_tokens([added], special_tokens=added.special)
            if (found := self._backend.token_to_id(added.content)) != index:
                raise ValueError(
                    f"added_tokens_decoder puts {added.content!r} at id {index}, but the vocabulary has it at "
                    f"{found}: the files do not belong together."
                )

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
        path = fetch(source, [*cls._files, CONFIG_NAME, SPECIAL_TOKENS_NAME, ADDED_TOKENS_NAME], **hub_options)
        if not path.is_file():
            name = next((name for name in cls._files if (path / name).is_file()), None)
            if name is None:
                raise FileNotFoundError(f"{os.fspath(source)!r} has neither {VOCAB_NAME} nor {TOKENIZER_NAME}.")
            options = read_config(path) | options
            path = path / name
        options["tokenizer_file" if path.suffix == ".json" else "vocab_file"] = path
        tokenizer = cls(**options)
        tokenizer.name_or_path = os.fspath(source)
        return tokenizer

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        legacy_format: bool | None = None,
        filename_prefix: str | None = None,
    ) -> tuple[str, ...]:
        """Writes vocab.txt, tokenizer.json, tokenizer_config.json and special_tokens_map.json, which upstream reads.

        Tokens behind the vocabulary are in tokenizer_config.json, and for old releases in added_tokens.json.

        Args:
            save_directory: is made where it is missing.
            legacy_format: True leaves tokenizer.json out, False leaves vocab.txt and added_tokens.json out.
            filename_prefix: put before the names of the files, with a hyphen.

        Returns:
            The paths written.
        """
        texts = {CONFIG_NAME: _json(self._config()), SPECIAL_TOKENS_NAME: _json(self.special_tokens_map)}
        if legacy_format is not True:
            texts[TOKENIZER_NAME] = self._backend.to_str(pretty=True)
        if legacy_format is not False:
            texts[VOCAB_NAME] = self._vocab_text()
            behind = {token: index for token, index in self.get_added_vocab().items() if index >= self.vocab_size}
            texts |= {ADDED_TOKENS_NAME: _json(behind)} if behind else {}
        return _write(save_directory, filename_prefix, texts)

    def save_vocabulary(self, save_directory: str | os.PathLike, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Writes `save_directory`/[`filename_prefix`-]vocab.txt, without added tokens; returns its path in a tuple."""
        return _write(save_directory, filename_prefix, {VOCAB_NAME: self._vocab_text()})

    def _vocab_text(self) -> str:
        tokens = sorted(self._backend.get_vocab(with_added_tokens=False).items(), key=lambda item: item[1])
        for line, (token, index) in enumerate(tokens):
            if line != index or "\n" in token or "\r" in token:
                raise ValueError(f"The token {token!r} with id {index} cannot stand on line {line + 1} of a vocab.txt.")
        return "".join(f"{token}\n" for token, _ in tokens)

    @property
    def init_kwargs(self) -> dict[str, Any]:
        """The constructor's options by name, as they are now."""
        return {
            "vocab_file": self.vocab_file,
            **self.extra,
            **{name: getattr(self, name) for name in _SAVED},
            **self._special,
        }

    def _config(self) -> dict[str, Any]:
        added = {str(index): token_fields(token) for index, token in self.added_tokens_decoder.items()}
        config = {**self.init_kwargs, "added_tokens_decoder": added, "tokenizer_class": "LxmertTokenizer"}
        del config["vocab_file"]  # a path that other machines do not have
        return config

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_variants": {}}  # which may have Python in them

    def __repr__(self) -> str:
        return f"{type(self).__name__}(vocab_size={self.vocab_size}, {self.special_tokens_map})"

    def train_new_from_iterator(
        self,
        text_iterator: Iterable[str] | Iterable[Sequence[str]],
        vocab_size: int,
        length: int | None = None,
        new_special_tokens: Sequence[str | AddedToken] | None = None,
        special_tokens_map: Mapping[str, str] | None = None,
        **options: Any,
    ) -> "_Tokenizer":
        """A tokenizer with this one's options and a vocabulary made from texts, begun by this one's special tokens.

        Args:
            text_iterator: texts, or batches of texts.
            vocab_size: tokens at most.
            length: how many items `text_iterator` has, for the progress bar.
            new_special_tokens: further special tokens.
            special_tokens_map: new spellings of special tokens, by the old one.
            **options: of `tokenizers.trainers.WordPieceTrainer`.
        """
        renamed = dict(special_tokens_map or {})
        named = {name: token and renamed.get(token, token) for name, token in self._special.items()}
        additional = [*(renamed.get(token, token) for token in self._additional), *(new_special_tokens or ())]
        special = [token_fields(token) for token in self.added_tokens_decoder.values() if token.special]
        special = [fields | {"content": renamed.get(fields["content"], fields["content"])} for fields in special]
        backend = Tokenizer(models.WordPiece({}, unk_token=named["unk_token"]))
        for part in ("normalizer", "pre_tokenizer", "decoder"):
            setattr(backend, part, getattr(self._backend, part))
        options.setdefault("continuing_subword_prefix", self.wordpieces_prefix)
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            special_tokens=[added_token(token, special=True) for token in (*special, *(new_special_tokens or ()))],
            **options,
        )
        backend.train_from_iterator(text_iterator, trainer, length)
        return type(self)(
            tokenizer_object=backend, **self.init_kwargs | named | {"additional_special_tokens": additional}
        )

    @property
    def max_len_single_sentence(self) -> int | None:
        """Tokens that a text may have beside the special ones; None where there is no limit."""
        return self._room(pair=False)

    @property
    def max_len_sentences_pair(self) -> int | None:
        """Tokens that two texts may have together beside the special ones; None where there is no limit."""
        return self._room(pair=True)

    def _room(self, pair: bool) -> int | None:
        longest = self.model_max_length
        return None if longest is None else int(longest) - self.num_special_tokens_to_add(pair)

    # Decoding

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The tokens joined by spaces, with word pieces rejoined."""
        return " ".join(tokens).replace(f" {self.wordpieces_prefix}", "").strip()

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        spaces_between_special_tokens: bool = True,
    ) -> str:
        """The text of one row of ids.

        Args:
            token_ids: an id, a list, or an int[T] array of NumPy, TensorFlow or PyTorch.
            skip_special_tokens: leave special tokens out.
            clean_up_tokenization_spaces: close the spaces before punctuation; None does as the tokenizer was made.
            spaces_between_special_tokens: put spaces around tokens from behind the vocabulary.

        Raises:
            TypeError, ValueError: as `convert_ids_to_tokens`.
        """
        ids = plain(token_ids)
        tokens = self.convert_ids_to_tokens(ids if isinstance(ids, (list, tuple)) else [ids], skip_special_tokens)
        behind = () if spaces_between_special_tokens else self.get_added_vocab().keys() - self._backend.get_vocab(False)
        parts = [list(part) for _, part in groupby(tokens, lambda token: token if token in behind else None)]
        text = "".join(map(self.convert_tokens_to_string, parts))
        clean = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        return self.clean_up_tokenization(text) if clean else text

    def batch_decode(self, sequences: Any, *args: Any, **options: Any) -> list[str]:
        """The text of each row of int[B, T] ids or of a list of rows; further arguments as for `decode`."""
        return [self.decode(row, *args, **options) for row in plain(sequences)]

    @staticmethod
    def clean_up_tokenization(out_string: str) -> str:
        """Undoes the spaces that tokenization puts before punctuation and English contractions."""
        for mark in (".", "?", "!", ","):
            out_string = out_string.replace(f" {mark}", mark)
        out_string = out_string.replace(" ' ", "'")
        for ending in ("n't", "'m", "'s", "'ve", "'re"):
            out_string = out_string.replace(f" {ending}", ending)
        return out_string

    # Encoding

    def tokenize(self, text: Any, pair: Any = None, add_special_tokens: bool = False, **options: Any) -> list[str]:
        """The tokens of a text, or of a pair one after the other, as strings; options as for the call."""
        options.setdefault("verbose", False)
        return self.encode_plus(text, pair, add_special_tokens=add_special_tokens, **options).tokens()

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
        split_special_tokens: bool | None = None,
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
            split_special_tokens: read special tokens inside a text as any other characters; None does as the tokenizer
                was made.
            verbose: warn of texts longer than `model_max_length`.

        Returns:
            BatchEncoding of `input_ids`, `token_type_ids`, `attention_mask` and what was asked for: lists of T (of B
            lists for a batch), np and pt int64[B, T], tf int32[B, T]; `offset_mapping` is [B, T, 2], `length` [B].

        Raises:
            TypeError: texts of another kind. ValueError: counts that differ, or options that cannot be met.
        """
        examples, batched = checked_examples(text, text_pair, is_split_into_words)
        return self._assembled(
            self._encoded(examples, is_split_into_words, split_special_tokens),
            batched=batched,
            add_special_tokens=add_special_tokens,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            stride=stride,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            return_token_type_ids=return_token_type_ids,
            return_attention_mask=return_attention_mask,
            return_overflowing_tokens=return_overflowing_tokens,
            return_special_tokens_mask=return_special_tokens_mask,
            return_offsets_mapping=return_offsets_mapping,
            return_length=return_length,
            verbose=verbose,
        ).convert_to_tensors(return_tensors, prepend_batch_axis=not batched and not return_overflowing_tokens)

    def prepare_for_model(
        self,
        ids: Sequence[int],
        pair_ids: Sequence[int] | None = None,
        return_tensors: str | None = None,
        prepend_batch_axis: bool = False,
        **options: Any,
    ) -> BatchEncoding:
        """The call, for ids without special tokens instead of texts: of one example, or of a pair.

        Args:
            ids, pair_ids: as `convert_tokens_to_ids` gives them.
            return_tensors: "np", "tf" or "pt"; lists by default.
            prepend_batch_axis: give tensors an axis B = 1.
            **options: of the call.
        """
        rows = [row_of_ids(plain(row), self.convert_ids_to_tokens(row)) for row in (ids, pair_ids) if row is not None]
        encoded = self._assembled([(rows[0], rows[1] if len(rows) > 1 else None)], **options)
        return BatchEncoding(encoded, None, return_tensors, prepend_batch_axis)

    def _encoded(
        self, examples: list[tuple], split: bool, split_special_tokens: bool | None
    ) -> Iterator[tuple[Encoding, Encoding | None]]:
        """The tokens of each example's two texts, without special tokens; None where there is no second."""
        texts = [text for example in examples for text in example if text is not None]
        backend = self._variant(self.split_special_tokens if split_special_tokens is None else split_special_tokens)
        encodings = iter(backend.encode_batch(texts, is_pretokenized=split, add_special_tokens=False))
        for _, second in examples:
            yield next(encodings), None if second is None else next(encodings)

    def _variant(self, split_special_tokens: bool) -> Tokenizer:
        """The backend that heeds `never_split` and reads special tokens inside a text as it should."""
        if not self._kept_whole and not split_special_tokens:
            return self._backend
        if split_special_tokens not in self._variants:
            variant = Tokenizer.from_str(self._backend.to_str())
            variant.encode_special_tokens = split_special_tokens
            if self._kept_whole:
                words = WholeWords(self._kept_whole, variant.pre_tokenizer, variant.model)
                variant.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(words)
            self._variants[split_special_tokens] = variant
        return self._variants[split_special_tokens]

    def _assembled(
        self,
        examples: Iterable[tuple[Encoding, Encoding | None]],
        *,
        batched: bool = False,
        add_special_tokens: bool = True,
        padding: bool | str = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        stride: int = 0,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_token_type_ids: bool | None = None,
        return_attention_mask: bool | None = None,
        return_overflowing_tokens: bool = False,
        return_special_tokens_mask: bool = False,
        return_offsets_mapping: bool = False,
        return_length: bool = False,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Texts without special tokens, truncated, with special tokens, padded; lists still."""
        truncate_by, pad, limit = limits(padding, truncation, max_length, pad_to_multiple_of, self.model_max_length)
        side = one_of("padding_side", padding_side or self.padding_side, ("right", "left"))
        if add_special_tokens and None in (self.cls_token, self.sep_token):
            raise ValueError("add_special_tokens needs cls_token and sep_token, and one of them was set to None.")
        rows, origins = [], []
        for index, (first, second) in enumerate(examples):
            if truncate_by and limit is not None:
                room = limit - (self.num_special_tokens_to_add(second is not None) if add_special_tokens else 0)
                overlap = stride if return_overflowing_tokens else None
                first, second = truncate(first, second, truncate_by, room, self.truncation_side, overlap)
            if second is not None and not add_special_tokens:
                second = second_text(second)
            row = self._backend.post_process(first, second, add_special_tokens)
            windows = [row, *row.overflowing] if return_overflowing_tokens else [row]
            rows += windows
            origins += [index] * len(windows)
        if verbose and not truncate_by:
            self._warn_of_length(rows)
        if pad:
            widths = self._widths([len(row) for row in rows], pad, limit, pad_to_multiple_of)
            filler = {"pad_id": self.pad_token_id, "pad_type_id": self.pad_token_type_id, "pad_token": self.pad_token}
            for row, width in zip(rows, widths, strict=True):
                row.pad(width, direction=side, **filler)

        def wanted(answer: bool | None, name: str) -> bool:
            return name in self.model_input_names if answer is None else answer

        data: dict[str, list] = {"input_ids": [row.ids for row in rows]}
        if wanted(return_token_type_ids, "token_type_ids"):
            data["token_type_ids"] = [row.type_ids for row in rows]
        if wanted(return_attention_mask, "attention_mask"):
            data["attention_mask"] = [row.attention_mask for row in rows]
        if return_special_tokens_mask:
            data["special_tokens_mask"] = [row.special_tokens_mask for row in rows]
        if return_offsets_mapping:
            data["offset_mapping"] = [row.offsets for row in rows]
        if return_length:
            data["length"] = [len(row) for row in rows]
        if return_overflowing_tokens:
            data["overflow_to_sample_mapping"] = origins
        elif not batched:
            data = {name: values[0] for name, values in data.items()}
        return BatchEncoding(data, rows)

    def _widths(self, lengths: list[int], pad: str, limit: int | None, multiple: int | None) -> list[int]:
        """The length of each row after padding."""
        if self.pad_token is None:
            raise ValueError("padding needs a padding token, and this tokenizer has pad_token=None.")
        least = max(lengths, default=0) if pad == "longest" else limit or 0
        return [-(-max(length, least) // (multiple or 1)) * (multiple or 1) for length in lengths]

    def pad(
        self,
        encoded_inputs: Mapping[str, Any] | Sequence[Mapping[str, Any]],
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Pads what the call has returned, as data collators do: an example, a batch, or a list of examples.

        Args:
            encoded_inputs: `input_ids` and whatever else there is, as lists, arrays or tensors. Entries that the call
                does not make, such as labels, are handed on as they are.
            padding, max_length, pad_to_multiple_of, padding_side, return_tensors: as for the call.
            return_attention_mask: make a mask where there is none; None does if `model_input_names` lists it.
            verbose: to no effect.

        Raises:
            ValueError: no `input_ids`, or entries that make no tensor.
        """
        if isinstance(encoded_inputs, Mapping):
            data = dict(encoded_inputs)
        elif isinstance(encoded_inputs, (list, tuple)) and all(isinstance(row, Mapping) for row in encoded_inputs):
            data = {name: [row[name] for row in encoded_inputs] for name in (encoded_inputs or [{}])[0]}
        else:
            raise TypeError(f"pad takes an example, a batch, or a list of examples, got {brief(encoded_inputs)}.")
        main = self.model_input_names[0]
        if main not in data:
            raise ValueError(f"pad needs {main}, got {', '.join(data) or 'nothing'}.")
        _, pad, limit = limits(padding, False, max_length, pad_to_multiple_of, self.model_max_length)
        side = one_of("padding_side", padding_side or self.padding_side, ("right", "left"))
        fills = {
            main: self.pad_token_id,
            "token_type_ids": self.pad_token_type_id,
            "attention_mask": 0,
            "special_tokens_mask": 1,
            "offset_mapping": (0, 0),
        }
        ids = [plain(row) for row in plain(data[main])]
        batched = not ids or isinstance(ids[0], list)
        rows = {name: [plain(row) for row in plain(data[name])] for name in fills if name in data}
        rows = rows if batched else {name: [row] for name, row in rows.items()}
        lengths = [len(row) for row in rows[main]]
        if "attention_mask" in self.model_input_names if return_attention_mask is None else return_attention_mask:
            rows.setdefault("attention_mask", [[1] * length for length in lengths])
        if pad:
            widths = self._widths(lengths, pad, limit, pad_to_multiple_of)
            rows = {
                name: [padded(row, fills[name], width, side) for row, width in zip(values, widths, strict=True)]
                for name, values in rows.items()
            }
        data |= rows if batched else {name: values[0] for name, values in rows.items()}
        return BatchEncoding(data, tensor_type=return_tensors)

    def _warn_of_length(self, rows: list[Encoding]) -> None:
        longest = max(map(len, rows), default=0)
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


def _write(directory: str | os.PathLike, prefix: str | None, texts: Mapping[str, str]) -> tuple[str, ...]:
    """Writes files by name; returns their paths."""
    from lxmert_tf.files import write_text

    paths = [Path(directory) / (f"{prefix}-{name}" if prefix else name) for name in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_text(path, text)
    return tuple(map(str, paths))
