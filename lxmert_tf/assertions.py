"""Checks of values that are known only when a TensorFlow graph runs."""

import keras


def in_graph(x) -> bool:
    """Whether `x` is a tensor of a TensorFlow graph that is being traced, whose values can be checked when it runs."""
    if keras.backend.backend() != "tensorflow" or isinstance(x, keras.KerasTensor):
        return False
    import tensorflow as tf

    return tf.is_tensor(x) and not tf.executing_eagerly()


def asserted(x, condition, message: str, *values):
    """`x`, which the graph gives only where bool[] `condition` holds; else it fails with the message and the values.

    XLA leaves assertions out: what follows must give NaN there.
    """
    import tensorflow as tf

    with tf.control_dependencies([require(condition, message, *values)]):
        return tf.identity(x)


def require(condition, message: str, *values):
    """A tf.Operation that fails with the message and the values unless bool[] `condition` holds."""
    import tensorflow as tf

    # The raw op: `tf.debugging.Assert` makes a branch of each, which only costs time here
    return tf.raw_ops.Assert(condition=condition, data=[tf.constant(message), *values], summarize=8)
