"""Scenes: which shapes a picture shows, and where. What is said of a picture is worked out from its scene."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle", "star")
COLORS = {
    "red": (215, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 215),
    "yellow": (235, 205, 40),
    "purple": (150, 60, 180),
    "black": (35, 35, 35),
}
MIN_SHAPES, MAX_SHAPES = 2, 5
SPLITS = ("train", "valid", "test")

Box = tuple[int, int, int, int]  # x1 y1 x2 y2, pixels; x2 and y2 are the first pixels outside


class Thing(NamedTuple):
    """One shape of a picture."""

    shape: str
    color: str
    box: Box


@dataclass(frozen=True)
class Scene:
    """One picture before it is drawn: its number, size in pixels, and shapes, which do not touch."""

    index: int
    width: int
    height: int
    things: tuple[Thing, ...]

    @property
    def img_id(self) -> str:
        return f"synthetic_{self.index:012d}"

    def others(self, thing: Thing) -> list[Thing]:
        """All shapes but this one."""
        return [other for other in self.things if other is not thing]

    def name(self, thing: Thing) -> str | None:
        """The shortest name that no other shape of the scene has, "star" or "red star", or None."""
        if all(other.shape != thing.shape for other in self.others(thing)):
            return thing.shape
        if all(other[:2] != thing[:2] for other in self.others(thing)):
            return f"{thing.color} {thing.shape}"
        return None

    def named(self) -> Iterator[tuple[Thing, str]]:
        """The shapes that have a name of their own, with it."""
        for thing in self.things:
            if name := self.name(thing):
                yield thing, name

    def half(self, thing: Thing) -> str | None:
        """The half of the picture that holds the whole shape, "left" or "right"; None where it is in both."""
        if 2 * thing.box[2] <= self.width:
            return "left"
        return "right" if 2 * thing.box[0] >= self.width else None


def make_scene(seed: int, index: int) -> Scene:
    """Picture number `index` of the set with this seed: 2 to 5 shapes of random kind, colour, size and place."""
    rng = np.random.default_rng([seed, index, 0])
    width, height = int(rng.integers(112, 161)), int(rng.integers(96, 129))
    # Few kinds in some pictures, so that a kind is often there several times.
    shapes = rng.permutation(SHAPES)[: rng.integers(1, len(SHAPES) + 1)]
    colors = rng.permutation(list(COLORS))[: rng.integers(1, len(COLORS) + 1)]
    things: list[Thing] = []
    number = rng.integers(MIN_SHAPES, MAX_SHAPES + 1)
    while len(things) < number:
        box = random_box(rng, width, height)
        if not any(touch(box, thing.box) for thing in things):
            things.append(Thing(str(rng.choice(shapes)), str(rng.choice(colors)), box))
    return Scene(index, width, height, tuple(things))


def splits(num_images: int) -> dict[str, range]:
    """The picture numbers of each split: 80% train, 10% valid, 10% test (rounded down, the rest to train)."""
    held_out = num_images // 10
    first = num_images - 2 * held_out
    parts = range(first), range(first, first + held_out), range(first + held_out, num_images)
    return dict(zip(SPLITS, parts, strict=True))


def beside(first: Thing, second: Thing) -> str | None:
    """Whether `first` is "left" or "right" of `second`; None where they share a column of pixels."""
    if first.box[2] <= second.box[0]:
        return "left"
    return "right" if first.box[0] >= second.box[2] else None


def over(first: Thing, second: Thing) -> str | None:
    """Whether `first` is "above" or "below" `second`; None where they share a row of pixels."""
    if first.box[3] <= second.box[1]:
        return "above"
    return "below" if first.box[1] >= second.box[3] else None


def random_box(rng: np.random.Generator, width: int, height: int) -> Box:
    """A square of 18 to 28 pixels somewhere in a picture of this size."""
    side = int(rng.integers(18, 29))
    x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    return x, y, x + side, y + side


def touch(one: Box, other: Box, gap: int = 2) -> bool:
    """Whether two boxes are less than `gap` pixels apart."""
    return one[0] < other[2] + gap and other[0] < one[2] + gap and one[1] < other[3] + gap and other[1] < one[3] + gap
