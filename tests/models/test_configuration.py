"""LxmertConfig reads upstream's files, keeps what it does not know, and refuses what cannot be."""

import copy
import json
import re

import numpy as np
import pytest
from support.golden import GOLDEN

from lxmert_tf import LxmertConfig
from lxmert_tf.configuration import padded_size

UPSTREAM_DEFAULTS = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_attention_heads": 12,
    "num_qa_labels": 9500,
    "num_object_labels": 1600,
    "num_attr_labels": 400,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "initializer_range": 0.02,
    "l_layers": 9,
    "x_layers": 5,
    "r_layers": 5,
    "visual_feat_dim": 2048,
    "visual_pos_dim": 4,
    "visual_loss_normalizer": 6.67,
    "task_matched": True,
    "task_mask_lm": True,
    "task_obj_predict": True,
    "task_qa": True,
    "visual_obj_loss": True,
    "visual_attr_loss": True,
    "visual_feat_loss": True,
    "num_hidden_layers": {"vision": 5, "cross_encoder": 5, "language": 9},
}


def test_defaults_are_upstreams():
    values = LxmertConfig().to_dict()
    assert {name: values[name] for name in UPSTREAM_DEFAULTS} == UPSTREAM_DEFAULTS
    assert LxmertConfig().layer_norm_eps == 1e-12


@pytest.mark.parametrize("folder", ["hf_pt_model", "hf_pt_pretraining", "hf_pt_qa", "hf_tf_pretraining"])
def test_upstreams_file_survives_a_round_trip(folder, tmp_path):
    config = LxmertConfig.from_pretrained(GOLDEN / folder)
    config.save_pretrained(tmp_path / "made" / "on" / "the" / "way")
    theirs = json.loads((GOLDEN / folder / "config.json").read_text())
    ours = json.loads((tmp_path / "made/on/the/way/config.json").read_text())
    assert {name: ours[name] for name in theirs} == theirs
    assert LxmertConfig.from_pretrained(tmp_path / "made/on/the/way") == config


def test_unknown_keys_are_kept_and_read_as_attributes(tmp_path):
    config = LxmertConfig(finetuning_task="vqa", pruned_heads={})
    assert config.finetuning_task == "vqa"
    config.save_pretrained(tmp_path)
    assert LxmertConfig.from_pretrained(tmp_path).pruned_heads == {}
    with pytest.raises(AttributeError, match="no field 'hiden_size'"):
        config.hiden_size  # noqa: B018


def test_depths_win_over_the_derived_key():
    assert LxmertConfig.from_dict({"l_layers": 3, "num_hidden_layers": {"language": 9}}).l_layers == 3


def test_labels_keep_integer_ids_and_complete_each_other(tmp_path):
    LxmertConfig(id2label={0: "yes", 1: "no"}).save_pretrained(tmp_path)
    config = LxmertConfig.from_pretrained(tmp_path)
    assert config.id2label == {0: "yes", 1: "no"} and config.label2id == {"yes": 0, "no": 1}
    assert LxmertConfig(label2id={"a": 1}).id2label == {1: "a"}


def test_placeholders_of_transformers_give_way_to_names():
    placeholders = {0: "LABEL_0", 1: "LABEL_1"}
    names = {0: "yes", 1: "no", 2: "maybe"}
    rows, inverse = {"LABEL_0": 0, "LABEL_1": 1}, {"yes": 0, "no": 1, "maybe": 2}
    for config in (
        LxmertConfig(id2label=names, label2id=rows),
        LxmertConfig(id2label=placeholders, label2id=inverse),
        LxmertConfig(id2label=names, label2id={"maybe": 2}),
    ):
        assert (config.id2label, config.label2id) == (names, inverse)
    config = LxmertConfig(id2label=placeholders, label2id={"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2})
    assert (config.id2label, config.label2id) == (placeholders, rows)


def test_labels_that_are_overridden_take_the_other_direction_with_them():
    values = {"id2label": {"0": "yes", "1": "no"}, "label2id": {"yes": 0, "no": 1}}
    assert LxmertConfig.from_dict(values, id2label={0: "red"}).label2id == {"red": 0}
    assert LxmertConfig.from_dict(values, label2id={"red": 1}).id2label == {1: "red"}
    assert LxmertConfig.from_dict(values, id2label=None).label2id is None
    assert LxmertConfig.from_dict(values, num_qa_labels=3).id2label == {0: "yes", 1: "no"}


@pytest.mark.parametrize("id", ["04", " 4", "4 ", "+4", "-4", "4.0", "4e0", "٤", "4_0", "", 4.0, True, -4, None])
def test_an_id_that_is_not_written_plainly_is_refused(id):
    assert LxmertConfig(id2label={"4": "a"}, label2id={"a": "4"}).id2label == {4: "a"}
    for labels in ({"id2label": {0: "a", id: "b"}}, {"label2id": {"a": 0, "b": id}}):
        with pytest.raises(ValueError, match=f"^{next(iter(labels))} must map .*: {re.escape(repr(id))} is not a row"):
            LxmertConfig(**labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"id2label": {4: "a", "4": "b"}}, "id2label must map .*: row 4 has two answers, 'a' and 'b'"),
        ({"id2label": {0: "a", 1: "a"}}, "id2label must map .*: answer 'a' is in the table twice, at 0 and 1"),
        ({"label2id": {"a": 0, "b": 0}}, "label2id must map .*: row 0 has two answers, 'a' and 'b'"),
        ({"id2label": {0: "a", 1: "b"}, "label2id": {"a": 1, "b": 0}}, "got 'a' for 1, where id2label has 'b'"),
        ({"id2label": {0: "a"}, "label2id": {"a": 0, "b": 1}}, "got 'b' for 1, where id2label has None"),
    ],
)
def test_labels_that_are_not_one_to_one_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        LxmertConfig(**labels)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"hidden_size": -1}, ValueError, "hidden_size must be an integer of at least 1, got -1"),
        ({"hidden_size": "768"}, TypeError, "hidden_size must be an integer of at least 1, got '768'"),
        ({"hidden_size": 768.0}, ValueError, "hidden_size must be an integer"),
        ({"vocab_size": True}, TypeError, "vocab_size must be an integer"),
        (
            {"hidden_size": 10, "num_attention_heads": 3},
            ValueError,
            "multiple of num_attention_heads, got hidden_size=10",
        ),
        ({"hidden_act": "tanh"}, ValueError, "hidden_act must be one of gelu, relu, silu, gelu_new or a callable"),
        ({"l_layers": -1}, ValueError, "l_layers must be an integer of at least 0"),
        ({"hidden_dropout_prob": 1.0}, ValueError, "hidden_dropout_prob must be a number from 0"),
        ({"hidden_dropout_prob": float("nan")}, ValueError, "hidden_dropout_prob"),
        ({"layer_norm_eps": 0}, ValueError, "layer_norm_eps must be a number above 0"),
        ({"task_qa": 1}, TypeError, "task_qa must be True or False, got 1"),
        ({"id2label": ["yes"]}, TypeError, "id2label must be a dict"),
        ({"id2label": {"a": "yes"}}, ValueError, "must map integers to names"),
    ],
)
def test_what_cannot_be_is_refused_by_name(changes, error, message):
    with pytest.raises(error, match=message):
        LxmertConfig(**changes)


def test_broken_files_are_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json is not a JSON file"):
        LxmertConfig.from_pretrained(tmp_path)
    path.write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="model_type must be 'lxmert', got 'bert'"):
        LxmertConfig.from_pretrained(tmp_path)
    path.write_text('{"hidden_size": null}')
    with pytest.raises(TypeError, match=r"config.json: hidden_size must be an integer"):
        LxmertConfig.from_pretrained(path)
    path.write_text('{"id2label": {"0": "yes", "1": "no", "0": "maybe"}}')
    with pytest.raises(ValueError, match=r"config\.json is not a JSON file \(an object has the key '0' twice\)"):
        LxmertConfig.from_pretrained(path)
    with pytest.raises(FileNotFoundError):
        LxmertConfig.from_pretrained(tmp_path / "nowhere" / "at" / "all")


def test_a_callable_activation_works_but_is_not_saved(tmp_path):
    config = LxmertConfig(hidden_act=abs)
    with pytest.raises(ValueError, match="hidden_act is the callable"):
        config.save_pretrained(tmp_path)
    assert not list(tmp_path.iterdir())


def test_num_labels_names_that_many_answers_as_upstream_does(caplog):
    config = LxmertConfig(num_labels=3)
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}
    assert (config.num_labels, config.num_qa_labels) == (3, 9500)
    config.num_labels = 2
    assert config.label2id == {"LABEL_0": 0, "LABEL_1": 1}
    named = LxmertConfig(num_labels=5, id2label={0: "no", 1: "yes"})
    assert (named.num_labels, named.id2label[1]) == (2, "yes")
    assert "num_labels=5 is left out: id2label names 2" in caplog.text
    assert "num_labels" not in config.to_dict()
    with pytest.raises(ValueError, match="num_labels must be an integer of at least 1, got 0"):
        LxmertConfig(num_labels=0)


def test_the_problem_type_is_one_of_upstreams():
    assert LxmertConfig.from_dict({"problem_type": None}).problem_type is None
    assert LxmertConfig(problem_type="single_label_classification").to_dict()["problem_type"].startswith("single")
    with pytest.raises(ValueError, match="problem_type must be one of regression"):
        LxmertConfig(problem_type="multi")


def test_names_of_answers_follow_their_number(caplog):
    config = LxmertConfig(num_qa_labels=3, id2label={0: "no", 1: "yes", 2: "two"})
    config.resize_answers(2)
    assert (config.num_qa_labels, config.id2label, config.label2id) == (2, {0: "no", 1: "yes"}, {"no": 0, "yes": 1})
    assert not caplog.records
    config.resize_answers(4)
    assert (config.num_qa_labels, config.id2label, config.label2id) == (4, None, None)
    assert "id2label names 2 of 4 answers: it is dropped" in caplog.text


# As upstream's


def test_attributes_of_upstreams_base_class(tmp_path):
    config = LxmertConfig()
    assert (config.pad_token_id, config.is_encoder_decoder, config.tie_word_embeddings) == (None, False, True)
    assert "pad_token_id" not in config.to_dict()
    config.pad_token_id, config.mine = 0, [1]
    config.save_pretrained(tmp_path)
    read = LxmertConfig.from_pretrained(tmp_path)
    assert (read.pad_token_id, read.mine, read == config) == (0, [1], True)
    with pytest.raises(AttributeError, match="LxmertConfig has no field 'pad_token'"):
        config.pad_token  # noqa: B018


def test_update_sets_all_or_nothing():
    config = LxmertConfig(num_qa_labels=2, id2label={0: "no", 1: "yes"}, mine=1)
    config.update({"hidden_dropout_prob": 0.5, "pad_token_id": 3, "num_labels": 3, "mine": [2]})
    assert (config.hidden_dropout_prob, config.pad_token_id, config.num_labels, config.mine) == (0.5, 3, 3, [2])
    before = config.replace()
    with pytest.raises(ValueError, match="attention_probs_dropout_prob must be a number from 0"):
        config.update({"hidden_act": "relu", "attention_probs_dropout_prob": 2.0})
    assert config == before and config is not before
    before.mine.append(3)
    assert config.mine == [2]


def test_where_a_config_is_from_is_not_part_of_it(tmp_path):
    LxmertConfig(l_layers=2).to_json_file(tmp_path / "config.json")
    config = LxmertConfig.from_pretrained(tmp_path)
    assert config.name_or_path == config.replace(l_layers=3).name_or_path == str(tmp_path)
    assert config == LxmertConfig(l_layers=2) and "name_or_path" not in config.to_json_string()
    assert LxmertConfig(_name_or_path="unc-nlp/lxmert").name_or_path == "unc-nlp/lxmert"
    assert copy.deepcopy(config).name_or_path == str(tmp_path)


def test_depths_are_set_one_by_one():
    for wrong in (4, "12"):
        with pytest.raises(TypeError, match=f"follows from l_layers, x_layers and r_layers, got {wrong!r}; set those"):
            LxmertConfig(num_hidden_layers=wrong)


def test_a_dtype_is_written_by_its_name():
    class Half:
        def __str__(self):
            return "torch.float16"

    assert LxmertConfig(torch_dtype=Half()).to_dict()["torch_dtype"] == "float16"
    assert LxmertConfig(torch_dtype="float32", dtype=None).to_dict()["torch_dtype"] == "float32"


def test_arguments_with_nothing_to_do_are_no_fields(tmp_path, caplog):
    LxmertConfig().save_pretrained(tmp_path)
    config = LxmertConfig.from_pretrained(tmp_path, trust_remote_code=True, mine=1, torch_dtype="float16")
    assert config.extra == {"mine": 1, "torch_dtype": "float16"}
    assert "LxmertConfig.from_pretrained leaves out trust_remote_code: no file runs code here." in caplog.text
    with pytest.raises(TypeError, match=r"save_pretrained got an unexpected argument 'push_to_hubs'; did you mean"):
        LxmertConfig().save_pretrained(tmp_path, push_to_hubs=True)


def test_a_key_that_is_nearly_a_field_is_told(caplog):
    with caplog.at_level("WARNING", "lxmert_tf"):
        config = LxmertConfig(hidden_dropout_prop=0.3, of_my_own=1)
    assert config.hidden_dropout_prop == 0.3
    assert "'hidden_dropout_prop', which is kept but does nothing; did you mean 'hidden_dropout_prob'?" in caplog.text
    assert "of_my_own" not in caplog.text


def test_values_from_a_text():
    config = LxmertConfig(of_my_own="a")
    config.update_from_string("l_layers=3,hidden_dropout_prob=0,task_qa=No,hidden_act=relu,of_my_own=b=c")
    assert (config.l_layers, config.hidden_dropout_prob, config.task_qa) == (3, 0.0, False)
    assert (config.hidden_act, config.of_my_own) == ("relu", "b=c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("l_layers", "must hold values of the config as name=value, got 'l_layers'"),
        ("layers=3", "must hold values of the config as name=value, got 'layers=3'"),
        ("l_layers=2.5", "l_layers must be of type int, got '2.5'"),
        ("task_qa=maybe", "task_qa must be of type bool, got 'maybe'"),
        ("id2label=a", "id2label cannot be set from text, since it is of type NoneType; use update"),
        ("vocab_size=9,hidden_size=37", "hidden_size must be a multiple of num_attention_heads"),
    ],
)
def test_texts_that_set_nothing(text, message):
    config = LxmertConfig()
    with pytest.raises(ValueError, match=message):
        config.update_from_string(text)
    assert config == LxmertConfig()


def test_a_config_without_upstreams_defaults_reads_as_the_same():
    config = LxmertConfig(l_layers=2, output_attentions=True, pad_token_id=3, tie_word_embeddings=True)
    values = json.loads(config.to_json_string(use_diff=True))
    assert values == config.to_diff_dict()
    assert values["output_attentions"] and values["pad_token_id"] == 3 and values["hidden_size"] == 768
    assert not {"output_hidden_states", "return_dict", "tie_word_embeddings"} & set(values)
    assert "return_dict" in config.to_dict()
    again = LxmertConfig.from_dict(values)
    assert all(getattr(again, name) == getattr(config, name) for name in config.to_dict())


@pytest.mark.parametrize(
    ("size", "new", "multiple", "expected"),
    [(37, 40, None, 40), (37, None, 8, 40), (37, 41, 8, 48), (37, 40, 8, 40), (37, None, None, None)],
)
def test_a_vocabulary_is_padded(size, new, multiple, expected):
    assert padded_size(size, new, multiple) == expected


@pytest.mark.parametrize(
    ("new", "multiple", "error"),
    [(0, None, ValueError), (4, 0, ValueError), (True, 8, TypeError), (4, 2.0, TypeError)],
)
def test_a_vocabulary_of_no_size(new, multiple, error):
    with pytest.raises(error, match="must be an integer of at least 1"):
        padded_size(37, new, multiple)


def test_sizes_of_numpy_are_pythons():
    """Which json can write."""
    assert type(padded_size(37, np.int64(40), np.int64(8))) is int
