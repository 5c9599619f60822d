"""The tokenizer in the graph gives the ids of LxmertTokenizer."""
# ruff: noqa: RUF001 - letters that look like others are what is tested

import json
import os
import random
import unicodedata
from itertools import product
from pathlib import Path

import pytest
import tensorflow as tf
from support.golden import ROOT
from tokenizers import AddedToken

from lxmert_tf import LxmertTokenizer, LxmertTokenizerFast
from lxmert_tf.serving.question_tokenizer import QuestionTokenizer

REAL_VOCAB = Path(os.environ.get("LXMERT_TF_DATA", ROOT.parent / "shared" / "data")) / "vocab.txt"
TEXTS = json.loads((ROOT / "tests" / "golden" / "tokenizer.json").read_text(encoding="utf-8"))["texts"]
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Letters, marks and signs of the golden texts, whole and as continuations, so that a small vocabulary tells them apart
PIECES = sorted(
    {c for text in TEXTS for c in text.lower() if c.isprintable() and c != " "} | set("abcdefghijklmnopqrstuvwxyzıσς")
)
CHOICES = (
    {},
    {"do_lower_case": False},
    {"strip_accents": False},
    {"strip_accents": True, "do_lower_case": False},
    {"tokenize_chinese_chars": False},
    {"clean_text": False},
)
SWITCHES = ("clean_text", "tokenize_chinese_chars", "strip_accents", "do_lower_case")
EVERY_CHOICE = [dict(zip(SWITCHES, values, strict=True)) for values in product([True, False], repeat=4)]
EVERY_THREE = [choice for choice in EVERY_CHOICE if sum(choice.values()) % 2 == 0]  # any three switches, all ways


@pytest.fixture(scope="module")
def vocab(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocab") / "vocab.txt"
    words = ["what", "photo", "cafe", "control", "##char", "char", "zero", "width", "is", "the", "istanbul"]
    pieces = dict.fromkeys([*SPECIALS, *words, *PIECES, *(f"##{c}" for c in PIECES), "##s"])
    path.write_text("\n".join(pieces), encoding="utf-8")
    return path


def assert_same_ids(tokenizer, texts):
    got = QuestionTokenizer(tokenizer, longest=4000)(tf.constant(texts))
    wanted = tokenizer(texts, padding=True, return_tensors="np")
    for index, text in enumerate(texts):
        assert got["input_ids"][index].numpy().tolist() == wanted["input_ids"][index].tolist(), repr(text)
    for name in ("attention_mask", "token_type_ids"):
        assert (got[name].numpy() == wanted[name]).all()
    assert {value.dtype for value in got.values()} == {tf.int32}


@pytest.mark.slow
@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_golden_texts_with_a_small_vocabulary(options, vocab):
    assert_same_ids(LxmertTokenizer(vocab, **options), TEXTS)


@pytest.mark.slow
@pytest.mark.skipif(not REAL_VOCAB.is_file(), reason="needs the real vocabulary")
@pytest.mark.parametrize("options", CHOICES[:2], ids=str)
def test_golden_texts_with_the_real_vocabulary(options):
    assert_same_ids(LxmertTokenizer(REAL_VOCAB, **options), TEXTS)


def test_texts_that_break_tokenizers(vocab):
    texts = [
        *("ΣΑΣ Σ ας", "İI ıi", "a" * 100, "b" * 101, "é" * 100, "中" * 120, "[mask] [MASK][SEP]x[CLS]y", "[MAS K]"),
        *(
            "a\u0301\u0323 \u00c5\u212b",
            "x\u00ady\u200dz\u2028w\u3000v\u0085u",
            "\ufffd a\ufffdb",
            "\t\n\r",
            "\x00",
            "a\x00b",
        ),
        *(
            "‘’“”…—«»¿¡",
            "$^`~+<=>|",
            "a_b-c'd",
            "\ue000private",
            "ⅷ½",
            "ﬁ",
            "👩‍🚀",
            "\U0001f468\u200d\U0001f469",
            "ß ẞ",
        ),
    ]
    assert_same_ids(LxmertTokenizer(vocab), texts)


def test_random_texts_of_the_scripts_that_questions_are_in(vocab):
    rng = random.Random(0)
    blocks = [
        (0x20, 0x7E),
        (0xA0, 0x24F),
        (0x300, 0x36F),
        (0x370, 0x4FF),
        (0x4E00, 0x4FFF),
        (0x3040, 0x30FF),
        (0xAC00, 0xACFF),
    ]
    letters = [chr(c) for low, high in blocks for c in range(low, high + 1)]
    texts = [
        "".join(rng.choice([*letters[:95], rng.choice(letters)]) for _ in range(rng.randrange(60))) for _ in range(400)
    ]
    assert_same_ids(LxmertTokenizer(vocab), texts)


def ranges(*pairs):
    return [chr(code) for first, last in pairs for code in range(first, last + 1)]


# Of each kind some, and all that libraries have disagreed about
KINDS = {
    "control": ranges((0x00, 0x1F), (0x7F, 0x9F)),
    "spaces": ranges(
        (0x20, 0x20), (0xA0, 0xA0), (0x1680, 0x1680), (0x2000, 0x200B), (0x2028, 0x202F), (0x3000, 0x3000)
    ),
    "format": ranges(
        (0xAD, 0xAD), (0x600, 0x605), (0x890, 0x891), (0x180E, 0x180E), (0x2060, 0x206F), (0xFEFF, 0xFEFF)
    ),
    "nothing": ranges((0xFFF9, 0xFFFF), (0xFDD0, 0xFDD1), (0xE000, 0xE001), (0x378, 0x379), (0x10FFFE, 0x10FFFF)),
    "marks": ranges((0x300, 0x345), (0x34F, 0x34F), (0x7FD, 0x7FD), (0x898, 0x89A), (0x1734, 0x1734), (0x302A, 0x302F)),
    "more marks": ranges((0x1AB0, 0x1AC0), (0x11938, 0x11938), (0x1D15E, 0x1D166), (0x1D16D, 0x1D172), (0x93C, 0x94D)),
    "Chinese": ranges((0x3400, 0x3401), (0x4DBF, 0x4E00), (0x9FFF, 0x9FFF), (0xF900, 0xF902), (0x20000, 0x20001)),
    "more Chinese": ranges(
        (0x2A6DF, 0x2A6E0), (0x2B81F, 0x2B820), (0x2F800, 0x2F801), (0x30000, 0x30000), (0x3042, 0x3044)
    ),
    "case": list("AzÀßİıŸſΣσςẞﬁǅǆΩKÅᏀᲉꟋ\u03f4\u1e9b\U00010400\U00010d50"),
    "Hangul": list("ᄀ가각힣ㄱ"),
    "punctuation": list("!#$^`~¡¶·;·‐…。﹏＿\u055a\u061d\u166d\u1b7d\u2e52\U000111c9"),
    "other": list("a0²½ⅷ€™👩\u0e33\u0f73\u1e69\u212b"),
}


@pytest.fixture(scope="module")
def characters_vocab(tmp_path_factory):
    """A vocabulary of the characters of `KINDS` and of what may become of them, whole and as continuations."""
    forms = {c: [c, unicodedata.normalize("NFD", c)] for kind in KINDS.values() for c in kind}
    letters = {letter for texts in forms.values() for text in texts for letter in text + text.lower()} | set("ab")
    path = tmp_path_factory.mktemp("vocab") / "characters.txt"
    lines = sorted(letters - set("\n\r"))
    path.write_text("\n".join([*SPECIALS, *lines, *(f"##{c}" for c in lines)]), encoding="utf-8", newline="")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("options", EVERY_THREE, ids=str)
def test_every_kind_of_character_under_every_combination_of_three_switches(options, characters_vocab):
    characters = [c for kind in KINDS.values() for c in kind]
    texts = [f"a{c}b {c} B{c}\u0301{c}\u0316\U0001d165{c} {c}\u302e" for c in characters]
    assert_same_ids(LxmertTokenizer(characters_vocab, **options), texts)


@pytest.mark.slow
@pytest.mark.parametrize("options", EVERY_THREE, ids=str)
def test_all_of_unicode_under_every_combination_of_three_switches(options, vocab):
    """Word by word: no vocabulary of a size to test with tells all characters apart."""
    uniform = [*range(0x20000, 0x40000), *range(0xE1000, 0x110000)]  # ideographs, and what means nothing
    once = uniform if options == EVERY_THREE[0] else uniform[::50]
    codes = [c for c in (*range(1, 0x20000), *range(0xE0000, 0xE1000), *once) if not 0xD800 <= c < 0xE000]
    characters = [*map(chr, codes)]
    rng = random.Random(0)
    marks = [c for c in characters if unicodedata.combining(c)]
    texts = [
        *(f"a{c}b {c} {c}\u0301\u0316{c}" for c in characters),
        *("".join(characters[i : i + 50]) for i in range(0, len(characters), 50)),
        *("".join(rng.choices(["e", "\u1100", "\U0001d15e", *rng.sample(marks, 9)], k=12)) for _ in range(20_000)),
    ]
    texts = [" ".join(texts[i : i + 500]) for i in range(0, len(texts), 500)]
    tokenizer = LxmertTokenizer(vocab, **options)
    normalize, split = tokenizer._backend.normalizer.normalize_str, tokenizer._backend.pre_tokenizer.pre_tokenize_str
    graph = QuestionTokenizer(tokenizer, longest=4000)
    words = tf.function(lambda texts: graph._words(graph._normalize(texts)), autograph=False)(tf.constant(texts))
    for text, got in zip(texts, words.to_list(), strict=True):
        wanted = [word if len(word) <= 100 else "[UNK]" for word, _ in split(normalize(text))]
        assert [word.decode() for word in got] == wanted


def test_added_tokens_stay_whole(vocab):
    tokenizer = LxmertTokenizer(vocab, additional_special_tokens=["<obj>", "<obj>s", "(A|B)", "OBJ", "obj"])
    assert_same_ids(tokenizer, ["a<obj>b <obj>s <OBJ> (A|B) A", "OBJ Obj OB\u00adJ [MA\x00SK] [MASK]"])


def test_tokens_added_later_stay_whole(vocab):
    tokenizer = LxmertTokenizer(vocab, eos_token="[EOS]")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<obj>"]})
    tokenizer.add_tokens([AddedToken("<Box>", normalized=False)])
    assert_same_ids(tokenizer, ["a<obj>b [EOS] <Box> <box>[eos]"])


def test_the_graph_does_what_a_tokenizer_json_says(vocab, tmp_path):
    """Where it differs from the arguments, too."""
    changes = {
        "clean": lambda spec: spec["normalizer"].update(clean_text=False),
        "words": lambda spec: spec["model"].update(max_input_chars_per_word=3),
    }
    for name, change in changes.items():
        tokenizer = changed(vocab, tmp_path / name, change)
        assert_same_ids(tokenizer, ["what\u00ad is\x0bthe", "whats the isa ist"])


def changed(vocab, directory, change) -> LxmertTokenizerFast:
    """The tokenizer of a vocabulary whose tokenizer.json is changed."""
    LxmertTokenizer(vocab).save_pretrained(directory)
    spec = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    change(spec)
    (directory / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    return LxmertTokenizerFast(tokenizer_file=directory / "tokenizer.json")


def with_token(vocab, token) -> LxmertTokenizer:
    tokenizer = LxmertTokenizer(vocab)
    tokenizer.add_tokens(token)
    return tokenizer


def test_what_a_graph_cannot_do_is_refused(vocab, tmp_path):
    lower = {"normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}}
    for tokenizer, said in (
        (LxmertTokenizer(vocab, never_split=["cafe"]), "never_split"),
        (LxmertTokenizer(vocab, do_basic_tokenize=False), "do_basic_tokenize"),
        (LxmertTokenizer(vocab, split_special_tokens=True), "split_special_tokens=False"),
        (with_token(vocab, "Box"), "cannot match the added token 'Box', which takes spaces or normalised text"),
        (with_token(vocab, AddedToken("<b>", lstrip=True, normalized=False)), "the added token '<b>'"),
        (LxmertTokenizer(vocab, wordpieces_prefix="x"), "a punctuation mark in wordpieces_prefix, .* got 'x'"),
        (changed(vocab, tmp_path / "lower", lambda spec: spec.update(lower)), "BertNormalizer, .* has Lowercase"),
        (changed(vocab, tmp_path / "none", lambda spec: spec.update(normalizer=None)), "BertNormalizer, .* has None"),
    ):
        with pytest.raises(ValueError, match=said):
            QuestionTokenizer(tokenizer, 20)
