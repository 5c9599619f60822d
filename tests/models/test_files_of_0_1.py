"""What 0.1 saved still loads: models with their optimizers and metrics, and every registered object."""

import copy
import json

import keras
import numpy as np
import pytest
from support.golden import GOLDEN, REL32, assert_close
from support.models import batch, flat, to_numpy

import lxmert_tf

FOLDER = GOLDEN / "saved_by_0_1"
MODELS = {
    "model": lxmert_tf.TFLxmertModel,
    "pretraining": lxmert_tf.TFLxmertForPreTraining,
    "qa": lxmert_tf.TFLxmertForQuestionAnswering,
    "qa_recipe": lxmert_tf.TFLxmertForQuestionAnswering,
    "visual_reasoning": lxmert_tf.TFLxmertForVisualReasoning,
}
OBJECTS = json.loads((FOLDER / "objects.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "expected.npz") as arrays:
        return dict(arrays)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models_load_and_compute_the_same(name, expected):
    model = keras.models.load_model(FOLDER / f"{name}.keras")
    assert type(model) is MODELS[name]
    outputs = flat(model(batch(model, tokens=5, boxes=4), training=False))
    known = [key for key in outputs if f"{name}/{key}" in expected]
    assert known
    for key in known:
        assert_close(outputs[key], expected[f"{name}/{key}"], REL32, key)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "model"])
def test_their_optimizers_keep_moments_and_steps(name, expected):
    model = keras.models.load_model(FOLDER / f"{name}.keras")
    saved = json.loads((FOLDER / "optimizer_variables.json").read_text(encoding="utf-8"))[name]
    saved = [entry for number, entry in enumerate(saved) if entry not in saved[:number]]  # `nonfinite` was there twice
    variables = model.optimizer.variables
    assert [list(variable.shape) for variable in variables] == [shape for _, shape in saved]
    for (path, _), variable in zip(saved, variables, strict=True):
        np.testing.assert_array_equal(to_numpy(variable), expected[f"{name}/optimizer/{path}"], path)


@pytest.mark.parametrize(
    ("kind", "saved"),
    [(kind, saved) for kind, objects in OBJECTS.items() for saved in objects],
    ids=lambda value: value if isinstance(value, str) else value["class_name"],
)
def test_registered_objects_load(kind, saved):
    loaded = keras.saving.deserialize_keras_object(copy.deepcopy(saved))  # it changes its argument
    known = {name: value for name, value in saved["config"].items() if name in loaded.get_config()}
    assert set(saved["config"]) - set(known) <= {"skip_nonfinite"}
    for name, value in known.items():
        if not isinstance(value, dict):
            assert loaded.get_config()[name] == value, name
