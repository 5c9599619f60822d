"""lxmert_pt gives what upstream and the original code give, entry by entry."""

import pytest
from support.golden import (
    GOLDEN,
    PRETRAINING_LOSSES,
    REL32,
    REL64,
    REL_FLOAT32_SUM,
    assert_close,
    assert_gradients_close,
    expected,
    golden_inputs,
    golden_labels,
    golden_state_dict,
)

torch = pytest.importorskip("torch")

from lxmert_pt import (  # noqa: E402
    LxmertConfig,
    LxmertForPreTraining,
    LxmertForQuestionAnswering,
    LxmertForVisualReasoning,
    LxmertModel,
)

PRECISIONS = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, REL64), (torch.float32, REL32)], ids=["float64", "float32"]
)
# How the original code names its fine-tuned weights, and what the names are here.
FINE_TUNED = {"lxrt_encoder.model.bert.": "lxmert.", "logit_fc.": "answer_head.logit_fc."}


def tensors(values):
    """Arrays in dicts and tuples, as tensors."""
    if isinstance(values, dict):
        return {name: tensors(value) for name, value in values.items()}
    if isinstance(values, tuple):
        return tuple(map(tensors, values))
    return torch.from_numpy(values)


def load(model_class, folder, state_dict=None, dtype=torch.float64, **overrides):
    """A golden checkpoint in a model, strictly: from its safetensors, or `state_dict` with the folder's config."""
    model = model_class(LxmertConfig.from_pretrained(GOLDEN / folder, **overrides)).eval()
    model.load_state_dict(tensors(golden_state_dict(folder)) if state_dict is None else state_dict)
    return model.to(dtype)


def original_state_dict(name, prefixes):
    """A checkpoint of the original code, with the first prefix that fits each key replaced."""
    renamed = {}
    for key, value in torch.load(GOLDEN / "original" / name, weights_only=True).items():
        old = next(prefix for prefix in prefixes if key.startswith(prefix))
        renamed[prefixes[old] + key.removeprefix(old)] = value
    return renamed


def flat(output):
    """The output's entries, tuples spread out as `name.index`."""
    entries = {}
    for name, value in output.items():
        if isinstance(value, tuple):
            entries.update({f"{name}.{index}": item for index, item in enumerate(value)})
        else:
            entries[name] = value
    return entries


def gradients(model):
    return {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}


@PRECISIONS
@pytest.mark.parametrize("name", ["model", "model_required_inputs_only"])
def test_model(name, dtype, tolerance):
    inputs = tensors(golden_inputs())
    if name == "model_required_inputs_only":
        inputs = {key: inputs[key] for key in ("input_ids", "visual_feats", "visual_pos")}
    with torch.no_grad():
        output = load(LxmertModel, "hf_pt_model", dtype=dtype)(
            **inputs, output_attentions=True, output_hidden_states=True
        )
    actual, wanted = flat(output), expected(name)
    assert list(actual) == list(wanted)
    for key, value in wanted.items():
        assert actual[key].dtype == dtype
        assert_close(actual[key], value, tolerance, key)


@PRECISIONS
def test_pretraining_logits(dtype, tolerance):
    model, wanted = load(LxmertForPreTraining, "hf_pt_pretraining", dtype=dtype), expected("pretraining")
    with torch.no_grad():
        output = model(**tensors(golden_inputs()))
        regions = model.obj_predict_head(model.lxmert(**tensors(golden_inputs())).vision_output)
    assert output.loss is None
    for name in ("prediction_logits", "cross_relationship_score", "question_answering_score"):
        assert_close(output[name], wanted[name], tolerance, name)
    for name in ("obj", "attr", "feat"):
        assert_close(regions[name], wanted[f"visual_{name}_logits"], tolerance, name)


@PRECISIONS
@pytest.mark.parametrize("name", PRETRAINING_LOSSES)
def test_pretraining_loss_alone(name, dtype, tolerance):
    labels = tensors(golden_labels())
    argument = {"masked_lm": "labels", "matched": "matched_label"}.get(name, name)
    chosen = {argument: labels[argument]} if argument in labels else {"obj_labels": {name: labels["obj_labels"][name]}}
    with torch.no_grad():
        output = load(LxmertForPreTraining, "hf_pt_pretraining", dtype=dtype)(**tensors(golden_inputs()), **chosen)
    assert list(output.losses) == [f"{name}_loss"]
    assert output.loss.dtype == dtype
    assert_close(output.loss, expected("pretraining")[f"loss.{name}"], max(tolerance, REL_FLOAT32_SUM), name)


@PRECISIONS
def test_pretraining_losses_together_and_gradients(dtype, tolerance):
    model, wanted = load(LxmertForPreTraining, "hf_pt_pretraining", dtype=dtype), expected("pretraining")
    output = model(**tensors(golden_inputs()), **tensors(golden_labels()))
    output.loss.backward()
    assert list(output.losses) == [f"{name}_loss" for name in PRETRAINING_LOSSES]
    assert_close(output.loss.detach(), wanted["loss"], max(tolerance, REL_FLOAT32_SUM), "loss")
    assert_gradients_close(gradients(model), expected("pretraining_gradients"), tolerance)


@PRECISIONS
def test_question_answering_and_gradients(dtype, tolerance):
    model, wanted = load(LxmertForQuestionAnswering, "hf_pt_qa", dtype=dtype), expected("qa")
    output = model(**tensors(golden_inputs()), labels=tensors(golden_labels()["ans"]))
    output.loss.backward()
    for name in ("loss", "question_answering_score"):
        assert_close(output[name].detach(), wanted[name], tolerance, name)
    assert_gradients_close(gradients(model), expected("qa_gradients"), tolerance)


@PRECISIONS
def test_original_pretraining(dtype, tolerance):
    weights = original_state_dict("Epoch20_LXRT.pth", {"module.bert.": "lxmert.", "module.": ""})
    model = load(LxmertForPreTraining, "hf_pt_pretraining", weights, dtype, visual_loss_normalizer=1 / 0.15)
    with torch.no_grad():
        output = model(**tensors(golden_inputs(visual_mask=False)), **tensors(golden_labels()))
    wanted = expected("original/pretraining")
    assert_close(output.loss, wanted["loss"], tolerance, "loss")
    assert_close(output.question_answering_score, wanted["answer_score"], tolerance, "answer_score")
    each = wanted["losses_masked_lm_matched_obj_attr_feat_ans"]
    for name, value in zip(PRETRAINING_LOSSES, each, strict=True):
        assert_close(output.losses[f"{name}_loss"], value, tolerance, name)


@PRECISIONS
def test_original_vqa(dtype, tolerance):
    weights = original_state_dict("vqa_BEST.pth", FINE_TUNED)
    model = load(LxmertForQuestionAnswering, "hf_pt_qa", weights, dtype)
    inputs, wanted = tensors(golden_inputs(visual_mask=False)), expected("original/vqa")
    with torch.no_grad():
        assert_close(model.lxmert(**inputs).pooled_output, wanted["pooled"], tolerance, "pooled")
        assert_close(model(**inputs).question_answering_score, wanted["logit"], tolerance, "logit")


@PRECISIONS
def test_original_nlvr2(dtype, tolerance):
    weights = original_state_dict("nlvr2_BEST.pth", FINE_TUNED)
    model = load(LxmertForVisualReasoning, "hf_pt_qa", weights, dtype)
    inputs, wanted = tensors(golden_inputs(visual_mask=False)), expected("original/nlvr2")
    for name in ("visual_feats", "visual_pos"):
        inputs[name] = torch.stack([inputs[name], inputs[name].roll(1, dims=0)], dim=1)  # image i and image i - 1
    pooled = []
    model.lxmert.pooler.register_forward_hook(lambda module, args, result: pooled.append(result))
    with torch.no_grad():
        assert_close(model(**inputs).logits, wanted["logit"], tolerance, "logit")
    assert_close(pooled[0], wanted["pooled"], tolerance, "pooled")
