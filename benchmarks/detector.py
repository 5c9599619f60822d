"""The detector at full size on one picture, against Hugging Face's research code; and what the machine can multiply.

That code is no package: `git clone https://github.com/huggingface/transformers-research-projects`, and give its folder
`lxmert` with --research. Without it, this project is measured alone.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import circumstances, peer, ratio, save, table, versions
from benchmarks.contenders import DETECTORS, contest
from lxmert_tf.processor import has_products

OURS = ("lxmert-tf, float32", "lxmert-tf, bfloat16")
SIDE = 2048  # of the matrices that the machine's rate is measured with


def gflop(height: int, width: int, regions: int) -> float:
    """Of a picture, two for a multiplication with its addition: backbone, region proposals, and each region's stage."""
    cells = (height / 16) * (width / 16)
    return cells * (166.1 + 22.7) / (37.5 * 62.5) + regions * (5.857 + 0.036)


def product_rate(dtype: str, rounds: int = 7) -> float:
    """GFLOP/s of a large matrix product in TensorFlow."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    a, b = (tf.cast(tf.constant(rng.standard_normal((SIDE, SIDE), "float32")), dtype) for _ in range(2))
    multiply = tf.function(lambda: tf.reduce_sum(tf.matmul(a, b)), autograph=False)
    multiply()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        multiply().numpy()
        seconds.append(time.perf_counter() - start)
    return 2 * SIDE**3 / 1e9 / median(seconds)


def write_detector(directory: Path, proposals: int) -> None:
    """A detector of the published size with random weights, as Hugging Face's format has it."""
    from lxmert_tf.detector import DetectorConfig, FasterRCNN

    detector = FasterRCNN(DetectorConfig(post_nms=proposals, rpn_nms=1.0))
    for weight in detector.weights:  # so that a hundred layers neither swell nor die away
        if weight.path.endswith("conv3/norm/gamma"):
            weight.assign(0.2 * weight)
        elif weight.path.endswith("stem/conv1/norm/gamma"):
            weight.assign(0.02 * weight)
    detector.save_pretrained(directory, format="hf-pt-bin")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--research", metavar="DIR", help="the folder of Hugging Face's research code")
    parser.add_argument(
        "--size", type=int, nargs=2, default=[600, 1000], help="height and width (default: %(default)s)"
    )
    parser.add_argument("--proposals", type=int, default=300, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="default: %(default)s")
    arguments = parser.parse_args()
    ours = OURS if has_products("bfloat16") else OURS[:1]
    names = [name for name in DETECTORS if name in ours or (arguments.research and name not in OURS)]
    work = gflop(*arguments.size, arguments.proposals)
    with tempfile.TemporaryDirectory() as folder:
        write_detector(Path(folder), arguments.proposals)
        os.environ |= {"DETECTOR": folder, "RESEARCH": arguments.research or ""}
        results = contest(names, arguments.rounds, True, "detector", *arguments.size)
    rates = {name: product_rate(name.rpartition(" ")[2]) for name in ours}
    lines = []
    for name, one in results.items():
        seconds = one["seconds"]
        share = f"{work / median(seconds) / rates[name]:.2f}" if name in rates else "-"
        against = f"{ratio(seconds, results[OURS[0]]['seconds']):.2f}"
        lines.append([name, f"{median(seconds):.2f} s", against, f"{one['peak_mb'] / 1000:.2f} GB", share])
    header = ["detector", "median", "times ours in float32", "peak memory", "share of the product rate"]
    rate = ", ".join(f"{rates[name]:.0f} GFLOP/s in {name.rpartition(' ')[2]}" for name in ours)
    height, width = arguments.size
    parts = [
        f"One picture of {height} x {width} with {arguments.proposals} proposals: {work:.0f} GFLOP. A product of "
        f"matrices of {SIDE} x {SIDE} runs at {rate}.",
        table(header, lines),
        circumstances(
            versions(["tensorflow", "keras"]),
            *([versions(["torch", "torchvision"], peer("research"))] if arguments.research else []),
        ),
    ]
    save("detector", {"seconds": results, "gflop": work, "product_rate": rates}, "\n\n".join(parts))


if __name__ == "__main__":
    main()
