"""A vocabulary of a few words, for tests of the tokenizers."""

from lxmert_tf.tokenization import LxmertTokenizer, LxmertTokenizerFast

CLASSES = {"slow": LxmertTokenizer, "fast": LxmertTokenizerFast}
WORDS = (
    "[PAD] [UNK] [CLS] [SEP] [MASK] the cat sat on mat . ? ' s ##s un ##aff ##able foo - bar foo-bar caf ##é cafe é Cat"
)
IDS = {word: index for index, word in enumerate(WORDS.split())}
PAD, UNK, CLS, SEP, MASK = range(5)


def ids(words):
    """The ids of words, given as one string."""
    return [IDS[word] for word in words.split()]
