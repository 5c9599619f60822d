"""The tokenizers: WordPiece with the options and outputs of upstream's; imports no framework."""

from lxmert_tf.tokenization.encoding import BatchEncoding
from lxmert_tf.tokenization.tokenizer import LxmertTokenizer, LxmertTokenizerFast

__all__ = ["BatchEncoding", "LxmertTokenizer", "LxmertTokenizerFast"]
