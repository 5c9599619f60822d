"""Checkpoints as training code leaves them: wrapped, in containers, parametrized, or part of a larger model."""

import argparse
import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.checkpoints import same
from torch import nn
from torch.nn.utils import parametrizations, prune

from conversion import load_into, load_state_dict, open_checkpoint
from conversion.cli import main
from conversion.convert import convert
from conversion.diff import diff
from conversion.inspect import inspect
from conversion.names import rows
from conversion.tensors import to_torch
from conversion.verify import verify
from lxmert_pt import LxmertForQuestionAnswering, LxmertModel
from lxmert_tf import LxmertConfig, TFLxmertForQuestionAnswering
from lxmert_tf.command_line import sentence

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")

CONFIG = LxmertConfig(
    **dict.fromkeys(("vocab_size", "num_qa_labels", "visual_feat_dim", "max_position_embeddings"), 3),
    **dict.fromkeys(("hidden_size", "intermediate_size", "num_attention_heads"), 2),
    l_layers=1,
    r_layers=0,
    x_layers=0,
)
LINEAR = "lxmert.pooler.dense"


@cache
def bare(task: str = "qa", seed: int = 0) -> dict[str, np.ndarray]:
    """The tensors of a tiny model."""
    rng = np.random.default_rng(seed)
    return {row.torch: rng.standard_normal(row.shape(CONFIG)).astype("f4") for row in rows(CONFIG, task)}


def under(prefix: str, tensors: dict) -> dict:
    return {prefix + name: value for name, value in tensors.items()}


def save(path: Path, content: dict) -> Path:
    """A file of PyTorch's, in the serialisation that its name stands for, or of safetensors."""
    if path.suffix == ".safetensors":
        save_file(content, path, {"format": "pt"})
    else:
        torch.save(content, path, _use_new_zipfile_serialization=path.suffix != ".pth")
    return path


def torch_tensors(tensors: dict) -> dict:
    return {name: to_torch(value) for name, value in tensors.items()}


def told(error: BaseException) -> str:
    """What a command line says of an error: one line."""
    line = sentence(error)
    assert "\n" not in line and len(line) < 2000
    return line


# Every wrapper, in every container, in every format

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_forward_module.", "model.", "net.vqa.")
PAIRS = ["".join(pair) for pair in itertools.permutations(WRAPPERS, 2)]
ADAM = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]}
LIGHTNING = {
    "epoch": 1,
    "global_step": 5,
    "pytorch-lightning_version": "2.6.6",
    "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
    "callbacks": {"ModelCheckpoint{'monitor': None}": {"kth_value": torch.tensor(1.0), "best_k_models": {}}},
    "optimizer_states": [ADAM],
    "lr_schedulers": [],
    "hparams_name": "kwargs",
    "hyper_parameters": {"lr": 0.1, "args": argparse.Namespace(batch=32)},
}
CONTAINERS = {
    "none": lambda state: state,
    "Lightning": lambda state: {"state_dict": state, **LIGHTNING},
    "DeepSpeed": lambda state: {"module": state, "ds_version": "0.14", "param_shapes": [{"a": torch.Size([2])}]},
    "model and optimizer": lambda state: {"model": state, "optimizer": ADAM, "args": argparse.Namespace(epochs=3)},
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": ADAM},
    "average": lambda state: {"n_averaged": torch.tensor(3), **under("module.", state)},
    "nested": lambda state: {"checkpoint": {"state": {"net": state}}},
}
FILES = [(name, file) for name in CONTAINERS for file in ("x.bin", "x.pth")] + [("none", "x.safetensors")]


@pytest.mark.parametrize(("container", "file"), FILES)
def test_every_wrapper_in_every_container_gives_the_same_bits(tmp_path, container, file):
    numbered = FILES.index((container, file))
    pairs = PAIRS if file.endswith("safetensors") else PAIRS[numbered :: len(FILES)]
    for prefix in ("", *WRAPPERS, *pairs, "".join(WRAPPERS)):
        state = under(prefix, bare())
        content = state if file.endswith("safetensors") else CONTAINERS[container](torch_tensors(state))
        assert same(load_state_dict(save(tmp_path / file, content), config=CONFIG), bare()), prefix


@pytest.mark.parametrize("inner", ["_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "module.", "_orig_mod."])
def test_wrappers_of_single_layers(tmp_path, inner):
    """FSDP and checkpointing wrap layer by layer, and any part can be compiled."""
    state = {name.replace("layer.0.", f"layer.0.{inner}"): value for name, value in bare().items()}
    state = under("_fsdp_wrapped_module.", state)
    assert same(load_state_dict(save(tmp_path / "x.safetensors", state), config=CONFIG), bare())


@pytest.mark.parametrize("prefix", ["model.", "module.net.", "a.b.c."])
@pytest.mark.parametrize("root", ["bert.", "lxrt_encoder.model.bert.", ""])
def test_names_of_the_original_code_and_bare_ones_under_a_prefix(tmp_path, root, prefix):
    names = {name: name.replace("lxmert.", root, 1) for name in bare()}
    if root.startswith("lxrt"):
        names = {name: new.removeprefix("answer_head.") for name, new in names.items()}
    if not root:
        names = {name: new for name, new in names.items() if name.startswith("lxmert.")}
    state = {prefix + new: bare()[name] for name, new in names.items()}
    expected = {name: bare()[name] for name in names}
    found = load_state_dict(save(tmp_path / "x.safetensors", state), config=CONFIG)
    assert same(found if root else under("lxmert.", found), expected)


def test_what_real_wrappers_hold_in_memory(tmp_path):
    model = LxmertForQuestionAnswering(CONFIG)
    state = load_state_dict(model)
    compiled = torch.compile(model, backend="eager")
    for wrapped in (compiled, nn.DataParallel(model), torch.compile(nn.DataParallel(model), backend="eager")):
        assert same(load_state_dict(wrapped), state)
        assert open_checkpoint(wrapped).config_origin == "given"
        load_into(wrapped, bare())
        assert same(load_state_dict(model), bare())
        load_into(model, state)
    averaged = torch.optim.swa_utils.AveragedModel(model)
    assert same(load_state_dict(averaged), state)
    assert same(load_state_dict({"model": compiled.state_dict(), "epoch": 1}, config=CONFIG), state)
    assert same(load_state_dict(TFLxmertForQuestionAnswering.from_pretrained(compiled)), state)


# Inside somebody's model


class Own(nn.Module):
    """A model with an LXMERT in it, and names that LXMERT has too."""

    def __init__(self, **parts: nn.Module):
        super().__init__()
        self.encoder, self.cls = nn.Linear(2, 2), nn.Linear(2, 4)
        for name, part in parts.items():
            setattr(self, name, part)


OTHERS = {"encoder.weight", "encoder.bias", "cls.weight", "cls.bias"}


@pytest.mark.parametrize("name", ["lxmert", "bert", "backbone", "model"])
@pytest.mark.parametrize("file", ["x.bin", "x.safetensors"])
def test_a_backbone_in_somebodys_model(tmp_path, name, file):
    backbone = LxmertModel(CONFIG)
    state = Own(**{name: backbone}).state_dict()
    path = save(tmp_path / file, state if file == "x.bin" else {key: value.numpy() for key, value in state.items()})
    checkpoint = open_checkpoint(path, CONFIG)
    assert checkpoint.task == "model" and set(checkpoint.outside) == OTHERS
    report = convert(path, tmp_path / "out", config=CONFIG)
    assert (
        report.dropped == dict.fromkeys(sorted(OTHERS), "it is no part of the LXMERT") or set(report.dropped) == OTHERS
    )
    assert same(load_file(tmp_path / "out/model.safetensors"), load_state_dict(backbone))
    assert any("4 tensors beside it are left out" in note for note in report.notes)
    assert inspect(path, CONFIG).complete
    assert same(load_state_dict(path, config=CONFIG), load_state_dict(open_checkpoint(path, CONFIG, prefix=name)))


def test_a_whole_model_in_somebodys_model(tmp_path):
    vqa = LxmertForQuestionAnswering(CONFIG)
    path = save(tmp_path / "x.bin", Own(vqa=vqa).state_dict())
    report = convert(path, tmp_path / "out", config=CONFIG)
    assert (report.task, set(report.dropped)) == ("qa", OTHERS)
    assert report.notes[0] == "the LXMERT is under vqa; 4 tensors beside it are left out"
    assert same(load_file(tmp_path / "out/model.safetensors"), load_state_dict(vqa))
    assert open_checkpoint(path, CONFIG, prefix="vqa.lxmert.").task == "model"


def test_the_config_of_a_model_in_somebodys_model():
    vqa = LxmertForQuestionAnswering(CONFIG)
    for model in (nn.Sequential(nn.Linear(2, 2), nn.DataParallel(nn.Sequential(vqa))), Own(lxmert=vqa.lxmert)):
        model.config = {"lr": 0.1}
        checkpoint = open_checkpoint(model)
        assert checkpoint.config == CONFIG and checkpoint.config_origin == "given"


@pytest.mark.parametrize("model_class", [TFLxmertForQuestionAnswering, LxmertForQuestionAnswering])
def test_from_pretrained_takes_a_prefix(tmp_path, model_class):
    path = save(tmp_path / "x.bin", {"model": torch_tensors(bare()), "ema": torch_tensors(bare(seed=1))})
    assert same(load_state_dict(model_class.from_pretrained(path, config=CONFIG, prefix="ema")), bare(seed=1))


def test_no_lxmert_is_told_of_where_there_is_none(tmp_path, caplog):
    """BERT has the names of LXMERT's language layers."""
    state = {name: value for name, value in under("bert.", bare("model")).items() if "visn" not in name}
    path = save(tmp_path / "x.safetensors", state | {"fc.weight": np.ones(2, "f4")})
    for prefix in (None, "bert"):
        with caplog.at_level("INFO", "lxmert_tf"), pytest.raises(ValueError, match="not the weights of an LXMERT"):
            open_checkpoint(path, prefix=prefix)
    assert "the LXMERT is" not in caplog.text
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"of another model; a training can start from it \(lxmert-tf train --init\)"):
        open_checkpoint(tmp_path)


def test_two_models_are_told_and_one_is_chosen(tmp_path):
    a, b = torch_tensors(bare()), torch_tensors(bare(seed=1))
    path = save(tmp_path / "x.bin", {"model": a, "ema": under("module.", b)})
    with pytest.raises(ValueError, match=r"x\.bin cannot .* it holds 2 LXMERT models, ") as error:
        open_checkpoint(path, CONFIG)
    line = told(error.value)
    assert f"under ema ({len(a)} tensors), under model ({len(a)} tensors)" in line and "prefix='ema'" in line
    for prefix, state in (("model", bare()), ("ema", bare(seed=1)), ("ema.module", bare(seed=1)), ("model.", bare())):
        assert same(load_state_dict(open_checkpoint(path, CONFIG, prefix=prefix)), state)
    checkpoint = open_checkpoint(path, CONFIG, prefix="ema")
    assert len(checkpoint.outside) == len(a) and all(name.startswith("model.") for name in checkpoint.outside)
    inner = save(tmp_path / "inner.bin", {"model": a, "ema": {"net": under("module.vqa.", b)}})
    assert same(load_state_dict(open_checkpoint(inner, CONFIG, prefix="ema")), bare(seed=1))
    rooted = save(tmp_path / "rooted.bin", a | under("teacher.", b))
    with pytest.raises(
        ValueError, match=r"under no prefix .* under teacher .* say which one, for example with prefix=''"
    ):
        open_checkpoint(rooted, CONFIG)
    assert same(load_state_dict(open_checkpoint(rooted, CONFIG, prefix="")), bare())
    assert same(load_state_dict(open_checkpoint(rooted, CONFIG, prefix="teacher")), bare(seed=1))
    twins = save(tmp_path / "twins.bin", Own(first=LxmertModel(CONFIG), second=LxmertModel(CONFIG)).state_dict())
    with pytest.raises(ValueError, match=r"under first \(\d+ tensors\), under second"):
        open_checkpoint(twins, CONFIG)


def test_two_files_are_compared_under_a_prefix_that_one_or_both_have(tmp_path, capsys):
    larger = save(tmp_path / "x.bin", {"model": torch_tensors(bare()), "ema": torch_tensors(bare(seed=1))})
    alone = str(tmp_path / "alone")
    convert(bare(seed=1), alone, config=CONFIG)
    assert main(["diff", str(larger), alone, "--prefix", "ema"]) == 0
    assert main(["diff", alone, str(larger), "--prefix", "model"]) == 1
    assert main(["verify", str(larger), alone, "--prefix", "ema", "--config", f"{alone}/config.json"]) == 0
    assert diff(larger, larger, prefix="model").same
    capsys.readouterr()
    assert main(["diff", str(larger), alone, "--prefix", "emb"]) == 2
    assert "x.bin cannot be read as an LXMERT checkpoint: no name in it begins with 'emb'" in capsys.readouterr().err


def test_what_is_beside_an_lxmert_is_a_difference_but_not_what_is_around_it(tmp_path):
    path = save(tmp_path / "x.safetensors", {**bare(), "classifier.weight": np.ones(2, "f4")})
    assert (diff(bare(), path).only_b, diff(path, bare()).only_a) == (["classifier.weight"],) * 2
    assert diff(path, path).same and not diff(bare(), path).same
    around = save(tmp_path / "y.safetensors", {**under("vqa.", bare()), "classifier.weight": np.ones(2, "f4")})
    assert diff(bare(), around).same
    assert not verify(bare(), path, config=CONFIG).differs


def test_a_model_that_is_there_twice_is_one(tmp_path):
    state = torch_tensors(bare())
    path = save(tmp_path / "x.bin", {"model": state, "best": {name: value.clone() for name, value in state.items()}})
    assert same(load_state_dict(path, config=CONFIG), bare())


def test_none_is_told_with_what_was_found(tmp_path):
    names = {name: name.replace("lxmert.encoder", "lxmert.coder").replace("answer_head", "head") for name in bare()}
    path = save(tmp_path / "x.safetensors", {names[name]: value for name, value in bare().items()})
    with pytest.raises(ValueError, match="nearest to") as error:
        convert(path, tmp_path / "out", config=CONFIG)
    line = told(error.value)
    assert "its names are not LXMERT's: nearest to encoder.layer.0.attention.output.LayerNorm.bias are coder." in line
    assert "config" not in line
    nothing = save(tmp_path / "y.safetensors", {f"fc{i}": np.ones(2, "f4") for i in range(4)})
    with pytest.raises(ValueError, match=r"not the weights of an LXMERT model") as error:
        open_checkpoint(nothing)
    assert "of its 4 names none is like it, such as fc0, fc1, fc2" in told(error.value)


def test_a_prefix_that_no_name_has_is_told(tmp_path):
    path = save(tmp_path / "x.safetensors", under("vqa.", bare()))
    with pytest.raises(ValueError, match=r"no name in it begins with 'vqb'; the names begin with vqa") as error:
        convert(path, tmp_path / "out", config=CONFIG, prefix="vqb")
    told(error.value)


def test_a_head_of_another_name_is_told_where_it_is_asked_for(tmp_path):
    state = {name.replace("answer_head.", "head."): value for name, value in bare().items()}
    path = save(tmp_path / "x.safetensors", state)
    assert convert(path, tmp_path / "out", config=CONFIG).task == "model"
    with pytest.raises(ValueError, match=r"lacks 6 tensors .*nearest to the first are head\.logit_fc\.0") as error:
        convert(path, tmp_path / "qa", config=CONFIG, task="qa")
    told(error.value)


# Parametrized

KINDS = {
    "weight_norm": parametrizations.weight_norm,
    "weight_norm of columns": lambda module: parametrizations.weight_norm(module, dim=1),
    "weight_norm of the whole": lambda module: parametrizations.weight_norm(module, dim=None),
    "spectral_norm": parametrizations.spectral_norm,
    "pruned": lambda module: prune.l1_unstructured(module, "weight", 0.5),
}


def parametrized(apply) -> tuple[nn.Module, np.ndarray]:
    """A model whose pooler is parametrized, and the weight that it computes with."""
    torch.manual_seed(0)
    model = LxmertForQuestionAnswering(CONFIG).eval()
    apply(model.lxmert.pooler.dense)
    return model.eval(), model.lxmert.pooler.dense.weight.detach().numpy().copy()


@pytest.mark.parametrize("kind", KINDS)
def test_a_parametrized_weight_is_what_the_model_computes_with(tmp_path, kind):
    model, expected = parametrized(KINDS[kind])
    path = save(tmp_path / "x.bin", {"model": under("_orig_mod.", model.state_dict())})
    found = load_state_dict(path, config=CONFIG)
    assert set(found) == set(bare())
    # Computed in float64 and rounded once, where PyTorch rounds each step.
    np.testing.assert_allclose(found[f"{LINEAR}.weight"], expected, rtol=3e-7)
    model.train()
    np.testing.assert_allclose(load_state_dict(model)[f"{LINEAR}.weight"], expected, rtol=3e-7)
    assert model.lxmert.pooler.dense.training
    np.testing.assert_allclose(load_state_dict(path, config=CONFIG)[f"{LINEAR}.weight"], expected, rtol=3e-7)


def test_a_parametrization_that_no_file_tells_is_refused_but_not_of_a_model(tmp_path):
    model, expected = parametrized(parametrizations.orthogonal)
    assert np.array_equal(load_state_dict(model)[f"{LINEAR}.weight"], expected)
    path = save(tmp_path / "x.bin", model.state_dict())
    with pytest.raises(ValueError, match="remove the parametrizations before saving the model") as error:
        load_state_dict(path, config=CONFIG)
    told(error.value)


@pytest.mark.parametrize("shape", [(10**6, 1), (2, 2, 1), (0, 1), (3, 1)])
def test_parts_that_lie_of_their_size_are_not_combined(tmp_path, shape):
    """Nothing is multiplied out to a size that the file does not have."""
    state = dict(bare())
    del state[f"{LINEAR}.weight"]
    state[f"{LINEAR}.weight_g"] = np.ones(shape, "f4")
    state[f"{LINEAR}.weight_v"] = np.ones((1, 10**4) if shape[0] == 10**6 else (2, 2), "f4")
    path = save(tmp_path / "x.safetensors", state)
    with pytest.raises(ValueError, match=r"unexpected|nearest") as error:
        load_state_dict(path, config=CONFIG)
    told(error.value)


# Hostile


def test_dicts_in_dicts_end(tmp_path):
    inner: dict = {"weight": torch.ones(2)}
    for _ in range(100):
        inner = {"a": inner, "b": inner}
    loop: dict = {"model": torch_tensors(bare())}
    loop["again"] = loop["model"]["self"] = loop
    for content in ({"deep": inner, "model": torch_tensors(bare())}, loop):
        path = save(tmp_path / "x.bin", content)
        assert same(load_state_dict(path, config=CONFIG), bare())


def test_a_namespace_is_read_and_other_classes_are_named(tmp_path):
    state = torch_tensors(bare())
    path = save(tmp_path / "x.bin", {"model": state, "args": argparse.Namespace(lr=0.1)})
    assert same(load_state_dict(path, config=CONFIG), bare())
    save(path, {"model": state, "path": Path("x")})
    with pytest.raises(
        ValueError, match=r"loading it would run code from it \(pathlib\.\w+\); save the model's"
    ) as error:
        load_state_dict(path, config=CONFIG)
    told(error.value)


def test_weights_that_zero_has_elsewhere_are_told(tmp_path):
    state = {name: torch.empty(0) for name in bare()}
    with pytest.raises(ValueError, match=r"zero_to_fp32\.py"):
        open_checkpoint(save(tmp_path / "x.bin", {"module": state, "ds_version": "0.14"}), CONFIG)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("zero_to_fp32.py", r"join them with the zero_to_fp32\.py that is there"),
        (".metadata", r"format_utils dcp_to_torch"),
        ("adapter_config.json", r"it is a LoRA adapter; give the checkpoint of its model, .* --adapter"),
    ],
)
def test_directories_without_weights_of_their_own_are_told(tmp_path, name, words):
    (tmp_path / name).write_text("")
    save(tmp_path / "adapter_model.safetensors", {"a": np.ones(2, "f4")})
    with pytest.raises(FileNotFoundError, match=words) as error:
        open_checkpoint(tmp_path, CONFIG)
    told(error.value)
    save(tmp_path / "model.safetensors", bare())
    assert same(load_state_dict(tmp_path, config=CONFIG), bare())


def test_a_checkpoint_of_lightning_in_a_directory(tmp_path):
    save(tmp_path / "epoch=3.ckpt", CONTAINERS["Lightning"](torch_tensors(under("model.", bare()))))
    assert same(load_state_dict(tmp_path, config=CONFIG), bare())


def test_factors_of_lora_are_never_left_out_in_silence(tmp_path):
    """As `torch.save(peft_model.state_dict())` leaves them."""
    state = dict(bare())
    state[f"{LINEAR}.base_layer.weight"] = state.pop(f"{LINEAR}.weight")
    state |= {f"{LINEAR}.lora_{part}.default.weight": np.ones((1, 2), "f4") for part in "AB"}
    path = save(tmp_path / "x.safetensors", under("base_model.model.", state))
    with pytest.raises(ValueError, match=r"LoRA factors are not merged") as error:
        load_state_dict(path, config=CONFIG)
    told(error.value)


def test_a_decoy_landmark_is_no_model(tmp_path):
    state = bare() | {"decoy.encoder.visn_fc.visn_fc.weight": np.ones(2, "f4")}
    checkpoint = open_checkpoint(save(tmp_path / "x.safetensors", state), CONFIG)
    assert same(dict(checkpoint.tensors), bare()) and len(checkpoint.outside) == 1
