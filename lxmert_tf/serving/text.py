"""`LxmertTokenizer` as a TensorFlow graph, so that a server takes questions as strings.

The normalisation is spelt out in TensorFlow's own string ops rather than taken from tensorflow-text's BERT tokenizers,
which differ from `LxmertTokenizer` in control characters, in the limit of a word's length (bytes, not characters), and
in special tokens inside a text. tensorflow-text brings canonical decomposition, splitting, and word pieces.
"""

import tensorflow as tf

from lxmert_tf.serving.inputs import of_rank, require

# The blocks that BERT splits around each character of, as in its tokenizer
_CHINESE = (
    r"([\x{4E00}-\x{9FFF}\x{3400}-\x{4DBF}\x{20000}-\x{2A6DF}\x{2A700}-\x{2B73F}\x{2B740}-\x{2B81F}"
    r"\x{2B920}-\x{2CEAF}\x{F900}-\x{FAFF}\x{2F800}-\x{2FA1F}])"
)
_SPACES = r"\t\n\r\x{0020}\x{00A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}"
# Control, format and private characters, and what stands for bytes that are no text
_DROPPED = r"[\p{Cc}\p{Cf}\p{Co}\x{FFFD}]"
_PUNCTUATION = r"[!-/:-@\[-`{-~\p{P}]"
_LONGEST_WORD = 100  # characters; longer ones are unknown


class QuestionTokenizer(tf.Module):
    """Strings to `[CLS] question [SEP]`, padded, with mask and token types.

    Args:
        tokenizer: an LxmertTokenizer, whose vocabulary and switches the graph gets.
        longest: tokens of a row at most; longer questions are an error.

    Raises:
        ImportError: tensorflow-text is not installed.
        ValueError: the tokenizer does something that the graph cannot.
    """

    def __init__(self, tokenizer, longest: int):
        super().__init__(name="tokenizer")
        text = _tensorflow_text()
        _check(tokenizer)
        self._longest = longest
        self._ends = tokenizer.cls_token_id, tokenizer.sep_token_id
        self._pad = tokenizer.pad_token_id or 0
        self._unknown = tokenizer.unk_token
        self._clean, self._chinese = tokenizer.clean_text, tokenizer.tokenize_chinese_chars
        self._lower = tokenizer.do_lower_case
        self._strip = tokenizer.do_lower_case if tokenizer.strip_accents is None else tokenizer.strip_accents
        added = [token.content for token in tokenizer.added_tokens_decoder.values()]
        self._added = "|".join(_escaped(token) for token in sorted(added, key=len, reverse=True))
        vocabulary = tokenizer.get_vocab()
        ordered = sorted(vocabulary, key=vocabulary.get)
        if [vocabulary[token] for token in ordered] != list(range(len(ordered))):
            raise ValueError("The ids of the vocabulary have gaps; --text needs them to be 0, 1, 2, ...")
        try:
            self._word_pieces = text.FastWordpieceTokenizer(
                vocab=ordered,
                suffix_indicator=tokenizer.wordpieces_prefix,
                max_bytes_per_word=4 * _LONGEST_WORD,
                token_out_type=tf.int32,
                unknown_token=tokenizer.unk_token,
                no_pretokenization=True,
            )
        except RuntimeError as error:
            raise ValueError(
                f"--text: tensorflow-text cannot read this vocabulary: {str(error).rstrip('.')}."
            ) from error
        self._split, self._decompose = text.regex_split, text.normalize_utf8

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
            # tensorflow-text reads up to the first null character only
            return tf.strings.regex_replace(questions, r"\x00", "" if self._clean else "\ufffd")

    def _ids(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """string[B] -> ragged int32[B, pieces], without [CLS] and [SEP] around."""
        parts = self._split(texts, self._added, self._added)  # around special tokens, which stay as they are
        special = tf.strings.regex_full_match(parts.flat_values, self._added)
        words = self._words(tf.where(special, "", self._normalised(parts.flat_values)))
        kept = tf.RaggedTensor.from_row_lengths(tf.boolean_mask(parts.flat_values, special), tf.cast(special, tf.int64))
        words = tf.concat([words, kept], axis=1)  # one of the two is empty
        pieces = self._word_pieces.tokenize(words.flat_values)  # [words, pieces]
        return parts.with_flat_values(words.with_flat_values(pieces)).merge_dims(1, -1)

    def _normalised(self, texts: tf.Tensor) -> tf.Tensor:
        replace = tf.strings.regex_replace
        if self._clean:
            texts = replace(replace(texts, f"[{_SPACES}]", " "), _DROPPED, "")
        if self._chinese:
            texts = replace(texts, _CHINESE, r" \1 ")
        if self._strip:
            texts = replace(self._decompose(texts, "NFD"), r"\p{Mn}", "")
        if self._lower:
            # ASCII first, so that no locale of the server's changes it; and a sigma is a sigma, not a final one
            texts = tf.strings.lower(replace(tf.strings.lower(texts), "\u03a3", "\u03c3"), encoding="utf-8")
        return texts

    def _words(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """string[M] -> ragged string[M, words]: split at spaces, and before and after punctuation."""
        words = self._split(texts, f"[{_SPACES}]|{_PUNCTUATION}", _PUNCTUATION)
        long = tf.strings.length(words.flat_values, "UTF8_CHAR") > _LONGEST_WORD
        return words.with_flat_values(tf.where(long, self._unknown, words.flat_values))


def _tensorflow_text():
    try:
        import tensorflow_text
    except ImportError as error:
        raise ImportError("--text needs tensorflow-text: pip install 'lxmert-tf[serving]'.") from error
    return tensorflow_text


def _check(tokenizer) -> None:
    if tokenizer.never_split:
        raise ValueError("--text cannot keep never_split words whole; export without it and tokenise in the client.")
    if not tokenizer.do_basic_tokenize:
        raise ValueError("--text needs do_basic_tokenize=True; export without it and tokenise in the client.")
    unlike = [
        t for t in tokenizer.added_tokens_decoder.values() if t.lstrip or t.rstrip or t.single_word or t.normalized
    ]
    if unlike:
        raise ValueError(
            f"--text cannot match the added token {unlike[0].content!r}, which takes spaces or normalised text; "
            "export without it and tokenise in the client."
        )


def _escaped(token: str) -> str:
    """A token as an RE2 pattern."""
    return "".join(c if c.isalnum() else f"\\x{{{ord(c):X}}}" for c in token)
