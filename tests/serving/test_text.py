"""The tokenizer in the graph gives the ids of LxmertTokenizer."""
# ruff: noqa: RUF001 - letters that look like others are what is tested

import json
import os
import random
from pathlib import Path

import pytest
import tensorflow as tf

from lxmert_tf import LxmertTokenizer
from lxmert_tf.serving.text import QuestionTokenizer

ROOT = Path(__file__).parents[2]
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


@pytest.mark.parametrize("options", CHOICES, ids=str)
def test_golden_texts_with_a_small_vocabulary(options, vocab):
    assert_same_ids(LxmertTokenizer(vocab, **options), TEXTS)


@pytest.mark.skipif(not REAL_VOCAB.is_file(), reason="needs the real vocabulary")
@pytest.mark.parametrize("options", CHOICES, ids=str)
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


def test_added_tokens_stay_whole(vocab):
    tokenizer = LxmertTokenizer(vocab, additional_special_tokens=["<obj>", "<obj>s", "(A|B)"])
    assert_same_ids(tokenizer, ["a<obj>b <obj>s <OBJ> (A|B) A"])


def test_what_a_graph_cannot_do_is_refused(vocab):
    for options, said in (
        ({"never_split": ["cafe"]}, "never_split"),
        ({"do_basic_tokenize": False}, "do_basic_tokenize"),
    ):
        with pytest.raises(ValueError, match=said):
            QuestionTokenizer(LxmertTokenizer(vocab, **options), 20)
