"""`from_pretrained` and `save_pretrained` with upstream's arguments, in both frameworks, and parts of models."""

import gc
import json
import logging
import pickle
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from support.golden import GOLDEN
from support.models import TASK_MODELS, batch, tiny_config, tiny_model

import lxmert_pt
import lxmert_tf
from conversion import load_into, load_state_dict
from conversion.convert import convert
from conversion.models import state_dict
from lxmert_tf import LxmertConfig, TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertModel
from lxmert_tf.optimizers import layer_rate_factors
from lxmert_tf.upstream_arguments import ARGUMENTS

LAST = "answer_head.logit_fc.3.weight"
FAMILIES = {"keras": TFLxmertForQuestionAnswering, "pytorch": lxmert_pt.LxmertForQuestionAnswering}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A directory with a model for question answering, as PyTorch's."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_model().save_pretrained(folder, format="hf-pt")
    return folder


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def weights(model) -> dict[str, np.ndarray]:
    if isinstance(model, torch.nn.Module):
        return {name: value.numpy() for name, value in model.state_dict().items()}
    return state_dict(model)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


# Where the weights are


def test_a_subfolder(family, saved):
    model = family.from_pretrained(saved.parent, subfolder=saved.name)
    assert same(weights(model), load_state_dict(saved))
    assert LxmertConfig.from_pretrained(saved.parent, subfolder=saved.name) == LxmertConfig.from_pretrained(saved)
    with pytest.raises(FileNotFoundError, match="has no folder 'elsewhere'"):
        family.from_pretrained(saved, subfolder="elsewhere")


def test_safetensors_or_not(family, saved, tmp_path):
    model = family.from_pretrained(saved)
    for format in ("hf-pt-bin", "hf-pt"):
        model.save_pretrained(tmp_path, format=format)
    torch.save({}, tmp_path / "pytorch_model.bin")  # nothing that could be loaded
    assert same(weights(family.from_pretrained(tmp_path, use_safetensors=True)), weights(model))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin"):
        family.from_pretrained(tmp_path, use_safetensors=False)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"must hold one of model\.safetensors, model\.safetensors\.index\.json or"
    ):
        family.from_pretrained(tmp_path, use_safetensors=True)


def test_a_state_dict_in_place_of_the_files(saved):
    other = weights(lxmert_pt.LxmertForQuestionAnswering(tiny_config()))
    state = {name: torch.tensor(value) for name, value in other.items()}
    model = lxmert_pt.LxmertForQuestionAnswering.from_pretrained(saved, state_dict=state)
    assert same(weights(model), other)
    assert model.config == LxmertConfig.from_pretrained(saved)


# What is made of them


@pytest.mark.parametrize("format", ["keras", "hf-pt"])
def test_a_loaded_model_shares_no_memory(saved, tmp_path, format):
    tiny_model().save_pretrained(tmp_path, format=format)
    before = load_state_dict(tmp_path)
    given = {name: value.copy() for name, value in before.items()}
    for source in (tmp_path, given):
        model = TFLxmertForQuestionAnswering.from_pretrained(source, config=tiny_model().config)
        assert same(state_dict(model), before)
        for variable in model.variables:
            variable.assign(variable + 1)
        after = load_state_dict(tmp_path)
        assert same(after, before)
        assert same(given, before)


def test_nothing_is_kept_of_a_model_that_is_gone(saved):
    model = TFLxmertForQuestionAnswering.from_pretrained(saved)
    loaded = weakref.ref(model.weights[0])
    del model
    gc.collect()
    assert loaded() is None
    with pytest.raises(ValueError, match="misshapen"):
        TFLxmertForQuestionAnswering.from_pretrained(saved, num_qa_labels=7)
    gc.collect()
    left = [each for each in gc.get_objects() if isinstance(each, TFLxmertForQuestionAnswering)]
    assert not [each for each in left if each.config.num_qa_labels == 7]


def test_values_of_the_config_are_set(family, saved, caplog):
    caplog.set_level(logging.INFO, "lxmert_tf")
    options = {"output_attentions": True, "hidden_dropout_prob": 0.5, "pad_token_id": 7, "finetuning_task": "vqa"}
    model = family.from_pretrained(saved, **options)
    assert {name: getattr(model.config, name) for name in options} == options
    assert same(weights(model), load_state_dict(saved))
    with pytest.raises(ValueError, match=r"the config says num_qa_labels=9, the tensors 5.*\n.*logit_fc"):
        family.from_pretrained(saved, num_qa_labels=9)
    model = family.from_pretrained(saved, num_qa_labels=9, ignore_mismatched_sizes=True)
    assert model.get_qa_logit_layer().bias.shape == (9,)
    with pytest.raises(ValueError, match="hidden_dropout_prob must be a number"):
        family.from_pretrained(saved, hidden_dropout_prob=2)


def test_names_of_answers_go_with_their_number(family, saved, tmp_path):
    config = LxmertConfig.from_pretrained(saved, id2label={row: f"answer {row}" for row in range(5)})
    family.from_pretrained(saved, config=config).save_pretrained(tmp_path)
    fewer = family.from_pretrained(tmp_path, num_qa_labels=2, ignore_mismatched_sizes=True)
    assert fewer.config.id2label == {0: "answer 0", 1: "answer 1"}
    assert family.from_pretrained(tmp_path, num_qa_labels=9, ignore_mismatched_sizes=True).config.id2label is None
    assert family.from_pretrained(tmp_path, num_labels=5).config.id2label[4] == "LABEL_4"


def test_the_dtype_by_any_name(family, saved, tmp_path):
    family.from_pretrained(saved, torch_dtype="float64").save_pretrained(tmp_path)
    for options in ({"dtype": "auto"}, {"torch_dtype": torch.float64}):
        model = family.from_pretrained(tmp_path, **options)
        assert {str(value.dtype) for value in weights(model).values()} == {"float64"}
    assert {str(value.dtype) for value in weights(family.from_pretrained(tmp_path)).values()} == {"float32"}


def test_what_was_loaded_is_returned(family, saved):
    same_size = family.from_pretrained(saved, output_loading_info=True)[1]
    assert same_size == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}
    _, info = family.from_pretrained(saved, num_qa_labels=9, ignore_mismatched_sizes=True, output_loading_info=True)
    bias = LAST.replace("weight", "bias")
    assert info["mismatched_keys"] == [(bias, (5,), (9,)), (LAST, (5, 24), (9, 24))]
    assert info["missing_keys"] == info["unexpected_keys"] == []
    backbone = lxmert_tf.TFLxmertModel if family is TFLxmertForQuestionAnswering else lxmert_pt.LxmertModel
    assert LAST in backbone.from_pretrained(saved, output_loading_info=True)[1]["unexpected_keys"]
    pretraining = getattr(
        lxmert_tf if family is TFLxmertForQuestionAnswering else lxmert_pt,
        family.__name__.replace("QuestionAnswering", "PreTraining"),
    )
    assert "cls.predictions.bias" in pretraining.from_pretrained(saved, output_loading_info=True)[1]["missing_keys"]
    with_decoder = GOLDEN / "hf_pt_pretraining/pytorch_model.bin"  # which is tied, and no tensor of its own
    assert pretraining.from_pretrained(with_decoder, output_loading_info=True)[1]["unexpected_keys"] == []


def test_a_keras_model_is_named(saved):
    model = TFLxmertForQuestionAnswering.from_pretrained(saved, name="mine", trainable=False)
    assert (model.name, model.trainable_weights) == ("mine", [])
    assert same(weights(model), load_state_dict(saved))


# Arguments with nothing to do, and wrong ones


def test_arguments_with_nothing_to_do_are_left_out_in_one_line(family, saved, caplog):
    caplog.set_level(logging.WARNING, "lxmert_tf")
    moot = {"from_pt": True, "from_tf": True, "low_cpu_mem_usage": True, "device_map": "auto"}
    model = family.from_pretrained(saved, **moot, from_flax=False, quantization_config=None)
    assert same(weights(model), load_state_dict(saved))
    [record] = caplog.records
    assert record.getMessage().startswith(f"{family.__name__}.from_pretrained leaves out from_pt: the format is read")
    assert all(name in record.getMessage() for name in moot)
    assert "from_flax" not in record.getMessage()


def test_what_would_change_the_numbers_is_refused(family, saved):
    with pytest.raises(ValueError, match="does not take load_in_8bit=True: load the model, then quantise it"):
        family.from_pretrained(saved, load_in_8bit=True)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [("num_qa_label", "num_qa_labels"), ("ignore_mismatch_sizes", "ignore_mismatched_sizes"), ("form_pt", "from_pt")],
)
def test_an_unknown_argument_names_the_nearest(family, saved, wrong, near):
    message = rf"^{family.__name__}\.from_pretrained got an unexpected argument '{wrong}'; did you mean '{near}'"
    with pytest.raises(TypeError, match=message):
        family.from_pretrained(saved, **{wrong: 3})
    with pytest.raises(
        TypeError, match=r"save_pretrained got an unexpected argument 'safe_serialisation'; did you mean"
    ):
        family.from_pretrained(saved).save_pretrained(saved, safe_serialisation=True)


def test_every_argument_of_upstream_says_what_becomes_of_it():
    for name, argument in ARGUMENTS.items():
        assert sum(map(bool, (argument.alias, argument.moot, argument.instead))) == 1, name


# Saving


def test_safe_serialization_is_a_format(family, saved, tmp_path):
    model = family.from_pretrained(saved)
    for safe, name in ((True, "model.safetensors"), (False, None), (None, None)):
        model.save_pretrained(folder := tmp_path / str(safe), safe_serialization=safe)
        default = "model.weights.h5" if family is TFLxmertForQuestionAnswering else "pytorch_model.bin"
        default = "model.safetensors" if safe is None and default.endswith("bin") else default
        assert sorted(file.name for file in folder.iterdir()) == sorted(["README.md", "config.json", name or default])
    with pytest.raises(ValueError, match="format='hf-pt' contradicts safe_serialization=False"):
        model.save_pretrained(tmp_path, format="hf-pt", safe_serialization=False)


def test_shards_of_a_size_in_words(family, saved, tmp_path):
    model = family.from_pretrained(saved)
    model.save_pretrained(tmp_path / "many", format="hf-pt", max_shard_size="20KB")
    assert len(list((tmp_path / "many").glob("model-*.safetensors"))) > 1
    assert same(weights(family.from_pretrained(tmp_path / "many")), weights(model))
    model.save_pretrained(tmp_path / "one", format="keras", max_shard_size="5GB")
    with pytest.raises(
        ValueError, match=r"keras is a single file, and the tensors take .* more than max_shard_size=1KB"
    ):
        model.save_pretrained(tmp_path / "none", format="keras", max_shard_size="1KB")
    with pytest.raises(ValueError, match="max_shard_size must be a number of bytes such as 2GB or 500MB, got 'big'"):
        model.save_pretrained(tmp_path / "none", max_shard_size="big")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_saved_model_beside_the_weights(saved, tmp_path):
    model = TFLxmertForQuestionAnswering.from_pretrained(saved)
    model.save_pretrained(tmp_path, saved_model=True, version=3)
    served = tf.saved_model.load(tmp_path / "saved_model" / "3").signatures["serving_default"]
    inputs = batch(model)
    scores = served(**{name: tf.constant(value) for name, value in inputs.items()})["question_answering_score"]
    np.testing.assert_allclose(scores, model(inputs).question_answering_score, atol=1e-5)
    assert same(weights(TFLxmertForQuestionAnswering.from_pretrained(tmp_path)), weights(model))


def test_other_processes_than_the_main_one_write_nothing(saved, tmp_path):
    model = lxmert_pt.LxmertForQuestionAnswering.from_pretrained(saved)
    state = {name: value * 2 for name, value in model.state_dict().items()}
    model.save_pretrained(tmp_path / "other", is_main_process=False)
    assert not (tmp_path / "other").exists()
    model.save_pretrained(tmp_path / "main", state_dict=state)
    assert same(load_state_dict(tmp_path / "main"), {name: value.numpy() for name, value in state.items()})


# Parts of models, and models in name scopes


@pytest.mark.slow
@pytest.mark.parametrize("model_class", TASK_MODELS, ids=lambda c: c.__name__)
def test_the_backbone_of_a_task_model_is_a_model(model_class, tmp_path):
    model = tiny_model(model_class)
    expected = {name.removeprefix("lxmert."): v for name, v in state_dict(model).items() if name.startswith("lxmert.")}
    assert same(state_dict(model.lxmert), expected)
    assert same(load_state_dict(model.lxmert), expected)
    for format in ("keras", "hf-tf"):
        model.lxmert.save_pretrained(tmp_path / format, format=format)
        assert same(state_dict(TFLxmertModel.from_pretrained(tmp_path / format)), expected)
    convert(model.lxmert, tmp_path / "converted", to="hf-pt")
    assert same(load_state_dict(tmp_path / "converted"), expected)
    assert json.loads((tmp_path / "converted/config.json").read_text())["architectures"] == ["LxmertModel"]
    other = tiny_model(model_class, seed=1)
    load_into(other.lxmert, tmp_path / "converted")
    assert same(state_dict(other.lxmert), expected)


def test_a_name_scope_is_in_paths_and_nowhere_else(tmp_path):
    plain = tiny_model()
    with keras.name_scope("outer"), keras.name_scope("inner"):
        scoped = tiny_model()
    assert {variable.path.split("/")[:2] == ["outer", "inner"] for variable in scoped.weights} == {True}
    assert same(state_dict(scoped), state_dict(plain))
    scoped.save_pretrained(tmp_path / "directory")
    scoped.save(tmp_path / "model.keras")
    for again in (
        TFLxmertForQuestionAnswering.from_pretrained(tmp_path / "directory"),
        keras.saving.load_model(tmp_path / "model.keras"),
    ):
        assert same(state_dict(again), state_dict(plain))
    with keras.name_scope("elsewhere"):
        again = TFLxmertForQuestionAnswering.from_pretrained(tmp_path / "directory")
    assert same(state_dict(again), state_dict(plain))
    again.resize_num_qa_labels(7)
    assert state_dict(again)[LAST].shape == (7, 24)
    assert sorted(layer_rate_factors(scoped, 0.5).values()) == sorted(layer_rate_factors(plain, 0.5).values())


# Upstream's configs


class UpstreamConfig:
    """As a `transformers.LxmertConfig` looks from outside."""

    model_type = "lxmert"

    def __init__(self, **values):
        self.values = values

    def to_dict(self):
        return {
            **self.to_diff_dict(),
            "id2label": {0: "LABEL_0", 1: "LABEL_1"},
            "label2id": {"LABEL_0": 0, "LABEL_1": 1},
        }

    def to_diff_dict(self):
        return {**self.values, "model_type": self.model_type, "transformers_version": "5.0.0"}


def test_upstreams_config_is_taken_over(family, saved):
    ours = tiny_config()
    theirs = UpstreamConfig(**{k: v for k, v in ours.to_dict().items() if k not in ("layer_norm_eps", "model_type")})
    model = family(theirs)
    assert isinstance(model.config, LxmertConfig)
    assert model.config.transformers_version == "5.0.0"
    del model.config.extra["transformers_version"]
    assert model.config == ours
    loaded = family.from_pretrained(saved, config=UpstreamConfig(**{**theirs.values, "hidden_act": "relu"}))
    assert loaded.config.hidden_act == "relu"
    assert same(load_state_dict(saved, config=theirs), load_state_dict(saved))
    with pytest.raises(ValueError, match="model_type must be 'lxmert', got 'bert'"):
        family(type("BertConfig", (UpstreamConfig,), {"model_type": "bert"})())
    with pytest.raises(TypeError, match="config must be an LxmertConfig, got dict"):
        family({})


# What scripts read


def test_what_scripts_read(family, saved):
    model = family.from_pretrained(str(saved))
    assert (family.base_model_prefix, family.main_input_name) == ("lxmert", "input_ids")
    assert model.name_or_path == model.config.name_or_path == str(saved)
    assert family(tiny_config()).name_or_path == ""
    assert "name_or_path" not in model.config.to_json_string()
    numbers = sum(value.size for value in load_state_dict(saved).values())
    assert model.num_parameters() == model.num_parameters(only_trainable=True) == numbers
    assert model.get_output_embeddings() is None
    assert (model.num_qa_labels, family.can_generate()) == (5, False)
    assert model.resize_token_embeddings() is model.get_input_embeddings()
    assert model.config.vocab_size == 37
    assert model(**model.dummy_inputs).question_answering_score.shape == (2, 5)


def test_parameters_that_are_not_trained(saved):
    model = TFLxmertForQuestionAnswering.from_pretrained(saved)
    everything = model.num_parameters()
    model.lxmert.trainable = False
    head = sum(variable.numpy().size for variable in model.answer_head.weights)
    assert (model.num_parameters(), model.num_parameters(only_trainable=True)) == (everything, head)
    reference = lxmert_pt.LxmertForQuestionAnswering.from_pretrained(saved)
    reference.lxmert.requires_grad_(False)
    assert reference.num_parameters(only_trainable=True) == head
    tables = sum(table.weight.numel() for table in reference.modules() if isinstance(table, torch.nn.Embedding))
    assert reference.num_parameters(exclude_embeddings=True) == everything - tables
    assert (reference.base_model, reference.device.type) == (reference.lxmert, "cpu")


def test_the_head_of_words():
    model = tiny_model(TFLxmertForPreTraining)
    assert model.get_output_embeddings() is model.get_input_embeddings()
    assert model.get_lm_head() is model.cls.predictions
    bias = model.get_bias()["bias"]
    np.testing.assert_array_equal(bias, state_dict(model)["cls.predictions.bias"])
    assert tiny_model().get_bias() is None and tiny_model().get_lm_head() is None
    reference = lxmert_pt.LxmertForPreTraining(tiny_config())
    assert reference.get_output_embeddings().weight is reference.get_input_embeddings().weight
    for each in (model, reference):
        assert each(**each.dummy_inputs).prediction_logits.shape == (2, 3, 37)


def test_other_word_embeddings():
    model = lxmert_pt.LxmertForPreTraining(tiny_config())
    model.set_input_embeddings(table := torch.nn.Embedding(40, 12, padding_idx=0))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight is table.weight
    assert model.config.vocab_size == 40
    assert model(**model.dummy_inputs).prediction_logits.shape == (2, 3, 40)
    with pytest.raises(ValueError, match="value must be 12 wide, got 13"):
        model.set_input_embeddings(torch.nn.Embedding(40, 13))


def test_a_model_from_a_config():
    config = tiny_config(l_layers=1)
    for given in (config, config.to_dict(), TFLxmertForQuestionAnswering(config).get_config()):
        assert TFLxmertForQuestionAnswering.from_config(given).config == config


def test_signature_and_dummies_are_tensors_of_calls():
    model = tiny_model()
    assert {name: spec.dtype for name, spec in model.input_signature.items()} == {
        **dict.fromkeys(("input_ids", "attention_mask", "visual_attention_mask", "token_type_ids"), tf.int32),
        **dict.fromkeys(("visual_feats", "visual_pos"), tf.float32),
    }
    assert {name: value.dtype for name, value in model.dummy_inputs.items()} == {
        name: spec.dtype for name, spec in model.input_signature.items() if name in model.dummy_inputs
    }


def test_switches_among_the_inputs():
    model = tiny_model()
    inputs = batch(model)
    output = model({**inputs, "output_attentions": True, "output_hidden_states": True})
    assert len(output.language_attentions) == 2 and len(output.vision_hidden_states) == 2
    assert "language_attentions" not in model({**inputs, "output_attentions": True}, output_attentions=False)
    assert isinstance(model({**inputs, "return_dict": False}), tuple)
    noisy = tiny_model(hidden_dropout_prob=0.5)
    scores = [noisy({**inputs, "training": training}).question_answering_score for training in (True, False)]
    assert not np.allclose(*scores)


def test_an_output_that_is_written_to():
    output = tiny_model()(batch(tiny_model()), return_dict=True)
    score = output.question_answering_score
    output.loss = 3.0
    assert (output["loss"], output.loss, output[0], list(output)) == (
        3.0,
        3.0,
        3.0,
        ["question_answering_score", "loss"],
    )
    assert output.to_tuple() == (3.0, score)
    output.loss = None
    assert "loss" not in output and output[0] is score
    output.comment = "mine"
    assert "comment" not in output and pickle.loads(pickle.dumps(type(output)(loss=1.0))).loss == 1.0


# Datasets


ROWS = [
    {
        "input_ids": [2, 5 + row, 3],
        "visual_feats": [[0.5] * 9] * 4,
        "visual_pos": [[0.1, 0.2, 0.3, 0.4]] * 4,
        "label": row,
        "note": "x",
    }
    for row in range(5)
]


def test_a_dataset_of_rows():
    model = tiny_model()
    dataset = model.prepare_tf_dataset(ROWS, batch_size=2, shuffle=False)
    batches = list(dataset)
    assert [labels.numpy().tolist() for _, labels in batches] == [[0, 1], [2, 3], [4]]
    inputs, _ = batches[0]
    assert {name: (value.dtype.name, value.shape.as_list()) for name, value in inputs.items()} == {
        "input_ids": ("int64", [2, 3]),
        "visual_feats": ("float32", [2, 4, 9]),
        "visual_pos": ("float32", [2, 4, 4]),
    }
    assert model(inputs).question_answering_score.shape == (2, 5)
    drawn = [labels.numpy().tolist() for _, labels in model.prepare_tf_dataset(ROWS, batch_size=2)]
    assert [len(each) for each in drawn] == [2, 2]
    model.compile(optimizer="sgd", run_eagerly=True, jit_compile=False)
    assert np.isfinite(model.fit(dataset, shuffle=False, verbose=0).history["loss"][0])
    assert set(tiny_model(TFLxmertModel).prepare_tf_dataset(ROWS, shuffle=False).element_spec) == set(inputs)


def test_a_dataset_of_rows_of_different_lengths():
    rows = [{**row, "input_ids": row["input_ids"][: 2 + index % 2]} for index, row in enumerate(ROWS)]
    model = tiny_model()
    with pytest.raises(tf.errors.InvalidArgumentError, match="The column input_ids has entries of different shapes"):
        list(model.prepare_tf_dataset(rows, shuffle=False))
    collate = lambda rows, length: {"input_ids": np.array([(r["input_ids"] + [0] * length)[:length] for r in rows])}  # noqa: E731
    dataset = model.prepare_tf_dataset(rows, shuffle=False, collate_fn=collate, collate_fn_args={"length": 4})
    assert next(iter(dataset))["input_ids"].shape == (5, 4)
    with pytest.raises(ValueError, match="The dataset has no rows"):
        model.prepare_tf_dataset([])
    with pytest.raises(ValueError, match="The dataset has the columns a, and none of input_ids"):
        model.prepare_tf_dataset([{"a": 1}])
