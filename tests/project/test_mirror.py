"""lxmert_pt mirrors lxmert_tf: the same files, classes, order, attributes and arguments, but for what is named here."""

import ast
import importlib
import inspect

import keras
import pytest
import torch
from support.golden import ROOT
from support.models import tiny_config

from conversion.names import SPELLINGS

FILES = (
    *("inputs", "losses", "modeling", "optimizers", "outputs", "pretrained"),
    *(f"layers/{name}" for name in ("attention", "embeddings", "heads", "primitives", "transformer")),
)
DETECTOR = (
    *("boxes", "modeling", "nms", "selection"),
    *(f"layers/{name}" for name in ("heads", "pooling", "primitives", "proposals", "resnet")),
)
MODELS = ("LxmertModel", "LxmertForPreTraining", "LxmertForQuestionAnswering", "LxmertForVisualReasoning")

# Arguments that only one of the two has, and why
ONLY_KERAS = {"training", "word_embeddings"}  # PyTorch keeps both in the module: its mode, and the tied decoder
ONLY_KERAS_LAYERS = {"output_attentions"}  # those of PyTorch, a reference, always compute the probabilities
# Upstream's own order differs between its frameworks
OTHER_ORDER = {"LxmertForPreTraining"}
# Children without a counterpart: PyTorch ties its decoder as a layer of its own, and keeps the GELU of `logit_fc` there
ONLY_PYTORCH = {"decoder", "logit_fc_1"}
KERAS_NAMES = {torch_name: keras_name for torch_name, keras_name, _ in SPELLINGS.values()}


def tree(package: str, file: str) -> ast.Module:
    return ast.parse((ROOT / package / f"{file}.py").read_text(encoding="utf-8"))


def classes(package: str, file: str) -> list[str]:
    found = [node.name for node in tree(package, file).body if isinstance(node, ast.ClassDef)]
    return [name.removeprefix("TF") for name in found if "Lxmert" in name]


def functions(package: str, file: str) -> list[str]:
    return [node.name for node in tree(package, file).body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"]


def test_the_same_files():
    found = {str(path.relative_to(ROOT / "lxmert_pt"))[:-3] for path in (ROOT / "lxmert_pt").rglob("*.py")}
    faces = {"__init__", "layers/__init__", "detector/__init__", "detector/layers/__init__"}
    # `explain` is one file: an implementation independent of the package lxmert_tf.explain
    assert found - faces == {*FILES, *(f"detector/{name}" for name in DETECTOR), "explain"}


@pytest.mark.parametrize("file", DETECTOR)
def test_the_detectors_stand_in_the_same_order(file):
    """Classes, functions, and methods that callers see; what one framework has and the other needs is private."""
    ours, theirs = (public(package, f"detector/{file}") for package in ("lxmert_tf", "lxmert_pt"))
    shared = [name for name in ours if name in theirs]
    assert shared == [name for name in theirs if name in ours]
    assert len(shared) >= len(theirs) - 1


def public(package: str, file: str) -> list[str]:
    names = [node.name for node in tree(package, file).body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    return [name for name in names if not name.startswith("_")]


@pytest.mark.parametrize("file", FILES)
def test_the_same_classes_in_the_same_order(file):
    assert classes("lxmert_pt", file) == classes("lxmert_tf", file)


@pytest.mark.parametrize("file", ["inputs", "losses", "layers/attention"])
def test_functions_of_both_stand_in_the_same_order(file):
    ours, theirs = functions("lxmert_tf", file), functions("lxmert_pt", file)
    shared = [name for name in ours if name in theirs]
    assert shared == [name for name in theirs if name in ours]
    assert set(theirs) <= set(ours)


PAIRS = [
    (file, name) for file in FILES if file.startswith(("layers", "modeling")) for name in classes("lxmert_pt", file)
]


@pytest.mark.parametrize(("file", "name"), PAIRS, ids=lambda value: value)
def test_the_same_arguments_of_a_call(file, name):
    module = file.replace("/", ".")
    prefix = "TF" if file == "modeling" else ""
    ours = getattr(importlib.import_module(f"lxmert_tf.{module}"), prefix + name)
    theirs = getattr(importlib.import_module(f"lxmert_pt.{module}"), name)
    only = ONLY_KERAS | (ONLY_KERAS_LAYERS if module.startswith("layers") else set())
    called = [each for each in inspect.signature(ours.call).parameters if each not in only]
    forward = list(inspect.signature(theirs.forward).parameters)
    if name in OTHER_ORDER:
        called, forward = sorted(called), sorted(forward)
    assert called == forward


@pytest.mark.parametrize("name", MODELS)
def test_the_same_attributes_all_the_way_down(name):
    import lxmert_pt
    import lxmert_tf

    config = tiny_config(l_layers=2, r_layers=2, x_layers=2)
    theirs, ours = getattr(lxmert_pt, name)(config), getattr(lxmert_tf, f"TF{name}")(config)
    assert (theirs.task, theirs.answers, theirs.num_images) == (ours.task, ours.answers, ours.num_images)
    assert same_children(theirs, ours) > 50


def same_children(theirs: torch.nn.Module, ours: keras.layers.Layer) -> int:
    """Holds the children of two layers to the same names, and theirs in turn; returns how many there are."""
    named = {}
    for name, child in theirs.named_children():
        if isinstance(child, torch.nn.ModuleList | torch.nn.Sequential | torch.nn.ModuleDict):
            named |= {f"{name}_{key}": each for key, each in child.named_children()}
        else:
            named[KERAS_NAMES.get(name, name)] = child
    named = {name: child for name, child in named.items() if name not in ONLY_PYTORCH}
    found = {layer.name: layer for layer in ours._flatten_layers(include_self=False, recursive=False)}
    assert set(named) == set(found), type(theirs).__name__
    return len(named) + sum(same_children(child, found[name]) for name, child in named.items())
