"""Tensors that PyTorch stores as what they are computed from: weight and spectral normalisation, pruning masks."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from conversion.names import Shape
from conversion.tensors import Stored


@dataclass(frozen=True)
class Kind:
    """A parametrisation.

    Args:
        fits: whether parts of these shapes belong together.
        compute: the tensor of its parts, in float64.
        whole: which of the parts has the tensor's shape and dtype.
    """

    fits: Callable[..., bool]
    compute: Callable[..., np.ndarray]
    whole: int = 0


def _has_one_length_each(g: Shape, v: Shape) -> bool:
    return math.prod(g) == 1 or (len(g) == len(v) and all(a in (1, b) for a, b in zip(g, v, strict=True)))


def _normalized(g: np.ndarray, v: np.ndarray) -> np.ndarray:
    axes = tuple(axis for axis in range(v.ndim) if g.ndim != v.ndim or g.shape[axis] == 1)
    return v * (g / np.sqrt(np.square(v).sum(axes, keepdims=True)))


def _are_singular_vectors(w: Shape, u: Shape, v: Shape) -> bool:
    return len(w) > 1 and u == w[:1] and v == (math.prod(w[1:]),)


WEIGHT_NORM = Kind(_has_one_length_each, _normalized, whole=1)
SPECTRAL_NORM = Kind(_are_singular_vectors, lambda w, u, v: w / (u @ w.reshape(len(w), -1) @ v))
PRUNED = Kind(lambda tensor, mask: tensor == mask, lambda tensor, mask: tensor * mask)
# By what follows a tensor's name: that of `torch.nn.utils.parametrizations`, and that of the older functions.
KINDS = {
    ("original0", "original1"): WEIGHT_NORM,
    ("original", "0._u", "0._v"): SPECTRAL_NORM,
    ("_g", "_v"): WEIGHT_NORM,
    ("_orig", "_u", "_v"): SPECTRAL_NORM,
    ("_orig", "_mask"): PRUNED,
}
PART = re.compile(r"(.+\.|)(?:parametrizations\.(\w+)\.(.+)|(weight|bias)(_g|_v|_u|_orig|_mask))")


def combined(stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors, with those in parts under their own names; parts that no file says how to combine stay parts."""
    parts: dict[str, dict[str, str]] = {}
    for name in stored:
        if found := PART.fullmatch(name):
            module, new, new_part, old, old_part = found.groups()
            parts.setdefault(f"{module}{new or old}", {})[new_part or old_part] = name
    result = dict(stored)
    for name, places in parts.items():
        whole = _combine({part: stored[place] for part, place in places.items()})
        if whole is not None and name not in stored:
            result = {key: item for key, item in result.items() if key not in places.values()} | {name: whole}
    return result


def _combine(items: Mapping[str, Stored]) -> Stored | None:
    names, kind = next(((names, kind) for names, kind in KINDS.items() if set(names) == set(items)), ((), None))
    parts = [items[name] for name in names]
    if kind is None or not kind.fits(*(part.shape for part in parts)):
        return None
    whole = parts[kind.whole]

    def read() -> np.ndarray:
        with np.errstate(all="ignore"):
            return kind.compute(*(part.read().astype("float64") for part in parts)).astype(whole.dtype)

    return Stored(whole.shape, whole.dtype, read)
