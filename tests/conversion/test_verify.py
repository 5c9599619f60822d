"""Two checkpoints run side by side: equal ones pass, and the first block that diverges is named."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support.checkpoints import CONFIG, PRETRAINED, SOURCES, golden, run, saved
from support.golden import GOLDEN, REL64, ROOT

from conversion import run_models as blocks
from conversion.convert import convert
from conversion.formats import open_checkpoint
from conversion.verify import verify
from lxmert_tf import LxmertConfig

QA = GOLDEN / "hf_pt_qa"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")


def changed(name: str, factor: float = 1.01) -> dict[str, np.ndarray]:
    tensors = golden()
    tensors[name] = tensors[name] * np.float32(factor)
    return tensors


# Equal ones


def test_a_conversion_is_equal_in_both_frameworks(tmp_path):
    convert(SOURCES["original"], tmp_path / "keras", to="keras", config=CONFIG)
    report = verify(SOURCES["original"], tmp_path / "keras")
    assert report.equal and report.packages == ["lxmert_tf", "lxmert_pt"] and report.first_divergence is None
    config = LxmertConfig.from_json_file(CONFIG)
    expected = [name for _, name in blocks.output_order(config) if name != "logits"]
    assert [output.name for output in report.outputs] == expected
    for output in report.outputs:
        assert list(output.errors) == ["lxmert_tf", "lxmert_pt", "a in both"]
        assert output.errors["lxmert_tf"].max == output.errors["lxmert_pt"].max == 0
        assert 0 <= output.errors["a in both"].max < REL64 and output.errors["a in both"].scale > 0.01
    assert any(output.errors["a in both"].max > 0 for output in report.outputs), "one framework was run twice"
    assert report.lines()[-1] == f"equal within 1e-05: 170 tensors, {len(expected)} outputs in lxmert_tf and lxmert_pt"


def test_inputs_have_masks_and_every_token_type():
    inputs = blocks.example_inputs(LxmertConfig.from_json_file(CONFIG))
    for mask in ("attention_mask", "visual_attention_mask"):
        assert 0 < inputs[mask].mean() < 1 and inputs[mask].any(axis=1).all()
    assert set(inputs["token_type_ids"].flatten()) == {0, 1}
    assert len(np.unique(inputs["input_ids"])) > 20
    again = blocks.example_inputs(LxmertConfig.from_json_file(CONFIG))
    assert all(np.array_equal(inputs[name], again[name]) for name in inputs)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("a", "b", "outputs"),
    [
        ("hf_pt_model", "hf_pt_pretraining", {"pooled_output", "cross_encoder_attentions.1"}),
        ("original/nlvr2_BEST.pth", "original/nlvr2_BEST.pth", {"logits", "language_hidden_states.3"}),
        ("hf_pt_qa", "original/vqa_BEST.pth", set()),
    ],
)
def test_tasks_are_compared_in_what_they_have_in_common(a, b, outputs):
    report = verify(GOLDEN / a, GOLDEN / b)
    assert outputs <= {output.name for output in report.outputs}
    assert report.equal == bool(outputs)
    told = f"the tasks differ ({report.weights.a.task}, {report.weights.b.task}), so only what both have is compared"
    assert (told in report.notes) == (report.weights.a.task != report.weights.b.task)


def test_heads_of_other_sizes_are_other_heads_where_tasks_differ(tmp_path, only_pytorch):
    """Answers of pretraining and of fine-tuning, one image and two."""
    tensors = {name: array for name, array in golden().items() if not name.startswith(("cls", "obj_predict_head"))}
    for name in ("answer_head.logit_fc.3.weight", "answer_head.logit_fc.3.bias"):
        tensors[name] = tensors[name][:5]
    report = verify(PRETRAINED, saved(tmp_path / "qa", tensors, num_qa_labels=5))
    assert report.equal and "question_answering_score" not in {output.name for output in report.outputs}
    first = tensors["answer_head.logit_fc.0.weight"]
    pairs = {**tensors, "answer_head.logit_fc.0.weight": np.concatenate([first, first], axis=1)}
    for name in ("answer_head.logit_fc.3.weight", "answer_head.logit_fc.3.bias"):
        pairs[name] = tensors[name][:2]
    assert verify(PRETRAINED, saved(tmp_path / "pairs", pairs)).equal
    assert not verify(saved(tmp_path / "other", tensors, num_qa_labels=5), GOLDEN / "hf_pt_qa").equal


def test_a_checkpoint_without_a_config_takes_what_shapes_do_not_tell_from_the_other(tmp_path, only_pytorch):
    convert(
        SOURCES["original"],
        tmp_path / "relu",
        config=saved(tmp_path / "c", golden(), hidden_act="relu") / "config.json",
    )
    for pair in ((SOURCES["original"], tmp_path / "relu"), (tmp_path / "relu", SOURCES["original"])):
        assert verify(*pair).equal
    alone = verify(SOURCES["original"], SOURCES["original"])
    assert alone.equal and any("num_attention_heads=1 is a guess" in note for note in alone.notes)
    told = verify(SOURCES["original"], SOURCES["original"], config=CONFIG)
    assert told.equal and not told.notes


# Different ones

FIRST = {
    "lxmert.embeddings.word_embeddings.weight": ("language embeddings", "embeddings"),
    "lxmert.encoder.visn_fc.box_fc.weight": ("vision embeddings", "visn_fc"),
    "lxmert.encoder.layer.1.attention.self.query.weight": ("language layer 1", "language_attentions.1"),
    "lxmert.encoder.layer.1.output.dense.bias": ("language layer 1", "language_hidden_states.1"),
    "lxmert.encoder.r_layers.0.intermediate.dense.weight": ("vision layer 0", "vision_hidden_states.0"),
    "lxmert.encoder.x_layers.0.visual_attention.att.key.weight": ("cross layer 0", "cross_encoder_attentions.0"),
    "lxmert.encoder.x_layers.1.visn_output.dense.weight": ("cross layer 1", "vision_hidden_states.2"),
    "lxmert.pooler.dense.weight": ("pooler", "pooled_output"),
    "cls.predictions.transform.dense.weight": ("cls", "prediction_logits"),
    "cls.seq_relationship.bias": ("cls", "cross_relationship_score"),
    "answer_head.logit_fc.2.bias": ("answer_head", "question_answering_score"),
    "obj_predict_head.decoder_dict.attr.weight": ("obj_predict_head", "obj_predict_head.attr"),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_first_block_that_diverges_is_named(tmp_path, only_pytorch, name):
    report = verify(PRETRAINED, saved(tmp_path, changed(name)))
    assert not report.equal and report.differing_weights == [name]
    assert (report.first_divergence.block, report.first_divergence.name) == FIRST[name]
    assert f"{FIRST[name][0]} is the first block that diverges, in {FIRST[name][1]}" in report.lines()


def test_a_config_that_differs_shows_in_the_outputs_alone(tmp_path):
    report = verify(PRETRAINED, saved(tmp_path, golden(), hidden_act="relu"))
    assert not report.equal and not report.differing_weights
    assert report.first_divergence.name == "language_hidden_states.0"
    errors = report.first_divergence.errors
    assert errors["lxmert_tf"].max == pytest.approx(errors["lxmert_pt"].max) and errors["a in both"].max < REL64


def test_frameworks_that_disagree_are_told(monkeypatch):
    def wrong(checkpoint, inputs):
        outputs = blocks.run_pytorch(checkpoint, inputs)
        return {**outputs, "vision_attentions.0": outputs["vision_attentions.0"] * 1.001}

    monkeypatch.setattr("conversion.verify.frameworks", lambda: {"lxmert_tf": blocks.run_pytorch, "lxmert_pt": wrong})
    report = verify(PRETRAINED, PRETRAINED)
    assert not report.equal and report.first_divergence.name == "vision_attentions.0"
    assert report.first_divergence.errors["a in both"].max == pytest.approx(1e-3, rel=1e-2)


def test_the_largest_error_that_passes_is_the_users(tmp_path, only_pytorch):
    convert(PRETRAINED, tmp_path / "half", dtype="float16")
    assert not verify(PRETRAINED, tmp_path / "half").equal
    report = verify(PRETRAINED, tmp_path / "half", max_error=1e-2)
    assert report.equal and len(report.weights.values) > 100
    assert not verify(PRETRAINED, saved(tmp_path / "more", changed("lxmert.pooler.dense.bias", 1.02)), 1e-2).equal


def test_weights_that_no_input_meets_differ_too(tmp_path, only_pytorch):
    tensors = golden()
    used = blocks.example_inputs(LxmertConfig.from_json_file(CONFIG))["input_ids"]
    row = next(i for i in range(99) if i not in used)
    tensors["lxmert.embeddings.word_embeddings.weight"][row] += 1
    report = verify(GOLDEN / "hf_pt_model", saved(tmp_path, tensors))
    assert report.first_divergence is None and not report.equal


@pytest.mark.parametrize(
    ("tensors", "changes", "words"),
    [
        (lambda: {k: v for k, v in golden().items() if "pooler" not in k}, {}, "The tensors do not fit"),
        (golden, {"l_layers": 3}, "The tensors do not fit"),
        (golden, {"visual_feat_dim": 21}, "visual_feat_dim differs"),
    ],
    ids=["incomplete", "contradicted", "other features"],
)
def test_what_cannot_be_run_is_not_equal(tmp_path, tensors, changes, words):
    report = verify(PRETRAINED, saved(tmp_path, tensors(), **changes))
    assert not report.equal and report.outputs == [] and report.packages == []
    assert (
        any(note.startswith("not run: ") and words in note for note in report.notes)
        and report.lines()[-1] == "different; not run"
    )


def test_a_head_that_one_lacks_differs(tmp_path, only_pytorch):
    without = {name: array for name, array in golden().items() if not name.startswith("answer_head")}
    for changes in ({"task_qa": False}, {}):
        other = saved(tmp_path, without, **changes)
        for pair, told in (((PRETRAINED, other), "b lacks answer_head, which a"), ((other, PRETRAINED), "a lacks")):
            report = verify(*pair)
            assert not report.equal and report.first_divergence is None
            assert len(report.weights.only_a) + len(report.weights.only_b) == 6
            assert len([note for note in report.notes if told in note]) == 1


def test_heads_that_one_lacks_are_named(tmp_path, only_pytorch):
    assert "a lacks cls, obj_predict_head, which b has; that is not compared" in verify(QA, PRETRAINED).notes
    report = verify(PRETRAINED, GOLDEN / "hf_pt_model")
    assert (
        report.equal and "b lacks answer_head, cls, obj_predict_head, which a has; that is not compared" in report.notes
    )
    part = "obj_predict_head.decoder_dict.attr"
    without = {name: array for name, array in golden().items() if not name.startswith(part)}
    report = verify(saved(tmp_path, without, visual_attr_loss=False), PRETRAINED)
    assert not report.equal and f"a lacks {part}, which b has; that is not compared" in report.notes
    told = "answer_head of a and of b differ in size, so they are not compared"
    assert told in verify(PRETRAINED, GOLDEN / "original/nlvr2_BEST.pth", config=CONFIG).notes
    assert not any("lacks" in note or "differ in size" in note for note in verify(PRETRAINED, PRETRAINED).notes)


# Configs

LOSSES = {
    "task_matched": False,
    "task_mask_lm": False,
    "visual_loss_normalizer": 1 / 0.15,
}
COMPUTED = {"hidden_act": "gelu_new", "num_attention_heads": 2, "layer_norm_eps": 2e-12}
NOT_COMPUTED = {
    "hidden_dropout_prob": 0.2,
    "attention_probs_dropout_prob": 0.0,
    "initializer_range": 0.1,
    "id2label": {"0": "red", "1": "blue"},
    "output_attentions": True,
    "return_dict": False,
}


def told_of(report, field: str, pair: tuple) -> list[str]:
    """The notes on a field of the configs, which name both values."""
    return [note for note in report.notes if f"config: {field} is {pair[0]!r} in a, {pair[1]!r} in b" in note]


@pytest.mark.parametrize(("field", "value"), [*LOSSES.items(), *COMPUTED.items()])
def test_configs_that_compute_something_else_differ(tmp_path, only_pytorch, field, value):
    """Whatever the outputs: losses are none of them, and another epsilon is lost in what passes."""
    report = verify(PRETRAINED, saved(tmp_path, golden(), **{field: value}), max_error=1)
    pair = (getattr(LxmertConfig.from_json_file(CONFIG), field), value)
    assert not report.equal and report.differs and report.config == {field: pair}
    assert told_of(report, field, pair) == [f"config: {field} is {pair[0]!r} in a, {pair[1]!r} in b"]
    assert report.lines()[-1] == "different" and f"note: {told_of(report, field, pair)[0]}" in report.lines()


@pytest.mark.parametrize(
    "field", ["task_qa", "task_obj_predict", "visual_obj_loss", "visual_attr_loss", "visual_feat_loss"]
)
def test_a_switch_that_leaves_weights_unused_differs(tmp_path, only_pytorch, field):
    report = verify(PRETRAINED, saved(tmp_path, golden(), **{field: False}))
    assert not report.equal and report.config == {field: (True, False)} and not report.weights.only_a
    assert any(note.startswith("b lacks ") for note in report.notes)


@pytest.mark.parametrize(("field", "value"), NOT_COMPUTED.items())
def test_configs_that_compute_the_same_are_equal_with_a_note(tmp_path, only_pytorch, field, value):
    report = verify(PRETRAINED, saved(tmp_path, golden(), **{field: value}))
    assert report.equal and report.config == {}
    assert any(
        f"config: {field} is " in n and n.endswith(", which changes nothing that is compared") for n in report.notes
    )


@pytest.mark.parametrize(("field", "value"), [*LOSSES.items(), ("num_object_labels", 8), ("task_qa", False)])
def test_what_a_model_does_not_read_does_not_count(tmp_path, only_pytorch, field, value):
    """Losses and heads of pretraining, where questions are answered; and where tasks differ."""
    tensors = {name: array for name, array in golden().items() if not name.startswith(("cls", "obj_predict_head"))}
    plain, other = saved(tmp_path / "a", tensors), saved(tmp_path / "b", tensors, **{field: value})
    assert verify(plain, other).equal and verify(PRETRAINED, other).equal
    none = saved(tmp_path / "c", golden(), task_obj_predict=False)
    again = saved(tmp_path / "d", golden(), task_obj_predict=False, visual_loss_normalizer=1)
    assert verify(none, again).equal


def test_configs_are_not_compared_where_one_is_a_guess(only_pytorch):
    report = verify(PRETRAINED, SOURCES["original"])
    assert report.equal and report.config == {} and not any("config: " in note for note in report.notes)


# What is not finite

BROKEN = {
    "norm": ("lxmert.embeddings.LayerNorm.weight", 0, np.nan),
    "part of a block": ("lxmert.encoder.visn_fc.box_fc.bias", 3, -np.inf),
    "head": ("answer_head.logit_fc.3.bias", 2, np.inf),
    "unseen": ("lxmert.embeddings.position_embeddings.weight", 20, np.nan),
}


def broken(case: str) -> tuple[str, dict[str, np.ndarray]]:
    """The name of a tensor, and the golden ones with one value of it that is not finite."""
    name, index, value = BROKEN[case]
    tensors = golden()
    tensors[name][index if tensors[name].ndim == 1 else (index, 5)] = value
    return name, tensors


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN)
def test_what_is_not_finite_in_both_proves_nothing(tmp_path, only_pytorch, case):
    name, tensors = broken(case)
    inputs = blocks.example_inputs(LxmertConfig.from_json_file(CONFIG))
    assert inputs["input_ids"].shape[1] < 20
    source = saved(tmp_path / "x", tensors)
    expected = blocks.run_pytorch(open_checkpoint(source), inputs)
    wrong = [n for _, n in blocks.output_order(LxmertConfig.from_json_file(CONFIG)) if n in expected]
    wrong = [n for n in wrong if not np.isfinite(expected[n]).all()]
    assert bool(wrong) == (case != "unseen")
    for other in (source, saved(tmp_path / "wide", {n: array.astype("f8") for n, array in tensors.items()})):
        report = verify(source, other)
        assert not report.equal and not report.differs and report.weights.nonfinite == {name: 1}
        assert [output.name for output in report.nonfinite_outputs] == wrong
        assert any(f"{name} holds 1 value that is not finite" in note for note in report.notes)
        told = f" and {len(wrong)} output" if wrong else ""
        assert report.lines()[-1].startswith(
            "not proven equal: there are values that are not finite in 1 tensor" + told
        )
        if wrong:
            assert any(f"not finite in a or b: {wrong[0]}" in note for note in report.notes)
            assert report.first_divergence.name == wrong[0]
            assert f"is the first block that is not finite, in {wrong[0]}" in report.lines()[-2]
        assert sum("not finite" in line and "  <" in line for line in report.lines()) == len(wrong)
    assert run("verify", source, source)[0] == 1
    assert verify(source, PRETRAINED).differs and verify(PRETRAINED, source, max_error=np.inf).equal is False


def test_finite_weights_whose_outputs_are_not_finite_prove_nothing(tmp_path, only_pytorch):
    tensors = {name: array.astype("f8") for name, array in golden().items()}
    tensors["answer_head.logit_fc.3.weight"][:] = 1e308
    source = saved(tmp_path, tensors)
    report = verify(source, source)
    assert not report.equal and not report.weights.nonfinite
    assert [output.name for output in report.nonfinite_outputs] == ["question_answering_score"]
    assert report.lines()[-1] == "not proven equal: there are values that are not finite in 1 output"


def test_a_config_that_differs_is_told_though_nothing_is_finite(tmp_path):
    """In both frameworks."""
    _, tensors = broken("norm")
    report = verify(saved(tmp_path / "a", tensors), saved(tmp_path / "b", tensors, hidden_act="relu"))
    assert not report.equal and report.config == {"hidden_act": ("gelu", "relu")}
    assert report.lines()[-1] == "different" and len(report.nonfinite_outputs) > 5
    output = report.nonfinite_outputs[0]
    assert {title: error.nonfinite > 0 for title, error in output.errors.items()} == dict.fromkeys(output.errors, True)


def test_the_json_has_no_error_of_what_is_not_finite(tmp_path, only_pytorch):
    _, tensors = broken("part of a block")
    code, out, _ = run("verify", saved(tmp_path, tensors), tmp_path, "--json")
    report = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert (code, report["equal"], report["first_divergence"]["block"]) == (1, False, "vision embeddings")
    errors = {each["name"]: each["errors"]["lxmert_pt"]["max_error"] for each in report["outputs"]}
    assert (errors["embeddings"], errors["visn_fc"]) == (0, None)
    assert any("lxmert.encoder.visn_fc.box_fc.bias holds 1 value" in note for note in report["notes"])


def test_heads_that_would_be_drawn_at_random_are_not_run(tmp_path):
    without = {name: array for name, array in golden().items() if not name.startswith("answer_head")}
    checkpoint = open_checkpoint(saved(tmp_path, without))  # the config has the head
    outputs = blocks.run_pytorch(checkpoint, blocks.example_inputs(checkpoint.config))
    assert "prediction_logits" in outputs and "question_answering_score" not in outputs


def test_torch_is_not_needed(monkeypatch):
    monkeypatch.setattr("conversion.run_models.find_spec", lambda name: None)
    report = verify(PRETRAINED, SOURCES["hf-tf"])
    assert report.equal and report.packages == ["lxmert_tf"]
    assert "torch is not installed, so lxmert_pt was not run" in report.notes
    assert list(report.outputs[0].errors) == ["lxmert_tf"]


# The command line


def test_the_json_of_verify_is_stable(tmp_path, only_pytorch):
    other = saved(
        tmp_path, {**changed("lxmert.pooler.dense.weight"), "lxmert.pooler.dense.bias": np.full(32, np.nan, "f4")}
    )
    code, out, err = run("verify", PRETRAINED, other, "--json")
    report = json.loads(out, parse_constant=lambda text: pytest.fail(f"{text} is no JSON"))
    assert (code, err) == (1, "")
    assert list(report) == ["equal", "max_error", "first_divergence", "weights", "outputs", "packages", "notes"]
    assert report["first_divergence"] == {"block": "pooler", "name": "pooled_output"}
    assert report["weights"]["differing"] == ["lxmert.pooler.dense.weight", "lxmert.pooler.dense.bias"]
    first = report["outputs"][0]
    assert (list(first), first["block"], first["name"]) == (
        ["block", "name", "errors"],
        "language embeddings",
        "embeddings",
    )
    assert list(first["errors"]["lxmert_pt"]) == ["max_error", "mean_error", "scale"]
    pooled = next(output for output in report["outputs"] if output["name"] == "pooled_output")
    assert pooled["errors"]["lxmert_pt"]["max_error"] is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["{a}"],
        ["{a}", "/no/such"],
        ["{a}", "{a}", "--max-error", "-1"],
        ["{a}", "{a}", "--max-error", "nan"],
        ["{a}", "{a}", "--max-error", "x"],
        ["{a}", "{a}", "--config", "/no/such"],
        ["{a}", "{inputs}"],
    ],
    ids=str,
)
def test_bad_usage_of_verify(arguments):
    code, out, err = run("verify", *(each.format(a=PRETRAINED, inputs=GOLDEN / "inputs.npz") for each in arguments))
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("lxmert-convert verify: error: ")


@pytest.mark.slow
def test_nothing_but_the_report_is_printed():
    """TensorFlow's notes on start-up neither."""
    command = [sys.executable, "-m", "conversion", "verify", SOURCES["hf-tf"], SOURCES["hf-pt"]]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("a: ")
