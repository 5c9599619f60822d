"""What Keras' users expect of any layer and model holds for each of ours, whatever backend Keras runs on.

`make backends` runs this file under PyTorch, and under JAX in an environment without TensorFlow.
"""

import json
from functools import cache

import keras
import numpy as np
import pytest
from support.models import MODELS, batch, flat, labels, tiny_config, tiny_model

from lxmert_tf import TFLxmertForPreTraining
from lxmert_tf.layers import attention, embeddings, heads, primitives, transformer
from lxmert_tf.layers.quantization import old_objects_kept

POLICIES = ("float32", "float64", "mixed_bfloat16", "mixed_float16", "bfloat16", "float16")
TOLERANCES = {"float64": 1e-12, "float32": 1e-5, "float16": 0.03, "bfloat16": 0.2}
MODES = {"int8": 0.05, "int4": 0.7, "float8": 0.2}  # and how far logits may be off, of the largest
CONFIG = tiny_config(l_layers=1)
WHOLE = TFLxmertForPreTraining  # has every head

rng = np.random.default_rng(0)
IDS = rng.integers(0, 37, (2, 7)).astype("int32")
TYPES = rng.integers(0, 2, (2, 7)).astype("int32")
WORDS, BOXES, WIDE, POOLED, TABLE, FEATURES, CORNERS = (
    rng.random(shape, "float32")
    for shape in ((2, 7, 12), (2, 5, 12), (2, 7, 20), (2, 12), (37, 12), (2, 5, 9), (2, 5, 4))
)
# Arguments beside the config, and inputs
BLOCKS = {
    embeddings.LxmertEmbeddings: ({}, (IDS, TYPES)),
    embeddings.LxmertVisualFeatureEncoder: ({}, (FEATURES, CORNERS)),
    attention.LxmertAttention: ({}, (WORDS, BOXES)),
    attention.LxmertAttentionOutput: ({}, (WORDS, WORDS)),
    attention.LxmertSelfAttentionLayer: ({}, (WORDS,)),
    attention.LxmertCrossAttentionLayer: ({}, (WORDS, BOXES)),
    transformer.LxmertIntermediate: ({}, (WORDS,)),
    transformer.LxmertOutput: ({}, (WIDE, WORDS)),
    transformer.LxmertLayer: ({}, (WORDS,)),
    transformer.LxmertXLayer: ({}, (WORDS, BOXES)),
    transformer.LxmertEncoder: ({}, (WORDS, FEATURES, CORNERS)),
    heads.LxmertPooler: ({}, (WORDS,)),
    heads.LxmertPredictionHeadTransform: ({}, (WORDS,)),
    heads.LxmertLMPredictionHead: ({}, (WORDS, TABLE)),
    heads.LxmertPreTrainingHeads: ({}, (WORDS, POOLED, TABLE)),
    heads.LxmertVisualObjHead: ({}, (BOXES,)),
    heads.LxmertVisualAnswerHead: ({"num_labels": 5}, (POOLED,)),
}
LAYERS = {
    primitives.Dense: ({"units": 6}, (WORDS,)),
    primitives.LayerNormalization: ({}, (WORDS,)),
    primitives.Dropout: ({"rate": 0.5}, (WORDS,)),
    embeddings.PaddedEmbedding: ({"input_dim": 37, "output_dim": 12}, (IDS,)),
    **{layer: ({"config": CONFIG, **arguments}, inputs) for layer, (arguments, inputs) in BLOCKS.items()},
}

every_layer = pytest.mark.parametrize("layer_class", LAYERS, ids=lambda each: each.__name__)
every_model = pytest.mark.parametrize("model_class", MODELS, ids=lambda each: each.__name__)
every_policy = pytest.mark.parametrize("policy", POLICIES)
# Keras says so of tables in float8, which it quantizes as little
no_float8_tables = pytest.mark.filterwarnings("ignore:Invalid quantization mode. Expected one of:UserWarning")


def make(layer_class, dtype=None) -> keras.layers.Layer:
    """A built layer with random weights."""
    layer = layer_class(dtype=dtype, **LAYERS[layer_class][0])
    layer.build(LAYERS[layer_class][1][0].shape)
    return filled(layer)


@cache
def exact(layer_class) -> list[np.ndarray]:
    """What it computes in float64."""
    return arrays(make(layer_class, "float64")(*inputs_of(layer_class, "float64")))


def filled(layer, seed: int = 0):
    values = np.random.default_rng(seed)
    for variable in layer.weights:
        variable.assign(0.3 * values.standard_normal(variable.shape))
    return layer


def inputs_of(layer_class, dtype=None) -> list:
    """Its inputs as tensors; floats in the dtype that the layers compute in."""
    compute = keras.dtype_policies.get(dtype).compute_dtype
    return [
        keras.ops.convert_to_tensor(x, dtype=compute if x.dtype == "float32" else None) for x in LAYERS[layer_class][1]
    ]


def arrays(output) -> list[np.ndarray]:
    """All tensors of an output in float64."""
    return [keras.ops.convert_to_numpy(each).astype("float64") for each in keras.tree.flatten(output)]


def assert_close(one, other, tolerance: float) -> None:
    one, other = arrays(one), arrays(other)
    assert len(one) == len(other) > 0
    for ours, theirs in zip(one, other, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * (1 + np.abs(theirs).max()))


def shapes(output):
    return keras.tree.map_structure(lambda each: tuple(each.shape), output)


def weighted(layer) -> list:
    """The layers inside that have a kernel or a table."""
    return [each for each in layer._flatten_layers() if isinstance(each, keras.layers.Dense | keras.layers.Embedding)]


# Layers


@every_layer
def test_a_layer_is_made_again_from_its_config(layer_class):
    layer = make(layer_class)
    saved = json.loads(json.dumps(keras.layers.serialize(layer)))
    again = keras.layers.deserialize(saved)
    assert type(again) is layer_class and again.get_config() == layer.get_config()
    again(*inputs_of(layer_class))
    again.set_weights(layer.get_weights())
    assert_close(again(*inputs_of(layer_class)), layer(*inputs_of(layer_class)), 1e-6)


@pytest.mark.slow
@every_layer
@every_policy
def test_a_layer_computes_in_its_policy(layer_class, policy):
    layer, policy = make(layer_class, policy), keras.dtype_policies.get(policy)
    output = layer(*inputs_of(layer_class, policy))
    assert {keras.backend.standardize_dtype(each.dtype) for each in keras.tree.flatten(output)} == {
        policy.compute_dtype
    }
    assert {keras.backend.standardize_dtype(each.dtype) for each in layer.weights} <= {policy.variable_dtype}
    assert_close(output, exact(layer_class), TOLERANCES[policy.compute_dtype])


@pytest.mark.slow
@every_layer
def test_a_layer_knows_its_output_shape(layer_class):
    layer, inputs = make(layer_class), inputs_of(layer_class)
    given = [tuple(each.shape) for each in inputs]
    assert layer.compute_output_shape(*given) == shapes(layer(*inputs))
    free = layer.compute_output_shape(*(shape if shape == TABLE.shape else (None, *shape[1:]) for shape in given))
    known = keras.tree.map_structure(lambda each: (None, *each.shape[1:]), layer(*inputs))
    assert free == known


@pytest.mark.slow
@every_layer
def test_a_model_of_a_layer_is_saved_and_loaded(layer_class, tmp_path):
    layer, given = make(layer_class), inputs_of(layer_class)
    inputs = [keras.Input(batch_shape=each.shape, dtype=each.dtype) for each in given]
    model = keras.Model(inputs, keras.tree.flatten(layer(*inputs)))
    model.save(tmp_path / "model.keras")
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(given), model(given), 1e-6)


@every_layer
def test_a_frozen_layer_has_nothing_to_train(layer_class):
    layer = make(layer_class)
    total = len(layer.weights)
    layer.trainable = False
    assert not layer.trainable_weights and len(layer.non_trainable_weights) == total
    layer.trainable = True
    assert len(layer.trainable_weights) == total


@every_layer
def test_lora_adds_the_product_of_its_factors(layer_class):
    layer, merged = make(layer_class, "float64"), make(layer_class, "float64")
    inputs = inputs_of(layer_class, "float64")
    for ours, plain in zip(weighted(layer), weighted(merged), strict=True):
        ours.enable_lora(2, lora_alpha=3)
        factors = [each for each in ours.weights if "/lora_" in each.path or each.name.startswith("lora_")]
        a, b = (filled_variable(each) for each in factors)
        weight = plain.weights[0]
        weight.assign(keras.ops.convert_to_numpy(weight) + 1.5 * a @ b)
        assert not ours.weights[0].trainable
    assert_close(layer(*inputs), merged(*inputs), 1e-6)  # the factors and their product are float32


@every_layer
def test_a_layer_in_int8_computes_nearly_the_same(layer_class):
    layer = make(layer_class)
    with old_objects_kept():
        for each in weighted(layer):
            each.quantize("int8")
            assert each.quantization_mode == "int8"
    assert_close(layer(*inputs_of(layer_class)), exact(layer_class), 0.03)


# Models


@every_model
def test_a_model_is_made_again_from_its_config(model_class):
    model = tiny_model(model_class)
    again = model_class.from_config(json.loads(json.dumps(model.get_config())))
    assert again.get_config() == model.get_config()
    assert [each.path for each in again.weights] == [each.path for each in model.weights]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "policy"),
    [*((WHOLE, policy) for policy in POLICIES), *((each, "mixed_float16") for each in MODELS if each is not WHOLE)],
)
def test_a_model_computes_in_its_policy(model_class, policy):
    model, policy = tiny_model(model_class, policy, l_layers=1), keras.dtype_policies.get(policy)
    assert {each.dtype for each in model.weights} == {policy.variable_dtype}
    for name, value in model(batch(model)).items():
        assert keras.backend.standardize_dtype(value.dtype) == policy.compute_dtype, name
        assert np.isfinite(arrays(value)[0]).all(), name


@pytest.mark.slow
@every_model
def test_a_model_knows_its_output_shape(model_class):
    model = tiny_model(model_class)
    inputs = batch(model)
    output = model(inputs).to_tuple()
    found = model.compute_output_shape({name: (None, *value.shape[1:]) for name, value in inputs.items()})
    assert found.to_tuple() == tuple((None, *value.shape[1:]) for value in output)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "name"), [(WHOLE, "model.weights.h5"), *((each, "model.keras") for each in MODELS)]
)
def test_a_model_is_saved_and_loaded(model_class, name, tmp_path):
    model = tiny_model(model_class, l_layers=1)
    if name == "model.keras":
        model.save(tmp_path / name)
        loaded = keras.saving.load_model(tmp_path / name)
    else:
        model.save_weights(tmp_path / name)
        loaded = tiny_model(model_class, seed=1, l_layers=1)
        loaded.load_weights(tmp_path / name)
    assert_same(loaded, model, 1e-6)


def test_a_frozen_backbone_stays_as_it_is():
    model = tiny_model(l_layers=1)
    model.lxmert.trainable = False
    before = [np.array(each) for each in model.get_weights()]
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.fit(batch(model), labels(model), verbose=0)
    changed = {
        each.path.split("/")[1]
        for each, old in zip(model.weights, before, strict=True)
        if np.abs(keras.ops.convert_to_numpy(each) - old).max() > 0
    }
    assert changed == {"answer_head"}


@pytest.mark.parametrize("name", ["input_ids", "labels"])
def test_fit_stops_at_values_out_of_range(name):
    """As it compiles by itself: JAX counts them, TensorFlow's graph stops, PyTorch has no graph."""
    model = tiny_model(l_layers=0, r_layers=0)
    model.compile(keras.optimizers.SGD(0.1))
    x = {**batch(model), **labels(model)}
    losses = model.fit(x, epochs=2, verbose=0).history["loss"]
    assert losses[1] < losses[0]
    x[name] = np.full_like(x[name], 77)
    with pytest.raises(Exception, match=f"{name} must lie in 0"):
        model.fit(x, verbose=0)


@pytest.mark.slow
@pytest.mark.parametrize("model_class", [WHOLE, MODELS[3]], ids=lambda each: each.__name__)
def test_a_model_with_lora_is_saved_as_it_computes(model_class, tmp_path):
    model = with_lora(tiny_model(model_class, l_layers=1))
    model.save(tmp_path / "model.keras")
    assert_same(keras.saving.load_model(tmp_path / "model.keras"), model, 1e-5)
    model.save_pretrained(tmp_path / "directory")
    assert_same(model_class.from_pretrained(tmp_path / "directory"), model, 1e-5)


def test_lora_trains_its_factors_only():
    model = tiny_model(l_layers=1)
    for layer in weighted(model):
        layer.enable_lora(2)
    before = [np.array(each) for each in model.get_weights()]
    model.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
    model.fit(batch(model), labels(model), verbose=0)
    for each, old in zip(model.weights, before, strict=True):
        if each.name in ("kernel", "weight"):
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(each), old, each.path)
    b = model.answer_head.logit_fc_3.lora_kernel_b
    assert np.abs(keras.ops.convert_to_numpy(b)).max() > 0


@pytest.mark.slow
@no_float8_tables
@pytest.mark.parametrize(
    ("model_class", "mode"),
    [(WHOLE, "int8"), (MODELS[3], "int8"), (MODELS[2], "int4"), (MODELS[2], "float8")],
    ids=lambda each: each if isinstance(each, str) else each.__name__,
)
def test_a_quantized_model_is_saved_as_it_is(model_class, mode, tmp_path):
    model = tiny_model(model_class, l_layers=1)
    exact = flat(model(batch(model)))
    model.quantize(mode)
    assert {each.quantization_mode for each in weighted(model) if isinstance(each, keras.layers.Dense)} == {mode}
    for name, value in flat(model(batch(model))).items():
        assert np.abs(value - exact[name]).max() < MODES[mode] * np.abs(exact[name]).max(), name
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [each.dtype for each in loaded.weights] == [each.dtype for each in model.weights]
    assert_same(loaded, model, 1e-6)


def with_lora(model):
    """The model with LoRA on every kernel and table, its factors random."""
    for layer in weighted(model):
        layer.enable_lora(2, lora_alpha=3)
    for variable in model.weights:
        if "lora_" in variable.path:
            filled_variable(variable)
    return model


def filled_variable(variable) -> np.ndarray:
    values = np.random.default_rng(len(variable.path)).standard_normal(variable.shape).astype("float32") * 0.3
    variable.assign(values)
    return values


def assert_same(one, other, tolerance: float) -> None:
    """Two models compute the same."""
    assert_close(one(batch(one)), other(batch(other)), tolerance)
