"""Subclasses of the models work as those of `keras.Model` do: their layers, calls, losses and steps."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.models import batch, labels, tiny_config, tiny_model

from conversion.convert import convert
from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering

SMALL = {"l_layers": 1, "r_layers": 0}
ce = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
eagerly = {"run_eagerly": True, "jit_compile": False}


class WithLoss(TFLxmertForQuestionAnswering):
    """Keeps what `compute_loss` is given."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self.given = (x, y, sample_weight, training)
        return 3 * ce(y, y_pred.question_answering_score)


@pytest.mark.parametrize("step", ["fit", "evaluate"])
def test_compute_loss_gets_what_the_user_gave(step):
    model = tiny_model(WithLoss, **SMALL)
    x, y, weight = batch(model), labels(model)["labels"], np.ones(3, "float32")
    wanted = 3 * float(ce(y, model(x).question_answering_score))
    model.compile(keras.optimizers.SGD(0.0), **eagerly)
    getattr(model, step)(x, y, sample_weight=weight, verbose=0, **({"shuffle": False} if step == "fit" else {}))
    given_x, given_y, given_weight, training = model.given
    assert set(given_x) == set(x) and training == (step == "fit")
    np.testing.assert_array_equal(given_y, y)
    np.testing.assert_array_equal(given_weight, weight)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(wanted, rel=1e-6)


def test_compute_loss_may_add_to_the_models_own():
    class Adds(TFLxmertForQuestionAnswering):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs) + 7

    model = tiny_model(Adds, **SMALL)
    model.compile(keras.optimizers.SGD(0.0), **eagerly)
    x, y = batch(model), labels(model)
    wanted = float(tiny_model(**SMALL)(**x, **y).loss) + 7
    assert model.fit(x, y, verbose=0).history["loss"][0] == pytest.approx(wanted, rel=1e-6)
    assert model.fit({**x, **y}, verbose=0).history["loss"][0] == pytest.approx(wanted, rel=1e-6)


def test_a_call_may_change_the_loss_and_the_outputs():
    class Changes(TFLxmertForQuestionAnswering):
        def call(self, inputs, training=False):
            output = super().call(inputs, training=training)
            if output.loss is not None:
                output["loss"] = 2 * output.loss
            output["question_answering_score"] = -output.question_answering_score
            return output

    model, plain = tiny_model(Changes, **SMALL), tiny_model(**SMALL)
    x, y = batch(model), labels(model)
    model.compile(keras.optimizers.SGD(0.0), **eagerly)
    inside = 2 * float(plain(**x, **y).loss)
    beside = float(ce(y["labels"], -plain(**x).question_answering_score))
    assert model.evaluate({**x, **y}, verbose=0) == pytest.approx(inside, rel=1e-6)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(beside, rel=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("model_class", [TFLxmertForQuestionAnswering, TFLxmertForPreTraining])
def test_a_train_step_from_the_guide_of_keras(model_class):
    class Steps(model_class):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
            variables = self.trainable_variables
            self.optimizer.apply(tape.gradient(loss, variables), variables)
            for metric in self.metrics:
                if metric.name == "loss":
                    metric.update_state(loss)
                else:
                    metric.update_state(y, y_pred)
            return {metric.name: metric.result() for metric in self.metrics}

    model = tiny_model(Steps, **SMALL)
    x, y = batch(model), labels(model)
    model.compile(keras.optimizers.SGD(0.01), **eagerly)
    history = model.fit(x, y, epochs=2, shuffle=False, verbose=0).history
    assert set(history) == {"loss"}
    assert history["loss"][0] == pytest.approx(float(tiny_model(model_class, **SMALL)(**x, **y).loss), rel=1e-5)
    assert history["loss"][1] < history["loss"][0]


def test_layers_made_after_the_constructor_are_trained():
    class Head(TFLxmertForQuestionAnswering):
        def __init__(self, config, **kwargs):
            super().__init__(config, **kwargs)
            self.extra = keras.layers.Dense(5)

        def call(self, inputs, training=False):
            output = super().call(inputs, training=training)
            output["question_answering_score"] = self.extra(output.question_answering_score)
            return output

    model = Head(tiny_config(**SMALL))
    number = len(TFLxmertForQuestionAnswering(tiny_config(**SMALL)).weights)
    x, y = batch(model), labels(model)
    model.compile("adam", **eagerly)
    model(x)
    before = model.extra.kernel.numpy()
    model.fit(x, y, verbose=0)
    assert len(model.weights) == number + 2
    assert np.abs(model.extra.kernel.numpy() - before).max() > 1e-4


class Rescored(TFLxmertForQuestionAnswering):
    """A head of its own on the scores."""

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        self.more = keras.layers.Dense(3, name="more")

    def call(self, inputs, training=False):
        output = super().call(inputs, training=training)
        output["question_answering_score"] = self.more(output.question_answering_score)
        return output


def test_a_subclass_is_made_again_from_its_config():
    again = Rescored.from_config(Rescored(tiny_config(**SMALL)).get_config())
    assert again(batch(again)).question_answering_score.shape == (3, 3)


def test_checkpoints_do_not_leave_out_layers_of_a_subclass_in_silence(tmp_path, caplog):
    model = tiny_model(Rescored, **SMALL)
    model(batch(model))
    for save in (model.save_pretrained, lambda path: convert(model, path, to="hf-pt")):
        with pytest.raises(ValueError, match=r"Rescored has layers of its own \(more\).* save it whole"):
            save(tmp_path / "x")
    assert not (tmp_path / "x").exists()
    tiny_model(**SMALL).save_pretrained(tmp_path / "qa")
    with caplog.at_level("WARNING", "lxmert_tf"):
        Rescored.from_pretrained(tmp_path / "qa")
    assert "layers of the subclass start anew: more" in caplog.text


@pytest.mark.parametrize(
    "change", [lambda m: m.resize_num_qa_labels(7), lambda m: m.answer_head.logit_fc_0.enable_lora(2)]
)
def test_other_weights_than_were_compiled_are_told(change):
    model = tiny_model(**SMALL)
    x, y = batch(model), labels(model)
    model.compile("adam", **eagerly)
    model.fit(x, y, verbose=0)
    change(model)
    with pytest.raises(ValueError, match="other weights than when it was compiled"):
        model.fit(x, y, verbose=0)


def test_a_constructor_of_ones_own_works_with_values(tmp_path):
    class Scaled(TFLxmertForQuestionAnswering):
        def __init__(self, config, dtype=None):
            super().__init__(config, dtype=dtype)
            self.scale = keras.Variable(np.float32([2, 3]))
            self.head = keras.layers.Dense(2)
            self.head.build((None, 4))
            self.head.bias.assign([5, 6])
            self.get_qa_logit_layer().bias.assign_add([1, 0, 0, 0, 7])

    backbone = tiny_model(**SMALL).get_backbone()
    backbone.save_pretrained(tmp_path)
    model = Scaled.from_pretrained(tmp_path)
    np.testing.assert_array_equal(model.scale, [2, 3])
    np.testing.assert_array_equal(model.head.bias, [5, 6])
    np.testing.assert_array_equal(model.get_qa_logit_layer().bias, [1, 0, 0, 0, 7])
    assert float(keras.ops.std(model.get_qa_logit_layer().kernel)) > 0
    for one, other in zip(model.get_backbone().weights, backbone.weights, strict=True):
        np.testing.assert_array_equal(one, other)
