"""How `fit` and `evaluate` train a model on its own losses when `compile` was given none."""

import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from lxmert_tf.backend import number_of_replicas, sum_over_replicas
from lxmert_tf.input_table import INPUTS
from lxmert_tf.keras_private import has_compiled_loss
from lxmert_tf.metrics import mask_labels
from lxmert_tf.outputs import ModelOutput

# To a type checker, a mixin is what it stands before.
if TYPE_CHECKING:
    from keras import Model as _Model
else:
    _Model = object

ADDED = "added_loss"  # what layers and variables add, such as regularisation


class LossTrackers:
    """The mean of each loss over all that it was computed of. A plain object, so that the means are not saved.

    A batch weighs as much as it has labels, examples or boxes for the loss, so that no mean depends on how a set is
    divided into batches.
    """

    def __init__(self, names: tuple[str, ...], dtype: str):
        self.names = names
        self.means = {name: keras.metrics.Mean(name=name, dtype=dtype) for name in (*names, ADDED)}
        self.used: tuple[str, ...] = ()

    def update(self, losses: dict, counts: dict) -> None:
        self.used = tuple(losses)
        for name, loss in losses.items():
            self.means[name].update_state(loss, sample_weight=counts[name])

    def results(self) -> dict:
        """The sum of those last updated as "loss", and where a model has several each of them by name."""
        results = {name: self.means[name].result() for name in self.used}
        return {"loss": sum(results.values()), **(results if len(self.names) > 1 else {})}


class TrainsOnOwnLosses(_Model):
    """Mixin of the task models, before `keras.Model`.

    Without a `loss` in `compile`, labels may come inside `x` or as `y`: a dict with the call's label names, or a bare
    tensor where the model has one label. The call then computes the total loss, and each named loss is a metric.
    With a `loss`, Keras' own losses and metrics see the outputs that `y` has entries for.
    """

    call_labels: tuple[str, ...] = ()
    loss_names: tuple[str, ...] = ("answer_loss",)
    # Label of a class -> name for metrics, and the output with the logits; where there are several.
    class_outputs: dict[str, tuple[str, str]] = {}  # noqa: RUF012 (subclasses replace it)

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """As Keras'; `metrics` and `weighted_metrics` are of the labels that are not -100, "accuracy" among them.

        "accuracy" is `AnswerAccuracy`: of class ids the share that is right, of soft scores that of the best answer.
        """
        metrics, weighted_metrics = mask_labels(metrics), mask_labels(weighted_metrics)
        super().compile(optimizer, loss, loss_weights, metrics, weighted_metrics, **kwargs)

    def compile_from_config(self, config: dict) -> None:
        """Compiles a loaded model as the saved one was; Keras does so only where `compile` is its own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, *self.loss_trackers.means.values()]

    def get_metrics_result(self) -> dict:
        results = super().get_metrics_result()
        results = {name: value for name, value in results.items() if name not in self.loss_trackers.means}
        own = not has_compiled_loss(self) and self.loss_trackers.used
        return {**results, **self.loss_trackers.results()} if own else results

    def make_train_function(self, force: bool = False) -> Any:
        # Keras may leave this to the trace of the first step, where TensorFlow then keeps the initial values as well.
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def train_step(self, *args: Any):
        *state, data = args  # JAX passes its state first
        with warnings.catch_warnings():
            # Answers use neither the last layer's vision branch nor the other heads: no gradient there, by design.
            warnings.filterwarnings("ignore", message="Gradients do not exist for variables")
            return super().train_step(*state, self._with_labels(data))

    def test_step(self, *args: Any):
        *state, data = args
        return super().test_step(*state, self._with_labels(data))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training: bool = True):
        if has_compiled_loss(self):
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
        losses, counts = y_pred.losses, y_pred.counts
        if number_of_replicas() > 1:  # their gradients are summed: a replica's share of the mean over all of them
            loss = sum(_share(losses[name], count) for name, count in counts.items())
        if self.losses:
            added = sum(self.losses)
            losses, counts = {**losses, ADDED: added}, {**counts, ADDED: 1}
            loss = loss + added / number_of_replicas()
        self.loss_trackers.update(losses, counts)
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y, y_pred = select_outputs(y, y_pred, self.class_outputs)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _with_labels(self, data):
        """(x, y, sample_weight) with y moved into x, unless `compile` was given a loss of its own."""
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        if has_compiled_loss(self) or y is None:
            return x, y, sample_weight
        if not isinstance(y, Mapping):
            if len(self.call_labels) != 1:
                raise ValueError(
                    f"{type(self).__name__} has several labels: "
                    f"y must be a dict with any of {', '.join(self.call_labels)}."
                )
            y = {self.call_labels[0]: y}
        x = dict(x) if isinstance(x, Mapping) else dict(zip(INPUTS, as_list(x), strict=False))
        return {**x, **y}, y, sample_weight


def _share(loss, count):
    """What the mean over one replica contributes to the mean over all."""
    count = ops.cast(count, loss.dtype)
    return loss * count / ops.maximum(sum_over_replicas(count), 1.0)


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
