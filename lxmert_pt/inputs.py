"""Checks of what a model is called with, with errors that say what to change."""

import torch

from lxmert_tf.configuration import LxmertConfig


def check_inputs(
    config: LxmertConfig,
    input_ids: torch.Tensor | None,
    visual_feats: torch.Tensor | None,
    visual_pos: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    visual_attention_mask: torch.Tensor | None,
    token_type_ids: torch.Tensor | None,
    inputs_embeds: torch.Tensor | None,
    images: int | None = None,
) -> None:
    """Checks presence, ranks and sizes, and the range of the ids and masks.

    Args:
        config: sizes to hold the inputs to.
        input_ids ... inputs_embeds: as in `LxmertModel.forward`.
        images: number of images per example where the vision inputs have an axis for them, else None.

    Raises:
        ValueError: naming the input, what was expected and what came.
    """
    if (input_ids is None) == (inputs_embeds is None):
        given = "neither" if input_ids is None else "both"
        raise ValueError(f"Give either input_ids or inputs_embeds; got {given}.")
    for name, value in {"visual_feats": visual_feats, "visual_pos": visual_pos}.items():
        if value is None:
            raise ValueError(f"{name} is missing; LXMERT needs region features (visual_feats) and boxes (visual_pos).")

    text = ("batch", "tokens")
    regions = ("batch", "boxes") if images is None else ("batch", images, "boxes")
    expected = {
        "input_ids": (input_ids, text),
        "inputs_embeds": (inputs_embeds, (*text, config.hidden_size)),
        "attention_mask": (attention_mask, text),
        "token_type_ids": (token_type_ids, text),
        "visual_feats": (visual_feats, (*regions, config.visual_feat_dim)),
        "visual_pos": (visual_pos, (*regions, config.visual_pos_dim)),
        "visual_attention_mask": (visual_attention_mask, regions),
    }
    sizes: dict[str, int] = {}
    for name, (value, shape) in expected.items():
        if value is not None:
            _check_shape(name, tuple(value.shape), shape, sizes)
    if sizes["tokens"] > config.max_position_embeddings:
        raise ValueError(
            f"The text has {sizes['tokens']} tokens, more than "
            f"max_position_embeddings={config.max_position_embeddings}; truncate it."
        )
    _check_ids("input_ids", input_ids, config.vocab_size, "vocab_size")
    _check_ids("token_type_ids", token_type_ids, config.type_vocab_size, "type_vocab_size")
    _check_mask("attention_mask", attention_mask, "tokens")
    _check_mask("visual_attention_mask", visual_attention_mask, "boxes")


def _check_shape(name: str, got: tuple[int, ...], pattern: tuple[str | int, ...], sizes: dict[str, int]) -> None:
    """Holds a shape to its pattern; a size named in it is what the first input with that name has."""
    if len(got) == len(pattern):
        for size, key in zip(got, pattern, strict=True):
            if isinstance(key, str):
                sizes.setdefault(key, size)
    want = tuple(sizes.get(key, key) for key in pattern)
    if got != want:
        legend = ", ".join(map(str, pattern))
        raise ValueError(f"{name} must have shape [{legend}], here {_brackets(want)}; got {_brackets(got)}.")


def _brackets(shape: tuple[str | int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _check_ids(name: str, ids: torch.Tensor | None, limit: int, limit_name: str) -> None:
    if ids is None or torch.compiler.is_compiling():  # while compiling there are no values to look at
        return
    if ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
        raise ValueError(f"{name} must hold integers, got {ids.dtype}.")
    wrong = ids[(ids < 0) | (ids >= limit)]
    if wrong.numel():
        raise ValueError(f"{name} must lie in 0..{limit - 1} ({limit_name}={limit}), got {wrong[0].item()}.")


def _check_mask(name: str, mask: torch.Tensor | None, what: str) -> None:
    if mask is None or mask.dtype == torch.bool or torch.compiler.is_compiling():
        return
    wrong = mask[~((mask >= 0) & (mask <= 1))]
    if wrong.numel():
        raise ValueError(
            f"{name} must hold 1 for {what} to attend to (or any number up to it) and 0 for padding, "
            f"got {wrong[0].item()}."
        )
