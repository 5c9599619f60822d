"""The replicas of a `tf.distribute` strategy, as seen from inside one of them; elsewhere there is one.

Other backends have no such strategies: there a program is of the whole batch, however many devices hold it.
"""

import keras


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
