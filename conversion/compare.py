"""How far two arrays are apart, and how many of their values are not finite, which proves nothing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from conversion.report import counted, some
from conversion.tensors import SAFETENSORS_TYPES, contiguous, pieces

CHUNK = 2**20  # elements compared at a time, in float64


class Differs(ValueError):
    """What was written is not what was read."""

    exit_code = 1


@dataclass(frozen=True)
class Error:
    """How far two arrays of one shape are apart.

    Args:
        max, mean: of the absolute differences, divided by `scale`; infinite where one value is finite and the other is
            not. NaN and infinity differ from themselves by 0.
        scale: the largest finite magnitude in either array.
        nonfinite: at how many places either value is not finite.
    """

    max: float
    mean: float
    scale: float
    nonfinite: int = 0

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON values; an infinite error is None."""
        values = {"max_error": self.max, "mean_error": self.mean, "scale": self.scale}
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


def error_between(a: np.ndarray, b: np.ndarray) -> Error:
    """The error between two arrays of the same shape and any float dtypes, computed in float64."""
    a, b = contiguous(a).reshape(-1), contiguous(b).reshape(-1)
    largest = total = scale = 0.0
    nonfinite = 0
    for start in range(0, a.size, CHUNK):
        x, y = (each[start : start + CHUNK].astype("float64") for each in (a, b))
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(x - y)
        difference[(x == y) | (np.isnan(x) & np.isnan(y))] = 0.0
        difference[np.isnan(difference)] = np.inf
        largest, total = max(largest, difference.max()), total + difference.sum()
        finite = np.isfinite(x), np.isfinite(y)
        nonfinite += x.size - int(np.count_nonzero(finite[0] & finite[1]))
        scale = max(scale, *(np.abs(each[where]).max(initial=0.0) for each, where in zip((x, y), finite, strict=True)))
    if largest == 0:
        return Error(0.0, 0.0, float(scale), nonfinite)
    return Error(float(largest / (scale or 1.0)), float(total / a.size / (scale or 1.0)), float(scale), nonfinite)


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same dtype, shape and bits; NaN equals the same NaN."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return all(np.array_equal(_bits(x), _bits(y)) for x, y in zip(pieces(a), pieces(b), strict=True))


def nonfinite_values(array: np.ndarray) -> int:
    """How many values of an array are NaN or infinite."""
    if array.dtype not in SAFETENSORS_TYPES and array.dtype.kind not in "fc":
        return 0
    return sum(piece.size - int(np.count_nonzero(np.isfinite(piece))) for piece in pieces(array))


def nonfinite_notes(values: Mapping[str, int]) -> list[str]:
    """A note on tensors with values that are not finite, of how many there are by name; none where there are none."""
    notes = [
        f"{name} holds {counted(count, 'value')} that {'is' if count == 1 else 'are'} not finite"
        for name, count in values.items()
    ]
    return [some(notes)] if notes else []


def _bits(piece: np.ndarray) -> np.ndarray:
    return piece.view(np.uint8)
