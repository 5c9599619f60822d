"""Questions in the style of VQA: short and of seven kinds, with answer and question types, ids that are numbers."""

from collections import Counter
from collections.abc import Iterator

from lxmert_tf.data.annotations import Annotation
from lxmert_tf.demo.questions import SIDES, Question, Style, ask, existing_pairs, yes_no
from lxmert_tf.demo.scenes import Scene, beside

SENTENCES = {
    "color": "what color is the {shape}?",
    "shape": "what shape is {color}?",
    "count": "how many {things} are there?",
    "existence": "is there a {color} {shape}?",
    "position": "where is the {name}?",
    "order": "is the {name} left of the {other}?",
    "neighbor": "what is {side} of the {name}?",
}
ANSWER_TYPES = {"count": "number", "existence": "yes/no", "order": "yes/no"}  # others: "other"


def annotate(indices: range, seed: int, labels: bool) -> Iterator[Annotation]:
    """The questions about these pictures."""
    for scene, asked in ask(STYLE, indices, seed):
        for number, question in enumerate(asked):
            yield Annotation(
                question_id=scene.index * STYLE.most + number,
                img_id=scene.img_id,
                sent=question.sent,
                label={question.answer: 1.0} if labels else None,
                answer_type=ANSWER_TYPES.get(question.question_type, "other"),
                question_type=question.question_type,
            )


def candidates(scene: Scene) -> Iterator[Question]:
    """All questions about a scene that have one answer, whatever way one looks at it."""
    shapes = Counter(thing.shape for thing in scene.things)
    colors = Counter(thing.color for thing in scene.things)
    for thing in scene.things:
        if shapes[thing.shape] == 1:
            yield _question("color", thing.color, shape=thing.shape)
        if colors[thing.color] == 1:
            yield _question("shape", thing.shape, color=thing.color)
    for shape, count in shapes.items():
        yield _question("count", str(count), things=f"{shape}s")
    for color, count in colors.items():
        yield _question("count", str(count), things=f"{color} objects")
    yield _question("count", str(len(scene.things)), things="objects")
    for pairs, there in zip(existing_pairs(scene), (True, False), strict=True):
        for color, shape in sorted(pairs):
            yield _question("existence", yes_no(there), color=color, shape=shape)
    yield from _relations(scene)


def _relations(scene: Scene) -> Iterator[Question]:
    for thing, name in scene.named():
        if half := scene.half(thing):
            yield _question("position", half, name=name)
        for other, other_name in scene.named():
            if other is not thing and (there := beside(thing, other)):
                yield _question("order", yes_no(there == "left"), name=name, other=other_name)
        sides = [(beside(other, thing), other) for other in scene.others(thing)]
        if all(there for there, _ in sides):
            for side in SIDES:
                neighbors = [other for there, other in sides if there == side]
                if len(neighbors) == 1:
                    yield _question("neighbor", neighbors[0].shape, side=side, name=name)


def _question(question_type: str, answer: str, **slots: str) -> Question:
    return Question(question_type, SENTENCES[question_type].format(**slots), answer)


STYLE = Style(
    name="vqa",
    sentences=SENTENCES,
    per_picture={  # more of what takes several looks at a picture
        "color": 1,
        "shape": 1,
        "count": 2,
        "existence": 1,
        "position": 2,
        "order": 3,
        "neighbor": 2,
    },
    candidates=candidates,
    stream=3,
)
