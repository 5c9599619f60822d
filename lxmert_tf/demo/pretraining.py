"""Pretraining sentences: captions of each picture, and of every other one a question of VQA or GQA with its answer.

Few questions, and captions that name two or three things: a question seldom tells that it is about another picture.
"""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from lxmert_tf.data.annotations import PretrainingAnnotation
from lxmert_tf.demo import gqa, vqa
from lxmert_tf.demo.questions import ask
from lxmert_tf.demo.scenes import Scene, Thing, beside

CAPTIONS = {
    "two": "{one} and {other}.",
    "three": "{one}, {other} and {third}.",
    "order": "{one} to the {side} of {other}.",
}
PER_PICTURE = {"two": 2, "three": 6, "order": 3}  # where a picture has as many


def annotate(indices: range, seed: int, labels: bool) -> Iterator[PretrainingAnnotation]:
    """The sentences about these pictures: captions under "mscoco", questions under "vqa" and "gqa"."""
    styles = (vqa.STYLE, gqa.STYLE)
    for pictures in zip(*(ask(style, indices, seed) for style in styles), strict=True):
        scene = pictures[0][0]
        rng = np.random.default_rng([seed, scene.index, 6])
        questions = [(style.name, each) for style, (_, asked) in zip(styles, pictures, strict=True) for each in asked]
        source, question = questions[rng.integers(len(questions))]
        sentf, labelf = {"mscoco": describe(scene, rng)}, {}
        if scene.index % 2:
            sentf[source], labelf[source] = [question.sent], [{question.answer: 1.0}]
        yield PretrainingAnnotation(scene.img_id, sentf, labelf if labels else {})


def describe(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Captions of each kind that the scene allows, no two alike."""
    found: dict[str, set[str]] = {}
    for kind, caption in captions(scene):
        found.setdefault(kind, set()).add(caption)
    return [
        str(caption) for kind, each in found.items() for caption in rng.permutation(sorted(each))[: PER_PICTURE[kind]]
    ]


def captions(scene: Scene) -> Iterator[tuple[str, str]]:
    """(kind, caption) of all that can be said of a scene."""
    for two in itertools.permutations(scene.things, 2):
        yield "two", _caption("two", two)
        if side := beside(*two):
            yield "order", _caption("order", two, side=side)
    for three in itertools.permutations(scene.things, 3):
        yield "three", _caption("three", three)


def _caption(kind: str, things: Sequence[Thing], **slots: str) -> str:
    names = (f"a {thing.color} {thing.shape}" for thing in things)
    return CAPTIONS[kind].format(**dict(zip(("one", "other", "third"), names, strict=False)), **slots)
