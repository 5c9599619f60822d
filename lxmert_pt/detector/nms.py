"""Non-maximum suppression."""

from collections.abc import Callable

import torch


def suppress(scores: torch.Tensor, overlapping: Callable[[int], torch.Tensor], most: int | None = None) -> list[int]:
    """Keeps the best box, drops those that overlap it, and goes on with what is left.

    Args:
        scores: float[N]; of equal ones the first is kept, and none of minus infinity.
        overlapping: a place -> bool[N], whether the box there suppresses the others.
        most: boxes to keep. Default: all.

    Returns:
        Which are kept, the best first.
    """
    kept: list[int] = []
    left = scores > -torch.inf
    for place in scores.argsort(descending=True, stable=True).tolist():
        if most is not None and len(kept) == most:
            break
        if left[place]:
            kept.append(place)
            left &= ~overlapping(place)
    return kept
