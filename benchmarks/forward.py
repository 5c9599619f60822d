"""The forward pass of the published size, all outputs, at several batch sizes; and its cost over batch and boxes."""

import argparse
from statistics import median

from benchmarks.common import README, circumstances, peer, save, table, versions
from benchmarks.contenders import YARDSTICK, Contender, add_only, contest, rows
from benchmarks.contenders.worker import products

OURS = ("lxmert-tf, graph", "lxmert-tf, XLA")
PLOT = README.parent / "results" / "forward.png"


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
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="sizes (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="times each is asked (default: %(default)s)")
    add_only(parser)
    arguments = parser.parse_args()
    results, parts = {}, []
    for batch in arguments.batches:
        results[batch] = contest([*arguments.only, YARDSTICK], arguments.rounds, True, "forward", batch)
        gflop = sum(2 * length * width * out for length, width, out in products(batch)) / 1e9
        alone = median(results[batch][YARDSTICK]["seconds"])
        header = [f"batch {batch}", "median", "minimum", "peak memory", "times our best median"]
        parts += [
            table(header, rows(results[batch], OURS)),
            f"{gflop:.0f} GFLOP; the products alone run at {gflop / alone:.0f} GFLOP/s.",
        ]
    costs = scaling(arguments.rounds)
    plot(costs)
    for axis, title in {"batch": "images of 36 boxes", "boxes": "boxes, batch of 8"}.items():
        medians = [f"{1000 * median(seconds):.0f} ms" for seconds in costs[axis].values()]
        parts.append(table([title, *map(str, costs[axis])], [[OURS[0], *medians]]))
    parts += [
        "![cost over batch and boxes](results/forward.png)",
        circumstances(
            versions(["tensorflow", "keras", "numpy"]),
            versions(["transformers", "tensorflow"], peer("transformers4")),
            versions(["transformers", "torch"], peer("transformers5")),
        ),
    ]
    save("forward", {"batches": results, "scaling": costs}, "\n\n".join(parts))


if __name__ == "__main__":
    main()
