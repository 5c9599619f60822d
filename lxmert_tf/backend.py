"""What Keras has no word for: tensors, checks in graphs, the replicas of a `tf.distribute` strategy, and gradients.

Backends other than TensorFlow have neither checks nor replicas: their graphs check nothing, and their programs are of
the whole batch, however many devices hold it.
"""

from typing import Any

import keras
import numpy as np


def tensor_over(array: np.ndarray):
    """A tensor in the memory of an array, which is aligned and no one else's; a copy where the backend needs one."""
    if keras.backend.backend() != "tensorflow" or array.dtype.isbuiltin != 1:  # DLPack knows NumPy's own dtypes
        return keras.ops.convert_to_tensor(array, dtype=array.dtype.name)
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())  # `tf.convert_to_tensor` copies twice


def in_graph(x) -> bool:
    """Whether `x` is a tensor of a TensorFlow graph that is being traced, whose values can be checked when it runs."""
    if keras.backend.backend() != "tensorflow" or isinstance(x, keras.KerasTensor):
        return False
    import tensorflow as tf

    return tf.is_tensor(x) and not tf.executing_eagerly()


def asserted(x, condition, message, *values):
    """`x`, which the graph gives only where bool[] `condition` holds; else it fails with the message and the values.

    The message is a str or a string[].

    XLA leaves assertions out: what follows must give NaN there.
    """
    import tensorflow as tf

    with tf.control_dependencies([require(condition, message, *values)]):
        return tf.identity(x)


def require(condition, message, *values):
    """A tf.Operation that fails with the message and the values unless bool[] `condition` holds."""
    import tensorflow as tf

    # The raw op: `tf.debugging.Assert` makes a branch of each, which only costs time here
    return tf.raw_ops.Assert(condition=condition, data=[tf.convert_to_tensor(message), *values], summarize=8)


# Replicas, as seen from inside one of them; elsewhere there is one


def replica_id():
    """int or int32[], the number of this replica among those of all workers; 0 where there are none."""
    context = _context()
    return 0 if context is None else context.replica_id_in_sync_group


def sum_over_replicas(x):
    """The sum of a tensor over all replicas, each of which must ask for it."""
    context = _context()
    if context is None or context.num_replicas_in_sync == 1:
        return x
    import tensorflow as tf

    return context.all_reduce(tf.distribute.ReduceOp.SUM, x)


def number_of_replicas() -> int:
    """Replicas of all workers together."""
    context = _context()
    return 1 if context is None else context.num_replicas_in_sync


def _context():
    """The replica context of TensorFlow, or None outside any replica or under another backend."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None


# Programs


def compiled(function, signature: tuple | None = None):
    """The function as a program; itself where Keras runs eagerly.

    Keras compiles methods of models only, with XLA, anew for every shape.

    Args:
        function: of arrays.
        signature: of each its shape, None where a size is free, and dtype; or the program that it comes from.
            Default: those they turn out to have.
    """
    if keras.backend.backend() != "tensorflow":
        return lambda *arrays: function(*keras.tree.map_structure(keras.ops.convert_to_tensor, arrays))
    import tensorflow as tf

    if signature is None:
        return tf.function(function, autograph=False, reduce_retracing=True)
    return _Program(
        function, [each.outputs if isinstance(each, _Program) else tf.TensorSpec(*each) for each in signature]
    )


class _Program:
    """A `tf.function` that is traced once, and not when it is called: TensorFlow warns of many that are.

    Attributes:
        outputs: the shapes and dtypes of what it gives.
    """

    def __init__(self, function: Any, specs: list):
        import tensorflow as tf

        traced = tf.function(lambda *arrays: function(*arrays), autograph=False)
        self._specs, self._traced = specs, traced.get_concrete_function(*specs)
        self.outputs = tf.nest.map_structure(tf.TensorSpec.from_tensor, self._traced.structured_outputs)

    def __call__(self, *arrays: Any) -> Any:
        import tensorflow as tf

        return self._traced(*tf.nest.map_structure(lambda x, spec: tf.cast(x, spec.dtype), list(arrays), self._specs))


def in_order(function, rows, size: int) -> dict:
    """What a function gives for a tensor's rows, [R, ...] -> a dict of [R, ...], `size` of them after the other.

    In a graph, too, where chunks without an order would be computed, and fill the memory, at the same time.
    """
    number = keras.ops.shape(rows)[0]
    if isinstance(number, int) and number <= size:
        return function(rows)
    if not in_graph(rows):
        parts = [function(rows[start : start + size]) for start in range(0, max(int(number), 1), size)]
        return {name: keras.ops.concatenate([part[name] for part in parts]) for name in parts[0]}
    import tensorflow as tf

    def one_more(start, done):
        part = function(rows[start : start + size])
        return start + size, {name: tf.concat([done[name], part[name]], axis=0) for name in done}

    first = function(rows[:size])
    shapes = {name: tf.TensorShape([None, *value.shape[1:]]) for name, value in first.items()}
    start = tf.constant(size), first
    invariants = tf.TensorShape([]), shapes
    _, done = tf.while_loop(lambda start, _: start < number, one_more, start, invariants, parallel_iterations=1)
    return done


# Gradients


def gradients(function, tensors: list) -> tuple[list, Any]:
    """The gradients of a number with respect to tensors.

    Args:
        function: a list like `tensors` -> a number float[], and anything else made of tensors.
        tensors: of floats.

    Returns:
        The gradients, zeros where a tensor does not matter; and the anything else.

    Raises:
        NotImplementedError: the backend has no gradients.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            number, rest = function(tensors)
        return tape.gradient(number, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO), rest
    if backend == "torch":
        import torch

        with torch.enable_grad():
            tensors = [tensor.detach().requires_grad_() for tensor in tensors]
            number, rest = function(tensors)
            return list(torch.autograd.grad(number, tensors, allow_unused=True, materialize_grads=True)), rest
    if backend == "jax":
        import jax

        return jax.grad(function, has_aux=True)(tensors)
    raise NotImplementedError(f"Keras' backend {backend} has no gradients; use tensorflow, torch or jax.")
