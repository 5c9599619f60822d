"""Thresholds as upstream compares with them: float32 values with numbers in double precision."""

from decimal import Decimal

import numpy as np


def exceeded(threshold: float, dtype: str, inclusive: bool) -> float:
    """The number that values of a dtype exceed exactly where they exceed a threshold, or with `inclusive` reach it.

    float32(0.3), say, is more than 0.3, so that in float32 one has to ask for more than the number before it.
    """
    kind = np.dtype(dtype).type
    number = kind(threshold)
    exact, nearest = Decimal(float(threshold)), Decimal(float(number))
    beyond = nearest >= exact if inclusive else nearest > exact
    return float(np.nextafter(number, kind(-np.inf))) if beyond else float(number)
