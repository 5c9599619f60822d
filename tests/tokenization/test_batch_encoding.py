"""`BatchEncoding`: from tokens to words, characters and texts and back, tensors; `pad` and `prepare_for_model`."""

import copy
import pickle

import numpy as np
import pytest
from support.tokens import CLS, IDS, PAD, SEP, ids
from tokenizers import Encoding

from lxmert_tf.tokenization import BatchEncoding

FIRST, SECOND = "the unaffable", "cat sat."
TOKENS = ["[CLS]", "the", "un", "##aff", "##able", "[SEP]", "cat", "sat", ".", "[SEP]"]


@pytest.fixture
def pairs(tokenizer):
    """Two rows, the second of them padded."""
    return tokenizer([(FIRST, SECOND), ("the", "mat")], padding=True)


# From tokens to texts and back


def test_rows_of_a_pair(pairs):
    assert pairs.tokens() == pairs.tokens(0) == TOKENS
    assert pairs.tokens(1) == ["[CLS]", "the", "[SEP]", "mat", "[SEP]", *["[PAD]"] * 5]
    assert pairs.sequence_ids(0) == [None, 0, 0, 0, 0, None, 1, 1, 1, None]
    assert pairs.sequence_ids(1) == [None, 0, None, 1, None, *[None] * 5]
    assert pairs.word_ids(0) == pairs.words(0) == [None, 0, 1, 1, 1, None, 0, 1, 2, None]
    assert (pairs.n_sequences, pairs.is_fast, len(pairs.encodings)) == (2, True, 2)
    assert isinstance(pairs[1], Encoding)
    assert pairs[1].ids == pairs["input_ids"][1]
    assert pairs[:1] == {name: values[:1] for name, values in pairs.items()}


def test_tokens_words_and_characters_lead_to_each_other(pairs):
    assert [pairs.token_to_sequence(token) for token in (0, 1, 6)] == [None, 0, 1]
    assert [pairs.token_to_word(0, token) for token in (0, 3, 8, -2)] == [None, 1, 2, 2]
    assert [pairs.token_to_chars(0, token) for token in (0, 3, 7)] == [None, (6, 9), (4, 7)]
    assert [pairs.word_to_tokens(0, 1, text) for text in (0, 1)] == [(2, 5), (7, 8)]
    assert pairs.word_to_tokens(1, 7) is None
    assert [pairs.word_to_chars(0, 1, text) for text in (0, 1)] == [(4, 13), (4, 7)]
    assert [pairs.char_to_token(0, 4, text) for text in (0, 1)] == [2, 7]
    assert [pairs.char_to_word(0, 12, 0), pairs.char_to_word(7, sequence_index=1)] == [1, 2]
    assert pairs.char_to_token(3) is None  # a space
    assert pairs.word_to_chars(0, 9) is None
    span = pairs.token_to_chars(1, 3)
    assert "mat"[span.start : span.end] == "mat"


def test_pairs_without_special_tokens(tokenizer):
    pair = tokenizer(FIRST, SECOND, add_special_tokens=False)
    assert pair.sequence_ids() == [0, 0, 0, 0, 1, 1, 1]
    assert pair.word_to_tokens(1, sequence_index=1) == (5, 6)
    cut = tokenizer(FIRST, SECOND, add_special_tokens=False, max_length=4, truncation="only_first")
    assert cut.sequence_ids() == cut.token_type_ids == [0, 1, 1, 1]


def test_what_is_cut_off_is_not_combined(tokenizer):
    """It would be as many rows as the product of both texts' windows."""
    row = tokenizer("the cat " * 50, "mat on " * 50, max_length=7, truncation=True)
    assert (row.tokens(), row[0].overflowing) == (["[CLS]", "the", "cat", "[SEP]", "mat", "on", "[SEP]"], [])


def test_windows_know_their_place_in_the_text(tokenizer):
    windows = tokenizer("the cat sat on", max_length=4, truncation=True, return_overflowing_tokens=True)
    assert windows.tokens(1) == ["[CLS]", "sat", "on", "[SEP]"]
    assert (windows.word_ids(1), windows.token_to_chars(1, 1)) == ([None, 2, 3, None], (8, 11))


def test_words_given_as_a_list(tokenizer):
    encoded = tokenizer(["the", "unaffable"], is_split_into_words=True)
    assert encoded.word_ids() == [None, 0, 1, 1, 1, None]
    assert encoded.word_to_tokens(1) == (2, 5)


def test_entries_alone_know_no_texts(pairs):
    rebuilt = BatchEncoding(dict(pairs))
    assert (rebuilt.encodings, rebuilt.is_fast, rebuilt.n_sequences) == (None, False, None)
    for ask in (rebuilt.tokens, rebuilt.sequence_ids, lambda: rebuilt.char_to_token(0), lambda: rebuilt[0]):
        with pytest.raises(ValueError, match="This BatchEncoding has entries only"):
            ask()


def test_copies_know_as_much(pairs):
    for twin in (copy.deepcopy(pairs), pickle.loads(pickle.dumps(pairs))):
        assert twin == pairs
        assert twin.tokens() == TOKENS


def test_data_is_the_entries_themselves(pairs):
    pairs.data["labels"] = [1, 2]
    assert pairs["labels"] == pairs.labels == [1, 2]
    assert isinstance(pairs.data, dict)


# Tensors


def test_tensors_can_be_asked_for_when_it_is_made():
    encoded = BatchEncoding({"input_ids": [1, 2]}, tensor_type="np", prepend_batch_axis=True, n_sequences=1)
    assert encoded.input_ids.tolist() == [[1, 2]]
    assert encoded.n_sequences == 1


def test_numbers_with_a_fraction_and_arrays_keep_their_values():
    data = {"ids": [[1, 2]], "scores": [[0.5, 1]], "half": np.float16([[0.5]]), "rows": [np.float64([0.1])]}
    arrays = BatchEncoding(data).convert_to_tensors("np")
    assert [arrays[name].dtype for name in data] == ["int64", "float32", "float16", "float64"]
    assert arrays["scores"].tolist() == [[0.5, 1]]
    with pytest.raises(ValueError, match="labels must be numbers to become a tensor, got list"):
        BatchEncoding({"labels": ["a"]}).convert_to_tensors("np")


def test_torch_tensors_move_and_arrays_stay(tokenizer, caplog):
    torch = pytest.importorskip("torch")
    encoded = tokenizer("the cat", return_tensors="pt")
    encoded["features"] = np.zeros(3)
    assert encoded.to("meta") is encoded
    assert (encoded.input_ids.device.type, type(encoded.features)) == ("meta", np.ndarray)
    encoded = tokenizer("the cat", return_tensors="pt").to(torch.device("cpu")).to(torch.float16)
    assert encoded.input_ids.dtype == torch.int64
    assert [record.getMessage() for record in caplog.records] == [
        "BatchEncoding.to() moves to a device and leaves dtypes as they are, got dtype torch.float16."
    ]
    assert encoded.convert_to_tensors("pt").input_ids is encoded["input_ids"]


# Padding what was encoded


def test_a_list_of_examples_is_padded_as_the_call_does(tokenizer):
    texts = ["the cat sat", "the"]
    options = {"return_special_tokens_mask": True, "return_offsets_mapping": True}
    examples = [tokenizer(text, **options) for text in texts]
    assert tokenizer.pad(examples) == tokenizer(texts, padding=True, **options)
    for padding in ({"padding": "max_length", "max_length": 7}, {"pad_to_multiple_of": 4}, {"padding_side": "left"}):
        assert tokenizer.pad(examples, **padding) == tokenizer(texts, **{"padding": True, **options, **padding})
    batch = tokenizer(texts, **options)
    assert tokenizer.pad(batch) == tokenizer.pad(dict(batch)) == tokenizer(texts, padding=True, **options)
    assert tokenizer.pad(batch, padding=False) == batch


def test_one_example_is_padded(tokenizer):
    padded = tokenizer.pad(tokenizer("the cat"), padding="max_length", max_length=6)
    assert padded == tokenizer("the cat", padding="max_length", max_length=6)


def test_a_mask_is_made_where_there_is_none(tokenizer):
    assert tokenizer.pad([{"input_ids": [5, 6]}, {"input_ids": [5]}]) == {
        "input_ids": [[5, 6], [5, PAD]],
        "attention_mask": [[1, 1], [1, 0]],
    }
    assert list(tokenizer.pad([{"input_ids": [5]}], return_attention_mask=False)) == ["input_ids"]
    assert tokenizer.pad({"input_ids": []}) == {"input_ids": [], "attention_mask": []}


@pytest.mark.parametrize("kind", ["np", "pt", "tf"])
def test_arrays_and_labels_are_padded_into_tensors(tokenizer, kind):
    pytest.importorskip({"np": "numpy", "pt": "torch", "tf": "tensorflow"}[kind])
    rows = [tokenizer(text, return_tensors=kind) for text in ("the cat sat", "the")]
    examples = [
        {name: values[0] for name, values in row.items()} | {"labels": [0.5, 0.25], "ids": 3, "feats": np.ones(2, "f")}
        for row in rows
    ]
    padded = tokenizer.pad(examples, return_tensors=kind)
    wanted = tokenizer(["the cat sat", "the"], padding=True, return_tensors=kind)
    for name, values in wanted.items():
        assert padded[name].dtype == values.dtype
        np.testing.assert_array_equal(padded[name], values)
    assert np.asarray(padded["labels"]).tolist() == [[0.5, 0.25]] * 2
    assert np.asarray(padded["ids"]).tolist() == [3, 3]
    assert np.asarray(padded["feats"]).dtype == np.asarray(padded["labels"]).dtype == "float32"


def test_the_first_model_input_is_what_is_padded(make):
    tokenizer = make(model_input_names=["inputs", "attention_mask"])
    assert tokenizer.pad([{"inputs": [5]}, {"inputs": [5, 6]}])["inputs"] == [[5, PAD], [5, 6]]


def test_what_cannot_be_padded_is_refused(make):
    tokenizer = make(model_max_length=None)
    with pytest.raises(ValueError, match="pad needs input_ids, got labels"):
        tokenizer.pad([{"labels": 1}])
    with pytest.raises(TypeError, match=r"pad takes an example, a batch, or a list of examples, got list \[\[1\]\]"):
        tokenizer.pad([[1]])
    with pytest.raises(ValueError, match="needs max_length"):
        tokenizer.pad([{"input_ids": [5]}], padding="max_length")
    with pytest.raises(ValueError, match="pad_token=None"):
        make(pad_token=None).pad([{"input_ids": [5]}])
    with pytest.raises(ValueError, match="labels has rows of different lengths"):
        tokenizer.pad([{"input_ids": [5], "labels": [1]}, {"input_ids": [5], "labels": [1, 2]}], return_tensors="np")


# Ids instead of texts


def test_ids_are_made_into_a_row_as_texts_are(tokenizer):
    first, second = ids("the cat sat"), ids("on mat")
    options = {"return_special_tokens_mask": True, "return_length": True}
    for more in ({}, {"padding": "max_length", "max_length": 12}, {"max_length": 6, "truncation": True}):
        assert tokenizer.prepare_for_model(first, second, **options, **more) == tokenizer(
            "the cat sat", "on mat", **options, **more
        )
    assert tokenizer.prepare_for_model(np.array(first), add_special_tokens=False)["input_ids"] == first
    windows = tokenizer.prepare_for_model(first, max_length=4, truncation=True, return_overflowing_tokens=True)
    assert windows["input_ids"] == [[CLS, *ids("the cat"), SEP], [CLS, IDS["sat"], SEP]]
    arrays = tokenizer.prepare_for_model(first, return_tensors="np", prepend_batch_axis=True)
    assert arrays.input_ids.tolist() == [[CLS, *first, SEP]]
    assert tokenizer.prepare_for_model(first, return_tensors="np").input_ids.shape == (5,)
    with pytest.raises(ValueError, match="outside the vocabulary"):
        tokenizer.prepare_for_model([10**6])
