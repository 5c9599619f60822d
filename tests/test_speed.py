"""What makes the models fast changes no number, and does what it is there for. Seconds are measured in benchmarks/."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import assert_close
from keras_helpers import batch, tiny_model

from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertModel, weights
from lxmert_tf.losses import cross_entropy

TOLERANCE = 1e-12  # float64: the same sums in another order


@pytest.mark.parametrize("hidden", [0, 1, 5, 6, 7, 21], ids="{} hidden words".format)
@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "xla"])
def test_masked_word_loss_equals_that_of_all_logits(hidden, jit_compile):
    model = tiny_model(TFLxmertForPreTraining, dtype="float64")
    inputs = batch(model)  # 21 words: there is room for 6
    words = np.full(21, -100, "int32")
    words[np.random.default_rng(hidden).permutation(21)[:hidden]] = np.arange(hidden)
    words = words.reshape(3, 7)
    table = model.get_input_embeddings().weight

    def losses():
        output = model(**inputs, masked_lm_labels=words)
        return output.loss, cross_entropy(output.prediction_logits, words)

    def gradients():
        with tf.GradientTape(persistent=True) as tape:
            loss, plain = losses()
        return loss, plain, *(tf.convert_to_tensor(tape.gradient(x, table.value)) for x in (loss, plain))

    loss, plain, gradient, plain_gradient = (
        gradients() if jit_compile is None else tf.function(gradients, jit_compile=jit_compile)()
    )
    assert_close(loss, plain, TOLERANCE, "loss")
    assert_close(gradient, plain_gradient, TOLERANCE, "gradient of the word table")
    assert bool(np.any(gradient)) == bool(hidden)


def test_training_computes_no_logits_that_no_one_reads():
    model = tiny_model(TFLxmertForPreTraining)
    inputs = batch(model)
    words = np.where(np.arange(21).reshape(3, 7) % 6 == 0, 5, -100)
    model.compile(optimizer="sgd", jit_compile=False)
    model.make_train_function()
    step = tf.function(lambda: model.train_step(({**inputs, "masked_lm_labels": words},))["loss"])
    graph = step.get_concrete_function().graph
    needed, waiting = set(), [graph.outputs[0].op]
    while waiting:
        op = waiting.pop()
        if op.name not in needed:
            needed.add(op.name)
            waiting += [tensor.op for tensor in op.inputs] + list(op.control_inputs)
    shapes = [tuple(tensor.shape) for op in graph.get_operations() if op.name in needed for tensor in op.outputs]
    assert (3, 7, 12) in shapes and (3, 7, 37) not in shapes


def test_predict_traces_once_for_each_length_of_text():
    model = tiny_model()
    traces = []
    call = model.call
    model.call = lambda *args, **kwargs: (traces.append(1), call(*args, **kwargs))[1]
    for _ in range(3):
        for tokens in (4, 8):
            model.predict(batch(model, tokens=tokens), verbose=0)
    assert len(traces) <= 3  # the second length makes the trace general


def test_loading_draws_only_what_the_checkpoint_lacks(tmp_path, monkeypatch):
    tiny_model(TFLxmertModel).save_pretrained(tmp_path, format="hf-pt")
    drawn = []
    draw = keras.initializers.TruncatedNormal.__call__
    monkeypatch.setattr(
        keras.initializers.TruncatedNormal,
        "__call__",
        lambda self, shape, dtype=None: (drawn.append(tuple(shape)), draw(self, shape, dtype))[1],
    )
    TFLxmertModel.from_pretrained(tmp_path)
    assert drawn == []
    model = TFLxmertForQuestionAnswering.from_pretrained(tmp_path)
    assert drawn == [(12, 24), (24, 5)]
    for name, value in weights.state_dict(model).items():
        if name.endswith("weight"):
            assert np.any(value), name
    TFLxmertModel(model.config)
    assert len(drawn) > 20
