"""How `fit` and `evaluate` train a model on its own losses when `compile` was given none."""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras
from keras import ops

from lxmert_tf.backend import number_of_replicas, sum_over_replicas
from lxmert_tf.checks import CountedChecks, StopOnBrokenChecks, count_in, current_count
from lxmert_tf.compilation import ChooseCompilation
from lxmert_tf.input_table import INPUTS
from lxmert_tf.inputs import label_tensors
from lxmert_tf.keras_private import ModelHooks, has_compiled_loss, knows_variables
from lxmert_tf.losses import Loss, weight_of
from lxmert_tf.metrics import mask_labels
from lxmert_tf.outputs import ENCODER_FIELDS, ModelOutput, named_outputs

ADDED = "added_loss"  # what layers and variables add, such as regularisation


class OwnMetrics:
    """What a model's own losses and checks keep in a step.

    A plain object, so that none of it is saved, nor among the `metrics` of a model, which a `train_step` of a subclass
    updates with labels and outputs.

    A batch weighs as much as it has labels, examples or boxes for a loss, so that no mean depends on how a set is
    divided into batches.

    Attributes:
        means: the mean of each loss over all that it was computed of, by name.
        used: the names of those last updated.
        checks: values out of range.
    """

    def __init__(self, names: tuple[str, ...], dtype: str):
        self.names = names
        self.means = {name: keras.metrics.Mean(name=name, dtype=dtype) for name in (*names, ADDED)}
        self.used: tuple[str, ...] = ()
        self.checks = CountedChecks()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*self.means.values(), self.checks]

    def update(self, losses: dict[str, Loss]) -> None:
        self.used = tuple(losses)
        for name, loss in losses.items():
            self.means[name].update_state(loss.value, sample_weight=loss.count)

    def results(self) -> dict:
        """The sum of those last updated as "loss", and where a model has several each of them by name."""
        results = {name: self.means[name].result() for name in self.used}
        return {"loss": sum(results.values()), **(results if len(self.names) > 1 else {})}


class TrainsOnOwnLosses(ModelHooks):
    """Mixin of the task models, before `keras.Model`.

    Without a `loss` in `compile`, labels may come inside `x` or as `y`: a dict with the call's label names, or a bare
    tensor where the model has one label. `compute_losses` gives the losses; each of several is a metric. With a `loss`,
    Keras' own losses and metrics see the outputs that the labels are of.
    """

    call_labels: tuple[str, ...] = ()
    loss_names: tuple[str, ...] = ("answer_loss",)
    # Label of a class -> name for metrics, and the output with the logits; where there are several.
    class_outputs: dict[str, tuple[str, str]] = {}  # noqa: RUF012 (subclasses replace it)
    choose_compilation: ChooseCompilation | None = None
    jit_compile: bool  # of Keras

    def compute_losses(
        self, output: ModelOutput, labels: dict, sample_weight=None, training: bool = False
    ) -> dict[str, Loss]:
        """The model's own losses by name, of the labels that are given.

        Args:
            output: what a call returns.
            labels: by the names of the call's arguments.
            sample_weight: float[B], of each example, or a dict of such by the names of labels. Default: 1.
            training: whether this is a step of training.
        """
        raise NotImplementedError

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """As Keras'; `metrics` and `weighted_metrics` are of the labels that are not -100, "accuracy" among them.

        "accuracy" is `AnswerAccuracy`: of class ids the share that is right, of soft scores that of the best answer.
        With `jit_compile="auto"` TensorFlow runs with XLA where Keras would choose it and a `fit` has enough steps of a
        model of this size to be worth the compilation.
        """
        metrics, weighted_metrics = mask_labels(metrics), mask_labels(weighted_metrics)
        super().compile(
            optimizer,
            loss,
            loss_weights,
            metrics,
            weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        self.choose_compilation = None
        if jit_compile == "auto" and self.jit_compile and keras.backend.backend() == "tensorflow":
            self.jit_compile, self.choose_compilation = False, ChooseCompilation()

    def get_compile_config(self) -> dict:
        config = super().get_compile_config()
        return {**config, "jit_compile": "auto"} if config and self.choose_compilation else config

    def compile_from_config(self, config: dict) -> None:
        """Compiles a loaded model as the saved one was; Keras does so only where `compile` is its own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    # Metrics

    @property
    def metrics_variables(self) -> list[keras.Variable]:
        own = [variable for metric in self.own_metrics.metrics for variable in metric.variables]
        return [*super().metrics_variables, *own]

    def reset_metrics(self) -> None:
        super().reset_metrics()
        for metric in self.own_metrics.metrics:
            metric.reset_state()

    def get_metrics_result(self) -> dict:
        results = super().get_metrics_result()
        if has_compiled_loss(self) or not self.own_metrics.used:
            return results
        own = self.own_metrics.results()
        if self._overrides("call", "compute_loss", "train_step"):
            del own["loss"]  # of what a subclass makes of the loss Keras keeps the mean
        return {**results, **own}

    def _overrides(self, *names: str) -> bool:
        """Whether a subclass outside this package has any of these methods of its own."""
        classes = type(self).__mro__
        ours = next(i for i, each in enumerate(classes) if each.__module__.startswith("lxmert_tf."))
        return any(name in vars(each) for each in classes[:ours] for name in names)

    # Training and evaluating

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """As Keras'; stops at labels, ids and masks out of range with a ValueError or TensorFlow's own error.

        Raises:
            ValueError: the model has weights that its optimizer does not know.
        """
        optimizer = getattr(self, "optimizer", None)
        if optimizer is not None and optimizer.built and not knows_variables(optimizer, self.trainable_variables):
            raise ValueError(
                f"{type(self).__name__} has other weights than when it was compiled, as after resize_token_embeddings, "
                "resize_num_qa_labels or enable_lora; compile it again."
            )
        given = self._with_labels(inspect.signature(keras.Model.fit).bind(self, *args, **kwargs).arguments)
        given["callbacks"] = self._with_callbacks(given.get("callbacks"), self.choose_compilation)
        return super().fit(**given)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """As Keras'; stops as `fit` does."""
        given = self._with_labels(inspect.signature(keras.Model.evaluate).bind(self, *args, **kwargs).arguments)
        given |= given.pop("kwargs", {})  # what Keras' `fit` gives besides
        given["callbacks"] = self._with_callbacks(given.get("callbacks"))
        return super().evaluate(**given)

    def _with_callbacks(self, callbacks: Any, *more: keras.callbacks.Callback | None) -> Any:
        """Those of the caller, after `more` and the one that stops at values that no compiled step could refuse."""
        if isinstance(callbacks, keras.callbacks.CallbackList):
            return callbacks
        ours = [each for each in more if each is not None]
        return [*ours, StopOnBrokenChecks(self.own_metrics.checks), *keras.tree.flatten(callbacks or [])]

    def _with_labels(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Those of `fit` or `evaluate`, with labels where Keras weighs them: in `y`, and bare for classes.

        Without a `y` it would pass over the weights.
        """
        given = {name: value for name, value in arguments.items() if name != "self"}
        if given.get("sample_weight") is not None or given.get("class_weight") is not None:
            given["y"] = self._labels_or_inside(given.get("x"), given.get("y"))
        if given.get("class_weight") is not None and isinstance(given["y"], Mapping) and len(self.call_labels) == 1:
            given["y"] = given["y"].get(self.call_labels[0], given["y"])
        return given

    def make_train_function(self, force: bool = False) -> Any:
        # Keras may leave this to the trace of the first step, where TensorFlow then keeps the initial values as well.
        if self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return super().make_train_function(force)

    def build_from_batch(self, *args: Any, **kwargs: Any) -> None:
        with named_outputs():
            super().build_from_batch(*args, **kwargs)

    def train_step(self, *args: Any):
        with self._step(), warnings.catch_warnings():
            # Answers use neither the last layer's vision branch nor the other heads: no gradient there, by design.
            warnings.filterwarnings("ignore", message="Gradients do not exist for variables")
            return super().train_step(*args)

    def test_step(self, *args: Any):
        with self._step():
            return super().test_step(*args)

    @contextmanager
    def _step(self) -> Iterator[None]:
        with named_outputs(), count_in(self.own_metrics.checks if self.counts_checks else None):
            yield

    @property
    def counts_checks(self) -> bool:
        """Whether a step is compiled to a program that cannot stop at values out of range."""
        return self.jit_compile

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training: bool = True):
        loss = self._loss_of(x, y, y_pred, sample_weight, training)
        if (count := current_count()) is not None:
            count.flush()
        return loss

    def _loss_of(self, x, y, y_pred, sample_weight, training: bool):
        if has_compiled_loss(self):
            y = self._labels_or_inside(x, y)
            y, y_pred, sample_weight = select_outputs(y, y_pred, sample_weight, self.class_outputs)
            return super().compute_loss(x, y, y_pred, sample_weight, training=training)
        computed = y is None and sample_weight is None and isinstance(y_pred, ModelOutput) and bool(y_pred.losses)
        if computed:
            losses = {name: Loss(value, y_pred.counts[name]) for name, value in y_pred.losses.items()}
        else:
            losses = self._own_losses(x, y, y_pred, sample_weight, training)
        if not losses:
            raise ValueError(
                f"There are no labels to train on: give {', '.join(self.call_labels)} inside x or as y, "
                "or a loss in compile()."
            )
        if number_of_replicas() > 1:  # their gradients are summed: a replica's share of the mean over all of them
            total = sum(map(_share, losses.values()))
        elif computed:  # and perhaps changed, by a subclass
            total = y_pred.loss
        else:
            total = sum(loss.value for loss in losses.values())
        if self.losses:
            added = sum(self.losses)
            losses = {**losses, ADDED: Loss(added, 1)}
            total = total + added / number_of_replicas()
        self.own_metrics.update(losses)
        return total

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y = self._labels_or_inside(x, y)
        y, y_pred, sample_weight = select_outputs(y, y_pred, sample_weight, self.class_outputs)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _own_losses(self, x, y, y_pred, sample_weight, training: bool) -> dict[str, Loss]:
        labels = {**self._inside(x), **self._by_name(y)}
        if not labels:
            return {}
        if not isinstance(y_pred, ModelOutput):
            raise ValueError(
                f"The losses of {type(self).__name__} are computed from its outputs by name, got a "
                f"{type(y_pred).__name__}: call it with return_dict=True, or give a loss in compile()."
            )
        return self.compute_losses(y_pred, label_tensors(labels), sample_weight, training)

    def _labels_or_inside(self, x, y):
        """`y`, or the labels inside `x` where there is none."""
        return self._inside(x) or None if y is None else y

    def _inside(self, x) -> dict:
        named = x if isinstance(x, Mapping) else dict(zip(INPUTS + self.call_labels, as_list(x), strict=False))
        return {name: named[name] for name in self.call_labels if named.get(name) is not None}

    def _by_name(self, y) -> dict:
        if y is None:
            return {}
        if not isinstance(y, Mapping):
            if len(self.call_labels) != 1:
                raise ValueError(
                    f"{type(self).__name__} has several labels: "
                    f"y must be a dict with any of {', '.join(self.call_labels)}."
                )
            return {self.call_labels[0]: y}
        unknown = sorted(set(y) - set(self.call_labels))
        if unknown:
            raise ValueError(f"The labels hold {unknown[0]!r}, which is none of {', '.join(self.call_labels)}.")
        return {name: value for name, value in y.items() if value is not None}


def _share(loss: Loss):
    """What the mean over one replica contributes to the mean over all."""
    count = ops.cast(loss.count, loss.value.dtype)
    return loss.value * count / ops.maximum(sum_over_replicas(count), 1.0)


def as_list(x) -> list:
    return list(x) if isinstance(x, (list, tuple)) else [x]


def select_outputs(y, y_pred, sample_weight=None, class_outputs: dict[str, tuple[str, str]] | None = None):
    """The outputs that `y` has entries for, as a plain dict; or the only output where `y` is a bare tensor.

    Where `y` holds the call's labels, those of `class_outputs` are given with their logits, under the names there.

    Returns:
        Labels, outputs and weights, of one structure.
    """
    if not isinstance(y_pred, ModelOutput) or y is None:
        return y, y_pred, sample_weight
    outputs = {name: value for name, value in y_pred.items() if name not in ("loss", *ENCODER_FIELDS)}
    if not isinstance(y, Mapping):
        return y, next(iter(outputs.values())) if len(outputs) == 1 else outputs, sample_weight
    named = {name: (name, name) for name in y if name in y_pred}
    if not named and len(y) == len(outputs) == 1:  # the label's own name, such as {"labels": ...}
        label = next(iter(y))
        return y[label], next(iter(outputs.values())), weight_of(sample_weight, label)
    if not named:
        named = {label: each for label, each in (class_outputs or {}).items() if label in y and each[1] in outputs}
    if not named:
        return y, outputs, sample_weight
    labels = {name: y[label] for label, (name, _) in named.items()}
    weights = {name: weight_of(sample_weight, label) for label, (name, _) in named.items()}
    chosen = {name: y_pred[output] for name, output in named.values()}
    return labels, chosen, None if sample_weight is None else weights
