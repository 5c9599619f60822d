"""Weights in and out of a model in memory, by its class and config; no framework is imported."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from conversion.formats import UNTIED, Checkpoint
from conversion.matching import Matched
from conversion.names import LAYOUTS, Row, rows, skip_reason
from conversion.report import some
from conversion.tensors import Tensors, contiguous
from lxmert_tf.configuration import CONFIG_NAME, LxmertConfig
from lxmert_tf.tasks import ARCHITECTURES, task_of

logger = logging.getLogger("lxmert_tf")


def task_of_model(model: Any) -> str:
    """The task of the model's class: its attribute `task` or, of upstream's, that of the nearest known class name.

    Raises:
        ValueError: it is not an LXMERT model.
    """
    if (task := getattr(type(model), "task", None)) in ARCHITECTURES:
        return task
    names = [base.__name__ for base in type(model).__mro__]
    for name in names:
        try:
            return task_of(name)
        except ValueError:
            continue
    return task_of(names[0])


def variables_by_path(model: Any) -> dict[str, Any]:
    """A Keras model's variables by their paths inside it, whatever it is part of or was made in the name scope of."""
    return {variable.path.removeprefix(f"{model.path}/"): variable for variable in model.variables}


def state_dict(model: Any) -> dict[str, np.ndarray]:
    """A Keras model's weights by upstream's PyTorch names and in PyTorch layout, in the variables' dtype.

    They are those that the layers compute with: LoRA is merged, quantized kernels and tables are scaled back to floats.

    Raises:
        ValueError: a subclass has layers of its own, for which there are no names.
    """
    if added := [layer.name for layer in model.added_layers() if layer.weights]:
        raise ValueError(
            f"{type(model).__name__} has layers of its own ({some(added)}), which LXMERT checkpoints do not hold; "
            'save it whole with model.save("model.keras"), or its backbone, model.get_backbone(), alone.'
        )
    variables, merged = variables_by_path(model), model.merged_weights()
    values = {path: merged.get(variable.path, variable) for path, variable in variables.items()}
    return {
        row.torch: LAYOUTS[row.layout].inverse(np.asarray(values[row.keras]))
        for row in rows(model.config, task_of_model(model))
    }


def select(checkpoint: Checkpoint, task: str, config: LxmertConfig, ignore_mismatched_sizes: bool = False) -> Matched:
    """What of a checkpoint a model of `task` and `config` takes; logs it in one line.

    Raises:
        ValueError: with the checkpoint's path and every missing, unexpected and misshapen tensor.
    """
    matched = checkpoint.match(task, config, ignore_mismatched_sizes)
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


def loading_info(checkpoint: Checkpoint, matched: Matched, task: str, config: LxmertConfig) -> dict[str, list]:
    """What `select` gave, as upstream's `from_pretrained` with `output_loading_info` returns it, by PyTorch names.

    Returns:
        {"missing_keys": names that are initialised, "unexpected_keys": names that are left out, "mismatched_keys":
        (name, the checkpoint's shape, the model's shape) of those initialised for their shape, "error_msgs": []}
    """
    given = checkpoint.named_for(task).shapes
    wanted = {row.torch: row.shape(config) for row in rows(config, task)}
    return {
        "missing_keys": [name for name in matched.missing if name not in given],
        "unexpected_keys": [name for name in matched.unused if not skip_reason(name)],
        "mismatched_keys": [(name, tuple(given[name]), wanted[name]) for name in matched.missing if name in given],
        "error_msgs": [],
    }


def _set_value(variable: Any, value: np.ndarray) -> None:
    variable.assign(contiguous(value))


SetValue = Callable[[Any, np.ndarray], None]  # gives a Keras variable a value, which may lie in memory in any order


def assign(
    model: Any, checkpoint: Checkpoint, ignore_mismatched_sizes: bool = False, set_value: SetValue = _set_value
) -> Matched:
    """Assigns a checkpoint's tensors to a Keras model's variables, each cast to the variable's dtype.

    Args:
        model: one of the TFLxmert models.
        checkpoint: an opened checkpoint.
        ignore_mismatched_sizes: leave tensors of another shape initialised instead of refusing them.
        set_value: gives a variable its value; `variable.assign` by default.

    Returns:
        What was loaded, is missing (initialised), and unused with the reason; it is logged in one line, too.

    Raises:
        ValueError: tensors are missing other than whole heads, unexpected or misshapen, or the model is quantized;
            nothing is assigned then.
    """
    task = task_of_model(model)
    matched = select(checkpoint, task, model.config, ignore_mismatched_sizes)
    model.prepare_loading()
    assign_rows(model, matched.loaded, checkpoint.named_for(task), set_value)
    return matched


def assign_rows(model: Any, table: list[Row], tensors: Tensors, set_value: SetValue = _set_value) -> None:
    """Gives a model these rows of the table of names, each cast to its variable's dtype."""
    variables = variables_by_path(model)
    for row in table:
        variable = variables[row.keras]
        array = LAYOUTS[row.layout].forward(tensors[row.torch])
        set_value(variable, array.astype(variable.dtype, copy=False))
