"""Masks of attention heads, as BERT has them: which heads of which layers, for both packages. Imports no framework."""

from collections.abc import Mapping
from typing import Any

from lxmert_tf.configuration import LxmertConfig

LANGUAGE = "language"
# The attentions of the model, each with the config field of how many layers have it.
ATTENTIONS = {
    LANGUAGE: "l_layers",
    "vision": "r_layers",
    "cross": "x_layers",  # both ways, which is one block
    "cross_language": "x_layers",
    "cross_vision": "x_layers",
}


def named_masks(head_mask: Any, config: LxmertConfig) -> dict[str, Any]:
    """The masks that are given, by attention: one alone is that of the language layers.

    In a list of one for each layer None is a layer without a mask, as in scripts for BERT.

    Raises:
        ValueError: a name that is none of `ATTENTIONS`.
    """
    masks = head_mask if isinstance(head_mask, Mapping) else {LANGUAGE: head_mask}
    if unknown := sorted(set(masks) - set(ATTENTIONS), key=str):
        raise ValueError(f"head_mask holds {unknown[0]!r}, which is none of {', '.join(ATTENTIONS)}.")
    return {name: _rows(mask, config.num_attention_heads) for name, mask in masks.items() if mask is not None}


def _rows(mask: Any, heads: int) -> Any:
    if not isinstance(mask, list | tuple) or not any(row is None for row in mask):
        return mask
    return [[1.0] * heads if row is None else row for row in mask]


def check_head_mask(name: str, shape: tuple[int | None, ...], config: LxmertConfig) -> None:
    """Checks the shape of one of them.

    Raises:
        ValueError: it is neither [num_attention_heads] nor [layers, num_attention_heads].
    """
    heads, layers = config.num_attention_heads, getattr(config, ATTENTIONS[name])
    if shape not in ((heads,), (layers, heads)):
        raise ValueError(
            f"The head_mask of {name} must have shape [{heads}] or [{layers}, {heads}], num_attention_heads of "
            f"{ATTENTIONS[name]}; got {list(shape)}."
        )


def refuse_pruning() -> None:
    """Raises the NotImplementedError that says what to do instead."""
    raise NotImplementedError("LXMERT's heads are not pruned; a call's head_mask switches them off.")
