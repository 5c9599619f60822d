"""What a contender does in its own process: warm up, then run its step once for every line on stdin.

Imports numpy only. The benchmark asks the processes in turn, so that a slower minute of the machine hits all of them.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

TOKENS, BOXES, WIDTH, WORDS, OBJECTS, ATTRIBUTES = 20, 36, 2048, 30522, 1600, 400


def inputs(batch: int, tokens: int = TOKENS, boxes: int = BOXES, seed: int = 0) -> dict[str, np.ndarray]:
    """A batch without padding: the inputs that every contender takes, by upstream's names."""
    rng = np.random.default_rng(seed)
    return {
        "input_ids": rng.integers(1000, WORDS, (batch, tokens)),
        "visual_feats": rng.random((batch, boxes, WIDTH), "float32"),
        "visual_pos": rng.random((batch, boxes, 4), "float32"),
        "attention_mask": np.ones((batch, tokens), "int64"),
        "token_type_ids": np.zeros((batch, tokens), "int64"),
    }


def products(batch: int, tokens: int = TOKENS, boxes: int = BOXES) -> list[tuple[int, int, int]]:
    """(rows, width in, width out) of every product with weights in a forward pass with all outputs."""
    hidden, intermediate = 768, 3072
    language, vision = batch * tokens, batch * boxes

    def layer(rows: int) -> list[tuple[int, int, int]]:
        return [(rows, hidden, hidden)] * 4 + [(rows, hidden, intermediate), (rows, intermediate, hidden)]

    cross = [(language + vision, hidden, hidden)] * 4 + layer(language) + layer(vision)
    embedding, pooler = [(vision, WIDTH, hidden), (vision, 4, hidden)], [(batch, hidden, hidden)]
    return embedding + layer(language) * 9 + layer(vision) * 5 + cross * 5 + pooler


def pretraining_labels(batch: int, answers: int = 9500, seed: int = 1) -> dict:
    """Labels of every pretraining loss; 15 % of the words and of the boxes are hidden."""
    rng = np.random.default_rng(seed)
    hidden = rng.random((batch, TOKENS)) < 0.15
    confidence = (rng.random((batch, BOXES)) < 0.15).astype("float32")
    return {
        "labels": np.where(hidden, rng.integers(1000, WORDS, (batch, TOKENS)), -100),
        "matched_label": rng.integers(0, 2, batch),
        "ans": rng.integers(0, answers, batch),
        "obj_labels": {
            "obj": (rng.integers(0, OBJECTS, (batch, BOXES)), confidence),
            "attr": (rng.integers(0, ATTRIBUTES, (batch, BOXES)), confidence),
            "feat": (rng.random((batch, BOXES, WIDTH), "float32"), confidence),
        },
    }


def questions(count: int, per_image: int = 5, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Token ids of questions as long as VQA's (8 pieces on average, [CLS] and [SEP] included), and their images."""
    rng = np.random.default_rng(seed)
    lengths = np.clip(rng.poisson(5.0, count) + 3, 4, TOKENS)
    return [rng.integers(1000, WORDS, length) for length in lengths], np.arange(count) // per_image


def padded(texts: list[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask int64[B, length] of some texts."""
    ids = np.stack([np.pad(text, (0, length - len(text))) for text in texts])
    return ids, (ids > 0).astype("int64")


def serve(step: Callable[[], None], warm_up: int = 2) -> None:
    """Warms up, then for every line on stdin runs `step` and prints its seconds; at the end, the peak memory in MB."""
    for _ in range(warm_up):
        step()
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        step()
        print(time.perf_counter() - start, flush=True)
    print(json.dumps({"peak_mb": peak_memory()}), flush=True)


def peak_memory() -> float:
    """The most memory this process has held, in MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6
