"""What a run starts from: every kind of checkpoint, its answer head, frozen weights; and what changes a run's steps."""

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support.golden import GOLDEN, golden_state_dict
from support.models import tiny_config, tiny_model

from conversion.answers import BIAS, KERNEL
from conversion.models import state_dict
from conversion.source import open_source
from lxmert_tf import (
    LxmertConfig,
    TFLxmertForPreTraining,
    TFLxmertForQuestionAnswering,
    TFLxmertForVisualReasoning,
)
from lxmert_tf.answers import read_answers
from lxmert_tf.data.features.build import build_features
from lxmert_tf.demo.dataset import write_dataset
from lxmert_tf.training import run as training
from lxmert_tf.training.evaluation import Evaluator
from lxmert_tf.training.initialization import HEAD, freeze, from_checkpoint, open_start, with_answers
from lxmert_tf.training.options import TrainOptions
from lxmert_tf.training.run import train

NAMES = ["cat", "two", "unseen", "dog", "the red"]  # of the target: rows 3, 1, -, 0, 4 of the source
SOURCE = ["dog", "2", "horse", "cat", "red", "bird"]
ROWS = [3, 1, -1, 0, 4]
# TensorFlow says so of the functions in tf.data
eager_but_for_data = pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`")
SMALL = {
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "l_layers": 1,
    "r_layers": 0,
    "x_layers": 1,
}


def started(model_class, source, answers=NAMES, config=None, **options):
    """The weights, by PyTorch names, of a model that starts from `source`."""
    checkpoint = open_source(source, config)
    model = from_checkpoint(model_class, checkpoint, with_answers(checkpoint.config, answers), answers, **options)
    return state_dict(model)


def backbone(tensors) -> dict[str, np.ndarray]:
    return {name: tensors[name] for name in tensors if name.startswith("lxmert.")}


def head(tensors) -> dict[str, np.ndarray]:
    return {name: tensors[name] for name in tensors if name.startswith(HEAD)}


def assert_equal(found, expected) -> None:
    assert expected
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def pretrained():
    """A pretraining model whose config names its answers."""
    model = tiny_model(TFLxmertForPreTraining, num_qa_labels=len(SOURCE))
    model.config = with_answers(model.config, SOURCE)
    return model


# The weights


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "hf_pt_pretraining/model.safetensors",
        "hf_pt_pretraining/pytorch_model.bin",
        "hf_tf_pretraining/tf_model.h5",
        "hf_tf_pretraining/model.safetensors",
        "original/Epoch20_LXRT.pth",
    ],
)
def test_starts_from_every_format(path):
    config = LxmertConfig.from_pretrained(GOLDEN / "hf_pt_pretraining")
    own = None if (GOLDEN / path).with_name("config.json").exists() else config  # a .pth file has none
    source = golden_state_dict("hf_pt_pretraining")
    names = [f"answer {row}" for row in range(config.num_qa_labels)]
    found = started(TFLxmertForQuestionAnswering, GOLDEN / path, names[::-1], own, init_answers=names)
    assert_equal(found, backbone(source))
    last = {KERNEL: source[KERNEL][::-1], BIAS: source[BIAS][::-1]}
    assert_equal(found, {**head(source), **last})


def test_starts_from_a_bare_backbone():
    source = golden_state_dict("hf_pt_model")
    found = started(TFLxmertForQuestionAnswering, GOLDEN / "hf_pt_model")
    assert_equal(found, {f"lxmert.{name}": value for name, value in source.items()})
    assert found[KERNEL].shape[0] == len(NAMES)


def test_starts_from_a_fine_tuned_model_of_the_original():
    config = LxmertConfig.from_pretrained(GOLDEN / "hf_pt_pretraining")
    source = open_source(GOLDEN / "original" / "vqa_BEST.pth", config).tensors
    names = [f"answer {row}" for row in range(len(source[KERNEL]))]
    found = started(
        TFLxmertForQuestionAnswering, GOLDEN / "original" / "vqa_BEST.pth", names, config, init_answers=names
    )
    assert_equal(found, {name: source[name] for name in source})


def test_starts_from_the_one_of_several_that_is_named(tmp_path):
    source = load_file(GOLDEN / "hf_pt_pretraining" / "model.safetensors")
    both = {
        f"{prefix}.{name}": array + shift for prefix, shift in (("a", 0), ("b", 1)) for name, array in source.items()
    }
    save_file(both, tmp_path / "both.safetensors")
    config = LxmertConfig.from_pretrained(GOLDEN / "hf_pt_pretraining")
    start = open_start(str(tmp_path / "both.safetensors"), config, prefix="b")
    assert_equal(start.tensors, {name: array + 1 for name, array in source.items()})
    with pytest.raises(ValueError, match="holds 2 LXMERT models"):
        open_start(str(tmp_path / "both.safetensors"), config)
    with pytest.raises(ValueError, match="prefix is where a checkpoint's LXMERT is"):
        TrainOptions("vqa", train=("a",), features="b", output="c", config="d", prefix="b")


# The answer head


def test_rows_of_equal_answers_are_the_checkpoints_and_the_others_zero(tmp_path):
    model = pretrained()
    model.save_pretrained(tmp_path)
    source, found = state_dict(model), started(TFLxmertForQuestionAnswering, tmp_path)
    assert_equal(found, backbone(source))
    for name in (KERNEL, BIAS):
        expected = np.stack([source[name][row] if row >= 0 else 0 * source[name][0] for row in ROWS])
        np.testing.assert_array_equal(found[name], expected)
    assert_equal(found, {name: value for name, value in head(source).items() if name not in (KERNEL, BIAS)})


def test_an_answer_table_names_the_rows_where_the_config_does_not(tmp_path, caplog):
    model = tiny_model(TFLxmertForPreTraining, num_qa_labels=len(SOURCE))
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "all_ans.json").write_text(json.dumps([{"ans": answer, "dsets": ["vqa"]} for answer in SOURCE]))
    table = read_answers(tmp_path / "all_ans.json").answers
    source = state_dict(model)
    found = started(TFLxmertForQuestionAnswering, tmp_path / "model", init_answers=table)
    np.testing.assert_array_equal(found[KERNEL][[0, 1, 3, 4]], source[KERNEL][[3, 1, 0, 4]])
    caplog.clear()
    found = started(TFLxmertForQuestionAnswering, tmp_path / "model")
    assert "--init-answers all_ans.json" in caplog.text
    assert (found["answer_head.logit_fc.0.weight"] != source["answer_head.logit_fc.0.weight"]).all()
    with pytest.raises(ValueError, match="has a head of 6 answers, but 5 names"):
        started(TFLxmertForQuestionAnswering, tmp_path / "model", init_answers=NAMES)


def test_a_head_that_is_not_to_be_loaded_is_new(tmp_path):
    model = pretrained()
    model.save_pretrained(tmp_path)
    source = state_dict(model)
    found = started(TFLxmertForQuestionAnswering, tmp_path, load_answers=False)
    assert_equal(found, backbone(source))
    assert (found["answer_head.logit_fc.0.weight"] != source["answer_head.logit_fc.0.weight"]).all()
    assert (np.abs(found[KERNEL]).sum(1) > 0).all()


def test_nlvr2_starts_with_a_new_head_unless_it_starts_from_nlvr2(tmp_path):
    models = {"pre": pretrained(), "nlvr2": tiny_model(TFLxmertForVisualReasoning)}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    first = "answer_head.logit_fc.0.weight"
    source = {name: state_dict(model) for name, model in models.items()}
    new = started(TFLxmertForVisualReasoning, tmp_path / "pre", None)
    assert_equal(new, backbone(source["pre"]))
    assert new[first].shape == (24, 24)
    assert_equal(started(TFLxmertForVisualReasoning, tmp_path / "nlvr2", None), source["nlvr2"])
    fresh = started(TFLxmertForVisualReasoning, tmp_path / "nlvr2", None, load_answers=False)
    assert_equal(fresh, backbone(source["nlvr2"]))
    assert (fresh[first] != source["nlvr2"][first]).all()


def test_questions_start_with_a_new_head_from_nlvr2(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    model = tiny_model(TFLxmertForVisualReasoning)
    model.save_pretrained(tmp_path)
    found = started(TFLxmertForQuestionAnswering, tmp_path, init_answers=SOURCE)
    assert_equal(found, backbone(state_dict(model)))
    assert found[KERNEL].shape == (5, 24)
    assert "has no answer head" in caplog.text


def test_a_pattern_that_freezes_nothing_or_everything_is_refused():
    model = TFLxmertForQuestionAnswering(tiny_config(**SMALL))
    for pattern, message in {"layer_7": "matches none", "(": "not a regular expression", "": "nothing is left"}.items():
        with pytest.raises(ValueError, match=message):
            freeze(model, [pattern])


# Whole runs, on texts of one length so that there is one shape to trace


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A small set for VQA, and a pretraining checkpoint with other answers, some of them the same."""
    folder = tmp_path_factory.mktemp("data") / "vqa"
    write_dataset(folder, "vqa", num_images=40, boxes=5, feat_dim=8, pictures=False)
    build_features(folder / "features.tsv", folder / "features.h5")
    config = LxmertConfig.from_dict({**json.loads((folder / "config.json").read_text()), **SMALL})
    config.save_pretrained(folder)
    answers = [*json.loads((folder / "label2ans.json").read_text())[:1:-1], "horse"]
    model = tiny_model(TFLxmertForPreTraining, **{**with_answers(config, answers).to_dict(), "model_type": "lxmert"})
    model.save_pretrained(folder / "checkpoint")
    return folder


def run(data, output, init: str | None = "checkpoint", **changes):
    source = {"init": str(data / init)} if init else {"config": str(data / "config.json")}
    files = {name: str(data / file) for name, file in {"features": "features.h5", "vocab": "vocab.txt"}.items()}
    options = {"epochs": 2, "batch_size": 64, "learning_rate": 1e-2, "max_length": 4, "verbose": 0, "weight_decay": 0.0}
    files |= {"train": (str(data / "train.json"),), "output": str(output)}
    answers = str(data / "label2ans.json")
    return train(TrainOptions("vqa", **files, **source, answers=answers, **{**options, **changes}))


def trained(output):
    return state_dict(TFLxmertForQuestionAnswering.from_pretrained(output / "last"))


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@eager_but_for_data
def test_a_run_that_learns_nothing_stops_early_with_the_weights_it_started_from(data, tmp_path):
    options = {"epochs": 6, "learning_rate": 1e-20, "early_stopping": 2, "valid": (str(data / "valid.json"),)}
    result = run(data, tmp_path / "run", **options)
    assert (result["epochs"], result["best_epoch"]) == (3, 1)
    assert result["steps"] < 6 * result["history"][0]["step"]
    checkpoint = open_source(data / "checkpoint")
    source, found = checkpoint.tensors, trained(tmp_path / "run")
    answers = json.loads((data / "label2ans.json").read_text())
    assert_equal(found, backbone(source))
    rows = [checkpoint.config.label2id.get(answer, -1) for answer in answers]
    assert sorted(rows)[:3] == [-1, -1, 0]
    for row, taken in enumerate(rows):
        if taken >= 0:
            np.testing.assert_array_equal(found[KERNEL][row], source[KERNEL][taken])
        else:
            assert 0 < np.abs(found[KERNEL][row]).max() < 1e-18  # zero, and the updates of a rate of 1e-20
    assert run(data, tmp_path / "run", **options) == result  # finished


def falling(result) -> float:
    """The first training loss; it falls."""
    values = [row["loss"] for row in result["history"]]
    assert np.isfinite(values).all()
    assert values[-1] < values[0]
    return values[0]


@pytest.fixture(scope="module")
def frozen(data, tmp_path_factory):
    """A run with a part of the model frozen: its directory and first loss, which is the usual one."""
    output = tmp_path_factory.mktemp("runs") / "frozen"
    return output, falling(run(data, output, freeze=("embeddings/", "encoder/layer_0/")))


@pytest.mark.slow
def test_frozen_weights_stay_and_the_others_move(data, frozen):
    source, found = open_source(data / "checkpoint").tensors, backbone(trained(frozen[0]))
    moved = {name for name in found if not np.array_equal(source[name], found[name])}
    named = {name for name in found if name.startswith(("lxmert.embeddings.", "lxmert.encoder.layer.0."))}
    unread = {name for name in found if ".x_layers.0.visn_" in name}  # by the answer head
    assert len(named) > 16
    assert not moved & named
    assert {name for name in found if name.endswith("weight")} - named - unread <= moved


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@eager_but_for_data
def test_cross_entropy_is_another_loss_that_the_model_keeps_and_accuracy_is_the_same(data, tmp_path, frozen):
    questions = json.loads((data / "valid.json").read_text())
    for number, question in enumerate(questions):
        best = next(iter(question["label"]))
        other = "no" if best == "yes" else "yes"
        question["label"] = ({best: 1.0}, {best: 0.9, other: 0.9}, {"of no table": 1.0})[number % 3]
    valid = tmp_path / "valid.json"
    valid.write_text(json.dumps(questions))
    result = run(data, tmp_path / "run", loss="ce", valid=(str(valid),))
    assert falling(result) < 0.5 * frozen[1]  # one term, against the sum over 19 answers
    evaluator = Evaluator("vqa", str(tmp_path / "run" / "last"), str(data / "features.h5"), batch_size=13)
    assert evaluator.model.config.problem_type == "single_label_classification"
    found = evaluator.evaluate([str(valid)], verbose=0)
    assert found["accuracy"] == pytest.approx(result["history"][-1]["val_accuracy"], rel=1e-6)
    assert found["loss"] == pytest.approx(result["history"][-1]["val_loss"], rel=1e-5)
    assert result["best"] == max(row["val_accuracy"] for row in result["history"])
    config = LxmertConfig.from_pretrained(frozen[0] / "last")
    assert config.problem_type == "multi_label_classification"


@pytest.mark.slow
def test_compiled_with_xla_a_run_is_the_same(data, tmp_path, frozen):
    found = falling(run(data, tmp_path, freeze=("embeddings/", "encoder/layer_0/"), jit=True))
    assert found == pytest.approx(frozen[1], rel=1e-4)  # float32 in another order, through an epoch of updates


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@eager_but_for_data
def test_mixed_precision_with_accumulation_and_rates_by_layer_learns(data, tmp_path, capsys):
    options = {"precision": "mixed_bfloat16", "accumulate": 2, "layer_decay": 0.5, "limit": 30}
    result = run(data, tmp_path, init=None, learning_rate=3e-2, epochs=3, verbose=2, **options)
    falling(result)
    unused = result["steps"] % 2
    assert result["history"][-1]["updates"] == (result["steps"] - unused) // 2
    assert (f"The last {unused} step will change nothing" in capsys.readouterr().out) == bool(unused)
    assert {value.dtype.name for value in trained(tmp_path).values()} == {"float32"}


# What is refused


def test_accumulation_on_several_devices_is_refused_before_anything_is_written(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "make_strategy", lambda: SimpleNamespace(num_replicas_in_sync=2))
    with pytest.raises(ValueError, match="accumulate works on one device only, and there are 2"):
        run(data, tmp_path / "run", accumulate=2)
    assert not (tmp_path / "run").exists()


def test_what_failed_before_it_began_may_be_started_with_other_options(data, tmp_path):
    for wrong in ({"init": "nowhere"}, {"freeze": ("layer_7",)}):
        with pytest.raises((ValueError, FileNotFoundError), match=r"nowhere|layer_7"):
            run(data, tmp_path, **wrong)
        assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="layer_8"):
        run(data, tmp_path, freeze=("layer_8",))
