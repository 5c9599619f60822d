"""The forward pass of the published size, all outputs, at several batch sizes; and its cost over batch and boxes."""

import argparse
import time
from statistics import median

import numpy as np

from benchmarks.common import README, circumstances, peer, save, table, versions
from benchmarks.contenders import CONTENDERS, Contender, contest, rows

OURS = ("lxmert-tf, graph", "lxmert-tf, XLA")
PLOT = README.parent / "results" / "forward.png"


def gflop(batch: int, tokens: int = 20, boxes: int = 36) -> float:
    """Billions of operations of the matrix products with weights; attention's own add about 1 %."""
    hidden = 768**2
    language, vision = tokens * (9 * 12 + 5 * 16), boxes * (5 * 12 + 5 * 16)
    return batch * 2 * (hidden * (language + vision) + boxes * 2048 * 768) / 1e9


def gemm_rate(rounds: int = 20) -> float:
    """GFLOP/s of a large matrix product, at best."""
    one, other = (np.random.default_rng(i).random((2048, 2048), "float32") for i in (0, 1))
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        one @ other
        seconds.append(time.perf_counter() - start)
    return 2 * 2048**3 / min(seconds) / 1e9


def scaling(rounds: int) -> dict[str, dict[int, list[float]]]:
    """Seconds of our forward pass over batch sizes, and over numbers of boxes at batch 8."""
    results: dict[str, dict[int, list[float]]] = {"batch": {}, "boxes": {}}
    for axis, sizes in {
        "batch": [(b, 36) for b in (1, 2, 4, 8, 16)],
        "boxes": [(8, n) for n in (1, 10, 36, 100)],
    }.items():
        contenders = {(b if axis == "batch" else n): Contender(OURS[0], "forward", b, n) for b, n in sizes}
        for size, contender in contenders.items():
            results[axis][size] = [contender.run() for _ in range(rounds)]
            contender.close()
    return results


def plot(results: dict[str, dict[int, list[float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    labels = ("batch size (20 tokens, 36 boxes)", "boxes per image (batch 8, 20 tokens)")
    for axis, (points, label) in zip(axes, zip(results.values(), labels, strict=True), strict=True):
        axis.plot(list(points), [1000 * min(seconds) for seconds in points.values()], "o-")
        axis.set(xlabel=label, ylabel="forward pass, ms (minimum)", xlim=(0, None), ylim=(0, None))
        axis.grid(alpha=0.3)
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    arguments = parser.parse_args()
    rate, results, parts = gemm_rate(), {}, []
    for batch in arguments.batches:
        results[batch] = contest(arguments.only, arguments.rounds, True, "forward", batch)
        share = gflop(batch) / min(min(results[batch][name]["seconds"]) for name in OURS) / rate
        header = [f"batch {batch}", "median", "minimum", "peak memory", "times our best median"]
        parts += [
            table(header, rows(results[batch], OURS)),
            f"{gflop(batch):.0f} GFLOP; our best minimum runs at {share:.0%} of numpy's rate.",
        ]
    costs = scaling(arguments.rounds)
    plot(costs)
    over = {axis: {size: f"{1000 * median(s):.0f} ms" for size, s in points.items()} for axis, points in costs.items()}
    parts += [
        f"A product of two 2048 x 2048 matrices in numpy runs at {rate:.0f} GFLOP/s.",
        f"Over batch sizes: {over['batch']}; over boxes: {over['boxes']}.",
        "![cost over batch and boxes](results/forward.png)",
        circumstances(
            versions(["tensorflow", "keras", "numpy"]),
            versions(["transformers", "tensorflow"], peer("transformers4")),
            versions(["transformers", "torch"], peer("transformers5")),
        ),
    ]
    save("forward", {"gemm_gflops": rate, "batches": results, "scaling": costs}, "\n\n".join(parts))


if __name__ == "__main__":
    main()
