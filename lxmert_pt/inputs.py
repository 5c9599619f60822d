"""What a model is called with, checked, with errors that say what to change; compilers and traces see no values."""

from collections.abc import Mapping
from typing import Any

import torch

from lxmert_pt.losses import IGNORE_INDEX
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.head_masks import ATTENTIONS, check_head_mask, named_masks
from lxmert_tf.input_table import IMAGE_INPUTS, INPUTS, TABLE, TEXT_INPUTS


def _is_traced() -> bool:
    """Whether a call is compiled or recorded, so that its checks would be made once for all inputs, or fail."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def gather_inputs(names: tuple[str, ...], *given: torch.Tensor | None) -> dict[str, torch.Tensor | None]:
    """All call arguments by name."""
    return dict(zip(names, given, strict=True))


def check_inputs(inputs: Mapping[str, torch.Tensor | None], config: LxmertConfig, num_images: int = 1) -> None:
    """Checks presence, ranks and sizes, and the range of the ids and masks.

    Args:
        inputs: all of `INPUTS` by name.
        config: sizes to hold the inputs to.
        num_images: images per example; where there are several, the image's inputs have an axis for them.

    Raises:
        ValueError: naming the input, what was expected and what came.
    """
    if (inputs["input_ids"] is None) == (inputs["inputs_embeds"] is None):
        given = "neither" if inputs["input_ids"] is None else "both"
        raise ValueError(f"Give either input_ids or inputs_embeds; got {given}.")
    for name in IMAGE_INPUTS:
        if inputs[name] is None and TABLE[name].default is None:
            raise ValueError(f"{name} is missing; LXMERT needs region features (visual_feats) and boxes (visual_pos).")
    if torch.jit.is_tracing():  # sizes are tensors there
        return
    sizes: dict[str, int] = {}
    for name in TEXT_INPUTS + IMAGE_INPUTS:
        if (value := inputs[name]) is not None:
            _check_shape(name, tuple(value.shape), TABLE[name].shape(config, num_images), sizes)
    if not sizes["tokens"]:
        raise ValueError("The text has no tokens; a text has at least its [CLS] and [SEP].")
    if sizes["tokens"] > config.max_position_embeddings:
        raise ValueError(
            f"The text has {sizes['tokens']} tokens, more than "
            f"max_position_embeddings={config.max_position_embeddings}; truncate it."
        )
    for name in INPUTS:
        if limit := TABLE[name].limit:
            _check_ids(name, inputs[name], getattr(config, limit), limit)
    _check_mask("attention_mask", inputs["attention_mask"], "tokens")
    _check_mask("visual_attention_mask", inputs["visual_attention_mask"], "boxes")


def head_masks(
    head_mask: Any, config: LxmertConfig, dtype: torch.dtype, device: torch.device
) -> dict[str, torch.Tensor]:
    """The masks of heads as float[layers, A], by attention, of what a call is given: see `LxmertModel.forward`.

    Raises:
        ValueError: naming the attention, what was expected and what came.
    """
    masks = {}
    for name, mask in named_masks(head_mask, config).items():
        if isinstance(mask, (list, tuple)) and any(isinstance(row, torch.Tensor) for row in mask):
            mask = torch.stack([torch.as_tensor(row, dtype=dtype, device=device) for row in mask])
        mask = torch.as_tensor(mask, dtype=dtype, device=device)
        check_head_mask(name, tuple(mask.shape), config)
        if not torch.compiler.is_compiling() and mask.isnan().any():
            raise ValueError(f"The head_mask of {name} must hold numbers, got nan.")
        masks[name] = mask.expand(getattr(config, ATTENTIONS[name]), config.num_attention_heads)
    return masks


def check_labels(name: str, labels: torch.Tensor, classes: int) -> torch.Tensor:
    """The labels, once they are known to be integers in range or -100.

    Raises:
        ValueError: they are not; naming the labels, the range and what came.
    """
    _check_ids(name, labels, classes, "number of classes", ignored=IGNORE_INDEX)
    return labels


def check_scores(scores: torch.Tensor) -> torch.Tensor:
    """The soft scores, once none is known to lie outside 0..1; NaN passes, and gives NaN.

    Raises:
        ValueError: they do not.
    """
    if scores.dtype != torch.bool and not _is_traced():
        wrong = scores[(scores < 0) | (scores > 1)]
        if wrong.numel():
            raise ValueError(f"labels must be soft scores in 0..1, got {wrong[0].item()}.")
    return scores


def _check_shape(name: str, got: tuple[int, ...], pattern: tuple[str | int, ...], sizes: dict[str, int]) -> None:
    """Holds a shape to its pattern; a size named in it is what the first input with that name has."""
    if len(got) == len(pattern):
        for size, key in zip(got, pattern, strict=True):
            if isinstance(key, str):
                sizes.setdefault(key, size)
    want = tuple(sizes.get(key, key) if isinstance(key, str) else key for key in pattern)
    if got != want:
        legend = ", ".join(map(str, pattern))
        raise ValueError(f"{name} must have shape [{legend}], here {_brackets(want)}; got {_brackets(got)}.")


def _brackets(shape: tuple[Any, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _check_ids(name: str, ids: torch.Tensor | None, limit: int, limit_name: str, ignored: int | None = None) -> None:
    if ids is None or _is_traced():
        return
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{name} must hold integers, got {ids.dtype}.")
    values = ids.long()  # a narrow type does not hold every bound
    outside = (values < 0) | (values >= limit)
    wrong = values[outside if ignored is None else outside & (values != ignored)]
    if wrong.numel():
        also = "" if ignored is None else f", or be {ignored} to be ignored"
        raise ValueError(f"{name} must lie in 0..{limit - 1} ({limit_name}={limit}){also}, got {wrong[0].item()}.")


def _check_mask(name: str, mask: torch.Tensor | None, what: str) -> None:
    if mask is None or mask.dtype == torch.bool or _is_traced():
        return
    wrong = mask[~((mask >= 0) & (mask <= 1))]
    if wrong.numel():
        raise ValueError(
            f"{name} must hold 1 for {what} to attend to (or any number up to it) and 0 for padding, "
            f"got {wrong[0].item()}."
        )
