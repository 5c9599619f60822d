"""In what two configs differ, and which of it makes models compute something else."""

from dataclasses import fields
from typing import Any

from conversion.names import STACKS, rows
from lxmert_tf.configuration import LxmertConfig

# What every model computes with and shapes do not tell.
BEYOND_SHAPES = ("num_attention_heads", "hidden_act", "layer_norm_eps")
PRETRAINING_TASKS = ("task_matched", "task_mask_lm", "task_obj_predict", "task_qa")
VISUAL_LOSSES = ("visual_obj_loss", "visual_attr_loss", "visual_feat_loss", "visual_loss_normalizer")


def config_difference(a: LxmertConfig, b: LxmertConfig) -> dict[str, tuple[Any, Any]]:
    """Field to its values in a and in b, where they differ."""
    pairs = {field.name: (getattr(a, field.name), getattr(b, field.name)) for field in fields(LxmertConfig)}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def computed_with(config: LxmertConfig, task: str) -> set[str]:
    """The fields that a model of `task` computes its outputs and losses with.

    Not among them: dropout and how weights are drawn; the names of answers; what a call returns unless it says
    otherwise; and sizes of heads that the model does not have.
    """
    sizes = {size.rpartition("*")[2] for row in rows(config, task) for size in row.sizes if isinstance(size, str)}
    losses = (*PRETRAINING_TASKS, *(VISUAL_LOSSES if config.task_obj_predict else ())) if task == "pretraining" else ()
    return {*BEYOND_SHAPES, *STACKS, *sizes, *losses}
