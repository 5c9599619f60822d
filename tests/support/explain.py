"""Golden attention maps and relevance, and the checkpoints that they are of."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from support.golden import GOLDEN

# Upstream's names of the methods
METHODS = {"chefer": "ours_no_lrp", "rollout": "rollout", "raw_attention": "raw_attn", "gradcam": "attn_gradcam"}
CHECKPOINTS = {"two cross layers": "hf_pt_qa", "three cross layers": "explain/deep/hf_pt_qa"}
WHICH = ("top", "other")  # the answer explained
# Sums of some tens of numbers below 1, in another order: 1e-15 is measured.
ROUNDING = 1e-12


@dataclass
class Golden:
    """What upstream computes on the golden inputs.

    Args:
        maps: as in attention_maps.npz.
        relevance: as in relevance.npz.
    """

    maps: dict[str, np.ndarray]
    relevance: dict[str, np.ndarray]

    @classmethod
    def of(cls, checkpoint: str) -> "Golden":
        folder = GOLDEN / "explain" / ("deep" if "deep" in checkpoint else "")
        return cls(*(dict(np.load(folder / f"{name}.npz")) for name in ("attention_maps", "relevance")))

    def only_maps(self, prefix: str = "") -> dict[str, np.ndarray]:
        """Maps, or with a prefix such as "gradient_top/" their gradients, by name."""
        names = [name for name in self.maps if name.startswith((f"{prefix}language", f"{prefix}vision"))]
        names += [name for name in self.maps if name.startswith(f"{prefix}cross")]
        return {name.removeprefix(prefix): self.maps[name] for name in names}

    def matrices(self, method: str, which: str) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        """The row of each example, and its matrices tt, ti, it and ii, at its own length."""
        for row in range(3):
            answer = f"{which}/" if method in ("chefer", "gradcam") else ""
            prefix = f"{row}/{answer}{METHODS[method]}"
            yield row, {pair: self.relevance[f"{prefix}/R_{'_'.join(pair)}"] for pair in ("tt", "ti", "it", "ii")}
