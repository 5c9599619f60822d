"""Pretraining sentences: captions of each picture, and the questions of VQA and GQA with their answers."""

import itertools
from collections import Counter
from collections.abc import Iterator

import numpy as np

from lxmert_tf.data.annotations import PretrainingAnnotation
from lxmert_tf.data.synthetic import gqa, vqa
from lxmert_tf.data.synthetic.questions import ask
from lxmert_tf.data.synthetic.scenes import Scene, Thing, beside

CAPTIONS = {
    "pair": "{one} and {other}.",
    "order": "{one} to the {side} of {other}.",
    "count": "a picture of {number} {things}.",
}


def annotate(indices: range, seed: int, labels: bool) -> Iterator[PretrainingAnnotation]:
    """The sentences about these pictures: captions under "mscoco", questions under "vqa" and "gqa"."""
    styles = (vqa.STYLE, gqa.STYLE)
    for pictures in zip(*(ask(style, indices, seed) for style in styles), strict=True):
        scene = pictures[0][0]
        questions = {style.name: asked for style, (_, asked) in zip(styles, pictures, strict=True) if asked}
        sentf = {source: [question.sent for question in asked] for source, asked in questions.items()}
        labelf = {source: [{question.answer: 1.0} for question in asked] for source, asked in questions.items()}
        rng = np.random.default_rng([seed, scene.index, 6])
        yield PretrainingAnnotation(scene.img_id, {"mscoco": describe(scene, rng), **sentf}, labelf if labels else {})


def describe(scene: Scene, rng: np.random.Generator) -> list[str]:
    """A caption of each kind that the scene allows."""
    found: dict[str, list[str]] = {}
    for kind, caption in captions(scene):
        found.setdefault(kind, []).append(caption)
    return [each[rng.integers(len(each))] for each in found.values()]


def captions(scene: Scene) -> Iterator[tuple[str, str]]:
    """(kind, caption) of all that can be said of a scene."""
    for one, other in itertools.permutations(scene.things, 2):
        names = {"one": _describe(one), "other": _describe(other)}
        yield "pair", CAPTIONS["pair"].format(**names)
        if side := beside(one, other):
            yield "order", CAPTIONS["order"].format(side=side, **names)
    yield "count", CAPTIONS["count"].format(number=len(scene.things), things="objects")
    for shape, number in Counter(thing.shape for thing in scene.things).items():
        if number > 1:
            yield "count", CAPTIONS["count"].format(number=number, things=f"{shape}s")


def _describe(thing: Thing) -> str:
    return f"a {thing.color} {thing.shape}"
