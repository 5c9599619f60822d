"""Questions about scenes that have one answer, and a choice of them whose wording tells little about it."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from lxmert_tf.demo.scenes import COLORS, MAX_SHAPES, SHAPES, Scene, make_scene

SIDES = ("left", "right")
ANSWERS = ("yes", "no", *map(str, range(1, MAX_SHAPES + 1)), *COLORS, *SHAPES, *SIDES)


class Question(NamedTuple):
    """A question and its only answer."""

    question_type: str
    sent: str
    answer: str


@dataclass(frozen=True)
class Style:
    """The questions of one data set.

    Args:
        name: "vqa" or "gqa".
        sentences: question_type -> the question, with slots to fill.
        per_picture: how many questions of each type a picture gets, where it has as many.
        candidates: all questions about a scene that have one answer, whatever way one looks at it.
        stream: number of the style's random stream.
    """

    name: str
    sentences: dict[str, str]
    per_picture: dict[str, int]
    candidates: Callable[[Scene], Iterator[Question]]
    stream: int

    @property
    def most(self) -> int:
        """The most questions that a picture gets."""
        return sum(self.per_picture.values())


def ask(style: Style, indices: Iterable[int], seed: int) -> Iterator[tuple[Scene, list[Question]]]:
    """Each picture's scene and its questions; what is asked depends on all pictures before it."""
    asked: Counter = Counter()
    for index in indices:
        scene = make_scene(seed, index)
        rng = np.random.default_rng([seed, index, style.stream])
        yield scene, list(_choose(style, list(style.candidates(scene)), asked, rng))


def existing_pairs(scene: Scene) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(colour, shape) pairs that a scene has, and those to ask for in vain.

    Where some colour and shape are both there but not together, only those are asked for in vain.
    """
    there = {(thing.color, thing.shape) for thing in scene.things}
    mixed = {(color, shape) for color, _ in there for _, shape in there} - there
    return there, mixed or {(color, shape) for color in COLORS for shape in SHAPES} - there


def yes_no(truth: bool) -> str:
    """The answer "yes" or "no"."""
    return "yes" if truth else "no"


def _choose(style: Style, candidates: list[Question], asked: Counter, rng: np.random.Generator) -> Iterator[Question]:
    """Up to `per_picture` of the candidates of each type, each time one whose answer is the rarest so far."""
    for question_type in style.sentences:
        left = [question for question in candidates if question.question_type == question_type]
        rng.shuffle(left)
        for _ in range(min(style.per_picture[question_type], len(left))):
            # First the answers of a type are kept even, then, for each answer, the sentences.
            question = min(left, key=lambda each: (asked[each.question_type, each.answer], asked[each]))
            left.remove(question)
            asked[question_type, question.answer] += 1
            asked[question] += 1
            yield question
