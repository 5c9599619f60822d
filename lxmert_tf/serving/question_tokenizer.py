"""`LxmertTokenizer` as a TensorFlow graph, so that a server takes questions as strings.

It is put together here rather than taken from tensorflow-text's BERT tokenizers, which differ from `LxmertTokenizer` in
control characters, in the limit of a word's length (bytes, not characters), and in special tokens inside a text.
tensorflow-text brings splitting and word pieces.
"""

import json
import string

import tensorflow as tf

from lxmert_tf.backend import require
from lxmert_tf.serving.characters import classes
from lxmert_tf.serving.graph_inputs import of_rank
from lxmert_tf.serving.normalization import Normalizer
from lxmert_tf.tokenization import LxmertTokenizer


class QuestionTokenizer(tf.Module):
    """Strings to `[CLS] question [SEP]`, padded, with mask and token types.

    Args:
        tokenizer: an LxmertTokenizer, whose vocabulary and switches the graph gets.
        longest: tokens of a row at most; longer questions are an error.

    Raises:
        ImportError: tensorflow-text is not installed.
        ValueError: the graph cannot do what the tokenizer does.
    """

    def __init__(self, tokenizer: LxmertTokenizer, longest: int):
        super().__init__(name="tokenizer")
        text = _tensorflow_text()
        spec = _checked_spec(tokenizer)
        model, switches = spec["model"], {name: on for name, on in spec["normalizer"].items() if name != "type"}
        self._longest = longest
        self._ends = tokenizer.cls_token_id, tokenizer.sep_token_id
        self._pad = tokenizer.pad_token_id or 0
        self._unknown, self._longest_word = tokenizer.unk_token, model["max_input_chars_per_word"]
        self._normalize = Normalizer(**switches)
        added = {token.content: index for index, token in tokenizer.added_tokens_decoder.items()}
        self._added, self._added_ids = list(added), list(added.values())
        self._any_added = "|".join(_escaped(token) for token in sorted(added, key=len, reverse=True))
        vocabulary = sorted(model["vocab"], key=model["vocab"].get)
        known = set("".join([*vocabulary, *added]))
        unused = (c for c in map(chr, range(0x40000, 0x50000)) if c not in known)
        stand_ins = {"\0": next(unused), "\x11": next(unused)}
        vocabulary = [token.translate(str.maketrans(stand_ins)) for token in vocabulary]
        self._stand_ins = {"\0": "\x01"} if switches["clean_text"] else stand_ins  # which cleaning drops
        try:
            self._word_pieces = text.FastWordpieceTokenizer(
                vocab=vocabulary,
                suffix_indicator=model["continuing_subword_prefix"],
                max_bytes_per_word=4 * self._longest_word,
                token_out_type=tf.int32,
                unknown_token=tokenizer.unk_token,
                no_pretokenization=True,
            )
        except RuntimeError as error:
            raise ValueError(
                f"--text: tensorflow-text cannot read this vocabulary: {str(error).rstrip('.')}."
            ) from error
        self._split = text.regex_split
        texts = tf.TensorSpec([None], tf.string)
        self._ids = tf.function(self._ids, input_signature=[texts], autograph=False)  # type: ignore[method-assign]  # one for all signatures

    def __call__(self, questions: tf.Tensor) -> dict[str, tf.Tensor]:
        """string[B] -> input_ids, attention_mask, token_type_ids, int32[B, T] each."""
        questions = self._checked(questions)
        ids = self._ids(questions)
        first, last = (tf.fill([tf.shape(questions)[0], 1], end) for end in self._ends)
        rows = tf.concat([first, ids, last], axis=1)
        lengths = rows.row_lengths()
        message = f"questions must have at most {self._longest} tokens (max_position_embeddings), got"
        with tf.control_dependencies([require(tf.reduce_all(lengths <= self._longest), message, lengths)]):
            input_ids = rows.to_tensor(self._pad)
        mask = tf.sequence_mask(lengths, tf.shape(input_ids)[1], tf.int32)
        return {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": tf.zeros_like(input_ids)}

    def _checked(self, questions: tf.Tensor) -> tf.Tensor:
        questions = of_rank(questions, "questions", "batch")
        readable = tf.strings.unicode_transcode(questions, "UTF-8", "UTF-8", errors="replace")
        assertions = [
            require(tf.size(questions) > 0, "questions must not be empty, got shape", tf.shape(questions)),
            require(tf.reduce_all(readable == questions), "questions must be UTF-8 text"),
        ]
        with tf.control_dependencies(assertions):
            # tensorflow-text reads up to the first null character only, and crashes at the token "\x11"
            for character, stand_in in self._stand_ins.items():
                questions = tf.strings.regex_replace(questions, _escaped(character), stand_in)
            return questions

    def _ids(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """string[B] -> ragged int32[B, pieces], without [CLS] and [SEP] around."""
        with tf.device("CPU:0"):  # where strings are anyway: a GPU gains nothing from many small integers
            parts = self._split(texts, self._any_added, self._any_added)  # around added tokens, which stay as they are
            same = parts.flat_values[:, None] == tf.constant(self._added)
            is_added = tf.reduce_any(same, axis=1)
            words = self._words(self._normalize(tf.where(is_added, "", parts.flat_values)))
            pieces = words.with_flat_values(self._word_pieces.tokenize(words.flat_values)).merge_dims(1, 2)
            added = tf.gather(self._added_ids, tf.argmax(tf.cast(tf.boolean_mask(same, is_added), tf.int32), axis=1))
            added = tf.RaggedTensor.from_row_lengths(added, tf.cast(is_added, tf.int64), validate=False)
            ids = tf.concat([pieces, added], axis=1)  # one of the two is empty
            return parts.with_flat_values(ids).merge_dims(1, -1)

    def _words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """string[M] -> ragged string[M, words]: split at spaces, and before and after punctuation."""
        words = self._split(texts, f"{classes().spaces}|{classes().punctuation}", classes().punctuation)
        long = tf.strings.length(words.flat_values, "UTF8_CHAR") > self._longest_word
        return words.with_flat_values(tf.where(long, self._unknown, words.flat_values))


def _tensorflow_text():
    try:
        import tensorflow_text
    except ImportError as error:
        raise ImportError("--text needs tensorflow-text: pip install 'lxmert-tf[serving]'.") from error
    return tensorflow_text


def _checked_spec(tokenizer: LxmertTokenizer) -> dict:
    """The content of the tokenizer's tokenizer.json; ValueError if the graph cannot do what it asks for."""
    instead = "export without it and tokenise in the client."
    if tokenizer.never_split:
        raise ValueError(f"--text cannot keep never_split words whole; {instead}")
    if not tokenizer.do_basic_tokenize:
        raise ValueError(f"--text needs do_basic_tokenize=True; {instead}")
    if tokenizer.split_special_tokens:
        raise ValueError(f"--text needs split_special_tokens=False; {instead}")
    if None in (tokenizer.cls_token, tokenizer.sep_token):
        raise ValueError("--text needs cls_token and sep_token, and one of them was set to None.")
    for token in tokenizer.added_tokens_decoder.values():
        if token.lstrip or token.rstrip or token.single_word or token.normalized:
            what = f"the added token {token.content!r}, which takes spaces or normalised text"
            raise ValueError(f"--text cannot match {what}; {instead}")
    spec = json.loads(tokenizer.backend_tokenizer.to_str())
    for part, wanted in (("normalizer", "BertNormalizer"), ("pre_tokenizer", "BertPreTokenizer")):
        kind = (spec[part] or {}).get("type")
        if kind != wanted:
            raise ValueError(f"--text needs the {part} {wanted}, but tokenizer.json has {kind}; {instead}")
    if sorted(spec["model"]["vocab"].values()) != list(range(len(spec["model"]["vocab"]))):
        raise ValueError("The ids of the vocabulary have gaps; --text needs the ids 0, 1, 2, ...")
    prefix = spec["model"]["continuing_subword_prefix"]
    if not set(prefix) & set(string.punctuation):  # else words that begin with it are pieces that go on
        raise ValueError(f"--text needs a punctuation mark in wordpieces_prefix, such as ##, got {prefix!r}; {instead}")
    return spec


def _escaped(token: str) -> str:
    """A token as an RE2 pattern."""
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):X}}}" for c in token)
