"""`fit` compiles with XLA where that pays, says so, and leaves the choice to whoever makes it."""

import logging

import keras
import pytest
from support.models import batch, labels, tiny_model

from lxmert_tf import compilation
from lxmert_tf.compilation import ChooseCompilation, is_worth_compiling

SMALL = {"l_layers": 1, "r_layers": 0}
PUBLISHED = 228_051_752


@pytest.fixture
def keras_would_compile(monkeypatch):
    monkeypatch.setattr(keras.Model, "_resolve_auto_jit_compile", lambda self: True)


def test_what_is_worth_compiling():
    assert is_worth_compiling(PUBLISHED, 1000)
    assert not is_worth_compiling(PUBLISHED, 100)
    assert not is_worth_compiling(5_000, 100_000)
    assert not is_worth_compiling(PUBLISHED, None)


def choose(model, **params) -> bool:
    callback = model.choose_compilation
    callback.set_model(model)
    callback.set_params(params)
    return model.jit_compile


def test_the_choice_goes_by_size_and_steps_and_is_told_once(keras_would_compile, monkeypatch, caplog):
    model = tiny_model(**SMALL)
    model.compile("sgd")
    model.train_function = before = object()
    with caplog.at_level(logging.INFO, "lxmert_tf"):
        assert not choose(model, steps=10, epochs=2)
        assert not choose(model, steps=10, epochs=2)
        assert model.train_function is before
        monkeypatch.setattr(compilation, "WORTH_COMPILING", 20 * model.count_params())
        assert choose(model, steps=10, epochs=2)
        assert model.train_function is None
        assert choose(model, steps=1, epochs=1)  # what is compiled stays
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert told[0].startswith("fit runs without XLA, with 20 steps and ") and "jit_compile=True" in told[0]
    assert told[1].startswith("fit runs with XLA, with 20 steps and ")


@pytest.mark.parametrize("given", [True, False])
def test_the_callers_choice_stands(keras_would_compile, given):
    model = tiny_model(**SMALL)
    model.compile("sgd", jit_compile=given)
    assert model.choose_compilation is None and model.jit_compile == given
    assert model.get_compile_config()["jit_compile"] == given


def test_what_is_left_open_stays_open_when_it_is_saved(keras_would_compile):
    model = tiny_model(**SMALL)
    model.compile("sgd")
    assert model.get_compile_config()["jit_compile"] == "auto"


def test_fit_asks(keras_would_compile, monkeypatch):
    model = tiny_model(**SMALL)
    model.compile("sgd")
    model.run_eagerly = True
    asked = []
    monkeypatch.setattr(ChooseCompilation, "set_params", lambda self, params: asked.append(params))
    model.fit(batch(model), labels(model), batch_size=2, epochs=3, verbose=0)
    assert [(params["steps"], params["epochs"]) for params in asked] == [(2, 3)]
