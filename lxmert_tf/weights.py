"""Weights in and out of models: opening a checkpoint from anywhere, assigning it, saving it in any format."""

import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from conversion.copies import canonically_named
from conversion.formats import UNTIED, Checkpoint, checkpoint_of, find_weights, open_checkpoint
from conversion.names import LAYOUTS, Matched, Row, fit_prefix, match, rows, task_of
from conversion.tensors import Tensors, contiguous
from conversion.writers import write_checkpoint
from lxmert_tf.configuration import CONFIG_NAME, LxmertConfig
from lxmert_tf.files import absent
from lxmert_tf.hub import TOKENIZER_FILES, fetch

logger = logging.getLogger("lxmert_tf")

# What is fetched from the Hub, one group after the other until there are weights.
HUB_FILES = (
    ("model*.safetensors", "model.safetensors.index.json"),
    ("model.weights.h5",),
    ("pytorch_model*.bin", "pytorch_model.bin.index.json"),
    ("tf_model.h5",),
)


def open_source(source, config: LxmertConfig | str | os.PathLike | None = None, **hub_options) -> Checkpoint:
    """Opens a checkpoint from a file, a directory, a Hub id or memory.

    Args:
        source: a path or a Hub id; a model of `lxmert_tf`, `lxmert_pt` or upstream; a state dict, by PyTorch names
            and in PyTorch layout; or an opened checkpoint. Of a repository on the Hub only the files of the preferred
            format are fetched.
        config: a config or its JSON file, in place of the checkpoint's own, which is not read then.
        **hub_options: `revision`, `cache_dir`, `local_files_only`, `token`, as `lxmert_tf.hub.fetch` takes them.

    Raises:
        FileNotFoundError: there is no such path or repository, or it holds no weights.
        ValueError: the checkpoint is damaged or of another model.
        TypeError: the source is nothing of the above.
    """
    if isinstance(source, str | os.PathLike):
        return _open_path(source, config, hub_options)
    file = None
    if isinstance(config, str | os.PathLike):
        file, config = Path(config), LxmertConfig.from_json_file(config)
    if not isinstance(source, Checkpoint):
        source = _open_memory(source, config)
    return source if config is None else replace(source, config=config, config_file=file, inferred="")


def _open_path(source: str | os.PathLike, config: LxmertConfig | str | os.PathLike | None, hub_options) -> Checkpoint:
    if "/" not in (name := os.fspath(source)) and name and not os.path.lexists(name):
        raise FileNotFoundError(f"{absent(name).removesuffix('.')}, and a Hub id has the form owner/name.")
    for files in HUB_FILES:
        path = fetch(source, [CONFIG_NAME, *TOKENIZER_FILES, *files], **hub_options)
        try:
            find_weights(path)
        except FileNotFoundError:
            continue
        break
    return open_checkpoint(path, config)


def _open_memory(source, config: LxmertConfig | None) -> Checkpoint:
    own_config = getattr(source, "config", None)
    if config is None and own_config is not None:
        config = LxmertConfig.from_dict(own_config.to_dict())
    if hasattr(source, "variables"):
        arrays = state_dict(source)
    elif hasattr(source, "state_dict"):
        arrays = source.state_dict()
    elif isinstance(source, Mapping):
        arrays = source
    else:
        raise TypeError(f"A source must be a path, a Hub id, a model or a state dict, got {type(source).__name__}.")
    if not all(isinstance(name, str) for name in arrays):
        raise TypeError("A state dict must map names to arrays or tensors; one of its names is not text.")
    tensors = canonically_named(Tensors.of(arrays).stored)
    return checkpoint_of(Path(type(source).__name__), "memory", tensors, config, why="no config is given")


def misfit(checkpoint: Checkpoint, error: ValueError) -> str:
    """What `match` says, with the checkpoint's path and what its config says otherwise than the tensors."""
    head, *details = str(error).splitlines()
    if checkpoint.contradiction:
        head = f"{head.removesuffix('.')}: {checkpoint.contradiction}."
    return "\n".join([f"{checkpoint.path}: {head}", *details])


def select(checkpoint: Checkpoint, task: str, config, ignore_mismatched_sizes: bool = False) -> Matched:
    """What of a checkpoint a model of `task` and `config` takes; logs it in one line.

    Raises:
        ValueError: with the checkpoint's path and every missing, unexpected and misshapen tensor.
    """
    try:
        matched = match(checkpoint.tensors.shapes, task, config, ignore_mismatched_sizes)
    except ValueError as error:
        raise ValueError(misfit(checkpoint, error)) from None
    if checkpoint.inferred:
        logger.warning(
            "%s: %s, so the config is inferred from the tensors, with num_attention_heads=%d assumed; "
            "if that is not right, put a %s beside it or pass config=.",
            checkpoint.path,
            checkpoint.inferred,
            config.num_attention_heads,
            CONFIG_NAME,
        )
    if UNTIED in checkpoint.notes and task == "pretraining":
        logger.warning("%s: %s.", checkpoint.path, UNTIED)
    logger.log(logging.WARNING if matched.missing else logging.INFO, "%s: %s", checkpoint.path, matched.summary())
    return matched


def model_of(model_class, checkpoint: Checkpoint, dtype=None, ignore_mismatched_sizes: bool = False):
    """A new model with a checkpoint's weights; only what the checkpoint lacks is drawn at random.

    Args:
        model_class: one of the TFLxmert classes.
        checkpoint, ignore_mismatched_sizes: as in `assign`.
        dtype: a Keras dtype or dtype policy.
    """
    from lxmert_tf.layers.primitives import truncated_normal

    model = model_class(checkpoint.config, dtype=dtype, initializer=uninitialized)
    matched = assign(model, checkpoint, ignore_mismatched_sizes=ignore_mismatched_sizes)
    loaded, variables = {row.keras for row in matched.loaded}, variables_by_path(model)
    for row in rows(model.config, task_of_model(model)):
        if row.keras not in loaded and row.keras.endswith(("kernel", "weight")):  # the others start at 0 or 1
            variable = variables[row.keras]
            variable.assign(truncated_normal(model.config)(variable.shape, variable.dtype))
    return model


def uninitialized(shape, dtype):
    """A tensor with nothing written to it yet, so that it takes no memory; Keras' own are zeros under TensorFlow."""
    import keras

    if keras.backend.backend() != "tensorflow":
        return keras.ops.empty(shape, dtype)
    import tensorflow as tf

    return tf.raw_ops.Empty(shape=shape, dtype=dtype or keras.config.floatx(), init=False)


def assign(model, checkpoint: Checkpoint, task: str | None = None, ignore_mismatched_sizes: bool = False) -> Matched:
    """Assigns a checkpoint's tensors to a Keras model's variables, each cast to the variable's dtype.

    Args:
        model: one of the TFLxmert models.
        checkpoint: an opened checkpoint.
        task: the model's task; by default that of its class.
        ignore_mismatched_sizes: leave tensors of another shape initialised instead of refusing them.

    Returns:
        What was loaded, is missing (initialised), and unused with the reason; it is logged in one line, too.

    Raises:
        ValueError: tensors are missing other than whole heads, unexpected or misshapen; nothing is assigned then.
    """
    task = task or task_of_model(model)
    matched = select(checkpoint, task, model.config, ignore_mismatched_sizes)
    assign_rows(model, matched.loaded, checkpoint.tensors.renamed(lambda name: fit_prefix(name, task)))
    return matched


def assign_rows(model, table: list[Row], tensors: Tensors) -> None:
    """Assigns these rows of the table of names, each cast to its variable's dtype."""
    variables = variables_by_path(model)
    for row in table:
        variable = variables[row.keras]
        array = contiguous(LAYOUTS[row.layout].forward(tensors[row.torch]))
        variable.assign(array.astype(variable.dtype, copy=False))


def state_dict(model, task: str | None = None) -> dict[str, np.ndarray]:
    """A Keras model's weights by upstream's PyTorch names and in PyTorch layout, in the variables' dtype."""
    task = task or task_of_model(model)
    variables = variables_by_path(model)
    return {
        row.torch: LAYOUTS[row.layout].inverse(np.asarray(variables[row.keras])) for row in rows(model.config, task)
    }


def save(
    model,
    directory: str | os.PathLike,
    format: str = "keras",
    task: str | None = None,
    max_shard_size: int | None = None,
) -> None:
    """Writes a Keras model's weights and config.json.

    Args:
        model: one of the TFLxmert models.
        directory: made if missing.
        format: "keras", "hf-pt", "hf-pt-bin" or "hf-tf".
        task: the model's task; by default that of its class.
        max_shard_size: bytes; larger PyTorch checkpoints are split into several files.
    """
    task = task or task_of_model(model)
    write_checkpoint(directory, state_dict(model, task), model.config, task, format, max_shard_size)


def task_of_model(model) -> str:
    """The task of the model's class or, for a subclass, of the nearest base class."""
    names = [base.__name__ for base in type(model).__mro__]
    for name in names:
        try:
            return task_of(name)
        except ValueError:
            continue
    return task_of(names[0])


def variables_by_path(model) -> Mapping[str, object]:
    """The model's variables by their paths without the root model."""
    return {variable.path.partition("/")[2]: variable for variable in model.variables}
