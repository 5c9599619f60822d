"""Statements about two pictures in the style of NLVR2, which neither the sentence nor one picture alone gives away.

Each sentence comes with four pairs of pictures, and is true of two. It is about how many things of a kind there are,
and each picture shows one of two neighbouring numbers, the fewer or the more; none or some, where only that matters.
Who reads the sentence alone is right about one half. Who sees one picture alone is right about one half of "exactly
one", three in four of "both", and three in five of "more" and of all.

There is no "more in the right picture" beside "more in the left picture": where words turn the direction round, a small
model takes many times longer to find a first clue.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lxmert_tf.data.annotations import NLVR2Annotation
from lxmert_tf.demo.scenes import COLORS, MAX_SHAPES, SHAPES, Scene, make_scene

FEWER, MORE = 0, 1
KINDS = (*SHAPES, *(f"{color} object" for color in COLORS))
BLOCK = 1000  # pictures among which pairs are formed
PER_PICTURE = 2  # sentences
LEAST_IMAGES = 100  # the ten pictures of a split are enough for pairs
SPLITS = {"train": "train", "valid": "dev", "test": "test1"}  # of this set -> in the original's identifiers

Cell = tuple[int, int]  # which of the two numbers the left and the right picture show


class Statement(NamedTuple):
    """A kind of sentence.

    Args:
        sent: the sentence, with a slot to fill.
        share: its share of all sentences.
        counted: whether the number of things matters, or only whether there are any.
        true, false: the pairs that it is true and false of.
    """

    sent: str
    share: float
    counted: bool
    true: tuple[Cell, Cell]
    false: tuple[Cell, Cell]


STATEMENTS = (
    Statement(
        "both pictures have {kind}s.",
        share=0.1,
        counted=False,
        true=((MORE, MORE), (MORE, MORE)),
        false=((MORE, FEWER), (FEWER, MORE)),
    ),
    Statement(
        "exactly one picture has {kind}s.",
        share=0.2,
        counted=False,
        true=((MORE, FEWER), (FEWER, MORE)),
        false=((MORE, MORE), (FEWER, FEWER)),
    ),
    Statement(
        "there are more {kind}s in the left picture.",
        share=0.7,
        counted=True,
        true=((MORE, FEWER), (MORE, FEWER)),
        false=((FEWER, MORE), (FEWER, MORE)),
    ),
)


def annotate(split: str, indices: range, seed: int, labels: bool) -> Iterator[NLVR2Annotation]:
    """The statements about pairs of these pictures: eight pairs for each picture."""
    number = 0
    for start in range(indices.start, indices.stop, BLOCK):
        scenes = [make_scene(seed, index) for index in range(start, min(start + BLOCK, indices.stop))]
        counts = {kind: np.array([count(scene, kind) for scene in scenes]) for kind in KINDS}
        rng = np.random.default_rng([seed, start, 5])
        for _ in range(PER_PICTURE * len(scenes)):
            statement = STATEMENTS[rng.choice(len(STATEMENTS), p=[each.share for each in STATEMENTS])]
            for pair, (sent, left, right, label) in enumerate(_illustrate(statement, counts, rng)):
                yield NLVR2Annotation(
                    uid=f"nlvr2_{split}_{4 * number + pair}",
                    identifier=f"{SPLITS[split]}-{number}-{pair}-0",
                    img0=scenes[left].img_id,
                    img1=scenes[right].img_id,
                    sent=sent,
                    label=label if labels else None,
                )
            number += 1


def count(scene: Scene, kind: str) -> int:
    """How many things of a kind, "star" or "red object", a scene has."""
    return sum(kind in (thing.shape, f"{thing.color} object") for thing in scene.things)


def _illustrate(
    statement: Statement, counts: dict[str, np.ndarray], rng: np.random.Generator
) -> Iterator[tuple[str, int, int, int]]:
    """Four times (sentence, left picture, right picture, label), in random order.

    Args:
        statement: the kind of sentence.
        counts: kind of thing -> int[pictures], how many each picture has.
        rng: chooses two neighbouring numbers, then the kind, then the pictures.
    """
    numbers_of = counts if statement.counted else {kind: np.minimum(counts[kind], 1) for kind in KINDS}
    lowest = rng.permutation(MAX_SHAPES if statement.counted else 1)
    for fewer, kind in itertools.product(lowest, rng.permutation(KINDS)):
        levels = [np.flatnonzero(numbers_of[kind] == number) for number in (fewer, fewer + 1)]
        if min(map(len, levels)) >= 2:  # for pairs that show the same number
            cells = [(cell, 1) for cell in statement.true] + [(cell, 0) for cell in statement.false]
            for (left, right), label in (cells[place] for place in rng.permutation(len(cells))):
                one = rng.choice(levels[left])
                other = rng.choice(levels[right][levels[right] != one])
                yield statement.sent.format(kind=kind), int(one), int(other), label
            return
