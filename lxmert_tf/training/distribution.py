"""Training on several devices of one machine, and on several machines.

`fit` of Keras 3 fails under `MultiWorkerMirroredStrategy` (keras-team/keras issue 20585), for two reasons that
`prepare_for_fit` repairs:

1. Before the first step `fit` builds the model from a batch that it averages over the replicas, which fails for batches
   of several workers (and under `MirroredStrategy` costs a batch of data). Our models exist when they are constructed,
   and the metrics are built here.
2. The logs of each step are averaged over workers along their first axis, which scalars do not have.
"""

import json
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from lxmert_tf.keras_private import build_compiled, skip_symbolic_build, workers_of

if TYPE_CHECKING:
    import tensorflow as tf


def make_strategy(mirrored: bool = False) -> "tf.distribute.Strategy | None":
    """The strategy for this process: by TF_CONFIG over several machines, over the devices of this one, or None.

    Args:
        mirrored: whether to use all devices of this machine, also logical ones.

    Raises:
        ValueError: TF_CONFIG is not JSON with a cluster of workers and a task.
    """
    import tensorflow as tf

    if os.environ.get("TF_CONFIG"):
        _check_tf_config(os.environ["TF_CONFIG"])
        return tf.distribute.MultiWorkerMirroredStrategy()
    gpus = tf.config.list_logical_devices("GPU")
    if len(gpus) > 1:
        return tf.distribute.MirroredStrategy()
    if mirrored:
        devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
        return tf.distribute.MirroredStrategy(devices)
    return None


def is_chief(strategy: "tf.distribute.Strategy | None") -> bool:
    """Whether this process writes files: the only one, the one called chief, or else the first worker."""
    resolver = getattr(strategy, "cluster_resolver", None)
    if resolver is None or not resolver.cluster_spec().as_dict():
        return True
    if "chief" in resolver.cluster_spec().jobs:
        return resolver.task_type == "chief"
    return resolver.task_type == "worker" and resolver.task_id == 0


def is_multi_worker(strategy: "tf.distribute.Strategy | None") -> bool:
    """Whether several processes train together."""
    return strategy is not None and workers_of(strategy) > 1


def distribute(
    strategy: "tf.distribute.Strategy | None", make_batches: Callable[[int, int], "tf.data.Dataset"], batch_size: int
) -> Any:
    """Batches for `fit` under a strategy.

    Args:
        strategy: as from `make_strategy`.
        make_batches: (index, count) -> tf.data.Dataset of worker `index`'s share of each global batch.
        batch_size: of the global batch.

    Raises:
        ValueError: the batch cannot be divided evenly.
    """
    if strategy is None:
        return make_batches(0, 1)
    replicas = strategy.num_replicas_in_sync
    if batch_size % replicas:
        raise ValueError(f"batch_size must be a multiple of the {replicas} devices, got {batch_size}.")

    def of_worker(context: "tf.distribute.InputContext") -> "tf.data.Dataset":
        share = make_batches(context.input_pipeline_id, context.num_input_pipelines)
        here = replicas // context.num_input_pipelines
        return share if here == 1 else share.rebatch(batch_size // replicas)

    if not is_multi_worker(strategy):
        return make_batches(0, 1)  # Keras divides it among the devices
    return strategy.distribute_datasets_from_function(of_worker)


def even_batch_size(batch_size: int, examples: int, strategy: "tf.distribute.Strategy | None") -> int:
    """The next larger batch size for validation of which every device gets a share, of the last batch too."""
    replicas = strategy.num_replicas_in_sync if strategy else 1
    size = -(-batch_size // replicas) * replicas
    while 0 < examples % size < replicas < examples:
        size += replicas
    return size


def check_agreement(strategy: "tf.distribute.Strategy | None", step: int) -> None:
    """Holds all workers to the same step.

    Raises:
        ValueError: another worker is at another step: it does not see the same run directory.
    """
    import tensorflow as tf

    if strategy is None or not is_multi_worker(strategy):
        return

    def total() -> "tf.Tensor":
        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, tf.constant(step, tf.float32))

    sums = strategy.experimental_local_results(strategy.run(tf.function(total)))
    if int(sums[0].numpy()) != step * strategy.num_replicas_in_sync:
        raise ValueError(
            f"This worker would resume after step {step}, another one elsewhere: all must see the same run directory."
        )


def prepare_for_fit(model: keras.Model, batch: Any) -> None:
    """Prepares a compiled model of a strategy for `fit` and `evaluate`, as explained above.

    Args:
        model: created and compiled in the strategy's scope.
        batch: (x, y) of any size, from which the metrics are built.
    """
    with model.distribute_strategy.scope():
        build_compiled(model, batch)
    skip_symbolic_build(model)
    for name in ("train_step", "test_step") if is_multi_worker(model.distribute_strategy) else ():
        setattr(model, name, _with_axis(getattr(model, name)))


def _with_axis(step: Callable) -> Callable:
    def with_axis(data: Any) -> dict[str, Any]:
        return {name: keras.ops.reshape(value, (1,)) for name, value in step(data).items()}

    return with_axis


def _check_tf_config(text: str) -> None:
    try:
        config = json.loads(text)
        jobs, task = config["cluster"], config["task"]
        known = jobs[task["type"]][int(task["index"])]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(
            'TF_CONFIG must read {"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}, '
            f"got {text[:200]!r}."
        ) from error
    if not isinstance(known, str):
        raise ValueError(f"TF_CONFIG must name HOST:PORT for each task, got {known!r}.")
