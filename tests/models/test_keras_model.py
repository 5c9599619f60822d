"""The Keras models work wherever Keras and TensorFlow take a model, at any size, dtype and compilation."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.golden import REL32, assert_close
from support.models import TASK_MODELS, batch, flat, labels, tiny_config, tiny_model

from lxmert_tf import (
    TFLxmertForPreTraining,
    TFLxmertForQuestionAnswering,
    TFLxmertForVisualReasoning,
    TFLxmertModel,
    TFLxmertModelOutput,
)
from lxmert_tf.input_table import IMAGE_INPUTS

# One with every head, and the one whose inputs have an axis more
two_models = pytest.mark.parametrize(
    "model_class", [TFLxmertForPreTraining, TFLxmertForVisualReasoning], ids=lambda c: c.__name__
)
every_task_model = pytest.mark.parametrize("model_class", TASK_MODELS, ids=lambda c: c.__name__)

# A cross layer, which has a layer of every kind; a step of training is quick to trace and to compile
SHALLOW = {"l_layers": 0, "r_layers": 0}


def assert_same(one, other, tolerance=REL32):
    one, other = flat(one), flat(other)
    assert list(one) == list(other)
    for name, value in other.items():
        assert_close(one[name], value, tolerance, name)


# Calling


@pytest.mark.slow
@two_models
def test_call_by_keyword_by_dict_and_by_list_agree(model_class):
    model = tiny_model(model_class)
    inputs = batch(model)
    wanted = model(**inputs)
    assert_same(model(inputs), wanted, 0.0)
    assert_same(model(list(inputs.values())), wanted, 0.0)
    assert_same(model(tuple(inputs.values())), wanted, 0.0)


def test_switches_may_be_given_by_position_as_upstream_allows():
    model = tiny_model(TFLxmertModel)
    output = model(*batch(model).values(), None, True, True, True)
    assert len(output.language_attentions) == 2 and len(output.language_hidden_states) == 3


def test_output_is_read_by_attribute_name_and_position():
    model = tiny_model(TFLxmertModel)
    output = model(batch(model), output_attentions=True)
    assert isinstance(output, TFLxmertModelOutput)
    assert output.language_hidden_states is None and "language_hidden_states" not in output
    assert output["vision_output"] is output.vision_output is output[1]
    assert output[3] is output.language_attentions  # absent entries are skipped
    assert output.to_tuple() == tuple(output.values())
    with pytest.raises(AttributeError, match="no field 'logits'"):
        output.logits  # noqa: B018


@two_models
def test_return_dict_false_gives_the_tuple(model_class):
    model = tiny_model(model_class)
    inputs = batch(model)
    plain, named = model(inputs, return_dict=False), model(inputs)
    assert type(plain) is tuple and len(plain) == len(named)
    np.testing.assert_array_equal(plain[0], named[0])


def test_config_sets_the_defaults_of_the_switches():
    model = tiny_model(TFLxmertModel, output_attentions=True, output_hidden_states=True, return_dict=False)
    assert len(model(batch(model))) == 8


@two_models
def test_required_inputs_alone_equal_full_masks_and_zero_types(model_class):
    model = tiny_model(model_class)
    inputs = batch(model)
    required = {name: inputs[name] for name in ("input_ids", "visual_feats", "visual_pos")}
    full = {
        "attention_mask": np.ones_like(inputs["attention_mask"]),
        "visual_attention_mask": np.ones_like(inputs["visual_attention_mask"]),
        "token_type_ids": np.zeros_like(inputs["token_type_ids"]),
    }
    assert_same(model(required), model({**required, **full}))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int64"])
def test_ids_of_any_integer_type(dtype):
    model = tiny_model()
    inputs = batch(model)
    assert_same(model({**inputs, "input_ids": inputs["input_ids"].astype(dtype)}), model(inputs), 0.0)


@two_models
def test_inputs_embeds_replace_input_ids(model_class):
    model = tiny_model(model_class)
    inputs = batch(model)
    table = np.asarray(model.get_input_embeddings().weight)
    wanted = model(inputs)
    ids = inputs.pop("input_ids")
    assert_same(model(inputs_embeds=table[ids], **inputs), wanted)


@two_models
def test_padding_changes_nothing(model_class):
    model = tiny_model(model_class)
    inputs = batch(model, tokens=4, boxes=3)
    inputs["visual_attention_mask"][:] = 1
    padded = {name: pad_by(value, name, 3, 2) for name, value in inputs.items()}
    plain, with_padding = model(inputs), model(padded)
    for name, value in with_padding.items():
        value = np.asarray(value)
        if name in ("language_output", "prediction_logits"):
            value = value[:, :4]
        if name == "vision_output":
            value = value[:, :3]
        assert_close(value, plain[name], REL32, name)


def pad_by(value, name, tokens, boxes):
    widths = [(0, 0)] * value.ndim
    if name in IMAGE_INPUTS:
        widths[-1 if name == "visual_attention_mask" else -2] = (0, boxes)
    else:
        widths[1] = (0, tokens)
    return np.pad(value, widths)


# Graphs, compilation, sizes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "jit_compile"),
    [(TFLxmertForPreTraining, False), (TFLxmertForPreTraining, True), (TFLxmertForVisualReasoning, True)],
    ids=lambda value: value.__name__ if isinstance(value, type) else "xla" if value else "graph",
)
def test_tf_function_gives_the_same_structure_and_numbers(model_class, jit_compile):
    model = tiny_model(model_class)
    inputs = batch(model)
    options = {"output_attentions": True, "output_hidden_states": True}
    wanted = model(inputs, **options)
    output = tf.function(lambda x: model(x, **options), jit_compile=jit_compile)(inputs)
    assert type(output) is type(wanted)
    assert_same(output, wanted)


@pytest.mark.slow
@two_models
def test_one_trace_serves_every_batch_text_length_and_box_count(model_class):
    model = tiny_model(model_class)
    signature = {name: tf.TensorSpec(spec.shape, spec.dtype) for name, spec in model.input_signature.items()}
    traces = []

    @tf.function(input_signature=[signature])
    def call(x):
        traces.append(1)
        return model(x)

    for sizes in ((1, 1, 1), (3, 7, 5), (2, 16, 11)):
        inputs = batch(model, *sizes)
        assert_same(call(inputs), model(inputs))
    assert len(traces) == 1


@pytest.mark.slow
@two_models
def test_predict_joins_batches_of_every_output(model_class):
    model = tiny_model(model_class, output_attentions=True, output_hidden_states=True)
    inputs = batch(model, examples=5)
    wanted = model(inputs)
    predicted = model.predict(inputs, batch_size=2, verbose=0)
    assert type(predicted) is type(wanted)
    assert_same(predicted, wanted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "dtype"),
    [
        *((TFLxmertForPreTraining, dtype) for dtype in ("mixed_bfloat16", "mixed_float16", "bfloat16", "float16")),
        (TFLxmertForVisualReasoning, "float16"),
    ],
)
def test_half_precision_stays_finite_even_where_everything_is_masked(model_class, dtype):
    model = tiny_model(model_class, dtype=dtype)
    inputs = batch(model)
    inputs["attention_mask"][0] = 0
    inputs["visual_attention_mask"][0] = 0
    given = labels(model)
    exact = flat(tiny_model(model_class)(**inputs, **given))
    output = model(**inputs, **given)
    for name, value in flat(output).items():
        assert np.isfinite(value).all(), name
        scale = 1 + np.abs(exact[name]).max()
        assert np.abs(value - exact[name]).max() < 0.15 * scale, name
    assert output.loss.dtype == tf.float32


def test_a_row_masked_throughout_attends_evenly():
    model = tiny_model(TFLxmertModel)
    inputs = batch(model)
    inputs["visual_attention_mask"][1] = 0
    attention = np.asarray(model(inputs, output_attentions=True).cross_encoder_attentions[0])
    np.testing.assert_allclose(attention[1], 1 / attention.shape[-1], rtol=1e-6)


@pytest.mark.slow
@two_models
def test_dropout_acts_in_training_only(model_class):
    model = tiny_model(model_class, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    inputs = batch(model)
    one, other = (flat(model(inputs, training=True)) for _ in range(2))
    assert any(np.abs(one[name] - other[name]).max() > 1e-3 for name in one)
    assert_same(model(inputs), model(inputs, training=False), 0.0)


# Training


def label_styles(model):
    given = labels(model)
    inputs = batch(model)
    styles = {"in x": ({**inputs, **given}, None), "as a dict": (inputs, given)}
    if list(given) == ["labels"]:
        styles["bare"] = (inputs, given["labels"])
        styles["x as a list"] = (list(inputs.values()), given)
    return styles


@pytest.mark.slow
@every_task_model
def test_fit_trains_on_the_models_own_losses_however_labels_come(model_class):
    histories = {}
    in_a_graph = "as a dict" if model_class is TFLxmertForPreTraining else None
    for style in label_styles(tiny_model(model_class, **SHALLOW)):
        model = tiny_model(model_class, **SHALLOW)
        x, y = label_styles(model)[style]
        model.compile(optimizer=keras.optimizers.SGD(0.01), jit_compile=False, run_eagerly=style != in_a_graph)
        histories[style] = model.fit(x, y, batch_size=3, epochs=3, verbose=0).history
    first, *others = histories.values()
    assert first["loss"][-1] < first["loss"][0]
    expected_loss = float(tiny_model(model_class, **SHALLOW)(**batch(model), **labels(model)).loss)
    np.testing.assert_allclose(first["loss"][0], expected_loss, rtol=1e-5)
    for other in others:
        assert other.keys() == first.keys()
        for name in first:
            np.testing.assert_allclose(other[name], first[name], rtol=1e-5)


@pytest.fixture(scope="module")
def compiled():
    """A model for pretraining with its first weights, whose step of training XLA compiles once for all tests."""
    model = tiny_model(TFLxmertForPreTraining, **SHALLOW)
    model.compile(optimizer=keras.optimizers.SGD(0.01), jit_compile=True)
    return model, model.get_weights()


@pytest.mark.slow
def test_fit_compiled_by_xla_gives_the_same_losses(compiled):
    """`evaluate` does so in test_means.py."""
    histories = []
    for model in (tiny_model(TFLxmertForPreTraining, **SHALLOW), compiled[0]):
        if model is not compiled[0]:
            model.compile(optimizer=keras.optimizers.SGD(0.01), run_eagerly=True)
        model.set_weights(compiled[1])
        histories.append(model.fit(batch(model), labels(model), epochs=3, verbose=0).history)
    assert histories[0].keys() == histories[1].keys()
    for name, value in histories[0].items():
        np.testing.assert_allclose(histories[1][name], value, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "position"), [("masked_lm_labels", (0, 1)), ("matched_label", 1), ("ans", 1), ("obj_labels", (1, 2))]
)
def test_xla_stops_at_labels_out_of_range(compiled, name, position):
    model, weights = compiled
    model.set_weights(weights)
    x, y = batch(model), labels(model)
    (y[name]["obj"][0] if name == "obj_labels" else y[name])[position] = -1
    with pytest.raises(ValueError, match=rf"^{name}.* must lie in 0\.\..*, got -1"):
        model.fit(x, y, verbose=0)


def test_each_pretraining_loss_is_a_metric_and_they_sum_to_the_loss():
    model = tiny_model(TFLxmertForPreTraining)
    model.compile(optimizer="sgd", run_eagerly=True)
    history = model.fit(batch(model), labels(model), verbose=0).history
    names = {"masked_lm_loss", "matched_loss", "obj_loss", "attr_loss", "feat_loss", "ans_loss"}
    assert set(history) == {"loss", *names}
    np.testing.assert_allclose(sum(history[name][0] for name in names), history["loss"][0], rtol=1e-5)


def test_only_the_losses_that_have_labels_are_metrics():
    model = tiny_model(TFLxmertForPreTraining)
    model.compile(optimizer="sgd", run_eagerly=True)
    given = {name: labels(model)[name] for name in ("matched_label", "ans")}
    assert set(model.fit(batch(model), given, verbose=0).history) == {"loss", "matched_loss", "ans_loss"}


def test_fit_takes_a_dataset_and_metrics_beside_the_own_loss():
    model = tiny_model(**SHALLOW)
    model.compile(optimizer=keras.optimizers.Adam(0.01), metrics=["accuracy"], jit_compile=False)
    dataset = tf.data.Dataset.from_tensor_slices((batch(model), labels(model)["labels"])).batch(2)
    history = model.fit(dataset, validation_data=dataset, epochs=15, shuffle=False, verbose=0).history
    assert set(history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    assert history["val_accuracy"][-1] == 1.0


@pytest.mark.slow
@every_task_model
def test_compile_with_a_loss_of_ones_own_works_on_the_outputs(model_class):
    model = tiny_model(model_class)
    output = {
        TFLxmertForPreTraining: "cross_relationship_score",
        TFLxmertForQuestionAnswering: "question_answering_score",
    }
    name = output.get(model_class, "logits")
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss={name: cross_entropy}, metrics={name: ["accuracy"]}, run_eagerly=True)
    y = {name: np.array([0, 1, 1])}
    history = model.fit(batch(model), y, verbose=0).history
    wanted = cross_entropy(y[name], tiny_model(model_class)(batch(model))[name])
    np.testing.assert_allclose(history["loss"][0], wanted, rtol=1e-5)
    assert "accuracy" in " ".join(history)


def test_compile_with_one_loss_and_bare_labels():
    model = tiny_model()
    model.compile(optimizer="sgd", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    assert list(model.fit(batch(model), labels(model)["labels"], verbose=0).history) == ["loss"]


def test_soft_answer_scores_train_with_binary_cross_entropy():
    model = tiny_model()
    scores = np.random.default_rng(0).random((3, 5)).astype("float32")
    loss = float(model(**batch(model), labels=scores).loss)
    logits = np.asarray(model(batch(model)).question_answering_score, "float64")
    probability = 1 / (1 + np.exp(-logits))
    wanted = -(scores * np.log(probability) + (1 - scores) * np.log(1 - probability)).mean() * 5
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


@every_task_model
def test_labels_that_are_all_ignored_cost_nothing_and_move_nothing(model_class):
    model = tiny_model(model_class)
    given = labels(model)
    ignored = {name: np.full_like(value, -100) for name, value in given.items() if name != "obj_labels"}
    with tf.GradientTape() as tape:
        loss = model(**batch(model), **ignored).loss
    assert float(loss) == 0.0
    for gradient in tape.gradient(loss, model.trainable_weights):
        assert gradient is None or not np.any(tf.convert_to_tensor(gradient))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_class", "how", "dtype"),
    [
        (TFLxmertForPreTraining, {"jit_compile": False}, "mixed_bfloat16"),
        (TFLxmertForQuestionAnswering, {"jit_compile": True}, "mixed_float16"),
        (TFLxmertForVisualReasoning, {"run_eagerly": True}, "mixed_float16"),
    ],
)
def test_fit_in_mixed_precision_learns(model_class, how, dtype):
    model = tiny_model(model_class, dtype=dtype, **SHALLOW)
    model.compile(optimizer=keras.optimizers.Adam(0.003), **how)
    history = model.fit(batch(model), labels(model), epochs=8, verbose=0).history["loss"]
    assert np.isfinite(history).all() and history[-1] < history[0]


def test_row_0_of_the_tables_gets_no_gradient_from_looking_it_up():
    model = tiny_model(TFLxmertModel)
    inputs = batch(model)
    inputs["input_ids"][:, 0] = 0
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(inputs).pooled_output ** 2)
    layer = model.embeddings
    tables = [t.weight for t in (layer.word_embeddings, layer.position_embeddings, layer.token_type_embeddings)]
    for gradient in tape.gradient(loss, [table.value for table in tables]):
        gradient = np.asarray(tf.convert_to_tensor(gradient))
        assert not gradient[0].any() and gradient[1].any()


def test_the_word_decoder_is_the_word_table():
    model = tiny_model(TFLxmertForPreTraining)
    inputs = batch(model)
    inputs["input_ids"] %= 36
    before = np.asarray(model(inputs).prediction_logits)
    table = model.get_input_embeddings().weight
    shifted = np.asarray(table).copy()
    shifted[36] += 1.0  # a piece that is not in the text
    table.assign(shifted)
    after = np.asarray(model(inputs).prediction_logits)
    assert np.abs(after[..., 36] - before[..., 36]).min() > 0
    np.testing.assert_allclose(after[..., :36], before[..., :36], rtol=1e-4, atol=1e-5)


# Sizes


def test_resize_num_qa_labels_keeps_old_answers_and_trains():
    model = tiny_model()
    before = np.asarray(model(batch(model)).question_answering_score)
    for size in (8, 4):
        assert model.resize_num_qa_labels(size) is model.get_qa_logit_layer()
        after = np.asarray(model(batch(model)).question_answering_score)
        assert after.shape == (3, size) and model.config.num_qa_labels == size
        np.testing.assert_array_equal(after[:, : min(5, size)], before[:, :size][:, :5])
    model.compile(optimizer="adam", run_eagerly=True)
    model.fit(batch(model), np.array([0, 1, 3]), verbose=0)


def test_resize_token_embeddings_keeps_old_pieces_and_the_tied_decoder():
    model = tiny_model(TFLxmertForPreTraining)
    paths = [variable.path for variable in model.weights]
    inputs = batch(model)
    before, pieces = np.asarray(model(inputs).prediction_logits), np.asarray(model.get_input_embeddings().weight)
    assert model.resize_token_embeddings(41) is model.get_input_embeddings()
    after = np.asarray(model(inputs).prediction_logits)
    assert after.shape[-1] == 41 == model.config.vocab_size
    np.testing.assert_array_equal(np.asarray(model.get_input_embeddings().weight)[:37], pieces)
    assert_close(after[..., :37], before, REL32)  # some processors add up a product of another width in another order
    assert sorted(variable.path for variable in model.weights) == sorted(paths)


def test_new_answers_and_pieces_are_drawn_as_in_a_fresh_model():
    model = tiny_model()
    model.resize_num_qa_labels(200)
    model.resize_token_embeddings(200)
    new_answers = np.asarray(model.get_qa_logit_layer().kernel)[:, 5:]
    new_pieces = np.asarray(model.get_input_embeddings().weight)[37:]
    for drawn in (new_answers, new_pieces):
        # A normal distribution cut off at two deviations has 0.88 of the deviation.
        assert abs(drawn.std() / model.config.initializer_range - 0.88) < 0.05
    assert not np.asarray(model.get_qa_logit_layer().bias)[5:].any()


@pytest.mark.parametrize("model_class", [TFLxmertModel, TFLxmertForVisualReasoning], ids=lambda c: c.__name__)
def test_there_are_no_answers_to_resize(model_class):
    model = tiny_model(model_class)
    assert model.get_qa_logit_layer() is None
    with pytest.raises(ValueError, match="no answers to resize"):
        model.resize_num_qa_labels(3)


def test_a_model_owns_its_config():
    config = tiny_config(id2label=dict(enumerate("abcde")))
    one, other = TFLxmertForQuestionAnswering(config), TFLxmertForPreTraining(config)
    one.resize_num_qa_labels(3)
    other.lxmert.resize_token_embeddings(50)
    assert config == tiny_config(id2label=dict(enumerate("abcde")))
    assert (one.config.num_qa_labels, one.config.id2label) == (3, dict(enumerate("abc")))
    assert one.lxmert.config is one.config
    assert other.config.vocab_size == other.lxmert.embeddings.config.vocab_size == 50
    assert other.config.num_qa_labels == 5
    TFLxmertForQuestionAnswering(one.config).config.hidden_act = "relu"
    assert one.config.hidden_act == "gelu"


def test_the_problem_type_chooses_the_loss_of_soft_scores():
    soft = np.array([[0.0, 0.9, 0, 0.9, 0.3], [0, 0, 0, 0, 0], [0.3, 0, 0, 0, 1]], "float32")
    model = tiny_model(problem_type="single_label_classification")
    binary = tiny_model(problem_type="multi_label_classification")
    x = batch(model)
    best = np.array([1, -100, 4])  # the first of equal ones; none where all are 0
    assert float(model(**x, labels=soft).loss) == float(binary(**x, labels=best).loss)
    assert float(binary(**x, labels=soft).loss) == float(tiny_model()(**x, labels=soft).loss)
    assert float(binary(**x, labels=soft).loss) != pytest.approx(float(model(**x, labels=soft).loss), rel=1e-3)


@two_models
def test_no_two_weights_start_with_the_same_numbers(model_class):
    config = tiny_config(l_layers=3, r_layers=2, x_layers=2, hidden_size=12, initializer_range=0.02)
    drawn = [weight.numpy() for weight in model_class(config).weights if weight.path.endswith(("kernel", "/weight"))]
    assert len({weight.tobytes() for weight in drawn}) == len(drawn) > 20
    assert np.std(np.concatenate([weight.ravel() for weight in drawn])) == pytest.approx(0.02, rel=0.15)
