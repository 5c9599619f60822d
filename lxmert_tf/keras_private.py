"""Every use of Keras' and TensorFlow's private API, each with its reason; seen in Keras 3.12 to 3.15, TensorFlow 2.21.

No other module touches an attribute that Keras or TensorFlow begins with an underscore, or imports `keras.src`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import keras
import numpy as np

from conversion.tensors import aligned, contiguous
from lxmert_tf.backend import tensor_over

_Layer = TypeVar("_Layer", bound=keras.layers.Layer)

# To a type checker, a mixin is what it stands before.
if TYPE_CHECKING:
    from keras import Model as _Model
    from keras.optimizers import Optimizer as _Optimizer
else:
    _Model = _Optimizer = object


def register_node(cls: Any) -> Any:
    """Makes `cls` a node, not a leaf, to `keras.tree` and to JAX; TensorFlow knows every dict as a node already.

    `keras.tree` has no public way to add a class.
    """
    from keras.src.tree import register_tree_node_class

    if keras.backend.backend() == "jax":
        import jax

        jax.tree_util.register_pytree_node(cls, cls.tree_flatten, cls.tree_unflatten)
    return register_tree_node_class(cls)


def is_symbolic() -> bool:
    """Whether Keras asks for shapes only, with placeholders that are float32 whatever they stand for.

    So it builds a loaded model from the shapes of its inputs, whose dtypes it does not save.
    """
    from keras.src.backend.common.symbolic_scope import in_symbolic_scope

    return in_symbolic_scope()


def is_default_signature(x) -> bool:
    """Whether `x` is of the graph that Keras traces of every model that it writes, with float32 for every input."""
    return x.graph.name == "serving_default"


# Models


class ModelHooks(_Model):
    """Mixin before `keras.Model`: public methods in place of the private ones that a subclass has to change."""

    def build_from_batch(self, *args, **kwargs) -> None:
        """Builds the metrics and losses of `compile` from what a call and a batch's labels look like."""
        super()._symbolic_build(*args, **kwargs)

    def _symbolic_build(self, *args, **kwargs) -> None:
        self.build_from_batch(*args, **kwargs)


def build_at_init(model: keras.Model, build: Callable[[], None], is_built: bool) -> None:
    """Builds parts of a model in its constructor, under the paths that they have when Keras builds it.

    Unlike a model that Keras has built it stays open to layers and weights, which the constructor of a subclass adds.

    Args:
        model: the model.
        build: builds the parts.
        is_built: whether that is all there is to build.
    """
    from keras.src.backend.common.name_scope import current_path

    with model._open_name_scope():
        model._path = current_path()
        build()
    if is_built:
        model.built = True
        model._post_build()


def allow_any_positional(model: keras.Model) -> None:
    """Lets a call take switches such as `output_attentions` by position, as upstream's do; Keras wants tensors."""
    model._allow_non_tensor_positional_args = True


def mark_called(model: keras.Model) -> None:
    """Lets a model be exported that was never called; its weights exist without a call."""
    model._called = True


def has_compiled_loss(model: keras.Model) -> bool:
    """Whether `compile` was given a loss. Keras keeps no public trace of it."""
    return model._compile_loss is not None


def build_compiled(model: keras.Model, batch) -> None:
    """Builds the metrics of a compiled model from a batch (x, y), which `fit` would do within its first step."""
    model._symbolic_build(data_batch=batch)


def skip_symbolic_build(model: keras.Model) -> None:
    """Keeps `fit` from building the model from a batch of several workers, at which it fails."""
    model._maybe_symbolic_build = lambda *args, **kwargs: None


# Layers


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers right below a layer, in the order in which they became its attributes."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def flat_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """A layer and all layers inside it. Keras has a public list for models only."""
    return list(layer._flatten_layers())


# Where Keras keeps the weight that LoRA and quantization leave behind a property of the public name
_STORED = {"kernel": "_kernel", "embeddings": "_embeddings"}


def stored_variable(layer: keras.layers.Layer, attribute: str) -> keras.Variable:
    """The variable behind an attribute of a built layer: of "kernel" and "embeddings" without LoRA, as quantized."""
    return getattr(layer, _private(layer, attribute))


def replace_weight(
    layer: keras.layers.Layer, attribute: str, add: Callable[[keras.Variable], keras.Variable]
) -> keras.Variable:
    """Puts another variable in the place of a built layer's own, which Keras then no longer knows.

    Args:
        layer: a built layer; Keras closes it to new variables.
        attribute: "kernel", "bias" or another attribute that holds the variable.
        add: the old variable -> the new one, by `layer.add_weight`.
    """
    old = stored_variable(layer, attribute)
    layer._tracker.unlock()
    layer._untrack_variable(old)
    with layer._open_name_scope():
        new = add(old)
    layer._tracker.lock()
    setattr(layer, _private(layer, attribute), new)
    return new


@contextmanager
def without_values(cls: type[_Layer], *args: Any, **kwargs: Any) -> Iterator[_Layer]:
    """A model whose variables have no values yet: `set_value` gives them some inside, their initializers at the end.

    So none is filled twice, which takes longer than to read a checkpoint. Subclasses with a constructor of their own,
    which may work with values, have them from the start.
    """
    from keras.src.backend.common import global_state

    if any(not getattr(cls, name).__module__.startswith("lxmert_tf.") for name in ("__init__", "build")):
        yield cls(*args, **kwargs)
        return
    with keras.StatelessScope(initialize_variables=False):
        made = cls(*args, **kwargs)
    try:
        yield made
        for variable in global_state.get_global_attribute("uninitialized_variables"):
            if variable._value is None:
                variable._deferred_initialize()
    finally:  # else they were kept until the next such scope ends
        global_state.set_global_attribute("uninitialized_variables", [])


def set_value(variable: keras.Variable, value: np.ndarray) -> None:
    """Gives a variable a value, its first, too; the array, in whatever order, stays the caller's."""
    if variable._value is not None:
        variable.assign(contiguous(value))
        return
    variable._initialize(tensor_over(aligned(value)))
    variable._initializer = None


def _private(layer: keras.layers.Layer, attribute: str) -> str:
    private = _STORED.get(attribute, attribute)
    return private if hasattr(layer, private) else attribute


# Optimizers


def steps_of(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """int[], the calls of `apply`; the public `iterations` counts updates."""
    return optimizer._iterations


def knows_variables(optimizer: keras.optimizers.Optimizer, variables: list) -> bool:
    """Whether a built optimizer was built for these variables, among others."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    known = {id(variable) for variable in optimizer._trainable_variables}
    return all(id(variable) in known for variable in variables)


class OptimizerHooks(_Optimizer):
    """Mixin before a Keras optimizer: public methods in place of the private ones that a subclass has to change."""

    def clip_gradients(self, gradients: list) -> list:
        """The gradients that the update takes, from those of this replica."""
        return super()._clip_gradients(gradients)

    def decay_of(self, variable) -> float:
        """The weight decay of a variable, 0 for one that `exclude_from_weight_decay` names."""
        return self.weight_decay if self.weight_decay and self._use_weight_decay(variable) else 0.0

    def index_of(self, variable) -> int:
        """The number of a variable among those that the optimizer was built with."""
        return self._get_variable_index(variable)

    def track(self, variable: keras.Variable) -> keras.Variable:
        """Makes a variable one of the optimizer's, at once rather than with those of the model's variables."""
        self._track_variable(variable)
        return variable

    def _clip_gradients(self, gradients):
        return self.clip_gradients(gradients)

    def _apply_weight_decay(self, variables) -> None:
        """Nothing: `update_step` decays, where the rate of the variable is known."""

    def _all_reduce_sum_gradients(self, grads_and_vars):
        return grads_and_vars  # `clip_gradients` has done it

    def _get_current_learning_rate(self):
        # Keras gives schedules the number of batches.
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()


# tf.distribute


def workers_of(strategy) -> int:
    """Processes that a `tf.distribute` strategy trains in together."""
    return getattr(strategy.extended, "_num_workers", 1)
