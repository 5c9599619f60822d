"""Region features at real size: how fast they are built, and how fast and in how much memory batches are delivered.

The comparison is the way of the original code: read the whole TSV into memory, then stack batches from there.
Needs 15 GB of disk and 10 GB of memory for 20,000 images.
"""

import argparse
import base64
import csv
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import circumstances, in_turn, measure, save, table, versions

BOXES, DIM = 36, 2048
IMAGES = (2_000, 20_000)
BATCH, BATCHES = 32, 400  # of VQA: the original's batch size
QUESTIONS = 5  # per image
ANSWERS = 3129
ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES, help="sizes of set (default: %(default)s)")
    parser.add_argument("--folder", help="where there is room for the files (default: a temporary folder)")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        print(json.dumps(PARTS[args.part](Path(args.folder), args.images[0])))
        return
    results = {}
    for images in args.images:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            write_files(Path(folder), images)
            results[images] = compare(folder, images)
            print(images, results[images], file=sys.stderr)
    save("data", {str(images): figures for images, figures in results.items()}, report(results))


def compare(folder: str, images: int) -> dict:
    """The figures of one size: medians of processes that run in turn."""

    def run(part: str):
        command = [sys.executable, "-m", "benchmarks.data", "--part", part, "--folder", folder, "--images", str(images)]
        measured = measure(command, TF_CPP_MIN_LOG_LEVEL="2")
        return {"rss": measured.rss, **json.loads(measured.output.splitlines()[-1])}

    rounds = ROUNDS if images <= 5_000 else 1
    runs = {"build": [run("build") for _ in range(rounds)]}
    runs |= in_turn({"deliver": lambda: run("deliver"), "original": lambda: run("original")}, rounds)
    return {part: {name: median(each[name] for each in all_) for name in all_[0]} for part, all_ in runs.items()}


def report(results: dict) -> str:
    rows = []
    for images, found in results.items():
        speed = f"{found['build']['mb'] / found['build']['cpu']:.0f} MB/s of TSV per core"
        rows.append((f"{images:,}", "build the file", speed, _gb(found["build"]), ""))
        for part, what in (("deliver", "`vqa_dataset`"), ("original", "all in memory")):
            rate, first = f"{found[part]['rate']:,.0f} examples/s", f"{found[part]['first']:.1f} s"
            rows.append((f"{images:,}", what, rate, _gb(found[part]), first))
    heading = (
        f"Region features of {BOXES} boxes and {DIM} values. Batches of {BATCH} questions in random order, with their "
        'text and soft scores, delivered to a loop that does nothing. "All in memory" is the way of the original code: '
        "the TSV is read into a list, and batches are stacked from there. The last column is the time from the start "
        "of the process to the first batch."
    )
    packages = versions(["tensorflow", "numpy", "h5py"])
    return "\n\n".join(
        [heading, table(["images", "what", "speed", "memory", "first batch"], rows), circumstances(packages)]
    )


def _gb(figures: dict) -> str:
    return f"{figures['rss'] / 1e3:.2f} GB"


# The files


def write_files(folder: Path, images: int) -> None:
    """A TSV whose images have one of a few blocks of random features: what is in them costs no time to make."""
    rng = np.random.default_rng(0)
    tails = []
    for _ in range(16):
        corners = np.sort(rng.uniform(0, 1, (BOXES, 2, 2)), axis=1).reshape(BOXES, 4) * (640, 480, 640, 480)
        arrays = [rng.integers(0, 1600, BOXES), rng.random(BOXES, np.float32)]
        arrays += [rng.integers(0, 400, BOXES), rng.random(BOXES, np.float32)]
        fields = [base64.b64encode(array.tobytes()) for array in arrays]
        features = rng.standard_normal((BOXES, DIM), np.float32)
        fields += [b"%d" % BOXES, base64.b64encode(corners.astype(np.float32).tobytes())]
        tails.append(b"\t".join([b"480", b"640", *fields, base64.b64encode(features.tobytes())]) + b"\n")
    with open(folder / "features.tsv", "wb") as file:
        for image in range(images):
            file.write(b"image_%d\t" % image + tails[image % len(tails)])


def questions(images: int) -> list:
    from lxmert_tf.data.annotations import Annotation
    from lxmert_tf.demo.model import vocabulary

    rng = np.random.default_rng(1)
    words = [word for word in vocabulary() if word.isalpha() and len(word) > 1]
    chosen = rng.integers(0, len(words), (images * QUESTIONS, 14))
    lengths = rng.integers(4, 15, images * QUESTIONS)
    return [
        Annotation(
            question_id=number,
            img_id=f"image_{number // QUESTIONS}",
            sent=" ".join(words[word] for word in chosen[number, : lengths[number]]) + "?",
            label={f"answer {number % ANSWERS}": 1.0, f"answer {number * 7 % ANSWERS}": 0.3},
        )
        for number in range(images * QUESTIONS)
    ]


def text_and_answers(folder: Path):
    from lxmert_tf import LxmertTokenizer
    from lxmert_tf.answers import AnswerTable
    from lxmert_tf.demo.model import vocabulary

    (folder / "vocab.txt").write_text("\n".join(vocabulary()) + "\n")
    return LxmertTokenizer(folder / "vocab.txt"), AnswerTable(f"answer {row}" for row in range(ANSWERS))


# What is measured, each in a process of its own


def build(folder: Path, images: int) -> dict:
    from lxmert_tf.data.features.build import build_features

    started, used = time.perf_counter(), _cpu()
    build_features(folder / "features.tsv", folder / "features.h5", overwrite=True)
    size = (folder / "features.tsv").stat().st_size
    return {"seconds": time.perf_counter() - started, "cpu": _cpu() - used, "mb": size / 1e6}


def deliver(folder: Path, images: int) -> dict:
    started = time.perf_counter()
    from lxmert_tf.data.datasets import vqa_dataset
    from lxmert_tf.data.features.store import open_features

    tokenizer, answers = text_and_answers(folder)
    store = open_features(folder / "features.h5")
    dataset = vqa_dataset(questions(images), store, tokenizer, answers, BATCH, seed=0)
    return _drain(iter(dataset.batches()), started)


def original(folder: Path, images: int) -> dict:
    """All in memory: every line parsed into a list first, every batch stacked from it."""
    started = time.perf_counter()
    from lxmert_tf.data.features.tsv import FIELDS

    tokenizer, answers = text_and_answers(folder)
    dtypes = {"objects_id": "<i8", "objects_conf": "<f4", "attrs_id": "<i8", "attrs_conf": "<f4"}
    dtypes |= {"boxes": "<f4", "features": "<f4"}
    csv.field_size_limit(sys.maxsize)
    found = {}
    with open(folder / "features.tsv", newline="") as file:
        for entry in csv.DictReader(file, FIELDS, delimiter="\t"):
            for name in ("img_h", "img_w", "num_boxes"):
                entry[name] = int(entry[name])
            for name, dtype in dtypes.items():
                values = np.frombuffer(base64.b64decode(entry[name]), dtype)
                entry[name] = values.reshape(entry["num_boxes"], -1) if name in ("boxes", "features") else values
            found[entry["img_id"]] = entry
    asked = questions(images)

    def example(number: int):
        question = asked[number]
        entry = found[question.img_id]
        boxes = entry["boxes"] / np.float32([entry["img_w"], entry["img_h"]] * 2)
        return question.sent, entry["features"].copy(), boxes, answers.scores(question.label)

    def batches():
        order = np.random.default_rng(0).permutation(len(asked))
        while True:
            for start in range(0, len(order), BATCH):
                texts, *arrays = zip(*map(example, order[start : start + BATCH]), strict=True)
                text = tokenizer(list(texts), padding="max_length", truncation=True, max_length=20, return_tensors="np")
                yield text, *map(np.stack, arrays)

    return _drain(batches(), started)


def _drain(batches, started: float) -> dict:
    next(batches)
    first = time.perf_counter()
    for _ in range(BATCHES):
        next(batches)
    return {"rate": BATCH * BATCHES / (time.perf_counter() - first), "first": first - started}


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


PARTS = {"build": build, "deliver": deliver, "original": original}

if __name__ == "__main__":
    main()
