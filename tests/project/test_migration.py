"""docs/from-tflxmert.md: every name of upstream's LXMERT has a row, and each row is true."""

import importlib.util
import inspect
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import torch
from support.golden import ROOT
from support.models import batch, tiny_config, tiny_model
from upstream.names import LIST, names_of, one_by_one, without_row

import lxmert_pt
import lxmert_tf
import lxmert_tf.layers.embeddings
from lxmert_tf.hub import HUB_OPTIONS, UPLOAD_OPTIONS
from lxmert_tf.pretrained import MODEL_OPTIONS, SETTINGS
from lxmert_tf.upstream_arguments import ARGUMENTS

NAMES = json.loads(LIST.read_text(encoding="utf-8"))


MISSING = object()
POPPED = ("LxmertForPreTraining.forward", "masked_lm_labels")  # it is in upstream's `**kwargs`


def load_tables():
    spec = importlib.util.spec_from_file_location("docs_tables", ROOT / "docs" / "tables.py")
    tables = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tables)
    return tables


TABLES = load_tables()
ROWS = [(f"{group} {number}", row) for group, rows in TABLES.upstream().items() for number, row in enumerate(rows)]
WITH_OWN_ROW = {name for _, row in ROWS for name in names_of(row) if "(" in name}


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """What checks use: small models of both packages with the same weights, and a batch."""
    config = tiny_config()
    keras_classes = (lxmert_tf.TFLxmertModel, lxmert_tf.TFLxmertForPreTraining, lxmert_tf.TFLxmertForQuestionAnswering)
    tf_models = [tiny_model(cls) for cls in keras_classes]
    pt_models = [getattr(lxmert_pt, type(m).__name__[2:]).from_pretrained(m) for m in tf_models]
    vocabulary = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\n")
    inputs = batch(tf_models[0])
    return {
        "config": config,
        **dict(zip(("tf_model", "tf_pretraining", "tf_qa"), tf_models, strict=True)),
        **dict(zip(("pt_model", "pt_pretraining", "pt_qa"), pt_models, strict=True)),
        "tokenizer": lxmert_tf.LxmertTokenizer(vocabulary),
        "fast_tokenizer": lxmert_tf.LxmertTokenizerFast(vocabulary),
        "inputs": inputs,
        "pt_inputs": {name: torch.tensor(value) for name, value in inputs.items()},
        **{module.__name__: module for module in (keras, torch, lxmert_tf, lxmert_pt, pytest)},
        "np": np,
        "signature": inspect.signature,
        "argument": argument,
    }


def argument(name: str) -> str:
    return name.partition("(")[2].rstrip(")")


def home(class_name: str, shared: dict):
    """What has the names of one of upstream's classes here."""
    layers = SimpleNamespace(
        TFLxmertVisualFeatureEncoder=lxmert_tf.layers.embeddings.LxmertVisualFeatureEncoder,
        LxmertXLayer=type(shared["pt_model"].encoder.x_layers[0]),
    )
    if "Config" in class_name:
        return shared["config"]
    if "Token" in class_name:
        return shared["fast_tokenizer" if "Fast" in class_name else "tokenizer"]
    for package in (lxmert_tf, lxmert_pt, layers):
        if hasattr(package, class_name):
            return getattr(package, class_name)
    return shared["tf_pretraining" if class_name.startswith("TF") else "pt_pretraining"]


def find(name: str, shared: dict):
    """What is called so here, or MISSING."""
    class_name, _, member = name.partition(".")
    owner = home(class_name, shared)
    if class_name.endswith("Output"):
        return owner if member in ("", *owner.fields) else MISSING
    if not member:
        return owner if isinstance(owner, type) else type(owner)
    return getattr(owner, member, MISSING)


def takes(function, name: str, shared: dict) -> bool:
    """Whether it has an argument of the name, or hands it on to what has."""
    if function is lxmert_tf.LxmertConfig:
        return hasattr(shared["config"], name)
    parameters = inspect.signature(function).parameters
    kinds = {parameter.kind for parameter in parameters.values()}
    known = set()
    if inspect.Parameter.VAR_KEYWORD in kinds:
        tokenizer = shared["tokenizer"]
        further = (tokenizer.__call__, tokenizer.decode, type(tokenizer).__base__, shared["pt_model"].save_pretrained)
        known = {*ARGUMENTS, *HUB_OPTIONS, *UPLOAD_OPTIONS, *MODEL_OPTIONS, *SETTINGS}
        known = known.union(*(inspect.signature(each).parameters for each in further))
    if inspect.Parameter.VAR_POSITIONAL in kinds and hasattr(keras.Model, function.__name__):
        known |= {"data", *inspect.signature(getattr(keras.Model, function.__name__)).parameters}
    return name in known.union(parameters)


def test_every_name_of_upstream_has_a_row():
    assert len(NAMES) > 300
    assert without_row(one_by_one(NAMES), [row for _, row in ROWS]) == []


def test_every_row_is_about_names_of_upstream():
    known = {*one_by_one(NAMES)}
    for place, row in ROWS:
        assert ("there" in row) or names_of(row), place
        assert {name for name in names_of(row) if "*" not in name} <= known, place


@pytest.mark.parametrize("name", ["TFLxmertModel.call", "TFLxmertForPreTraining.call"])
def test_inputs_by_position_mean_the_same(name, shared):
    for each in (name, name.replace("TF", "").replace("call", "forward"), "LxmertForQuestionAnswering.forward"):
        given = [argument for argument in NAMES[each] if (each, argument) != POPPED]
        assert [*inspect.signature(find(each, shared)).parameters][1 : len(given) + 1] == given


def test_the_page_has_the_tables():
    for path, text in TABLES.pages().items():
        assert path.read_text(encoding="utf-8") == text, "run `python docs/tables.py`"


@pytest.mark.slow
@pytest.mark.parametrize("row", [pytest.param(row, id=place) for place, row in ROWS])
def test_the_row_is_true(row, shared, tmp_path):
    here, names = row.get("here", "the same"), names_of(row)
    if here == "the same":
        for name in names:
            found = find(name, shared)
            assert found is not MISSING, name
            arguments = [given for given in NAMES[name] if f"{name}({given})" not in WITH_OWN_ROW]
            assert [given for given in arguments if not takes(found, given, shared)] == [], name
    elif here == "-":
        for name in names:
            found = find(name.partition("(")[0], shared)
            assert found is MISSING or ("(" in name and not takes(found, argument(name), shared)), name
    else:
        assert row["check"]
    if "check" in row:
        exec(row["check"], {**shared, "folder": tmp_path, "names": names})
