"""Past one machine, on paper: the paper's pretraining and a service of many questions, from figures that are measured.

Step times and rates come from the results of the other benchmarks. The rate at which one file of features is read by N
processes at once, each of random images, is measured here.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, ROOT, circumstances, save, table, versions, write_section

PAIRS, EPOCHS, BATCH = 9.18e6, 20, 256  # of the paper's pretraining, section 3.3 and its code
BOXES, DIM = 36, 2048
PARAMETERS = 228e6  # of the pretraining model; gradients go over the wire in float32
STEP = 128  # examples on a GPU at once, as measured
ACCELERATORS = (1, 8, 64)
LINKS = {1: 1.0, 8: 300e9, 64: 40e9}  # bytes a second for each, taken as given: within a machine, between machines
QUESTIONS, PER_IMAGE = 1000, 5  # a second, and on one image
DETECTOR = 9.2  # CPU seconds for a picture of 600 x 1000 with 300 proposals
PHOTO = 100e3  # bytes
DOCUMENT = ROOT / "docs/scale.md"


def image_bytes(value: int) -> int:
    """Of an image's features and boxes, with so many bytes for a feature."""
    return BOXES * (DIM * value + 4 * 4)


# Readers


def read_at_random(path: str, batches: int, seed: int, start: Any) -> None:
    """Reads batches of 32 random images, as training does."""
    from lxmert_tf.data import open_features

    store = open_features(path)
    rng = np.random.default_rng(seed)
    names = [f"image_{row}" for row in range(len(store))]
    store.read(names[:32])
    start.wait()
    for _ in range(batches):
        store.read([names[row] for row in rng.integers(0, len(names), 32)])
    start.wait()


def reading_rate(path: str, readers: int, batches: int) -> float:
    """Images a second that so many processes get out of one file, together."""
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(readers + 1)
    processes = [context.Process(target=read_at_random, args=(path, batches, n, start)) for n in range(readers)]
    for process in processes:
        process.start()
    start.wait()
    began = time.perf_counter()
    start.wait()
    seconds = time.perf_counter() - began
    for process in processes:
        process.join()
    return readers * batches * 32 / seconds


def reading_rates(images: int, readers: Sequence[int], batches: int) -> dict[int, float]:
    """`reading_rate` of a file of so many images in float16, by the number of readers."""
    from benchmarks.data import write_files
    from lxmert_tf.data import build_features

    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), images)
        path = str(Path(folder) / "features.h5")
        build_features(str(Path(folder) / "features.tsv"), path, dtype="float16")
        return {number: reading_rate(path, number, batches) for number in readers}


# On paper


@dataclass(frozen=True)
class Figures:
    """What was measured.

    Args:
        step: seconds of a pretraining step of `STEP` on one GPU, in bfloat16.
        host: seconds that the smallest training step takes there.
        answers: questions a second that it answers, five on an image.
        cpu_step: seconds of a pretraining step of 8 on `cores`, in float32.
        cpu_answers: questions a second that these answer.
        cores: of that machine.
    """

    step: float
    host: float
    answers: float
    cpu_step: float
    cpu_answers: float
    cores: int


def figures() -> Figures:
    lines = [json.loads(line) for line in (RESULTS / "gpu.jsonl").read_text(encoding="utf-8").splitlines()]
    ours = [line for line in lines if line.get("contender") == "lxmert-tf, JAX" and line["kind"] == "measured"]

    def of(beginning: str) -> float:
        cases = {line["case"] for line in ours if line["case"].startswith(beginning)}
        return min(median(line["seconds"] for line in ours if line["case"] == case) for case in cases)

    training, vqa = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("training", "vqa_inference"))
    return Figures(
        step=of(f"pretraining {STEP}"),
        host=of("training "),
        answers=1280 / of("stream 1280"),
        cpu_step=median(training["pretraining 8"]["lxmert-tf, XLA"]["seconds"]),
        cpu_answers=vqa["questions"] / median(vqa["lxmert-tf, graph"]["seconds"]),
        cores=training["machine"]["cores"],
    )


def pretraining(found: Figures) -> list[list[str]]:
    """A row for each number of accelerators, with the paper's batch and with `STEP` on each; then one of CPU cores."""
    rows = []
    for number in ACCELERATORS:
        exchange = 2 * (1 - 1 / number) * 4 * PARAMETERS / LINKS[number]
        for each in sorted({BATCH // number, STEP}) if number > 1 else (STEP,):
            seconds = max(found.host, found.step * each / STEP) + exchange
            rate = each * number / seconds
            hours = PAIRS * EPOCHS / rate / 3600
            rows.append(
                [f"{number} GPU{'s' * (number > 1)}", each * number, rate, hours, number * hours, exchange / seconds]
            )
    nodes = 16
    rate = 8 / found.cpu_step * 64 / found.cores * nodes
    hours = PAIRS * EPOCHS / rate / 3600
    rows.append([f"{nodes} nodes of 64 cores", 8 * 32 * nodes, rate, hours, nodes * hours, None])
    return [
        [
            what,
            f"{batch:,}",
            f"{rate:,.0f}/s",
            f"{hours:,.1f} h",
            f"{machine_hours:,.0f}",
            "-" if share is None else f"{share:.0%}",
            f"{rate * image_bytes(4) / 1e9:.1f}",
            f"{rate * image_bytes(2) / 1e9:.1f}",
        ]
        for what, batch, rate, hours, machine_hours, share in rows
    ]


def service(found: Figures) -> list[list[str]]:
    """A row for each way in which questions come."""
    images = QUESTIONS / PER_IMAGE
    lxmert = f"{QUESTIONS / found.answers:.2f}", f"{QUESTIONS / found.cpu_answers * found.cores:,.0f}"
    photo = f"{QUESTIONS / found.cpu_answers * found.cores + images * DETECTOR:,.0f}"
    return [
        ["features with every question", *lxmert, f"{QUESTIONS * image_bytes(4) / 1e6:,.0f} MB/s"],
        ["features once for an image's five questions", *lxmert, f"{images * image_bytes(4) / 1e6:,.0f} MB/s"],
        ["a feature file that the servers have", *lxmert, "less than 1 MB/s"],
        [
            f"photos of {PHOTO / 1e3:.0f} kB, five questions on each",
            "not measured",
            photo,
            f"{images * PHOTO / 1e6:,.0f} MB/s",
        ],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="of the file that is read (default: %(default)s)")
    parser.add_argument("--readers", type=int, nargs="+", default=[1, 2, 4, 8], help="default: %(default)s")
    parser.add_argument("--batches", type=int, default=100, help="of each reader (default: %(default)s)")
    arguments = parser.parse_args()
    found = figures()
    header = [
        "on",
        "batch",
        "examples",
        "20 epochs",
        "machine hours",
        "share of gradients",
        "GB/s of float32",
        "float16",
    ]
    write_section(DOCUMENT, "pretraining", table(header, pretraining(found)))
    header = ["requests bring", "GPUs", "CPU cores", "received"]
    write_section(DOCUMENT, "service", table(header, service(found)))
    rates = reading_rates(arguments.images, arguments.readers, arguments.batches)
    row = ["images/s", *(f"{rate:,.0f}" for rate in rates.values())]
    readers = table(["readers", *map(str, rates)], [row])
    write_section(DOCUMENT, "readers", f"{readers}\n\n{circumstances(versions(['h5py', 'numpy']))}")
    save("scale", {"readers": rates, "figures": asdict(found)}, "The tables are in [docs/scale.md](../docs/scale.md).")


if __name__ == "__main__":
    main()
