"""How `fit` and `evaluate` train a model on its own losses when `compile` was given none."""

import warnings
from collections.abc import Mapping

import keras
from keras import ops

from lxmert_tf.model_output import ModelOutput


class LossTrackers:
    """A running mean per named loss. A plain object, so that the means are not saved with the weights."""

    def __init__(self, names: tuple[str, ...]):
        self.means = {name: keras.metrics.Mean(name=name) for name in names}
        self.used: set[str] = set()

    def update(self, losses: dict, batch_size) -> None:
        for name, loss in losses.items():
            if name in self.means:
                self.means[name].update_state(loss, sample_weight=batch_size)
                self.used.add(name)


class TrainsOnOwnLosses:
    """Mixin of the task models, before `keras.Model`.

    Without a `loss` in `compile`, labels may come inside `x` or as `y`: a dict with the call's label names, or a bare
    tensor where the model has one label. The call then computes the total loss, and each named loss is a metric.
    With a `loss`, Keras' own losses and metrics see the outputs that `y` has entries for.
    """

    call_labels: tuple[str, ...] = ()
    loss_names: tuple[str, ...] = ()
    # Label of a class -> name for metrics, and the output with the logits; where there are several.
    class_outputs: dict[str, tuple[str, str]] = {}  # noqa: RUF012 (subclasses replace it)

    @property
    def metrics(self):
        return [*super().metrics, *self.loss_trackers.means.values()]

    def get_metrics_result(self):
        unused = set(self.loss_trackers.means) - self.loss_trackers.used
        return {name: value for name, value in super().get_metrics_result().items() if name not in unused}

    def make_train_function(self, force=False):
        # Keras may leave this to the trace of the first step, where TensorFlow then keeps the initial values as well.
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def train_step(self, *args):
        *state, data = args  # JAX passes its state first
        with warnings.catch_warnings():
            # Answers use neither the last layer's vision branch nor the other heads: no gradient there, by design.
            warnings.filterwarnings("ignore", message="Gradients do not exist for variables")
            return super().train_step(*state, self._with_labels(data))

    def test_step(self, *args):
        *state, data = args
        return super().test_step(*state, self._with_labels(data))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        if self._compile_loss is not None:
            y, y_pred = select_outputs(y, y_pred, self.class_outputs)
            return super().compute_loss(x, y, y_pred, sample_weight, training=training)
        if sample_weight is not None:
            raise ValueError(
                "sample_weight and class_weight need a loss in compile(); the model's own losses take none "
                "(ignore an example with the label -100)."
            )
        loss = y_pred.loss if isinstance(y_pred, ModelOutput) else None
        if loss is None:
            raise ValueError(
                f"There are no labels to train on: give {', '.join(self.call_labels)} inside x or as y, "
                "or a loss in compile()."
            )
        scores = [value for value in y_pred.to_tuple()[1:] if not isinstance(value, tuple)]
        batch_size = ops.shape(scores[-1])[0]  # not of the word logits, which need not be computed for it
        self.loss_trackers.update(y_pred.losses, batch_size)
        # Divided by the number of replicas, whose gradients are summed.
        return self._aggregate_additional_loss(loss + sum(self.losses) if self.losses else loss)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y, y_pred = select_outputs(y, y_pred, self.class_outputs)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _with_labels(self, data):
        """(x, y, sample_weight) with y moved into x, unless `compile` was given a loss of its own."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if self._compile_loss is not None or y is None:
            return x, y, sample_weight
        if not isinstance(y, Mapping):
            if len(self.call_labels) != 1:
                raise ValueError(
                    f"{type(self).__name__} has several labels: "
                    f"y must be a dict with any of {', '.join(self.call_labels)}."
                )
            y = {self.call_labels[0]: y}
        x = dict(x) if isinstance(x, Mapping) else dict(zip(self.call_inputs, as_list(x), strict=False))
        return {**x, **y}, y, sample_weight


def as_list(x) -> list:
    return list(x) if isinstance(x, (list, tuple)) else [x]


def select_outputs(y, y_pred, class_outputs: dict[str, tuple[str, str]] | None = None):
    """The outputs that `y` has entries for, as a plain dict; or the only output where `y` is a bare tensor.

    Where `y` holds the call's labels, those of `class_outputs` are given with their logits, under the names there.
    """
    if not isinstance(y_pred, ModelOutput) or y is None:
        return y, y_pred
    outputs = {name: value for name, value in y_pred.items() if name != "loss"}
    if not isinstance(y, Mapping):
        return y, next(iter(outputs.values())) if len(outputs) == 1 else outputs
    chosen = {name: outputs[name] for name in y if name in outputs}
    if chosen:
        return {name: y[name] for name in chosen}, chosen
    if len(y) == len(outputs) == 1:  # the label's own name, such as {"labels": ...}
        return next(iter(y.values())), next(iter(outputs.values()))
    named = {label: each for label, each in (class_outputs or {}).items() if label in y and each[1] in outputs}
    if named:
        labels = {name: y[label] for label, (name, _) in named.items()}
        return labels, {name: outputs[output] for name, output in named.values()}
    return y, outputs
