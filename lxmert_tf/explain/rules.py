"""From attention maps and their gradients to relevance: the rules of the methods, in numpy.

Maps are float[B, A, Q, K] by the names of `lxmert_tf.explain.maps`, those of padded positions 0 throughout (`crop`).
With that, batches with padding give what each example gives alone.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

Maps = Mapping[str, np.ndarray]
CROSSINGS = ("language_to_vision", "vision_to_language", "language_self", "vision_self")


class Matrices(NamedTuple):
    """How relevant one position (column) is to another (row). T tokens, N boxes.

    Args:
        tt: float[B, T, T], tokens to tokens.
        ti: float[B, T, N], boxes to tokens.
        it: float[B, N, T], tokens to boxes.
        ii: float[B, N, N], boxes to boxes.
    """

    tt: np.ndarray
    ti: np.ndarray
    it: np.ndarray
    ii: np.ndarray


def relevance_matrices(
    method: str, maps: Maps, gradients: Maps | None, tokens: np.ndarray, boxes: np.ndarray
) -> Matrices:
    """How relevant each position is to each other, by one of the methods on attention maps.

    Args:
        method: "chefer", "rollout", "raw_attention" or "gradcam".
        maps: by name.
        gradients: of the answer's score with respect to them, for "chefer" and "gradcam".
        tokens, boxes: bool[B, T] and bool[B, N], False for padding.
    """
    maps = crop(maps, tokens, boxes)
    start = identity(tokens, boxes, np.result_type(*maps.values()))
    if method == "rollout":
        return rollout(maps, start)
    if method == "raw_attention":
        return raw_attention(maps, start)
    assert gradients is not None
    gradients = crop(gradients, tokens, boxes)
    if method == "chefer":
        return chefer(maps, gradients, start)
    return gradcam(maps, gradients, start, tokens.sum(axis=1), boxes.sum(axis=1))


def crop(maps: Maps, tokens: np.ndarray, boxes: np.ndarray) -> dict[str, np.ndarray]:
    """The maps, or their gradients, with 0 at padded queries and keys.

    Args:
        maps: by name.
        tokens, boxes: bool[B, T] and bool[B, N], False for padding.
    """
    sides = {
        "language": (tokens, tokens),
        "vision": (boxes, boxes),
        "language_self": (tokens, tokens),
        "vision_self": (boxes, boxes),
        "language_to_vision": (tokens, boxes),
        "vision_to_language": (boxes, tokens),
    }
    cropped = {}
    for name, values in maps.items():
        kind, *rest = name.split("/")
        queries, keys = sides[rest[-1] if kind == "cross" else kind]
        cropped[name] = np.where(queries[:, None, :, None] & keys[:, None, None, :], values, 0)
    return cropped


def chefer(maps: Maps, gradients: Maps, start: Matrices) -> Matrices:
    """The bi-modal rules of Chefer et al.: with gradients, normalised, without LRP.

    Args:
        maps, gradients: of the answer's score, cropped.
        start: of `identity`.

    Source: Chefer, Gur, Wolf 2021, https://arxiv.org/abs/2103.15679, as `generate_ours` of their code computes it.
    """
    cams = {name: np.maximum(maps[name] * gradients[name], 0).mean(axis=1) for name in maps}
    tt, ti, it, ii = start
    for cam in layers(cams, "language"):
        tt, ti = tt + cam @ tt, ti + cam @ ti
    for cam in layers(cams, "vision"):
        ii, it = ii + cam @ ii, it + cam @ it
    crossings = (layers(cams, "cross", f"/{kind}") for kind in CROSSINGS)
    for to_vision, to_language, language, vision in zip(*crossings, strict=True):
        tokens, boxes = _normalized(tt), _normalized(ii)
        more_ti, more_tt = _transposed(tokens) @ to_vision @ boxes, to_vision @ it
        more_it, more_ii = _transposed(boxes) @ to_language @ tokens, to_language @ ti
        tt, ti, it, ii = tt + more_tt, ti + more_ti, it + more_it, ii + more_ii
        tt, ti = tt + language @ tt, ti + language @ ti
        ii, it = ii + vision @ ii, it + vision @ it  # of the last layer nothing: the answer does not see it
    return _without_first(Matrices(tt, ti, it, ii))


def rollout(maps: Maps, start: Matrices) -> Matrices:
    """Attention rollout: products of the head means with the residual connection, per stream, then one crossing.

    Source: Abnar & Zuidema 2020, https://arxiv.org/abs/2005.00928; the crossing is that of Chefer et al.
    """
    means = {name: values.mean(axis=1) for name, values in maps.items()}
    crossings = layers(means, "cross", "/language_to_vision")
    text, image = layers(means, "language"), layers(means, "vision")
    text_crossed, image_crossed = (layers(means, "cross", f"/{kind}") for kind in CROSSINGS[2:])
    before, ii = _joint(text + text_crossed[:-1], start.tt), _joint(image + image_crossed[:-1], start.ii)
    ti = _transposed(before) @ crossings[-1] @ ii if crossings else start.ti
    return _without_first(Matrices(_joint(text + text_crossed, start.tt), ti, start.it, ii))


def raw_attention(maps: Maps, start: Matrices) -> Matrices:
    """The head means of the last cross layer."""
    tt, ti = (values.mean(axis=1) for values in _last_crossing(maps, start))
    return _without_first(Matrices(tt, ti, start.it, np.zeros_like(start.ii)))


def gradcam(maps: Maps, gradients: Maps, start: Matrices, tokens: np.ndarray, boxes: np.ndarray) -> Matrices:
    """Grad-CAM of the last cross layer: heads weighted by the mean of their gradients.

    Args:
        maps, gradients, start: as of `chefer`.
        tokens, boxes: int[B], how many are not padding.

    Source: Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391, applied to attention by Chefer et al.
    """

    def cam(values: np.ndarray, slopes: np.ndarray, keys: np.ndarray) -> np.ndarray:
        weights = _divided(slopes.sum(axis=(2, 3)), (tokens * keys)[:, None])
        return np.maximum((values * weights[:, :, None, None]).mean(axis=1), 0)

    pairs = zip(_last_crossing(maps, start), _last_crossing(gradients, start), (tokens, boxes), strict=True)
    tt, ti = (cam(*each) for each in pairs)
    return _without_first(Matrices(tt, ti, start.it, start.ii))


# Steps of them


def identity(tokens: np.ndarray, boxes: np.ndarray, dtype: np.dtype) -> Matrices:
    """Every position relevant to itself alone.

    Args:
        tokens, boxes: bool[B, T] and bool[B, N].
        dtype: of the maps.
    """
    (rows, length), number = tokens.shape, boxes.shape[1]
    return Matrices(
        np.broadcast_to(np.eye(length, dtype=dtype), (rows, length, length)),
        np.zeros((rows, length, number), dtype),
        np.zeros((rows, number, length), dtype),
        np.broadcast_to(np.eye(number, dtype=dtype), (rows, number, number)),
    )


def layers(maps: Maps, stack: str, kind: str = "") -> list[np.ndarray]:
    """The maps of a stack's layers in order: of "language", of "vision", or one kind of "cross"."""
    names = [name for name in maps if name.startswith(f"{stack}/") and name.endswith(kind)]
    return [maps[name] for name in sorted(names, key=lambda name: int(name.split("/")[1]))]


def _last_crossing(maps: Maps, start: Matrices) -> tuple[np.ndarray, np.ndarray]:
    """language_self and language_to_vision of the last cross layer; zeros where there is none."""
    last = [layers(maps, "cross", kind)[-1:] for kind in ("/language_self", "/language_to_vision")]
    return last[0][0] if last[0] else 0 * start.tt[:, None], last[1][0] if last[1] else start.ti[:, None]


def _normalized(matrix: np.ndarray) -> np.ndarray:
    """What was added to the identity, scaled to rows of sum 1 (equations 8 and 9); rows of nothing stay so.

    Upstream divides by their sum, 0, and the whole matrix becomes NaN.
    """
    identity = np.eye(matrix.shape[-1], dtype=matrix.dtype)
    added = matrix - identity
    return _divided(added, added.sum(axis=-1, keepdims=True)) + identity


def _joint(means: list[np.ndarray], identity: np.ndarray) -> np.ndarray:
    """The product of maps with the residual connection, the first layer rightmost."""
    joint = identity
    for mean in means:
        with_residual = mean + identity
        joint = with_residual / with_residual.sum(axis=-1, keepdims=True) @ joint
    return joint


def _divided(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """values / by, and 0 for 0 / 0."""
    return values / np.where(by == 0, 1, by)


def _transposed(matrices: np.ndarray) -> np.ndarray:
    return matrices.swapaxes(-1, -2)


def _without_first(matrices: Matrices) -> Matrices:
    """The first token, whose row is the explanation, is no explanation of itself."""
    tt = matrices.tt.copy()
    tt[:, 0, 0] = 0
    return matrices._replace(tt=tt)
