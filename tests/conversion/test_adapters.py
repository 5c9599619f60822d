"""LoRA adapters: merged as PEFT merges them, and refused where they are something else or do not fit."""

import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.checkpoints import run, same
from support.models import tiny_config

from conversion import load_state_dict, open_checkpoint
from conversion.cli import main
from conversion.names import rows
from conversion.writers import write_checkpoint
from lxmert_tf import TFLxmertForQuestionAnswering
from lxmert_tf.command_line import sentence

CONFIG = tiny_config(l_layers=1)
QUERY, VALUE = (f"lxmert.encoder.layer.0.attention.self.{name}" for name in ("query", "value"))
WORDS, LAST = "lxmert.embeddings.word_embeddings", "answer_head.logit_fc.3"
ROOT = "base_model.model."
rng = np.random.default_rng(0)
BASE = {row.torch: rng.standard_normal(row.shape(CONFIG)).astype("f4") for row in rows(CONFIG, "qa")}
A, B = (rng.standard_normal(shape).astype("f4") for shape in ((4, 12), (12, 4)))
OPTIONS = {"peft_type": "LORA", "r": 4, "lora_alpha": 7, "base_model_name_or_path": "../../../etc/passwd"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    write_checkpoint(folder, BASE, CONFIG, "qa", "hf-pt")
    return folder


def adapter(folder: Path, tensors: dict[str, np.ndarray], to: str = "safetensors", **options: object) -> Path:
    """A directory as PEFT saves one."""
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps({**OPTIONS, **options}))
    named = {ROOT + name: np.asarray(value, order="C") for name, value in tensors.items()}
    if to == "safetensors":
        save_file(named, folder / "adapter_model.safetensors", {"format": "pt"})
    else:
        torch.save({name: torch.from_numpy(value) for name, value in named.items()}, folder / "adapter_model.bin")
    return folder


def lora(module: str, a: np.ndarray = A, b: np.ndarray = B) -> dict[str, np.ndarray]:
    return {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}


PRODUCT = B.astype("f8") @ A


def merged(name: str, factor: float, delta: np.ndarray = PRODUCT) -> np.ndarray:
    return (BASE[name].astype("f8") + factor * delta.astype("f8")).astype("f4")


MAGNITUDE, WIDE, NARROW = (rng.standard_normal(shape).astype("f4") for shape in ((12,), (4, 37), (5, 24)))
MIXED = merged(f"{QUERY}.weight", 7 / 4).astype("f8")
# What an adapter holds, its options, and the tensors that it changes.
CASES = {
    "plain": (lora(QUERY), {}, {f"{QUERY}.weight": merged(f"{QUERY}.weight", 7 / 4)}),
    "another rank": (
        lora(QUERY, A[:2], B[:, :2]),
        {"rank_pattern": {"query": 2}},
        {f"{QUERY}.weight": merged(f"{QUERY}.weight", 7 / 2, B[:, :2].astype("f8") @ A[:2])},
    ),
    "rslora": (lora(QUERY), {"use_rslora": True}, {f"{QUERY}.weight": merged(f"{QUERY}.weight", 7 / math.sqrt(4))}),
    "alphas of modules": (
        lora(QUERY) | lora(VALUE),
        {"alpha_pattern": {"self.query": 3, "alue": 5}},
        {f"{QUERY}.weight": merged(f"{QUERY}.weight", 3 / 4), f"{VALUE}.weight": merged(f"{VALUE}.weight", 7 / 4)},
    ),
    "words": (
        {f"{WORDS}.lora_embedding_A": WIDE, f"{WORDS}.lora_embedding_B": B},
        {},
        {f"{WORDS}.weight": merged(f"{WORDS}.weight", 7 / 4, (B.astype("f8") @ WIDE).T)},
    ),
    "dora": (
        lora(QUERY) | {f"{QUERY}.lora_magnitude_vector": MAGNITUDE},
        {"use_dora": True},
        {f"{QUERY}.weight": MIXED * (MAGNITUDE / np.linalg.norm(MIXED, axis=1))[:, None]},
    ),
    "a bias of the factors": (
        lora(QUERY) | {f"{QUERY}.lora_B.bias": MAGNITUDE},
        {"lora_bias": True},
        {
            f"{QUERY}.weight": merged(f"{QUERY}.weight", 7 / 4),
            f"{QUERY}.bias": merged(f"{QUERY}.bias", 7 / 4, MAGNITUDE),
        },
    ),
    "whole tensors": (
        lora(QUERY) | {f"{QUERY}.base_layer.bias": MAGNITUDE, f"{LAST}.weight": NARROW},
        {"bias": "lora_only", "modules_to_save": ["logit_fc.3"]},
        {f"{QUERY}.weight": merged(f"{QUERY}.weight", 7 / 4), f"{QUERY}.bias": MAGNITUDE, f"{LAST}.weight": NARROW},
    ),
    "of a larger model": (
        {f"vqa.{name}": value for name, value in lora(QUERY).items()} | {"own.classifier.weight": NARROW},
        {},
        {f"{QUERY}.weight": merged(f"{QUERY}.weight", 7 / 4)},
    ),
    "of a bare encoder": (
        {name.removeprefix("lxmert."): value for name, value in lora(QUERY).items()},
        {},
        {f"{QUERY}.weight": merged(f"{QUERY}.weight", 7 / 4)},
    ),
}


@pytest.mark.parametrize("to", ["safetensors", "bin"])
@pytest.mark.parametrize("case", CASES)
def test_an_adapter_is_merged(tmp_path, base, case, to):
    tensors, options, changed = CASES[case]
    checkpoint = open_checkpoint(base, adapter=adapter(tmp_path / "lora", tensors, to, **options))
    found = load_state_dict(checkpoint)
    assert set(found) == set(BASE)
    for name, value in found.items():
        # Computed in float64 and rounded once: DoRA's expectation begins from a rounded tensor.
        tolerance = 2e-6 if case == "dora" and name in changed else 0
        np.testing.assert_allclose(value, changed.get(name, BASE[name]), rtol=tolerance, err_msg=name)
    assert checkpoint.notes[-1].startswith(f"the adapter {tmp_path / 'lora'} is merged into {len(changed)} tensor")
    assert ("own.classifier.weight" in checkpoint.notes[-1]) == (case == "of a larger model")


def test_an_adapter_from_the_command_line_and_in_a_model(tmp_path, base):
    tensors, _, changed = CASES["plain"]
    folder = adapter(tmp_path / "lora", tensors)
    code, out, err = run("convert", base, tmp_path / "out", "--adapter", folder)
    assert (code, err) == (0, "") and f"note: the adapter {folder} is merged into 1 tensor" in out
    assert same(load_file(tmp_path / "out/model.safetensors"), {**BASE, **changed})
    assert run("inspect", base, "--adapter", folder)[0] == 0
    model = TFLxmertForQuestionAnswering.from_pretrained(open_checkpoint(base, adapter=folder))
    assert same(load_state_dict(model), {**BASE, **changed})


def test_half_precision_stays(tmp_path, base):
    folder = adapter(tmp_path / "lora", lora(QUERY))
    half = load_state_dict(base, dtype="float16")
    found = load_state_dict(open_checkpoint(half, CONFIG, adapter=folder))
    expected = half[f"{QUERY}.weight"].astype("f8") + 7 / 4 * PRODUCT
    assert np.array_equal(found[f"{QUERY}.weight"], expected.astype("f2"))


# Refused

CONFIGS = {
    "another kind": ({"peft_type": "IA3"}, "only adapters of the peft_type LORA are merged, got 'IA3'"),
    "no kind": ({"peft_type": None}, "got None"),
    "alpha of text": ({"lora_alpha": "7"}, "lora_alpha must be a number, got '7'"),
    "alpha that is none": ({"lora_alpha": float("nan")}, "lora_alpha must be a number, got nan"),
    "no alpha": ({"lora_alpha": None}, "lora_alpha must be a number, got None"),
    "a switch": ({"lora_alpha": True}, "lora_alpha must be a number, got True"),
    "a slow expression": ({"alpha_pattern": {"(a+)+$": 1}}, "regular expressions are not followed"),
    "a list": ({"alpha_pattern": ["query"]}, "alpha_pattern must map names"),
    "alphas of text": ({"alpha_pattern": {"query": "3"}}, "query must be a number, got '3'"),
    "other base weights": ({"init_lora_weights": "pissa_niter_4"}, "has changed the base weights"),
    "other arithmetic": ({"alora_invocation_tokens": [1]}, "an adapter with alora_invocation_tokens is not merged"),
}
SIZES = {
    "too wide": (lora(QUERY, np.ones((4, 13), "f4")), r"\[12, 12\], which does not fit A \[4, 13\], B \[12, 4\]"),
    "two ranks": (lora(QUERY, A[:3]), r"does not fit A \[3, 12\], B \[12, 4\]"),
    "one factor": ({f"{QUERY}.lora_A.weight": A}, r"does not fit A \[4, 12\]"),
    "flat": (lora(QUERY, A[0]), r"does not fit A \[12\]"),
    "a number": (lora(QUERY, np.ones((), "f4")), r"does not fit A \[\]"),
    "no rank": (lora(QUERY, A[:0]), r"does not fit A \[0, 12\]"),
    "an outer product": (lora(f"{QUERY}.bias".removesuffix(".bias"), A[:, :1], B[:1]), "does not fit"),
    "whole": ({f"{LAST}.weight": A}, r"does not fit its value \[4, 12\]"),
    "magnitude": (lora(QUERY) | {f"{QUERY}.lora_magnitude_vector": MAGNITUDE[:3]}, r"magnitude \[3\]"),
    "magnitude alone": ({f"{QUERY}.lora_magnitude_vector": MAGNITUDE}, r"does not fit magnitude \[12\]"),
    "integers": (lora(QUERY, A.astype("i4")), "must hold floating-point numbers, got int32"),
    "nowhere": (lora("lxmert.encoder.layer.7.attention.self.query"), "the checkpoint has no lxmert.encoder.layer.7"),
    "unknown": ({f"{QUERY}.lora_C.weight": A}, "is a part of LoRA that is not merged; use PEFT's merge_and_unload"),
    "nothing": ({}, "it holds no tensors"),
}


def refused(base: Path, folder: Path) -> str:
    """The line that refuses an adapter, which names a file of it."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_state_dict(open_checkpoint(base, adapter=folder))
    line = sentence(error.value)
    assert str(folder) in line and "\n" not in line and len(line) < 2000
    return line


@pytest.mark.parametrize("case", CONFIGS)
def test_a_config_of_another_kind_is_refused(tmp_path, base, case):
    options, words = CONFIGS[case]
    assert words in refused(base, adapter(tmp_path / "lora", lora(QUERY), **options))


@pytest.mark.parametrize("case", SIZES)
def test_tensors_that_do_not_fit_are_refused(tmp_path, base, case):
    tensors, words = SIZES[case]
    with pytest.raises(ValueError, match=words):
        load_state_dict(open_checkpoint(base, adapter=adapter(tmp_path / "lora", tensors)))
    refused(base, tmp_path / "lora")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"peft_type": "LORA", "peft_type": "LORA"}', "[" * 10_000])
def test_a_config_that_is_none_is_refused(tmp_path, base, text):
    folder = adapter(tmp_path / "lora", lora(QUERY))
    (folder / "adapter_config.json").write_text(text)
    refused(base, folder)


def test_what_is_no_adapter_is_told(tmp_path, base):
    folder = adapter(tmp_path / "lora", lora(QUERY))
    (folder / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors" in refused(base, folder)
    (folder / "adapter_config.json").unlink()
    assert "is not an adapter that PEFT saved: there is no adapter_config.json" in refused(base, folder)
    assert "is not an adapter" in refused(base, tmp_path / "nowhere")


def test_weights_that_run_code_or_are_cut_short_are_refused(tmp_path, base):
    folder = adapter(tmp_path / "lora", lora(QUERY))
    whole = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(whole[:-5])
    assert "cut short" in refused(base, folder)
    (folder / "adapter_model.safetensors").unlink()

    class Call:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({f"{ROOT}{QUERY}.lora_A.weight": Call()}, folder / "adapter_model.bin")
    assert "more than tensors" in refused(base, folder) and not (tmp_path / "ran").exists()


def test_a_tied_decoder_is_not_merged_in_silence(tmp_path, base):
    state = dict(BASE) | {"cls.predictions.decoder.weight": BASE[f"{WORDS}.weight"]}
    folder = adapter(tmp_path / "lora", lora("cls.predictions.decoder", A, np.ones((37, 4), "f4")))
    with pytest.raises(ValueError, match="is tied to the word embeddings, so it is not merged"):
        open_checkpoint(state, CONFIG, adapter=folder)


def test_damaged_adapters_are_told_as_such(tmp_path, base):
    folder = adapter(tmp_path / "lora", lora(QUERY))
    (folder / "adapter_model.safetensors").write_bytes(b"damaged")
    assert "cannot be read as a LoRA adapter: it is of no known format" in refused(base, folder)


def test_two_adapters_on_one_command_line_are_refused(base, tmp_path, capsys):
    with pytest.raises(SystemExit) as error:
        main(["convert", str(base), str(tmp_path / "out"), "--adapter", "a", "--adapter", "b"])
    assert error.value.code == 2
    assert "argument --adapter: give it once" in capsys.readouterr().err
