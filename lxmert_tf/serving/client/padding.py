"""Padding of requests, with masks that exported models can tell padding by. Needs only NumPy.

Shapes: B examples, T tokens, N boxes, D feature width.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def pad_text(
    input_ids: ArrayLike, attention_mask: ArrayLike | None = None, token_type_ids: ArrayLike | None = None
) -> dict[str, np.ndarray]:
    """Texts of different length as int32[B, T] input_ids, attention_mask and token_type_ids; lists or arrays."""
    mask = _filled_like(input_ids, 1) if attention_mask is None else attention_mask
    types = _filled_like(input_ids, 0) if token_type_ids is None else token_type_ids
    given = {"input_ids": input_ids, "attention_mask": mask, "token_type_ids": types}
    padded = {name: _padded(rows) for name, rows in given.items()}
    for name, values in padded.items():
        if not values.shape[1]:
            raise ValueError(f"{name} has no tokens: each text needs at least one.")
        check_integers(name, values)
    padded = {name: values.astype("int32") for name, values in padded.items()}
    return {**padded, "attention_mask": server_proof(padded["attention_mask"])}


def pad_boxes(
    visual_feats: ArrayLike, visual_pos: ArrayLike, visual_attention_mask: ArrayLike | None = None
) -> dict[str, np.ndarray]:
    """Images with different numbers of boxes as float32[B, N, D], float32[B, N, 4] and int32[B, N].

    Images of pairs, [B, 2, N, ...] arrays, must have the same number.

    Raises:
        ValueError: an image has more features than boxes, or fewer, or the axis of images is missing.
    """
    visual_feats, visual_pos = (
        _images(name, value) for name, value in (("visual_feats", visual_feats), ("visual_pos", visual_pos))
    )
    if visual_attention_mask is None:
        visual_attention_mask = [np.ones(image.shape[:-1], int) for image in visual_feats]
    visual_attention_mask = _images("visual_attention_mask", visual_attention_mask)
    for what, other in (("boxes", visual_pos), ("places in the mask", visual_attention_mask)):
        if len(visual_feats) != len(other):
            raise ValueError(f"Got features of {len(visual_feats)} images but {what} of {len(other)}.")
        for index, (features, rows) in enumerate(zip(visual_feats, other, strict=True)):
            had, has = features.shape[-2], rows.shape[-1 if other is visual_attention_mask else -2]
            if had != has:
                raise ValueError(f"image {index}: {had} features but {has} {what}.")
            if not had:
                raise ValueError(f"image {index} has no boxes: each image needs at least one.")
    return {
        "visual_feats": _padded(visual_feats).astype("float32"),
        "visual_pos": _padded(visual_pos).astype("float32"),
        "visual_attention_mask": server_proof(_padded(visual_attention_mask).astype("int32")),
    }


def check_integers(name: str, values: np.ndarray) -> None:
    """TypeError unless `values` are integers or bools; ValueError unless int32 holds them."""
    if values.dtype.kind not in "iub":
        raise TypeError(f"{name} must hold integers, got {values.dtype}.")
    limits = np.iinfo("int32")
    if values.size and not limits.min <= values.min() <= values.max() <= limits.max:
        raise ValueError(f"{name} must hold 32-bit integers, got values between {values.min()} and {values.max()}.")


def server_proof(mask: ArrayLike) -> np.ndarray:
    """The mask with -1 for a leading 1, which exported models read as 1 at the first place and as padding elsewhere.

    TF Serving fills up what it batches with the first number of each request's tensor, in masks too. With this, or a
    leading 0, that padding differs from everything else, whatever the numbers and however many examples a request has.
    """
    proof = np.array(mask, "int32")
    proof[..., 0] = np.where(proof[..., 0] == 1, -1, proof[..., 0])
    return proof


def _filled_like(rows: Any, number: int) -> list[np.ndarray]:
    """Rows of one number, as long as those given."""
    return [np.full(len(row), number, int) for row in rows]


def _images(name: str, value: Any) -> list[np.ndarray] | np.ndarray:
    """An array, or a list of arrays; ValueError if the axis of images is missing."""
    least = 1 if name == "visual_attention_mask" else 2
    images = value if isinstance(value, np.ndarray) and value.ndim else [np.asarray(image) for image in value]
    if len(images) and images[0].ndim < least:
        axes = ", ".join(["images", "boxes", "..."][: least + 1])
        raise ValueError(f"{name} must be [{axes}], got one image of shape {np.shape(value)}: pass {name}[None].")
    return images


def _padded(rows: Any) -> np.ndarray:
    """Rows of different lengths, padded with 0 at the end."""
    if isinstance(rows, np.ndarray):
        return rows
    rows = [np.asarray(row) for row in rows]
    if not rows:
        raise ValueError("A request must have at least one example, got none.")
    longest = max(map(len, rows))
    return np.stack([np.pad(row, [(0, longest - len(row)), *[(0, 0)] * (row.ndim - 1)]) for row in rows])
