"""Special and added tokens: set, added, saved, and read as upstream writes them."""

import copy
import json
import pickle
from pathlib import Path

import pytest
from support.tokens import CLASSES, CLS, IDS, MASK, SEP, ids
from tokenizers import AddedToken, Tokenizer

from lxmert_tf.tokenization import LxmertTokenizer, LxmertTokenizerFast

NEW = len(IDS)  # the id of the first token behind the vocabulary
TEXT = "The cat<box> sat [EOS]on Newtok newtok."


def extended(make):
    """A tokenizer with added tokens of each kind."""
    tokenizer = make(eos_token=AddedToken("[EOS]", lstrip=True), additional_special_tokens=["<box>"])
    assert tokenizer.add_tokens(["newtok", AddedToken("<obj>", rstrip=True, normalized=False)]) == 2
    assert tokenizer.add_tokens("<sp>", special_tokens=True) == 1
    return tokenizer


# Special tokens


@pytest.mark.parametrize("name", ["bos_token", "eos_token"])
@pytest.mark.parametrize("token", ["[EOS]", AddedToken("[EOS]"), {"content": "[EOS]", "__type": "AddedToken"}], ids=str)
def test_tokens_that_only_scripts_need_are_tokens_too(make, name, token):
    tokenizer = make(**{name: token})
    assert (getattr(tokenizer, name), getattr(tokenizer, f"{name}_id")) == ("[EOS]", NEW)
    assert tokenizer.encode("the [EOS]") == [CLS, IDS["the"], NEW, SEP]
    assert (make().bos_token, make().eos_token_id) == (None, None)


def test_the_options_of_an_added_token_are_heeded_and_saved(make, tmp_path):
    tokenizer = make(eos_token=AddedToken("[EOS]", lstrip=True))
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, LxmertTokenizer.from_pretrained(tmp_path), LxmertTokenizerFast.from_pretrained(tmp_path)):
        assert each.added_tokens_decoder[NEW].lstrip
        assert each("the  [EOS]", return_offsets_mapping=True)["offset_mapping"][2] == (3, 10)


def test_a_special_token_can_be_set(tokenizer):
    tokenizer.pad_token = "[MASK]"
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("[MASK]", MASK)
    tokenizer.eos_token = "[EOS]"
    assert tokenizer.encode("the[EOS]") == [CLS, IDS["the"], NEW, SEP]
    tokenizer.sep_token_id = NEW
    assert tokenizer.encode("the", "cat") == [CLS, IDS["the"], NEW, IDS["cat"], NEW]
    tokenizer.unk_token = "foo"
    assert tokenizer.encode("zebra") == [CLS, IDS["foo"], NEW]
    assert tokenizer.convert_tokens_to_ids("zebra") == tokenizer.unk_token_id == IDS["foo"]
    tokenizer.additional_special_tokens = ["<a>", AddedToken("<b>")]
    assert tokenizer.additional_special_tokens_ids == [NEW + 1, NEW + 2]
    tokenizer.additional_special_tokens_ids = [NEW + 2]
    assert tokenizer.additional_special_tokens == ["<b>"]


def test_a_special_token_can_be_unset(tokenizer):
    tokenizer.pad_token = None
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == (None, None)
    tokenizer.cls_token_id = None
    assert tokenizer.encode("the", add_special_tokens=False) == [IDS["the"]]
    with pytest.raises(ValueError, match="add_special_tokens needs cls_token and sep_token"):
        tokenizer("the")


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("pad_token", 3, TypeError, "must be a string, got int 3"),
        ("pad_token", "", ValueError, "must have characters"),
        ("unk_token", "<unk>", ValueError, "lacks the unknown token '<unk>'"),
        ("pad_token_id", 10**6, ValueError, "outside the vocabulary"),
        ("additional_special_tokens", "<a>", TypeError, "must be a list of tokens, got str '<a>'"),
        ("additional_special_tokens", [3], TypeError, "must be a string, got int 3"),
    ],
)
def test_what_is_no_token_is_refused_and_changes_nothing(make, name, value, error, message):
    tokenizer = make(additional_special_tokens=["<old>"])
    before = getattr(tokenizer, name)
    with pytest.raises(error, match=message):
        setattr(tokenizer, name, value)
    assert getattr(tokenizer, name) == before
    assert len(tokenizer) == NEW + 1


def test_maps_of_special_tokens(make):
    tokenizer = make(pad_token=None, additional_special_tokens=["<box>"])
    named = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "cls", "mask")}
    assert tokenizer.special_tokens_map == {**named, "additional_special_tokens": ["<box>"]}
    assert tokenizer.all_special_tokens == [*named.values(), "<box>"]
    extended = tokenizer.special_tokens_map_extended
    assert extended["additional_special_tokens"] == [tokenizer.added_tokens_decoder[NEW]]
    assert [token.content for token in tokenizer.all_special_tokens_extended] == tokenizer.all_special_tokens


# Added tokens


def test_added_tokens_are_found_after_cleaning_and_special_ones_before(tokenizer):
    assert tokenizer.add_tokens(["NewTok", "<b>", "cat", ""]) == 2
    assert tokenizer.add_tokens("<S>", special_tokens=True) == 1
    assert tokenizer.add_tokens(["NewTok"]) == tokenizer.add_tokens([]) == 0
    assert (len(tokenizer), tokenizer.vocab_size) == (NEW + 3, NEW)
    assert tokenizer.encode("the newtok<B> <S>") == [CLS, IDS["the"], NEW, NEW + 1, NEW + 2, SEP]
    assert tokenizer.tokenize("<s>") == ["[UNK]", "s", "[UNK]"]
    specials = {f"[{name}]": index for index, name in enumerate(["PAD", "UNK", "CLS", "SEP", "MASK"])}
    added = {**specials, "cat": IDS["cat"], "NewTok": NEW, "<b>": NEW + 1, "<S>": NEW + 2}
    assert tokenizer.get_added_vocab() == tokenizer.added_tokens_encoder == added
    assert list(tokenizer.added_tokens_decoder) == sorted(added.values())
    assert tokenizer.vocab == tokenizer.get_vocab() == {**IDS, **added}


def test_special_tokens_are_added_by_name(tokenizer):
    assert tokenizer.add_special_tokens({"eos_token": "[EOS]", "pad_token": "[PAD]"}) == 1
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<a>", "<b>"]}) == 2
    assert tokenizer.add_special_tokens({"additional_special_tokens": ["<c>"]}) == 1
    assert (tokenizer.eos_token_id, tokenizer.additional_special_tokens) == (NEW, ["<c>"])
    more = {"additional_special_tokens": ["<a>", "<c>"]}
    assert tokenizer.add_special_tokens(more, replace_additional_special_tokens=False) == 0
    assert tokenizer.additional_special_tokens == ["<c>", "<a>"]
    assert tokenizer.decode([NEW, NEW + 2, NEW + 3], skip_special_tokens=True) == "<b>"
    assert tokenizer.add_special_tokens({}) == 0
    with pytest.raises(ValueError, match=r"The name of a special token must be one of 'bos_token', .* got str 'eos'"):
        tokenizer.add_special_tokens({"pad_token": "<pad>", "eos": "[EOS]"})
    assert tokenizer.pad_token == "[PAD]"


def test_special_tokens_in_a_text_can_be_read_as_text(make):
    tokenizer = make()
    assert tokenizer.tokenize("[mask]") == tokenizer.tokenize("[MASK]", split_special_tokens=True)
    assert tokenizer("the [SEP] cat", split_special_tokens=True)["input_ids"].count(SEP) == 1
    assert tokenizer.tokenize("the [SEP]") == ["the", "[SEP]"]
    assert make(split_special_tokens=True).tokenize("[MASK]") == make().tokenize("[mask]")
    tokenizer.add_tokens(["<sp>"], special_tokens=True)
    assert "<sp>" not in tokenizer.tokenize("<sp>", split_special_tokens=True)


def test_words_kept_whole_and_added_tokens_go_together(make):
    tokenizer = make(never_split=["foo-bar"])
    assert tokenizer.tokenize("foo-bar") == ["foo-bar"]
    tokenizer.add_tokens(["newtok"])
    assert tokenizer.tokenize("newtok foo-bar") == ["newtok", "foo-bar"]
    for twin in (pickle.loads(pickle.dumps(tokenizer)), copy.deepcopy(tokenizer)):
        assert twin.tokenize("newtok foo-bar") == ["newtok", "foo-bar"]


def test_spaces_around_added_tokens_in_decoded_text(make):
    tokenizer = extended(make)
    row = [*ids("the cat"), tokenizer.convert_tokens_to_ids("<obj>"), *ids("mat")]
    assert tokenizer.decode(row) == "the cat <obj> mat"
    assert tokenizer.decode(row, spaces_between_special_tokens=False) == "the cat<obj>mat"


def test_the_backend_is_the_library_s(tokenizer):
    assert isinstance(tokenizer.backend_tokenizer, Tokenizer)
    assert tokenizer.backend_tokenizer.encode("the cat").ids == tokenizer.encode("the cat")
    assert tokenizer.decoder.decode(["un", "##aff"]) == "unaff"


def test_limits_of_the_texts(make):
    tokenizer = make(model_max_length=10)
    assert (tokenizer.max_len_single_sentence, tokenizer.max_len_sentences_pair) == (8, 7)
    assert make(model_max_length=None).max_len_single_sentence is None


def test_a_method_s_name_is_no_option_of_the_constructor(make):
    with pytest.raises(AttributeError, match="add_special_tokens is a method of the tokenizer"):
        make(add_special_tokens=True)


# Files


@pytest.mark.parametrize("cls", CLASSES.values(), ids=CLASSES)
@pytest.mark.parametrize("legacy", [None, True, False])
def test_added_tokens_are_saved_and_read_back(make, cls, legacy, tmp_path):
    tokenizer = extended(make)
    saved = {Path(path).name for path in tokenizer.save_pretrained(tmp_path, legacy_format=legacy)}
    assert ("tokenizer.json" in saved, "vocab.txt" in saved) == (legacy is not True, legacy is not False)
    assert ("added_tokens.json" in saved) == (legacy is not False)
    again = cls.from_pretrained(tmp_path)
    assert again(TEXT) == tokenizer(TEXT)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.special_tokens_map_extended == tokenizer.special_tokens_map_extended
    assert again.added_tokens_decoder == tokenizer.added_tokens_decoder
    assert again.name_or_path == str(tmp_path)


def test_files_may_have_a_prefix(tokenizer, tmp_path):
    paths = tokenizer.save_pretrained(tmp_path, filename_prefix="my", legacy_format=False)
    names = ["my-special_tokens_map.json", "my-tokenizer.json", "my-tokenizer_config.json"]
    assert sorted(path.name for path in tmp_path.glob("*.*")) == sorted(Path(path).name for path in paths) == names


def test_added_tokens_json_of_old_releases_is_read(make, tmp_path):
    make().save_vocabulary(tmp_path)
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[EOS]": NEW + 1, "newtok": NEW}), encoding="utf-8")
    specials = {"eos_token": {"content": "[EOS]", "lstrip": False, "normalized": False}}
    (tmp_path / "special_tokens_map.json").write_text(json.dumps(specials), encoding="utf-8")
    tokenizer = LxmertTokenizer.from_pretrained(tmp_path)
    assert tokenizer.encode("Newtok[EOS][eos]")[1:3] == [NEW, NEW + 1]
    assert [tokenizer.added_tokens_decoder[index].special for index in (NEW, NEW + 1)] == [False, True]
    assert tokenizer.eos_token_id == NEW + 1
    (tmp_path / "added_tokens.json").write_text(json.dumps({"newtok": NEW + 5}), encoding="utf-8")
    with pytest.raises(ValueError, match="the files do not belong together"):
        LxmertTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("tokens", [["<box>"], {"box_token": "<box>"}], ids=["transformers 5", "transformers 4"])
def test_extra_special_tokens_of_newer_files_are_special(make, tokens):
    tokenizer = make(extra_special_tokens=tokens)
    assert tokenizer.additional_special_tokens == ["<box>"]
    assert tokenizer.encode("the<box>") == [CLS, IDS["the"], NEW, SEP]


def test_a_tokenizer_of_the_library_is_taken_for_a_file(make):
    backend = make(mask_token="<mask>").backend_tokenizer
    tokenizer = LxmertTokenizerFast(tokenizer_object=backend, mask_token="<mask>")
    assert tokenizer("the <mask>") == make(mask_token="<mask>")("the <mask>")


def test_a_new_vocabulary_is_made_from_texts(make):
    tokenizer = make(do_lower_case=False, additional_special_tokens=["<box>"], mask_token="<mask>")
    texts = ["Zebras see zebras", "the Zebras see"] * 3
    new = tokenizer.train_new_from_iterator(
        [texts], 60, new_special_tokens=["<new>"], special_tokens_map={"[PAD]": "<pad>"}, show_progress=False
    )
    assert type(new) is type(tokenizer)
    assert new.tokenize("Zebras<box> see<new>") == ["Zebras", "<box>", "see", "<new>"]
    assert (new.pad_token, new.mask_token, new.do_lower_case) == ("<pad>", "<mask>", False)
    assert len(new) <= 60
    specials = ["<pad>", "[UNK]", "[CLS]", "[SEP]", "<mask>", "<box>", "<new>"]
    assert new.convert_ids_to_tokens(list(range(7))) == specials  # where they were: padding must stay 0
