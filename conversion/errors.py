"""How far two arrays are apart."""

from dataclasses import dataclass

import numpy as np

from conversion.tensors import contiguous, pieces

CHUNK = 2**20  # elements compared at a time, in float64


@dataclass(frozen=True)
class Error:
    """How far two arrays of one shape are apart.

    Args:
        max, mean: of the absolute differences, divided by `scale`; infinite where one value is finite and the other is
            not. NaN and infinity differ from themselves by 0.
        scale: the largest finite magnitude in either array.
    """

    max: float
    mean: float
    scale: float

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON values; an infinite error is None."""
        values = {"max_error": self.max, "mean_error": self.mean, "scale": self.scale}
        return {name: value if np.isfinite(value) else None for name, value in values.items()}


def error_between(a: np.ndarray, b: np.ndarray) -> Error:
    """The error between two arrays of the same shape and any float dtypes, computed in float64."""
    a, b = contiguous(a).reshape(-1), contiguous(b).reshape(-1)
    largest = total = scale = 0.0
    for start in range(0, a.size, CHUNK):
        x, y = (each[start : start + CHUNK].astype("float64") for each in (a, b))
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(x - y)
        difference[(x == y) | (np.isnan(x) & np.isnan(y))] = 0.0
        difference[np.isnan(difference)] = np.inf
        largest, total = max(largest, difference.max()), total + difference.sum()
        scale = max(scale, *(np.abs(each[np.isfinite(each)]).max(initial=0.0) for each in (x, y)))
    if largest == 0:
        return Error(0.0, 0.0, float(scale))
    return Error(float(largest / (scale or 1.0)), float(total / a.size / (scale or 1.0)), float(scale))


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays have the same dtype, shape and bits; NaN equals the same NaN."""
    if (a.dtype, a.shape) != (b.dtype, b.shape):
        return False
    return all(np.array_equal(_bits(x), _bits(y)) for x, y in zip(pieces(a), pieces(b), strict=True))


def _bits(piece: np.ndarray) -> np.ndarray:
    return piece.view(np.uint8)
