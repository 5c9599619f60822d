"""What the golden files do not show of lxmert_pt: errors, masks, absent inputs, sizes, outputs, the optimiser."""

import copy
import pickle
import subprocess
import sys

import numpy as np
import pytest
from support.golden import REL64, assert_close, golden_inputs, golden_labels

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from lxmert_pt import (  # noqa: E402
    LxmertConfig,
    LxmertForPreTraining,
    LxmertForQuestionAnswering,
    LxmertForVisualReasoning,
    LxmertModel,
    LxmertModelOutput,
)
from lxmert_pt.layers.heads import LxmertVisualAnswerHead  # noqa: E402
from lxmert_pt.layers.transformer import LxmertIntermediate  # noqa: E402
from lxmert_pt.losses import cross_entropy, soft_answer_loss, visual_class_loss  # noqa: E402
from lxmert_pt.optimizers import BertAdam, linear_warmup_schedule  # noqa: E402

SIZES = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 24,
    "num_qa_labels": 11,
    "num_object_labels": 7,
    "num_attr_labels": 5,
    "visual_feat_dim": 20,
    "l_layers": 2,
    "r_layers": 1,
    "x_layers": 2,
}
MODELS = [LxmertModel, LxmertForPreTraining, LxmertForQuestionAnswering, LxmertForVisualReasoning]
WORDS = "lxmert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"


def build(model_class=LxmertModel, dtype=torch.float64, **overrides):
    torch.manual_seed(0)
    # Larger weights than a fresh model's, so that differences show.
    return model_class(LxmertConfig(**{**SIZES, "initializer_range": 0.3, **overrides})).to(dtype).eval()


def inputs(*names):
    """The golden inputs as tensors; all of them, or only those named."""
    values = {name: torch.from_numpy(value) for name, value in golden_inputs().items()}
    return {name: values[name] for name in names} if names else values


def required():
    return inputs("input_ids", "visual_feats", "visual_pos")


def labels():
    values = golden_labels()
    nested = values.pop("obj_labels")
    values = {name: torch.from_numpy(value) for name, value in values.items()}
    return {**values, "obj_labels": {name: tuple(map(torch.from_numpy, pair)) for name, pair in nested.items()}}


def pairs():
    """Inputs of visual reasoning: both images of an example differ."""
    values = inputs()
    for name in ("visual_feats", "visual_pos", "visual_attention_mask"):
        values[name] = torch.stack([values[name], values[name].roll(1, dims=0)], dim=1)
    return values


def same(actual, expected, name="value"):
    assert_close(actual.detach(), expected.detach(), REL64, name)


# Imports


def test_imports_no_other_framework():
    code = (
        "import sys, lxmert_pt; assert 'torch' not in sys.modules; lxmert_pt.LxmertModel; "
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_exports():
    import lxmert_pt

    assert all(getattr(lxmert_pt, name).__name__ == name for name in lxmert_pt.__all__)
    assert dir(lxmert_pt) == sorted(lxmert_pt.__all__)
    with pytest.raises(AttributeError, match="LxmertSomething"):
        lxmert_pt.LxmertSomething  # noqa: B018


# Errors


def broken(**changes):
    return {**inputs(), **changes}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (broken(input_ids=None), "either input_ids or inputs_embeds; got neither"),
        (broken(inputs_embeds=torch.zeros(3, 9, 32)), "either input_ids or inputs_embeds; got both"),
        (broken(visual_feats=None), "visual_feats is missing"),
        (broken(visual_pos=None), "visual_pos is missing"),
        (broken(input_ids=torch.ones(9, dtype=torch.int64)), "input_ids must have shape"),
        (broken(input_ids=None, inputs_embeds=torch.zeros(3, 9, 31)), "inputs_embeds must have shape"),
        (broken(visual_feats=torch.zeros(3, 6)), "visual_feats must have shape"),
        (broken(visual_feats=torch.zeros(3, 6, 21)), r"visual_feats must .*\[3, 6, 20\]; got \[3, 6, 21\]"),
        (broken(visual_feats=torch.zeros(2, 6, 20)), r"visual_feats must .*\[3, 6, 20\]; got \[2, 6, 20\]"),
        (broken(visual_pos=torch.zeros(3, 5, 4)), r"visual_pos must .*\[3, 6, 4\]; got \[3, 5, 4\]"),
        (broken(visual_pos=torch.zeros(3, 6, 5)), "visual_pos must"),
        (broken(attention_mask=torch.ones(3, 8)), "attention_mask must have shape"),
        (broken(attention_mask=torch.ones(3, 1, 1, 9)), "attention_mask must have shape"),
        (broken(visual_attention_mask=torch.ones(3, 9)), "visual_attention_mask must have shape"),
        (broken(token_type_ids=torch.zeros(3, 8, dtype=torch.int64)), "token_type_ids must have shape"),
        (broken(token_type_ids=torch.full((3, 9), 2)), r"token_type_ids must lie in 0..1 .* got 2"),
        (broken(input_ids=torch.full((3, 9), 99)), r"input_ids must lie in 0..98 \(vocab_size=99\), got 99"),
        (broken(input_ids=torch.full((3, 9), -1)), "got -1"),
        (broken(input_ids=torch.ones(3, 9)), "input_ids must hold integers"),
        (
            {**required(), "input_ids": torch.ones(3, 25, dtype=torch.int64)},
            "25 tokens, more than max_position_embeddings=24",
        ),
    ],
)
def test_wrong_inputs(values, message):
    with pytest.raises(ValueError, match=message):
        build()(**values)


@pytest.mark.parametrize("name", ["visual_feats", "visual_pos", "visual_attention_mask"])
def test_visual_reasoning_needs_two_images(name):
    values = pairs()
    for wrong in (values[name][:, 0], torch.cat([values[name], values[name]], dim=1)):
        with pytest.raises(ValueError, match=f"{name} must have shape \\[examples, 2, boxes"):
            build(LxmertForVisualReasoning)(**{**values, name: wrong})


def test_wrong_labels():
    with pytest.raises(ValueError, match="labels and masked_lm_labels"):
        build(LxmertForPreTraining)(**inputs(), labels=labels()["labels"], masked_lm_labels=labels()["labels"])
    with pytest.raises(ValueError, match="obj_labels holds 'object'"):
        build(LxmertForPreTraining)(**inputs(), obj_labels={"object": labels()["obj_labels"]["obj"]})
    with pytest.raises(ValueError, match=r"int\[3\] answer ids or float\[3, 11\] soft scores, got shape \[3, 12\]"):
        build(LxmertForQuestionAnswering)(**inputs(), labels=torch.zeros(3, 12))


# Masks


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_with_a_fully_masked_row(dtype):
    values = inputs()
    values["attention_mask"][0] = 0
    values["visual_attention_mask"][1] = 0
    exact = build(LxmertForPreTraining)(**values, **labels(), output_attentions=True)
    output = build(LxmertForPreTraining, dtype)(**values, **labels(), output_attentions=True)
    precision = torch.finfo(dtype).eps
    assert output.prediction_logits.dtype == dtype
    assert output.loss.dtype == torch.float32
    for name in ("loss", "prediction_logits", "cross_relationship_score", "question_answering_score"):
        assert_close(output[name].detach().double(), exact[name].detach(), 20 * precision, name)
    for probabilities in output.language_attentions:
        same(probabilities[0].double(), torch.full((4, 9, 9), 1 / 9).to(dtype).double())
    for probabilities in output.vision_attentions:
        same(probabilities[1].double(), torch.full((4, 6, 6), 1 / 6).to(dtype).double())
    for probabilities in output.cross_encoder_attentions:
        same(probabilities[1].double(), torch.full((4, 9, 6), 1 / 6).to(dtype).double())


def test_padding_changes_nothing():
    model, values = build(), required()
    expected = model(**values)
    padded = {
        "input_ids": F.pad(values["input_ids"], (0, 3), value=7),
        "visual_feats": F.pad(values["visual_feats"], (0, 0, 0, 2), value=5.0),
        "visual_pos": F.pad(values["visual_pos"], (0, 0, 0, 2), value=0.5),
        "attention_mask": F.pad(torch.ones(3, 9), (0, 3)),
        "visual_attention_mask": F.pad(torch.ones(3, 6), (0, 2)),
    }
    actual = model(**padded)
    same(actual.language_output[:, :9], expected.language_output)
    same(actual.vision_output[:, :6], expected.vision_output)
    same(actual.pooled_output, expected.pooled_output)
    unmasked = model(**{**padded, "attention_mask": None, "visual_attention_mask": None})
    assert not torch.allclose(unmasked.pooled_output, expected.pooled_output)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float32, torch.bool])
def test_masks_of_any_dtype(dtype):
    values, model = inputs(), build()
    expected = model(**values).pooled_output
    for name in ("attention_mask", "visual_attention_mask"):
        values[name] = values[name].to(dtype)
    same(model(**values).pooled_output, expected)


# Optional inputs


def test_defaults_of_absent_inputs():
    model = build()
    filled = {
        "attention_mask": torch.ones(3, 9),
        "visual_attention_mask": torch.ones(3, 6),
        "token_type_ids": torch.zeros(3, 9, dtype=torch.int64),
    }
    same(model(**required()).pooled_output, model(**required(), **filled).pooled_output)


def test_inputs_embeds_stand_for_input_ids():
    for model_class, values in zip(MODELS, (inputs(), inputs(), inputs(), pairs()), strict=True):
        model = build(model_class)
        expected = model(**values)
        embeds = model.get_input_embeddings()(values.pop("input_ids"))
        actual = model(**values, inputs_embeds=embeds)
        for name in expected:
            same(actual[name], expected[name], name)


def test_positional_arguments_are_in_upstreams_order():
    values = inputs()
    names = ("input_ids", "visual_feats", "visual_pos", "attention_mask", "visual_attention_mask", "token_type_ids")
    model, pretraining, answers = build(), build(LxmertForPreTraining), build(LxmertForQuestionAnswering)
    positional = [values[name] for name in names]
    same(model(*positional).pooled_output, model(**values).pooled_output)
    label = labels()
    given = [label[name] for name in ("labels", "obj_labels", "matched_label", "ans")]
    same(pretraining(*positional, None, *given).loss, pretraining(**values, **label).loss)
    same(answers(*positional, None, label["ans"]).loss, answers(**values, labels=label["ans"]).loss)


def test_dropout_only_in_training():
    for rates in ((0.5, 0.0), (0.0, 0.5)):
        model = build(hidden_dropout_prob=rates[0], attention_probs_dropout_prob=rates[1])
        assert torch.equal(model(**inputs()).pooled_output, model(**inputs()).pooled_output)
        model.train()
        assert not torch.equal(model(**inputs()).pooled_output, model(**inputs()).pooled_output)
    model = build(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    same(model.train()(**inputs()).pooled_output, model.eval()(**inputs()).pooled_output)


@pytest.mark.parametrize(
    ("hidden_act", "function"),
    [
        ("gelu", F.gelu),
        ("relu", F.relu),
        ("silu", F.silu),
        ("gelu_new", lambda x: F.gelu(x, approximate="tanh")),
    ],
)
def test_activations(hidden_act, function):
    named, called = build(hidden_act=hidden_act), build(hidden_act=function)
    same(named(**inputs()).pooled_output, called(**inputs()).pooled_output)
    head = LxmertVisualAnswerHead(named.config, 32, 11)
    x = torch.linspace(-3, 3, 5)
    assert torch.equal(head.logit_fc[1](x), F.gelu(x))  # exact, whatever hidden_act is


# Outputs


def test_outputs_as_dict_attributes_and_tuple():
    model = build()
    output = model(**inputs())
    assert list(output) == ["language_output", "vision_output", "pooled_output"]
    assert output[2] is output["pooled_output"] is output.pooled_output is output.to_tuple()[-1]
    assert output.language_attentions is None
    assert "language_attentions" not in output
    with pytest.raises(KeyError):
        output["language_attentions"]
    with pytest.raises(AttributeError, match="no field 'logits'"):
        output.logits  # noqa: B018
    with pytest.raises(TypeError, match="no field 'logits'"):
        LxmertModelOutput(logits=1)
    plain = model(**inputs(), return_dict=False, output_hidden_states=True)
    assert type(plain) is tuple
    assert [len(entry) for entry in plain[3:]] == [4, 3]


def test_outputs_can_be_copied():
    output = LxmertModelOutput(losses={"loss": 1}, vision_output=2, language_output=1)
    for twin in (copy.deepcopy(output), pickle.loads(pickle.dumps(output))):
        assert twin == output
        assert twin.losses == {"loss": 1}
        assert twin.to_tuple() == (1, 2)


def test_config_sets_the_defaults_of_the_call():
    model = build(output_attentions=True, output_hidden_states=True, return_dict=False)
    assert len(model(**inputs())) == 8
    assert len(model(**inputs(), output_attentions=False, return_dict=True)) == 5


def test_absent_entries_are_skipped_by_index():
    output = build(LxmertForPreTraining)(**inputs(), output_attentions=True)
    assert output.loss is None
    assert output[0] is output.prediction_logits
    assert output[3] is output.language_attentions
    labelled = build(LxmertForPreTraining)(**inputs(), **labels())
    assert labelled[0] is labelled.loss
    same(labelled.loss, sum(labelled.losses.values()))


# Tasks


def test_tasks_switched_off_have_no_loss():
    switches = {
        "task_mask_lm": {"masked_lm_loss"},
        "task_matched": {"matched_loss"},
        "task_obj_predict": {"obj_loss", "attr_loss", "feat_loss"},
        "task_qa": {"ans_loss"},
        "visual_obj_loss": {"obj_loss"},
        "visual_attr_loss": {"attr_loss"},
        "visual_feat_loss": {"feat_loss"},
    }
    every = set(build(LxmertForPreTraining)(**inputs(), **labels()).losses)
    for switch, names in switches.items():
        output = build(LxmertForPreTraining, **{switch: False})(**inputs(), **labels())
        assert set(output.losses) == every - names
    heads = build(LxmertForPreTraining, task_qa=False, visual_feat_loss=False)
    assert heads.get_qa_logit_layer() is None
    assert heads(**inputs()).question_answering_score is None
    assert set(heads.obj_predict_head.decoder_dict) == {"obj", "attr"}
    assert not hasattr(build(LxmertForPreTraining, task_obj_predict=False), "obj_predict_head")


def test_masked_lm_labels_is_another_name_of_labels():
    model, words = build(LxmertForPreTraining), labels()["labels"]
    same(model(**inputs(), labels=words).loss, model(**inputs(), masked_lm_labels=words).loss)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_labels_that_are_all_ignored_give_zero(dtype):
    model = build(LxmertForPreTraining, dtype)
    ignored = {
        "labels": torch.full((3, 9), -100),
        "matched_label": torch.full((3,), -100),
        "ans": torch.full((3,), -100, dtype=torch.int32),
        "obj_labels": {"obj": (torch.full((3, 6), -100), torch.ones(3, 6))},
    }
    output = model(**inputs(), **ignored)
    assert {name: loss.item() for name, loss in output.losses.items()} == dict.fromkeys(output.losses, 0.0)
    assert len(output.losses) == 4
    output.loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_losses_by_hand():
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype=torch.float64)
    log_softmax = logits - logits.exp().sum(-1, keepdim=True).log()
    same(cross_entropy(logits, torch.tensor([2, -100])), -log_softmax[0, 2])
    weighted = -(log_softmax[0, 2] * 0.5 + log_softmax[1, 0] * 0.25) / 2 * 3
    confidence = torch.tensor([[0.5, 0.25]])
    same(visual_class_loss(logits[None], torch.tensor([[2, 0]]), confidence, 3.0), weighted)
    scores = torch.tensor([[0.0, 0.3, 1.0], [0.6, 0.0, 0.0]], dtype=torch.float64)
    p = torch.sigmoid(logits)
    by_hand = -(scores * p.log() + (1 - scores) * (1 - p).log()).sum(-1).mean()
    same(soft_answer_loss(logits, scores), by_hand)


def test_question_answering_with_soft_scores():
    scores = torch.rand(3, 11, generator=torch.Generator().manual_seed(0))
    output = build(LxmertForQuestionAnswering)(**inputs(), labels=scores)
    same(output.loss, soft_answer_loss(output.question_answering_score, scores))
    assert list(output.losses) == ["answer_loss"]


def test_visual_reasoning_encodes_each_image_with_the_sentence():
    model, values = build(LxmertForVisualReasoning), pairs()
    label = torch.tensor([1, 0, -100])
    output = model(**values, labels=label, output_hidden_states=True, output_attentions=True)
    text = ("input_ids", "attention_mask", "token_type_ids")
    singles = [
        model.lxmert(**{name: value if name in text else value[:, image] for name, value in values.items()})
        for image in (0, 1)
    ]
    same(output.logits, model.answer_head(torch.cat([single.pooled_output for single in singles], dim=-1)))
    same(output.loss, cross_entropy(output.logits, label))
    for image, single in enumerate(singles):
        same(output.language_hidden_states[-1][image::2], single.language_output)
    assert output.cross_encoder_attentions[0].shape == (6, 4, 9, 6)


# Parameters


@pytest.mark.parametrize("model_class", MODELS)
def test_initial_weights(model_class):
    model = build(model_class, initializer_range=0.02)
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name or "layer_norm" in name or "logit_fc.2" in name:
            assert (parameter == (1 if name.endswith("weight") else 0)).all(), name
        elif name.endswith("bias"):
            assert not parameter.any(), name
        else:
            assert parameter.abs().max() <= 0.04, name  # cut off at two standard deviations
            assert 0.01 < parameter.std() < 0.02, name
        if name.endswith("embeddings.weight"):
            assert not parameter[0].any(), name


def test_padding_rows_get_no_gradient_from_the_lookup():
    model = build()
    ids = inputs()["input_ids"].clone()
    ids[:, -2:] = 0
    model(**{**inputs(), "input_ids": ids}).language_output.square().sum().backward()
    for table in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
        gradient = getattr(model.embeddings, table).weight.grad
        assert not gradient[0].any()
        assert gradient.any()


def test_decoder_is_the_word_embeddings():
    model = build(LxmertForPreTraining)
    for twin in (model, copy.deepcopy(model), copy.deepcopy(model).to(torch.float16)):
        assert twin.cls.predictions.decoder.weight is twin.get_input_embeddings().weight
        assert sum("word_embeddings" in name or "decoder.weight" in name for name, _ in twin.named_parameters()) == 1


@pytest.mark.parametrize("with_decoder", [True, False])
def test_state_dict_may_leave_out_the_decoder(with_decoder):
    source, target = build(LxmertForPreTraining), build(LxmertForPreTraining, initializer_range=0.1)
    weights = source.state_dict()
    assert DECODER in weights
    if not with_decoder:
        del weights[DECODER]
    names = list(weights)
    target.load_state_dict(weights)
    assert list(weights) == names
    assert all(torch.equal(value, source.state_dict()[name]) for name, value in target.state_dict().items())
    torch.nn.Sequential(target).load_state_dict({f"0.{name}": value for name, value in weights.items()})


def test_state_dict_with_another_decoder_is_refused():
    model = build(LxmertForPreTraining)
    weights = {**model.state_dict(), DECODER: torch.zeros(99, 32, dtype=torch.float64)}
    with pytest.raises(RuntimeError, match=r"must equal lxmert\.embeddings"):
        model.load_state_dict(weights)
    weights = model.state_dict()
    del weights[WORDS], weights[DECODER]
    with pytest.raises(RuntimeError, match="Missing key"):
        model.load_state_dict(weights)


@pytest.mark.parametrize("size", [150, 40])
@pytest.mark.parametrize("model_class", MODELS)
def test_resize_token_embeddings(model_class, size):
    model, kept = build(model_class, torch.bfloat16), min(size, 99)
    before = model.get_input_embeddings().weight.detach().clone()
    if model_class is LxmertForPreTraining:
        torch.nn.init.ones_(model.cls.predictions.bias)
    new = model.resize_token_embeddings(size)
    assert new is model.get_input_embeddings()
    assert new.weight.shape == (size, 32)
    assert new.weight.dtype == torch.bfloat16
    assert torch.equal(new.weight[:kept], before[:kept])
    assert new.weight[kept:].any(-1).all()
    assert model.config.vocab_size == size
    values = pairs() if model_class is LxmertForVisualReasoning else inputs()
    output = model(**{**values, "input_ids": torch.full((3, 9), size - 1)})
    if model_class is LxmertForPreTraining:
        assert output.prediction_logits.shape == (3, 9, size)
        assert model.cls.predictions.decoder.weight is new.weight
        assert model.cls.predictions.bias.sum() == kept
    model_class(model.config).load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="new_num_tokens must be an integer"):
        model.resize_token_embeddings(0)


@pytest.mark.parametrize("size", [20, 5])
@pytest.mark.parametrize("model_class", [LxmertForPreTraining, LxmertForQuestionAnswering])
def test_resize_num_qa_labels(model_class, size):
    model, kept = build(model_class), min(size, 11)
    before = model(**inputs()).question_answering_score
    layer = model.resize_num_qa_labels(size)
    after = model(**inputs()).question_answering_score
    assert layer is model.get_qa_logit_layer()
    assert model.config.num_qa_labels == size
    assert after.shape == (3, size)
    same(after[:, :kept], before[:, :kept])
    assert layer.weight[kept:].any(-1).all()
    assert not layer.bias[kept:].any()
    model_class(model.config).load_state_dict(model.state_dict())
    with pytest.raises(TypeError, match="num_labels must be an integer"):
        model.resize_num_qa_labels(2.5)


@pytest.mark.parametrize("model_class", [LxmertModel, LxmertForVisualReasoning])
def test_resize_num_qa_labels_needs_an_answer_head(model_class):
    assert build(model_class).get_qa_logit_layer() is None
    with pytest.raises(ValueError, match="no answer head to resize"):
        build(model_class).resize_num_qa_labels(5)


def test_a_model_owns_its_config():
    config = LxmertConfig(**SIZES)
    model = LxmertForPreTraining(config)
    model.resize_num_qa_labels(3)
    model.lxmert.resize_token_embeddings(120)
    assert (config.num_qa_labels, config.vocab_size) == (11, 99)
    assert (model.config.num_qa_labels, model.config.vocab_size) == (3, 120)


def test_resizing_keeps_frozen_parameters_frozen():
    model = build(LxmertForPreTraining).requires_grad_(False)
    model.resize_token_embeddings(120)
    model.resize_num_qa_labels(12)
    assert not any(parameter.requires_grad for parameter in model.parameters())


# Optimisation


def test_bert_adam_by_hand():
    start, gradients, lr = np.array([1.0, -2.0]), np.array([[0.5, -0.1], [0.2, 0.4], [0.0, -3.0]]), 0.01
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    unused = torch.nn.Parameter(torch.ones(1))
    optimizer = BertAdam([parameter, unused], lr=lr)
    p, m, v = start.copy(), np.zeros(2), np.zeros(2)
    for g in gradients:
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        p = p - lr * (m / (np.sqrt(v) + 1e-6) + 0.01 * p)
        parameter.grad = torch.from_numpy(g)
        optimizer.step()
        assert_close(parameter.detach(), p, REL64)
    assert unused.item() == 1


def test_bert_adam_refuses_wrong_settings():
    for wrong in ({"lr": -1.0}, {"lr": 1.0, "betas": (0.9, 1.0)}, {"lr": 1.0, "eps": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            BertAdam([torch.nn.Parameter(torch.ones(1))], **wrong)


def test_linear_warmup_schedule():
    factors = [linear_warmup_schedule(step, 100) for step in (0, 5, 10, 55, 100, 120)]
    assert factors == pytest.approx([0, 0.5, 1, 0.5, 0, 0])
    assert linear_warmup_schedule(0, 10, warmup=0.0) == 1
    for wrong in ({"total_steps": 0}, {"total_steps": 10, "warmup": 1.0}):
        with pytest.raises(ValueError, match="must be"):
            linear_warmup_schedule(1, **wrong)
    with pytest.raises(ValueError, match=r"total_steps=1 with warmup=0\.1 trains nothing"):
        linear_warmup_schedule(0, 1)


def test_training_with_the_schedule_lowers_the_loss():
    torch.manual_seed(0)
    model = build(LxmertForPreTraining, torch.float32, initializer_range=0.02)
    optimizer = BertAdam(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: linear_warmup_schedule(step, 30))
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = model(**inputs(), **labels()).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    assert losses[1] == losses[0]  # the first step's rate is 0
    assert losses[-1] < 0.7 * losses[0]


# Memory


def test_gradient_checkpointing_changes_no_number_and_computes_layers_again():
    model = build(LxmertForPreTraining, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.2).train()
    computed = []
    for module in model.modules():
        if isinstance(module, LxmertIntermediate):
            module.register_forward_hook(lambda *_: computed.append(1))

    def step():
        torch.manual_seed(0)
        computed.clear()
        model.zero_grad()
        loss = model(**inputs(), head_mask=torch.ones(4)).prediction_logits.square().sum()
        forward = len(computed)
        loss.backward()
        return loss, [parameter.grad for parameter in model.parameters() if parameter.grad is not None], forward

    loss, gradients, forward = step()
    assert len(computed) == forward and not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable()
    assert model.supports_gradient_checkpointing and model.is_gradient_checkpointing
    again, others, forward = step()
    assert len(computed) > 1.5 * forward  # not the vision stream of the last layer, which no loss has
    assert loss == again and all(map(torch.equal, gradients, others))
    model.gradient_checkpointing_disable()
    step()
    assert len(computed) == forward


def test_a_table_of_other_code_is_tied_again():
    model = build(LxmertForPreTraining)
    model.lxmert.embeddings.word_embeddings = copy.deepcopy(model.get_input_embeddings())
    bias = model.cls.predictions.bias
    model.tie_weights()
    assert model.cls.predictions.decoder.weight is model.get_input_embeddings().weight
    assert model.cls.predictions.bias is bias
    build(LxmertForQuestionAnswering).tie_weights()


def test_how_much_memory_the_weights_take():
    model = build(LxmertForQuestionAnswering)
    assert model.get_memory_footprint(return_buffers=False) == sum(p.nbytes for p in model.parameters())
    model.register_buffer("table", torch.zeros(5))
    assert model.get_memory_footprint() - model.get_memory_footprint(return_buffers=False) == 20


# Scripts of upstream's users


@pytest.mark.filterwarnings("ignore:.torch.jit.trace:DeprecationWarning")  # people still do
def test_a_trace_takes_other_texts_and_images():
    model = build(LxmertForQuestionAnswering, torchscript=True)
    given = tuple(required().values())
    assert type(model(*given)) is tuple  # as upstream's, which traces cannot do without
    traced = torch.jit.trace(model, given, strict=False)
    other = tuple(value[:1, :3] for value in given)
    torch.testing.assert_close(traced(*other)[0], model(*other)[0])


def test_torch_export_knows_the_outputs():
    model, given = build(LxmertForQuestionAnswering), tuple(required().values())
    exported, wanted = torch.export.export(model, given).module()(*given), model(*given)
    assert type(exported) is type(wanted)
    torch.testing.assert_close(exported.question_answering_score, wanted.question_answering_score)


def test_a_subclass_draws_its_own_layers_with_post_init():
    class WithHead(LxmertForQuestionAnswering):
        def __init__(self, config):
            super().__init__(config)
            self.head = torch.nn.Linear(500, 50)
            self.post_init()

    model = WithHead(LxmertConfig(**SIZES, initializer_range=0.02))
    assert not model.head.bias.any() and model.head.weight.abs().max() <= 0.0401
