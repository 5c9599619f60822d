"""What a value means does not depend on its dtype or on how the model runs; what is refused is refused everywhere."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from support.models import batch, labels, tiny_config, tiny_model

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForVisualReasoning
from lxmert_tf.input_table import IMAGE_INPUTS

MODES = ("eager", "graph", "xla", "predict", "export")
WORDS = tiny_config().vocab_size
REFUSED = (ValueError, TypeError, tf.errors.InvalidArgumentError)


@pytest.fixture(scope="module")
def model():
    return tiny_model(l_layers=1, r_layers=0)


@pytest.fixture(scope="module")
def answer(model, tmp_path_factory):
    """A function (mode, inputs) -> answers float32[B, A], or None where the inputs are refused by error or by NaN."""

    def call(inputs):
        return model(inputs).question_answering_score

    directory = tmp_path_factory.mktemp("export")
    model.export(directory, verbose=False)
    model.compile(jit_compile=False)
    served = tf.saved_model.load(directory)
    graph, xla = tf.function(call), tf.function(call, jit_compile=True)
    ways = {
        "eager": call,
        "graph": lambda inputs: graph(tensors(inputs)),
        "xla": lambda inputs: xla(tensors(inputs)),
        "predict": lambda inputs: model.predict(inputs, verbose=0).question_answering_score,
        "export": lambda inputs: served.serve(tensors(inputs))["question_answering_score"],
    }

    def run(mode, inputs):
        try:
            scores = np.asarray(ways[mode](inputs))
        except REFUSED:
            return None
        return None if np.isnan(scores).any() else scores

    return run


def tensors(inputs):
    return {name: tf.constant(value) for name, value in inputs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_no_id_stands_for_another_word(model, answer, mode):
    dtype = "int32" if mode == "export" else "int64"  # as its signature says
    x = batch(model)
    x |= {name: x[name].astype(dtype) for name in ("input_ids", "token_type_ids")}
    for name, limit in (("input_ids", WORDS), ("token_type_ids", model.config.type_vocab_size)):
        for value in (-1, -3, limit, 2**31 - 1, *((2**32 + 1, -(2**32) + 1) if dtype == "int64" else ())):
            bad = {**x, name: x[name].copy()}
            bad[name][1, 2] = value
            assert answer(mode, bad) is None, (name, value)
    np.testing.assert_allclose(answer(mode, x), answer("eager", x), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "uint32", "int64", "uint64"])
def test_ids_of_every_integer_type_are_the_same_words(model, answer, dtype):
    x = batch(model)
    for mode in ("eager", "graph"):
        np.testing.assert_array_equal(answer(mode, {**x, "input_ids": x["input_ids"].astype(dtype)}), answer(mode, x))


@pytest.mark.slow
def test_a_graph_says_what_is_wrong_with_the_values(model):
    call = tf.function(lambda inputs: model(inputs).question_answering_score)
    x = batch(model)
    ids = np.where(np.arange(7) == 3, 99, x["input_ids"])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"input_ids must lie in 0\.\.36 \(vocab_size=37\)"):
        call(tensors({**x, "input_ids": ids}))
    with pytest.raises(tf.errors.InvalidArgumentError, match="attention_mask must hold 1 for tokens"):
        call(tensors({**x, "attention_mask": 3 * x["attention_mask"]}))
    model.compile(jit_compile=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"labels must lie in 0\.\.4"):
        model.fit(x, {"labels": np.array([1, 5, 0])}, verbose=0)


def test_a_text_longer_than_there_are_positions_is_refused_by_any_graph(model):
    long = {name: np.tile(value, 5)[:, :25] if value.shape[1] == 7 else value for name, value in batch(model).items()}
    text = tf.TensorSpec((None, None), tf.int32)
    spec = {
        name: text if value.shape[1] == 25 else tf.TensorSpec((None, *value.shape[1:]), value.dtype)
        for name, value in long.items()
    }
    call = tf.function(lambda inputs: model(inputs).question_answering_score, input_signature=[spec])
    assert np.isnan(call(tensors(long)).numpy()).all()


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_mask_outside_its_range_is_refused(model, answer, mode):
    dtype = "int32" if mode == "export" else "float32"
    x = batch(model)
    x |= {name: x[name].astype(dtype) for name in ("attention_mask", "visual_attention_mask")}
    for name in ("attention_mask", "visual_attention_mask"):
        for value in (-1, 3, -10000, *(() if mode == "export" else (1.5, float("nan")))):
            bad = {**x, name: x[name].copy()}
            bad[name][1, 1] = value
            assert answer(mode, bad) is None, (name, value)


@pytest.fixture(scope="module")
def pair_model():
    return tiny_model(TFLxmertForVisualReasoning, l_layers=1, r_layers=0)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(share=st.floats(1e-3, 1), dtype=st.sampled_from(["float32", "float64", "float16"]), pairs=st.booleans())
def test_a_fraction_in_a_mask_is_one_everywhere(model, pair_model, share, dtype, pairs):
    model = pair_model if pairs else model
    x = batch(model)
    whole = model(**x).to_tuple()[0]
    part = {name: (x[name] * share).astype(dtype) for name in ("attention_mask", "visual_attention_mask")}
    for kind in (part, {name: value > 0 for name, value in part.items()}):
        y = {**x, **kind}
        np.testing.assert_array_equal(model(**y).to_tuple()[0], whole)
        if pairs:  # another way, which does not encode images and text apart
            np.testing.assert_allclose(model(**y, output_hidden_states=True).to_tuple()[0], whole, atol=1e-5)
        else:
            encoded = model.encode_image(y["visual_feats"], y["visual_pos"], y["visual_attention_mask"])
            text = {name: y[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
            np.testing.assert_allclose(model.answer_encoded(**text, **encoded).to_tuple()[0], whole, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["int8", "uint32"])
def test_labels_of_every_integer_type_are_the_same_labels(dtype):
    lowest = -100 if dtype.startswith("i") else 0
    qa = tiny_model(num_qa_labels=300, l_layers=1, r_layers=0)
    answers = np.array([1, 126, lowest])
    wanted = float(qa(**batch(qa), labels=answers.astype("int32")).loss)
    assert float(qa(**batch(qa), labels=answers.astype(dtype)).loss) == wanted > 0
    pretraining = tiny_model(TFLxmertForPreTraining, vocab_size=300, num_object_labels=300, l_layers=1, r_layers=0)
    x, y = batch(pretraining), labels(pretraining)
    y = keras.tree.map_structure(lambda a: np.clip(a, lowest, 126) if a.dtype.kind == "i" else a, y)
    narrow = keras.tree.map_structure(lambda a: a.astype(dtype) if a.dtype.kind == "i" else a, y)
    for training in (False, True):  # other words are hidden in chunks then
        wanted = pretraining(**x, **y, training=training).losses
        for name, value in pretraining(**x, **narrow, training=training).losses.items():
            assert float(value) == float(wanted[name]) > 0, name


def test_lists_keep_the_precision_of_the_model():
    model = tiny_model(dtype="float64")
    x = {name: value.astype("float64") if value.dtype.kind == "f" else value for name, value in batch(model).items()}
    x["visual_feats"] += 1e-9
    wanted = model(**x).question_answering_score.numpy()
    listed = {name: value.tolist() for name, value in x.items()}
    np.testing.assert_allclose(model(**listed).question_answering_score, wanted, rtol=1e-13)
    images = {name: listed.pop(name) for name in list(listed) if name in IMAGE_INPUTS}
    encoded = model.encode_image(*images.values())
    np.testing.assert_allclose(model.answer_encoded(**listed, **encoded).question_answering_score, wanted, rtol=1e-12)
    scores = np.random.default_rng(0).random((3, 5))
    exact = model(**x, labels=scores).loss.numpy()
    assert model(**x, labels=scores.tolist()).loss.numpy() == pytest.approx(exact, rel=1e-14)


@pytest.mark.parametrize(("floatx", "dtype"), [("float32", "float64"), ("float16", "float32")])
def test_inputs_are_taken_in_the_dtype_of_the_model(floatx, dtype):
    model = tiny_model(dtype=dtype)
    x = {name: value.astype(dtype) if value.dtype.kind == "f" else value for name, value in batch(model).items()}
    x["visual_feats"] *= 1 + 2.0**-20
    scores = np.random.default_rng(0).random((3, 5)).astype(dtype)
    wanted = model(**x, labels=scores)
    before = keras.config.floatx()
    keras.config.set_floatx(floatx)
    try:
        model.compile(optimizer=keras.optimizers.SGD(0.0), run_eagerly=True, jit_compile=False)
        listed = model(**{name: value.tolist() for name, value in x.items()}).question_answering_score
        predicted = model.predict(x, verbose=0).question_answering_score
        losses = [model.evaluate(x, scores, verbose=0), model.fit(x, scores, verbose=0).history["loss"][0]]
        assert keras.config.floatx() == floatx
    finally:
        keras.config.set_floatx(before)
    tolerance = 1e-14 if dtype == "float64" else 1e-6
    for got in (listed, predicted):
        np.testing.assert_allclose(got, wanted.question_answering_score, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(losses, float(wanted.loss), rtol=tolerance)


def test_features_that_float16_cannot_hold_are_refused():
    model = tiny_model(dtype="float16")
    x = batch(model)
    x["visual_feats"][1, 2, 3] = 70000
    with pytest.raises(ValueError, match=r"visual_feats must be at most 65504.* float16 holds, got 70000"):
        model(**x)
    with pytest.raises(ValueError, match="visual_feats must be at most 65504"):
        model.encode_image(x["visual_feats"], x["visual_pos"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="visual_feats must be at most 65504"):
        tf.function(lambda x: model(**x).question_answering_score)(x)
    assert np.isfinite(tiny_model(dtype="bfloat16")(**x).question_answering_score.numpy().astype("float32")).all()
