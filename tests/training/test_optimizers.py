"""The recipes' optimisers: decay, rates by layer, accumulation, and what a gradient that is not finite does."""

import keras
import numpy as np
import pytest
from support.models import tiny_model

from lxmert_tf import AdamW, BertAdam, LinearWarmup
from lxmert_tf.optimizers import global_norm, layer_rate_factors
from lxmert_tf.training.recipes import RECIPES, make_optimizer

RECIPE = RECIPES["vqa"].replace(learning_rate=2.0**-6)
OPTIMIZERS = ("bertadam", "adamw")


def variables(seed: int = 0) -> list[keras.Variable]:
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 4), "bias": (4,), "gamma": (4,)}
    made = []
    for name, shape in shapes.items():
        with keras.name_scope("model"):
            made.append(keras.Variable(rng.standard_normal(shape).astype("float32"), name=name))
    return made


def gradients(seed: int, bad: bool = False) -> list[np.ndarray]:
    found = [np.random.default_rng([seed, i]).standard_normal(v.shape) for i, v in enumerate(variables())]
    if bad:
        found[1][2] = np.nan
    return [keras.ops.convert_to_tensor(each, "float32") for each in found]


def moments(optimizer) -> list[keras.Variable]:
    found = [v for v in optimizer.variables if v.path.endswith(("momentum", "velocity"))]
    assert len(found) == 2 * len(variables())
    return found


def trained(optimizer, steps) -> list[np.ndarray]:
    weights = variables()
    for step in steps:
        optimizer.apply(gradients(*step) if isinstance(step, tuple) else gradients(step), weights)
    return [weight.numpy() for weight in weights]


@pytest.mark.parametrize("clip", [0.5, 5.0])
def test_the_default_is_the_bert_adam_of_the_package(clip):
    plain = BertAdam(LinearWarmup(RECIPE.learning_rate, 10, 0.1), global_clipnorm=clip)
    for one, other in zip(
        trained(make_optimizer(RECIPE.replace(clip=clip), 10), range(6)), trained(plain, range(6)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("optimizer_class", [BertAdam, AdamW])
def test_schedules_of_the_public_optimizers_count_updates(optimizer_class):
    def updated(count: int, batches: int):
        options = {"gradient_accumulation_steps": count} if count > 1 else {}
        optimizer = optimizer_class(LinearWarmup(0.1, 4, 0.25), **options)
        weights = trained(optimizer, [update for update in range(4) for _ in range(batches)])
        assert float(optimizer.learning_rate) == 0
        return weights

    for one, other in zip(updated(1, 1), updated(3, 3), strict=True):
        np.testing.assert_allclose(other, one, rtol=2e-6, atol=1e-7)


def test_a_single_update_cannot_be_one_of_warm_up():
    with pytest.raises(ValueError, match=r"total_steps=1 with warmup=0\.1 trains nothing"):
        LinearWarmup(1e-3, 1)
    with pytest.raises(ValueError, match="total_steps=1"):
        make_optimizer(RECIPE.replace(accumulate=4), 7)
    assert float(LinearWarmup(1e-3, 1, warmup=0)(0)) == pytest.approx(1e-3)


def test_adamw_is_keras_adamw():
    recipe = RECIPE.replace(optimizer="adamw")
    plain = keras.optimizers.AdamW(
        LinearWarmup(RECIPE.learning_rate, 10, 0.1), weight_decay=0.01, epsilon=1e-6, global_clipnorm=5.0
    )
    for one, other in zip(trained(make_optimizer(recipe, 10), range(6)), trained(plain, range(6)), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("clip", [0.5, 100.0, float("inf"), None])
def test_clipping_by_the_global_norm_is_exact(clip):
    given = [np.random.default_rng(i).standard_normal(shape) for i, shape in enumerate([(3, 4, 5), (7,), ()])]
    norm = np.sqrt(sum(np.square(each).sum() for each in given))
    tensors = [keras.ops.convert_to_tensor(each, "float64") for each in given]
    np.testing.assert_allclose(global_norm([*tensors, None]), norm, rtol=1e-14)
    *clipped, none = AdamW(global_clipnorm=clip)._clip_gradients([*tensors, None])
    assert none is None
    for one, whole in zip(clipped, given, strict=True):
        np.testing.assert_allclose(one, whole * min((clip or norm) / norm, 1.0), rtol=1e-14)


def test_other_clipping_is_left_to_keras():
    given = gradients(0)
    for options in ({"clipnorm": 0.1}, {"clipvalue": 0.1}):
        clipped = BertAdam(**options)._clip_gradients(given)
        for one, other in zip(clipped, keras.optimizers.AdamW(**options)._clip_gradients(given), strict=True):
            np.testing.assert_array_equal(one, other)
            assert np.abs(one).max() < 0.11


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_and_normalisation_can_be_left_undecayed(name):
    recipe = RECIPE.replace(optimizer=name, weight_decay=0.5)
    all_decay = trained(make_optimizer(recipe, 10), range(4))
    excluded = trained(make_optimizer(recipe.replace(exclude_from_decay=True), 10), range(4))
    none = trained(make_optimizer(recipe.replace(weight_decay=0.0), 10), range(4))
    np.testing.assert_array_equal(excluded[0], all_decay[0])
    for place in (1, 2):
        np.testing.assert_array_equal(excluded[place], none[place])
        assert np.abs(excluded[place] - all_decay[place]).max() > 1e-3


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_skipped_update_leaves_weights_and_moments(name):
    recipe = RECIPE.replace(optimizer=name, warmup=0.0)
    optimizer = make_optimizer(recipe, 10, skip_nonfinite=True)
    weights = variables()
    optimizer.apply(gradients(0), weights)
    before = [v.numpy() for v in (*weights, *moments(optimizer))]
    optimizer.apply(gradients(1, bad=True), weights)
    after = [v.numpy() for v in (*weights, *moments(optimizer))]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(optimizer.nonfinite.numpy()) == 1
    optimizer.apply(gradients(2), weights)
    assert all(np.isfinite(v.numpy()).all() for v in weights)
    assert np.abs(weights[0].numpy() - before[0]).max() > 1e-3
    assert int(optimizer.nonfinite.numpy()) == 1


@pytest.mark.parametrize("clip", [5.0, float("inf")])
def test_without_skipping_it_is_counted(clip):
    optimizer = make_optimizer(RECIPE.replace(clip=clip), 10)
    trained(optimizer, [0, (1, True)])
    assert int(optimizer.nonfinite.numpy()) == 1


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_accumulated_batches_are_one_batch_of_their_mean(name):
    recipe = RECIPE.replace(optimizer=name, clip=0.7)
    accumulating = make_optimizer(recipe.replace(accumulate=2), 12)
    got = trained(accumulating, range(6))
    whole, weights = make_optimizer(recipe, 6), variables()
    for step in (0, 2, 4):
        pair = zip(gradients(step), gradients(step + 1), strict=True)
        whole.apply([(one + other) / 2 for one, other in pair], weights)
    for one, other in zip(got, weights, strict=True):
        np.testing.assert_allclose(one, other.numpy(), rtol=1e-5, atol=1e-6)


def test_skipping_does_not_go_with_accumulation():
    with pytest.raises(ValueError, match="cannot go with gradient accumulation"):
        make_optimizer(RECIPE.replace(accumulate=2), 10, skip_nonfinite=True)


def test_layers_further_from_the_heads_learn_more_slowly():
    factors = layer_rate_factors(tiny_model(l_layers=2, r_layers=1, x_layers=2), 0.5)
    expected = {
        "answer_head/logit_fc_3/kernel": 1,
        "lxmert/pooler/dense/kernel": 0.5,
        "lxmert/encoder/x_layers_1/lang_inter/dense/kernel": 0.5,
        "lxmert/encoder/x_layers_0/visual_attention/att/query/bias": 0.25,
        "lxmert/encoder/layer_1/attention/self/query/kernel": 0.125,
        "lxmert/encoder/layer_0/attention/self/query/kernel": 0.0625,
        "lxmert/encoder/r_layers_0/attention/self/query/kernel": 0.125,
        "lxmert/encoder/visn_fc/visn_fc/kernel": 0.0625,
        "lxmert/embeddings/word_embeddings/weight": 0.03125,
    }
    assert {path: factors[path] for path in expected} == expected
    assert layer_rate_factors(tiny_model(), 1.0) == {}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_factor_scales_step_and_decay(name):
    recipe = RECIPE.replace(optimizer=name, weight_decay=0.5, warmup=0.0)
    start = [v.numpy() for v in variables()]
    path = variables()[0].path.partition("/")[2]
    halved = trained(make_optimizer(recipe, 10, {path: 0.5}), [0])
    whole = trained(make_optimizer(recipe, 10), [0])
    np.testing.assert_allclose(halved[0] - start[0], (whole[0] - start[0]) / 2, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(halved[1], whole[1])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_survives_its_config(name):
    optimizer = make_optimizer(RECIPE.replace(optimizer=name, exclude_from_decay=True), 10, {"kernel": 0.5})
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    for one, other in zip(trained(again, range(3)), trained(optimizer, range(3)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rate_factors": {"nope": 0.5}}, ValueError, "rate_factors names 'nope', which is none of the variables"),
        ({"rate_factors": {"kernel": -1.0}}, ValueError, "numbers of at least 0"),
        ({"rate_factors": 0.5}, ValueError, "must map paths of variables"),
        ({"exclude_from_decay": ["bias"]}, TypeError, "must be True or False"),
        ({"on_nonfinite": "stop"}, ValueError, "must be None, 'count' or 'skip'"),
    ],
)
@pytest.mark.parametrize("optimizer_class", [BertAdam, AdamW])
def test_options_that_would_do_nothing_are_refused(optimizer_class, options, error, message):
    with pytest.raises(error, match=message):
        trained(optimizer_class(0.1, **options), [0])
