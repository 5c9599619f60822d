"""What Keras has no word for: checks while a TensorFlow graph runs, and the replicas of a `tf.distribute` strategy.

Other backends have neither: their graphs check nothing, and their programs are of the whole batch, however many devices
hold it.
"""

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
