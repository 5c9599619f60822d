"""The tokenizers: upstream's ids on the full vocabulary, everything else on a vocabulary of a few words."""

import copy
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import support.golden
from support.golden import ROOT
from support.tokens import CLASSES, CLS, IDS, MASK, PAD, SEP, UNK, ids
from tokenizers import AddedToken, Tokenizer

from lxmert_tf.tokenization.tokenizer import LxmertTokenizer, LxmertTokenizerFast

VOCAB = Path(os.environ.get("LXMERT_TF_DATA", ROOT.parent / "shared" / "data")) / "vocab.txt"
GOLDEN = json.loads((support.golden.GOLDEN / "tokenizer.json").read_text(encoding="utf-8"))
both_classes = pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
full_vocabulary = pytest.mark.skipif(
    not VOCAB.is_file(),
    reason=f"needs the 30522-word vocab.txt, not found at {VOCAB}; set LXMERT_TF_DATA to its folder",
)


# Against upstream


@full_vocabulary
@both_classes
class TestAgainstUpstream:
    @pytest.mark.parametrize("variant", GOLDEN["variants"])
    def test_ids_of_every_text(self, cls, variant):
        expected = GOLDEN["variants"][variant]
        tokenizer = cls(VOCAB, **expected["kwargs"])
        upstream = expected["fast" if tokenizer.is_fast else "slow"]
        assert [tokenizer(text)["input_ids"] for text in GOLDEN["texts"]] == upstream
        assert tokenizer(GOLDEN["texts"])["input_ids"] == upstream

    def test_ids_are_the_same_on_the_path_that_keeps_words_whole(self, cls):
        tokenizer = cls(VOCAB, never_split=["no such word"])
        assert tokenizer(GOLDEN["texts"])["input_ids"] == GOLDEN["variants"]["default"]["fast"]

    @pytest.mark.parametrize("golden", GOLDEN["pairs"], ids=lambda golden: golden["pair"][0])
    def test_pairs(self, cls, golden):
        tokenizer, pair = cls(VOCAB), golden["pair"]
        assert tokenizer(*pair) == golden["plain"]
        assert tokenizer(*pair, max_length=12, truncation="longest_first") == golden["max_length_12_longest_first"]
        padded = tokenizer(*pair, max_length=20, padding="max_length", truncation=True)
        assert padded == golden["max_length_20_padded"]

    def test_methods(self, cls):
        tokenizer, golden = cls(VOCAB), GOLDEN["methods"]
        assert tokenizer.build_inputs_with_special_tokens([7, 8], [9]) == golden["build_inputs_with_special_tokens"]
        types = tokenizer.create_token_type_ids_from_sequences([7, 8], [9])
        assert types == golden["create_token_type_ids_from_sequences"]
        assert tokenizer.get_special_tokens_mask([7, 8], [9]) == golden["get_special_tokens_mask"]
        tokens = tokenizer.tokenize("unaffable cat")
        assert tokenizer.convert_tokens_to_string(tokens) == golden["convert_tokens_to_string"]
        question = tokenizer.encode("What is this?")
        assert tokenizer.decode(question) == golden["decode"]
        assert tokenizer.decode(question, skip_special_tokens=True) == golden["decode_skip"]
        batch = ["a cat", GOLDEN["texts"][0]]
        assert tokenizer(batch, padding=True) == golden["batch_padded"]

    def test_the_saved_tokenizer_json_alone_gives_the_same_ids(self, cls, tmp_path):
        cls(VOCAB).save_pretrained(tmp_path)
        backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
        assert [backend.encode(text).ids for text in GOLDEN["texts"]] == GOLDEN["variants"]["default"]["fast"]
        assert [e.ids for e in backend.encode_batch([tuple(pair["pair"]) for pair in GOLDEN["pairs"]])] == [
            pair["plain"]["input_ids"] for pair in GOLDEN["pairs"]
        ]


# Splitting text


def test_words_are_split_at_punctuation_and_into_the_longest_pieces(tokenizer):
    assert tokenizer.tokenize("The CAT's unaffable.") == ["the", "cat", "'", "s", "un", "##aff", "##able", "."]
    assert tokenizer.tokenize("zebra") == ["[UNK]"]


def test_tokenize_gives_a_pair_and_its_special_tokens_on_request(tokenizer):
    assert tokenizer.tokenize("the", "cat") == ["the", "cat"]
    assert tokenizer.tokenize("the", "cat", add_special_tokens=True) == ["[CLS]", "the", "[SEP]", "cat", "[SEP]"]


def test_case_and_accents_are_kept_on_request(make):
    assert make().tokenize("Cat café") == ["cat", "cafe"]
    assert make(do_lower_case=False).tokenize("Cat café") == ["Cat", "caf", "##é"]
    assert make(strip_accents=False).tokenize("Cat Café") == ["cat", "caf", "##é"]
    assert make(do_lower_case=False, strip_accents=True).tokenize("Cat café") == ["Cat", "cafe"]


def test_control_characters_stay_in_the_word_without_clean_text(make):
    assert make().tokenize("c\x01at") == ["cat"]
    assert make(clean_text=False).tokenize("c\x01at") == ["[UNK]"]


def test_chinese_characters_stay_together_on_request(make):
    assert make().tokenize("中文") == ["[UNK]", "[UNK]"]
    assert make(tokenize_chinese_chars=False).tokenize("中文") == ["[UNK]"]


def test_special_tokens_in_the_text_are_recognised_as_written(tokenizer):
    assert tokenizer.encode("the [MASK]s[mask]", add_special_tokens=False)[:3] == ids("the [MASK] s")
    assert MASK not in tokenizer.encode("[mask]")


def test_never_split_keeps_whole_words_between_spaces(make):
    tokenizer = make(never_split=["foo-bar"])
    assert make().tokenize("foo-bar") == ["foo", "-", "bar"]
    words = ["the", "foo-bar", "foo", "-", "bar", ".", "[MASK]", "foo-bar"]
    assert tokenizer.tokenize("the Foo-Bar foo-bar. [MASK]foo-bar") == words
    encoded = tokenizer("the foo-bar [MASK] cat.", return_offsets_mapping=True)
    assert encoded["input_ids"] == [CLS, *ids("the foo-bar [MASK] cat ."), SEP]
    assert encoded["offset_mapping"][1:-1] == [(0, 3), (4, 11), (12, 18), (19, 22), (22, 23)]
    assert encoded.word_ids()[1:-1] == [0, 1, 2, 3, 4]


def test_never_split_keeps_words_between_punctuation_after_cleaning(make):
    tokenizer = make(never_split=["unaffable", "cats"])
    assert make().tokenize("Unaffable.") == ["un", "##aff", "##able", "."]
    assert tokenizer.tokenize("the Unaffable. 'CATS' Cáts cat") == [
        "the",
        "unaffable",
        ".",
        "'",
        "cats",
        "'",
        "cats",
        "cat",
    ]
    encoded = tokenizer("the Unaffable. mat", return_offsets_mapping=True)
    assert encoded["offset_mapping"][1:-1] == [(0, 3), (4, 13), (13, 14), (15, 18)]
    assert encoded.word_ids()[1:-1] == [0, 1, 2, 3]


def test_never_split_words_outside_the_vocabulary_are_one_unknown_token(make):
    tokenizer = make(never_split=["cat-cat"])
    assert tokenizer.tokenize("cat-cat cat") == ["cat-cat", "cat"]
    assert tokenizer.encode("cat-cat cat") == [CLS, UNK, IDS["cat"], SEP]


def test_never_split_heeds_case_where_the_text_keeps_it(make):
    tokenizer = make(never_split=["Foo-bar"], do_lower_case=False)
    assert tokenizer.tokenize("Foo-bar foo-bar") == ["Foo-bar", "foo", "-", "bar"]


def test_never_split_keeps_words_given_as_a_list(make):
    encoded = make(never_split=["foo-bar"])(["the", "foo-bar", "cats"], is_split_into_words=True)
    assert encoded["input_ids"] == [CLS, *ids("the foo-bar cat ##s"), SEP]
    assert encoded.word_ids() == [None, 0, 1, 2, 2, None]


def test_without_basic_tokenization_text_is_split_at_spaces_only(make):
    tokenizer = make(do_basic_tokenize=False, never_split=["foo-bar"])
    assert tokenizer.tokenize("cats\tthe\x1cmat\u00a0on") == ["cat", "##s", "the", "mat", "on"]
    assert tokenizer.tokenize("cats\tCat the. caf\u00e9 [MASK]") == [
        "cat",
        "##s",
        "Cat",
        "[UNK]",
        "caf",
        "##é",
        "[MASK]",
    ]


def test_words_longer_than_100_characters_are_unknown(tokenizer):
    assert tokenizer.tokenize("cat" + "s" * 98) == ["[UNK]"]


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\x00"])
def test_text_without_words_is_special_tokens_only(tokenizer, text):
    assert tokenizer(text)["input_ids"] == [CLS, SEP]
    assert tokenizer(text, text)["input_ids"] == [CLS, SEP, SEP]


# The call


def test_a_text_gives_lists_and_a_batch_gives_lists_of_lists(tokenizer):
    assert tokenizer("the cat") == {
        "input_ids": [CLS, *ids("the cat"), SEP],
        "token_type_ids": [0] * 4,
        "attention_mask": [1] * 4,
    }
    assert list(tokenizer("the")) == ["input_ids", "token_type_ids", "attention_mask"]
    assert tokenizer(["the", "the cat"])["input_ids"] == [tokenizer.encode("the"), tokenizer.encode("the cat")]
    assert tokenizer(("the",))["input_ids"] == [tokenizer.encode("the")]


def test_pairs_can_be_given_side_by_side_or_as_tuples(tokenizer):
    expected = tokenizer(["the", "a"], ["cat", "mat"])
    assert expected["token_type_ids"] == [[0, 0, 0, 1, 1]] * 2
    assert tokenizer([("the", "cat"), ("a", "mat")]) == expected
    assert tokenizer.batch_encode_plus([("the", "cat"), ("a", "mat")]) == expected
    assert tokenizer.encode_plus("the", "cat")["input_ids"] == expected["input_ids"][0]
    assert tokenizer.encode("the", text_pair="cat") == expected["input_ids"][0]


def test_words_can_be_given_instead_of_text(tokenizer):
    words = tokenizer(["the", "unaffable", ""], is_split_into_words=True)
    assert words["input_ids"] == tokenizer.encode("the unaffable")
    assert words.word_ids() == [None, 0, 1, 1, 1, None]
    batch = tokenizer([["the"], ["cat", "sat"]], [["a"], ["mat"]], is_split_into_words=True)
    assert batch["input_ids"][1] == [CLS, *ids("cat sat"), SEP, IDS["mat"], SEP]
    assert tokenizer([], is_split_into_words=True)["input_ids"] == [CLS, SEP]


def test_special_tokens_can_be_left_out(tokenizer):
    encoded = tokenizer("the", "cat sat", add_special_tokens=False, return_special_tokens_mask=True)
    assert encoded["input_ids"] == ids("the cat sat")
    assert encoded["token_type_ids"] == [0, 1, 1]
    assert encoded["special_tokens_mask"] == [0, 0, 0]


def test_an_empty_batch_gives_empty_entries(tokenizer):
    assert tokenizer([], padding=True) == {"input_ids": [], "token_type_ids": [], "attention_mask": []}
    arrays = tokenizer([], padding="max_length", return_tensors="np", return_length=True)
    assert arrays.input_ids.shape == (0, 0)
    assert arrays.length.shape == (0,)


def test_further_entries_on_request(tokenizer):
    encoded = tokenizer(
        ["the cats", "the"],
        padding=True,
        return_special_tokens_mask=True,
        return_offsets_mapping=True,
        return_length=True,
        return_token_type_ids=False,
        return_attention_mask=False,
    )
    assert encoded == {
        "input_ids": [[CLS, *ids("the cat ##s"), SEP], [CLS, IDS["the"], SEP, PAD, PAD]],
        "special_tokens_mask": [[1, 0, 0, 0, 1], [1, 0, 1, 1, 1]],
        "offset_mapping": [[(0, 0), (0, 3), (4, 7), (7, 8), (0, 0)], [(0, 0), (0, 3), (0, 0), (0, 0), (0, 0)]],
        "length": [5, 5],
    }


def test_model_input_names_decide_what_is_returned_by_default(make):
    assert list(make(model_input_names=["input_ids"])("the")) == ["input_ids"]


def test_offsets_count_characters_of_the_text_as_given(tokenizer):
    text = "  Café 中 cat's"
    offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"][1:-1]
    assert [text[start:end] for start, end in offsets] == ["Café", "中", "cat", "'", "s"]


# Padding


def test_padding_to_the_longest_to_a_length_and_to_a_multiple(tokenizer):
    texts = ["the", "the cat sat"]
    assert {len(row) for row in tokenizer(texts, padding="longest")["input_ids"]} == {5}
    assert [len(row) for row in tokenizer(texts, padding="max_length", max_length=4)["input_ids"]] == [4, 5]
    assert {len(row) for row in tokenizer(texts, padding="max_length")["input_ids"]} == {512}
    assert {len(row) for row in tokenizer(texts, padding=True, pad_to_multiple_of=4)["input_ids"]} == {8}
    assert [len(row) for row in tokenizer(texts, padding="do_not_pad", pad_to_multiple_of=4)["input_ids"]] == [3, 5]
    assert len(tokenizer("the", padding="max_length", max_length=7)["attention_mask"]) == 7


def test_padding_on_the_left(make):
    expected = {"input_ids": [PAD, CLS, IDS["the"], SEP], "token_type_ids": [0] * 4, "attention_mask": [0, 1, 1, 1]}
    options = {"padding": "max_length", "max_length": 4}
    assert make(padding_side="left")("the", **options) == expected
    assert make()("the", padding_side="left", **options) == expected


def test_padding_without_a_padding_token_is_refused(make):
    tokenizer = make(pad_token=None)
    assert tokenizer.pad_token_id is None
    assert tokenizer.encode("the") == [CLS, IDS["the"], SEP]
    with pytest.raises(ValueError, match="pad_token=None"):
        tokenizer(["the"], padding=True)


# Truncation


def test_truncation_keeps_the_beginning_or_the_end(make):
    assert make().encode("the cat sat on", max_length=4, truncation=True) == [CLS, *ids("the cat"), SEP]
    left = make(truncation_side="left")
    assert left.encode("the cat sat on", max_length=4, truncation=True) == [CLS, *ids("sat on"), SEP]
    assert left.encode("the cat", max_length=2, truncation=True) == [CLS, SEP]


def test_max_length_alone_truncates(tokenizer):
    assert len(tokenizer.encode("the cat sat on", max_length=4)) == 4
    assert len(tokenizer.encode("the cat sat on", max_length=4, truncation=False)) == 6
    assert len(tokenizer.encode("the cat sat on", max_length=4, padding=True)) == 6


def test_truncation_without_a_length_is_to_model_max_length(make):
    assert len(make(model_max_length=4).encode("the cat sat on", truncation=True)) == 4
    assert len(make(model_max_length=1e30).encode("cat " * 600, truncation=True)) == 602
    assert len(make().encode("cat " * 600, truncation=True)) == 512


@pytest.mark.parametrize(
    ("truncation", "second", "kept"),
    [
        ("longest_first", "on mat", ("the cat sat", "on mat")),
        ("longest_first", "on mat . ?", ("the cat", "on mat .")),
        ("only_first", "on mat . ?", ("the", "on mat . ?")),
        ("only_second", "on mat . ?", ("the cat sat on", "on")),
    ],
)
def test_truncation_of_pairs(tokenizer, truncation, second, kept):
    encoded = tokenizer.encode("the cat sat on", second, max_length=8, truncation=truncation)
    assert encoded == [CLS, *ids(kept[0]), SEP, *ids(kept[1]), SEP]


@pytest.mark.parametrize("max_length", [0, 1, 2])
def test_max_length_below_the_special_tokens_is_refused(tokenizer, max_length):
    with pytest.raises(ValueError, match="max_length leaves no room"):
        tokenizer("the", "cat", max_length=max_length, truncation=True)


def test_truncation_that_cannot_reach_the_length_is_refused(tokenizer):
    with pytest.raises(ValueError, match="the second text alone is too long"):
        tokenizer("the", "the cat sat on", max_length=5, truncation="only_first")
    with pytest.raises(ValueError, match="needs a text_pair"):
        tokenizer("the cat sat on", max_length=4, truncation="only_second")


@pytest.mark.parametrize(
    ("side", "windows"), [("right", ["the cat sat", "sat on mat"]), ("left", ["sat on mat", "the cat sat"])]
)
def test_overflowing_tokens_are_windows_that_overlap_by_the_stride(make, side, windows):
    encoded = make(truncation_side=side)(
        ["the cat sat on mat", "the"], max_length=5, truncation=True, stride=1, return_overflowing_tokens=True
    )
    assert encoded["input_ids"] == [[CLS, *ids(window), SEP] for window in [*windows, "the"]]
    assert encoded["overflow_to_sample_mapping"] == [0, 0, 1]


def test_overflowing_tokens_of_a_pair_repeat_the_other_text(tokenizer):
    options = {"max_length": 6, "stride": 0, "return_overflowing_tokens": True}
    encoded = tokenizer("the", "cat sat on", truncation="only_second", **options)
    assert encoded["input_ids"] == [[CLS, *ids("the [SEP] cat sat"), SEP], [CLS, *ids("the [SEP] on"), SEP]]
    with pytest.raises(ValueError, match="cannot cut both"):
        tokenizer("the cat sat", "cat sat on", truncation=True, **options)
    with pytest.raises(ValueError, match="stride must be at least 0 and below the 2"):
        tokenizer("the", "cat sat on", truncation="only_second", **{**options, "stride": 2})


def test_a_text_longer_than_the_model_takes_is_logged_once(make, caplog):
    tokenizer = make(model_max_length=4)
    tokenizer("the cat sat on", verbose=False)
    assert not caplog.records
    tokenizer(["the cat sat on", "the"])
    tokenizer("the cat sat on")
    assert [record.getMessage() for record in caplog.records] == [
        "A text has 6 tokens, the model takes 4: pass truncation=True."
    ]


# Tensors


def test_numpy_arrays_are_int64_with_a_batch_axis(tokenizer):
    encoded = tokenizer("the cat", return_tensors="np", return_offsets_mapping=True, return_length=True)
    assert encoded.input_ids.dtype == np.int64
    assert {name: value.shape for name, value in encoded.items()} == {
        **dict.fromkeys(["input_ids", "token_type_ids", "attention_mask"], (1, 4)),
        "offset_mapping": (1, 4, 2),
        "length": (1,),
    }
    assert tokenizer.encode("the cat", return_tensors="np").shape == (1, 4)


def test_torch_tensors_are_int64(tokenizer):
    torch = pytest.importorskip("torch")
    encoded = tokenizer(["the cat", "the"], padding=True, return_tensors="pt")
    assert encoded.input_ids.dtype == torch.int64
    assert encoded.input_ids.tolist() == tokenizer(["the cat", "the"], padding=True)["input_ids"]
    assert tokenizer.decode(encoded.input_ids[1]) == "[CLS] the [SEP] [PAD]"


def test_tensorflow_tensors_are_int32(tokenizer):
    tf = pytest.importorskip("tensorflow")
    encoded = tokenizer(["the cat", "the"], padding=True, return_tensors="tf")
    assert encoded.input_ids.dtype == tf.int32
    assert encoded.input_ids.numpy().tolist() == tokenizer(["the cat", "the"], padding=True)["input_ids"]
    assert tokenizer.batch_decode(encoded.input_ids, skip_special_tokens=True) == ["the cat", "the"]


def test_rows_of_different_lengths_make_no_tensor(tokenizer):
    with pytest.raises(ValueError, match=r"input_ids has rows of different lengths.*padding=True"):
        tokenizer(["the", "the cat"], return_tensors="np")


def test_unknown_tensor_types_are_refused(tokenizer):
    with pytest.raises(ValueError, match="return_tensors must be 'np', 'tf' or 'pt', got 'jax'"):
        tokenizer("the", return_tensors="jax")


def test_encodings_have_attributes_and_convert_later(tokenizer):
    encoded = tokenizer("the cat")
    assert encoded.input_ids == encoded["input_ids"]
    assert encoded.convert_to_tensors() is encoded
    assert encoded.convert_to_tensors("np", prepend_batch_axis=True).input_ids.shape == (1, 4)
    assert copy.deepcopy(encoded).word_ids() == pickle.loads(pickle.dumps(encoded)).word_ids() == [None, 0, 1, None]
    with pytest.raises(AttributeError, match="no entry 'labels'; it has input_ids"):
        _ = encoded.labels


def test_encodings_are_inputs_of_keras_and_tensorflow(tokenizer):
    keras, tf = pytest.importorskip("keras"), pytest.importorskip("tensorflow")
    encoded = tokenizer(["the cat", "the"], padding=True, return_tensors="np")

    class Masked(keras.Model):
        def call(self, inputs):
            return inputs["input_ids"] * inputs["attention_mask"]

    model = Masked()
    for data in (encoded, tokenizer(["the cat", "the"], padding=True, return_tensors="tf")):
        np.testing.assert_array_equal(model(data), encoded.input_ids)
        np.testing.assert_array_equal(model.predict(data, verbose=0), encoded.input_ids)
    row = next(iter(tf.data.Dataset.from_tensor_slices(encoded)))
    assert row["input_ids"].shape == (4,)


# Tokens, ids, text


def test_tokens_and_ids_convert_into_each_other(tokenizer):
    assert tokenizer.convert_tokens_to_ids("cat") == IDS["cat"]
    assert tokenizer.convert_tokens_to_ids(["cat", "zebra"]) == [IDS["cat"], UNK]
    assert tokenizer.convert_ids_to_tokens(IDS["cat"]) == tokenizer.convert_ids_to_tokens(np.int64(IDS["cat"])) == "cat"
    assert tokenizer.convert_ids_to_tokens([CLS, IDS["cat"]], skip_special_tokens=True) == ["cat"]


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_decoding_rejoins_pieces_and_closes_spaces(tokenizer, kind):
    row = kind(tokenizer.encode("the cat's cats."))
    assert tokenizer.decode(row) == "[CLS] the cat's cats. [SEP]"
    assert tokenizer.decode(row, skip_special_tokens=True) == "the cat's cats."
    assert tokenizer.decode(row, True, clean_up_tokenization_spaces=False) == "the cat ' s cats ."


def test_decoding_can_leave_the_spaces_by_default(make):
    tokenizer = make(clean_up_tokenization_spaces=False)
    assert tokenizer.decode(ids("the cat .")) == "the cat ."


def test_decoding_one_id_and_none(tokenizer):
    assert tokenizer.decode(IDS["cat"]) == "cat"
    assert tokenizer.decode([]) == ""
    assert tokenizer.batch_decode([[], [IDS["cat"]]]) == ["", "cat"]


@pytest.mark.parametrize("index", [-1, -100, len(IDS), 2**32, 10**30])
def test_decoding_ids_outside_the_vocabulary_is_refused(tokenizer, index):
    with pytest.raises(ValueError, match=f"The id {index} is outside the vocabulary of {len(IDS)} tokens"):
        tokenizer.decode([CLS, index])


@pytest.mark.parametrize("wrong", [None, "cat", 1.5, [[1, 2]], [None], ["cat"]])
@pytest.mark.parametrize("skip", [False, True])
def test_decoding_anything_but_ids_is_refused(tokenizer, wrong, skip):
    with pytest.raises(TypeError, match="ids must be integers"):
        tokenizer.decode(wrong, skip_special_tokens=skip)


def test_converting_anything_but_tokens_is_refused(tokenizer):
    with pytest.raises(TypeError, match="tokens must be a string or a list of strings, got int 3"):
        tokenizer.convert_tokens_to_ids(3)


# Special tokens and the vocabulary


def test_special_tokens_and_their_ids_are_properties(tokenizer):
    names = ["pad", "unk", "cls", "sep", "mask"]
    assert [getattr(tokenizer, f"{name}_token") for name in names] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert [getattr(tokenizer, f"{name}_token_id") for name in names] == [PAD, UNK, CLS, SEP, MASK]
    assert sorted(tokenizer.all_special_ids) == [PAD, UNK, CLS, SEP, MASK]
    assert tokenizer.all_special_tokens == tokenizer.convert_ids_to_tokens(tokenizer.all_special_ids)


def test_special_tokens_masks(tokenizer):
    row = tokenizer.encode("the [MASK]", "cat zebra")
    assert tokenizer.get_special_tokens_mask([5, 4], [6, 1]) == [1, 0, 0, 1, 0, 0, 1]
    assert tokenizer("the [MASK]", "cat zebra", return_special_tokens_mask=True)["special_tokens_mask"] == [
        1,
        0,
        0,
        1,
        0,
        0,
        1,
    ]
    assert tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True) == [1, 0, 1, 1, 0, 1, 1]
    assert tokenizer.get_special_tokens_mask([5]) == [1, 0, 1]
    with pytest.raises(ValueError, match="token_ids_1 must be None"):
        tokenizer.get_special_tokens_mask(row, [1], already_has_special_tokens=True)


def test_special_tokens_are_counted_and_added_to_ids(tokenizer):
    assert (tokenizer.num_special_tokens_to_add(), tokenizer.num_special_tokens_to_add(pair=True)) == (2, 3)
    assert tokenizer.build_inputs_with_special_tokens([5]) == [CLS, 5, SEP]
    assert tokenizer.build_inputs_with_special_tokens([5], []) == [CLS, 5, SEP, SEP]
    assert tokenizer.create_token_type_ids_from_sequences([5]) == [0, 0, 0]


def test_the_vocabulary_and_its_size(tokenizer):
    assert tokenizer.get_vocab() == IDS
    assert tokenizer.vocab_size == len(tokenizer) == len(IDS)
    assert repr(tokenizer).startswith(f"{type(tokenizer).__name__}(vocab_size={len(IDS)}, ")


def test_special_tokens_that_the_vocabulary_lacks_are_added_behind_it(make):
    tokenizer = make(mask_token="<mask>", additional_special_tokens=["<box>"])
    assert (tokenizer.vocab_size, len(tokenizer)) == (len(IDS), len(IDS) + 2)
    assert tokenizer.encode("the <mask><box>", add_special_tokens=False) == [IDS["the"], len(IDS), len(IDS) + 1]
    assert tokenizer.decode([IDS["the"], len(IDS) + 1], skip_special_tokens=True) == "the"


def test_tokens_may_be_given_as_upstream_files_have_them(make):
    tokenizer = make(mask_token={"content": "[MASK]", "lstrip": False}, pad_token=AddedToken("[PAD]"))
    assert (tokenizer.mask_token, tokenizer.pad_token_id) == ("[MASK]", PAD)


def test_another_prefix_for_continuing_pieces(vocab_file):
    vocab_file.write_text(vocab_file.read_text(encoding="utf-8").replace("##", "@@"), encoding="utf-8")
    tokenizer = LxmertTokenizerFast(vocab_file, wordpieces_prefix="@@")
    assert tokenizer.tokenize("cats") == ["cat", "@@s"]
    assert tokenizer.decode(tokenizer.encode("cats")) == "[CLS] cats [SEP]"


# Files


OPTIONS = [
    {},
    {"do_lower_case": False, "tokenize_chinese_chars": False, "strip_accents": True, "clean_text": False},
    {"do_basic_tokenize": False},
    {"never_split": ["foo-bar"], "model_max_length": 7, "padding_side": "left", "truncation_side": "left"},
    {
        "mask_token": "<mask>",
        "pad_token": None,
        "additional_special_tokens": ["<box>"],
        "my_own_option": [1, {"a": None}],
    },
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "default")
@both_classes
@pytest.mark.parametrize("files", ["vocab.txt", "tokenizer.json", "both"])
def test_what_is_saved_is_read_back(make, cls, options, files, tmp_path):
    tokenizer = make(**options)
    saved = tokenizer.save_pretrained(tmp_path / "saved")
    assert {Path(path).name for path in saved} == {path.name for path in (tmp_path / "saved").iterdir()}
    for name in {"vocab.txt": ["tokenizer.json"], "tokenizer.json": ["vocab.txt"], "both": []}[files]:
        (tmp_path / "saved" / name).unlink()
    again = cls.from_pretrained(tmp_path / "saved")
    text = "The Cat's foo-bar café 中文 c\x01at <mask> <box> [MASK] [PAD]"
    assert again(text, truncation=True) == tokenizer(text, truncation=True)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again._config() == tokenizer._config()


def test_saved_files_say_what_upstream_reads(make, tmp_path):
    make(never_split=["foo-bar"], my_own_option=1).save_pretrained(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "LxmertTokenizer"
    assert "vocab_file" not in config
    assert (config["do_lower_case"], config["never_split"], config["my_own_option"]) == (True, ["foo-bar"], 1)
    assert config["added_tokens_decoder"]["4"] == {
        **dict.fromkeys(["lstrip", "normalized", "rstrip", "single_word"], False),
        "content": "[MASK]",
        "special": True,
    }
    specials = json.loads((tmp_path / "saved" / "special_tokens_map.json").read_text(encoding="utf-8"))
    assert specials == {f"{name}_token": f"[{name.upper()}]" for name in ["unk", "sep", "pad", "cls", "mask"]}


def test_options_win_over_saved_ones(make, tmp_path):
    make(do_basic_tokenize=False, do_lower_case=False).save_pretrained(tmp_path / "saved")
    for cls in CLASSES.values():
        tokenizer = cls.from_pretrained(tmp_path / "saved", do_basic_tokenize=True, do_lower_case=True)
        assert tokenizer.tokenize("Cat. c\x01at") == ["cat", ".", "cat"]


def test_arguments_win_over_the_normalizer_of_tokenizer_json(make, tmp_path):
    make().save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "tokenizer.json"
    assert LxmertTokenizerFast(tokenizer_file=file, do_lower_case=False).tokenize("Cat") == ["Cat"]
    assert LxmertTokenizerFast.from_pretrained(file, do_lower_case=False).tokenize("Cat") == ["Cat"]


def test_truncation_and_padding_saved_in_tokenizer_json_do_not_apply(make, tmp_path):
    make().save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "tokenizer.json"
    backend = Tokenizer.from_file(str(file))
    backend.enable_truncation(3)
    backend.enable_padding(length=9)
    backend.save(str(file))
    assert LxmertTokenizerFast(tokenizer_file=file).encode("the cat") == [CLS, *ids("the cat"), SEP]


def test_tokens_added_by_upstream_are_read_from_tokenizer_config(make, tmp_path):
    make().save_pretrained(tmp_path / "saved")
    file = tmp_path / "saved" / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["added_tokens_decoder"][str(len(IDS))] = {"content": "<new>", "normalized": False, "special": False}
    file.write_text(json.dumps(config), encoding="utf-8")
    assert LxmertTokenizer.from_pretrained(tmp_path / "saved").encode("the<new>") == [CLS, IDS["the"], len(IDS), SEP]
    config["added_tokens_decoder"][str(len(IDS) + 7)] = {"content": "<far>"}
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(ValueError, match=r"puts '<far>' at id .*the files do not belong together"):
        LxmertTokenizer.from_pretrained(tmp_path / "saved")


def test_a_vocabulary_file_alone_is_enough(vocab_file):
    for source in (vocab_file, str(vocab_file), vocab_file.parent):
        assert LxmertTokenizer.from_pretrained(source, do_lower_case=False).tokenize("Cat") == ["Cat"]


def test_a_hub_id_is_fetched_with_the_hub_options_and_only_the_files_needed(vocab_file, monkeypatch):
    calls = []

    def snapshot_download(name, **options):
        calls.append((name, options))
        return str(vocab_file.parent)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    tokenizer = LxmertTokenizerFast.from_pretrained("owner/name", revision="v1", token="secret", do_lower_case=False)
    assert tokenizer.tokenize("Cat") == ["Cat"]
    ((name, options),) = calls
    assert (name, options["revision"], options["token"]) == ("owner/name", "v1", "secret")
    files = ["vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"]
    assert sorted(options["allow_patterns"]) == sorted(files)


def test_save_vocabulary_writes_the_lines_that_were_read(tokenizer, vocab_file, tmp_path):
    (path,) = tokenizer.save_vocabulary(tmp_path / "saved")
    (prefixed,) = tokenizer.save_vocabulary(tmp_path / "saved", filename_prefix="my")
    assert [Path(path).name, Path(prefixed).name] == ["vocab.txt", "my-vocab.txt"]
    assert Path(path).read_bytes() == Path(prefixed).read_bytes() == vocab_file.read_bytes()


def test_nothing_is_written_where_an_option_is_no_json(make, tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        make(my_own_option=object()).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_tokenizers_can_be_pickled_and_copied(make):
    tokenizer = make(never_split=["foo-bar"], do_lower_case=False)
    for twin in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert twin("the Cat foo-bar") == tokenizer("the Cat foo-bar")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.replace(b"\n", b"\r\n"),
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.rstrip(b"\n"),
        lambda data: data + b"\n\n",
    ],
    ids=["windows line ends", "byte order mark", "no last line end", "empty last lines"],
)
def test_vocabulary_files_may_differ_in_their_line_ends(vocab_file, change):
    vocab_file.write_bytes(change(vocab_file.read_bytes()))
    assert LxmertTokenizer(vocab_file).get_vocab() == IDS


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[UNK]\ncat\ncat\n", "has the token 'cat' on lines 2 and 3"),
        (b"[PAD]\ncat\n", r"lacks the unknown token '\[UNK\]'"),
        (b"", r"lacks the unknown token '\[UNK\]'"),
        ("[UNK]\ncafé\n".encode("latin-1"), "is not UTF-8 text"),
    ],
    ids=["duplicate", "no unknown token", "empty", "latin-1"],
)
@both_classes
def test_broken_vocabulary_files_are_refused(cls, vocab_file, data, message):
    vocab_file.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        cls(vocab_file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a JSON file"),
        ("[]", "must hold a JSON object, got list"),
        ("{}", "holds no WordPiece vocabulary"),
        ('{"model": {"type": "BPE", "vocab": {}, "merges": []}}', "holds no WordPiece vocabulary"),
        ('{"model": {"type": "WordPiece", "vocab": {"[UNK]": "x"}}}', "not one that the tokenizers library reads"),
    ],
)
def test_broken_tokenizer_files_are_refused(tmp_path, text, message):
    (tmp_path / "tokenizer.json").write_text(text, encoding="utf-8")
    for load in (LxmertTokenizerFast.from_pretrained, LxmertTokenizer.from_pretrained):
        with pytest.raises(ValueError, match=message):
            load(tmp_path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*none\.txt"):
        LxmertTokenizer(tmp_path / "none.txt")
    with pytest.raises(FileNotFoundError, match=r"none\.txt"):
        LxmertTokenizer.from_pretrained("none.txt")
    with pytest.raises(FileNotFoundError, match="no file or directory"):
        LxmertTokenizer.from_pretrained(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"has neither vocab\.txt nor tokenizer\.json"):
        LxmertTokenizer.from_pretrained(tmp_path)


# Wrong arguments


@pytest.mark.parametrize("wrong", [None, 3, 1.5, b"cat", {"a": "cat"}, [3], ["cat", None], [[["cat"]]], ["a", ["b"]]])
def test_anything_but_text_is_refused(tokenizer, wrong):
    with pytest.raises(TypeError, match="text must be a string, got "):
        tokenizer(wrong)


@pytest.mark.parametrize("wrong", [None, "cat", [3], ["cat", None], [["cat"], "cat"], [[["cat"]]]])
def test_anything_but_words_is_refused_where_words_are_due(tokenizer, wrong):
    with pytest.raises(TypeError, match="text must be a list of words"):
        tokenizer(wrong, is_split_into_words=True)


def test_half_a_surrogate_pair_is_refused(tokenizer):
    with pytest.raises(ValueError, match="half a surrogate pair"):
        tokenizer("cat \ud83d")


def test_text_pairs_must_fit_the_texts(tokenizer):
    with pytest.raises(TypeError, match="text_pair must be a list of texts because text is one, got str 'cat'"):
        tokenizer(["the", "the"], "cat")
    with pytest.raises(ValueError, match="as many, got 2 and 1"):
        tokenizer(["the", "the"], ["cat"])
    with pytest.raises(TypeError, match="text_pair must be a string, got list"):
        tokenizer("the", ["cat"])


def test_methods_for_one_example_refuse_a_batch_and_the_other_way_round(tokenizer):
    for method in (tokenizer.encode, tokenizer.encode_plus, tokenizer.tokenize):
        with pytest.raises(TypeError, match="text must be a string, got list"):
            method(["the", "cat"])
    with pytest.raises(TypeError, match="A batch must be a list"):
        tokenizer.batch_encode_plus("the")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"padding": "longestt"}, ValueError, "padding must be one of True, 'longest', 'max_length'"),
        ({"padding": []}, ValueError, "padding must be one of"),
        ({"truncation": "first"}, ValueError, "truncation must be one of True, 'longest_first'"),
        ({"padding_side": "top"}, ValueError, "padding_side must be one of 'right', 'left', got str 'top'"),
        ({"max_length": -1}, ValueError, "max_length must be an integer of at least 0, got -1"),
        ({"max_length": "4"}, TypeError, "max_length must be an integer of at least 0, got '4'"),
        ({"pad_to_multiple_of": 0}, ValueError, "pad_to_multiple_of must be an integer of at least 1"),
        (
            {"pad_to_multiple_of": 8, "padding": True, "truncation": True, "max_length": 10},
            ValueError,
            "max_length must be a multiple of pad_to_multiple_of=8, got 10",
        ),
        ({"no_such_option": 1}, TypeError, "no_such_option"),
    ],
)
def test_options_of_the_call_are_checked(tokenizer, options, error, message):
    with pytest.raises(error, match=message):
        tokenizer("the", **options)


def test_padding_to_a_length_needs_one(make):
    with pytest.raises(ValueError, match="needs max_length"):
        make(model_max_length=1e30)("the", padding="max_length")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"never_split": "cat"}, TypeError, "never_split must be a list of words"),
        ({"padding_side": "top"}, ValueError, "padding_side must be one of"),
        ({"truncation_side": None}, ValueError, "truncation_side must be one of"),
        ({"model_max_length": "many"}, TypeError, "model_max_length must be a number"),
        ({"cls_token": None}, ValueError, "cls_token must be a token, got None"),
        ({"unk_token": "<unk>"}, ValueError, "lacks the unknown token '<unk>'"),
        ({"mask_token": 3}, TypeError, "A token must be a string, got int 3"),
    ],
)
def test_options_of_the_constructor_are_checked(make, options, error, message):
    with pytest.raises(error, match=message):
        make(**options)


@both_classes
def test_a_vocabulary_must_be_given(cls):
    with pytest.raises(ValueError, match="pass vocab_file or tokenizer_file"):
        cls()


def test_constructors_take_upstreams_positional_arguments(vocab_file):
    slow = LxmertTokenizer(vocab_file, False, True, ["foo-bar"])
    fast = LxmertTokenizerFast(vocab_file, None, False)
    assert slow.tokenize("Cat foo-bar") == ["Cat", "foo-bar"]
    assert fast.tokenize("Cat foo-bar") == ["Cat", "foo", "-", "bar"]
    assert (slow.is_fast, fast.is_fast) == (False, True)


def test_importing_and_using_tokenizers_imports_no_framework(vocab_file):
    program = (
        "import sys; from lxmert_tf.tokenization.tokenizer import LxmertTokenizer; "
        f"LxmertTokenizer({str(vocab_file)!r})(['the cat'], return_tensors='np'); "
        "print(sorted({'tensorflow', 'torch', 'keras', 'jax'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("[]", 0), done.stderr
