"""Checkpoints into memory: a state dict, or a model that is there already."""

import os
from typing import Any

import numpy as np

from conversion.models import assign_rows, task_of_model
from conversion.modules import unwrapped_module
from conversion.plan import Plan, make_plan
from conversion.source import open_source
from conversion.tensors import to_torch
from lxmert_tf.configuration import LxmertConfig


def load_state_dict(
    source: Any,
    task: str | None = None,
    dtype: str | None = None,
    config: LxmertConfig | str | os.PathLike | None = None,
    allow_missing: bool = False,
) -> dict[str, np.ndarray]:
    """A checkpoint of any format as arrays by upstream's PyTorch names and in PyTorch layout.

    Args:
        source, task, dtype, config, allow_missing: as of `conversion.convert.convert`.

    Raises:
        Incomplete, FileNotFoundError, ValueError: as `conversion.convert.convert`.
    """
    checkpoint = open_source(source, config)
    plan = make_plan(checkpoint, task or checkpoint.task, dtype, allow_missing)
    return {name: np.array(array) for name, array in plan.tensors.items()}


def load_into(model: Any, source: Any, allow_missing: bool = False) -> Plan:
    """Gives a model of `lxmert_tf`, `lxmert_pt` or upstream's PyTorch the weights of a checkpoint, in its own dtype.

    Args:
        model: its class and config determine which tensors it takes.
        source: as of `conversion.convert.convert`.
        allow_missing: draw anew what the source lacks instead of refusing it.

    Returns:
        What was loaded, dropped and initialised.

    Raises:
        Incomplete, FileNotFoundError, ValueError: as `conversion.convert.convert`; the model is unchanged then.
    """
    model = unwrapped_module(model)
    config = LxmertConfig.of(model.config).replace()
    plan = make_plan(open_source(source, config), task_of_model(model), None, allow_missing)
    if hasattr(model, "state_dict"):
        import torch

        own = model.state_dict()
        with torch.no_grad():
            for name in plan.tensors:
                own[name].copy_(to_torch(plan.tensors[name]))
        return plan
    model.prepare_loading()
    assign_rows(model, plan.table, plan.tensors)
    return plan
