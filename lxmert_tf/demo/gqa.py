"""Questions in the style of GQA: attributes, relations and places; ids that are text, no answer or question types."""

from collections import Counter
from collections.abc import Iterator

from lxmert_tf.data.annotations import Annotation
from lxmert_tf.demo import questions
from lxmert_tf.demo.questions import Question, Style, ask
from lxmert_tf.demo.scenes import COLORS, Scene, Thing, beside, over

SENTENCES = {
    "attribute": "which color does the {shape} have?",
    "category": "what is the {color} object?",
    "verify": "is the {shape} {color}?",
    "choose": "is the {shape} {color} or {other}?",
    "place": "on which side is the {name}?",
    "relation": "is the {name} left or right of the {other}?",
    "neighbor": "what is {relation} the {name}?",
}
ANSWERS = tuple(answer for answer in questions.ANSWERS if not answer.isdigit())  # nothing is counted
RELATIONS = {  # in the words of the questions -> who compares two things, and what it must say
    "to the left of": (beside, "left"),
    "to the right of": (beside, "right"),
    "above": (over, "above"),
    "below": (over, "below"),
}


def annotate(indices: range, seed: int, labels: bool) -> Iterator[Annotation]:
    """The questions about these pictures."""
    for scene, asked in ask(STYLE, indices, seed):
        for number, question in enumerate(asked):
            yield Annotation(
                question_id=f"{scene.index * STYLE.most + number:08d}",
                img_id=scene.img_id,
                sent=question.sent,
                label={question.answer: 1.0} if labels else None,
            )


def candidates(scene: Scene) -> Iterator[Question]:
    """All questions about a scene that have one answer, whatever way one looks at it."""
    shapes = Counter(thing.shape for thing in scene.things)
    colors = Counter(thing.color for thing in scene.things)
    for thing in scene.things:
        if shapes[thing.shape] == 1:
            yield _question("attribute", thing.color, shape=thing.shape)
            yield from _colors(scene, thing)
        if colors[thing.color] == 1:
            yield _question("category", thing.shape, color=thing.color)
    for thing, name in scene.named():
        if half := scene.half(thing):
            yield _question("place", half, name=name)
        for other, other_name in scene.named():
            if other is not thing and (side := beside(thing, other)):
                yield _question("relation", side, name=name, other=other_name)
        for relation, (compare, wanted) in RELATIONS.items():
            places = [(compare(other, thing), other) for other in scene.others(thing)]
            found = [other for place, other in places if place == wanted]
            if len(found) == 1 and all(place for place, _ in places):
                yield _question("neighbor", found[0].shape, relation=relation, name=name)


def _colors(scene: Scene, thing: Thing) -> Iterator[Question]:
    """Whether a thing has its own colour or a wrong one: that of another thing, if there is one."""
    wrong = {other.color for other in scene.others(thing)} - {thing.color} or COLORS.keys() - {thing.color}
    yield _question("verify", "yes", shape=thing.shape, color=thing.color)
    for color in sorted(wrong):
        yield _question("verify", "no", shape=thing.shape, color=color)
        yield _question("choose", thing.color, shape=thing.shape, color=thing.color, other=color)
        yield _question("choose", thing.color, shape=thing.shape, color=color, other=thing.color)


def _question(question_type: str, answer: str, **slots: str) -> Question:
    return Question(question_type, SENTENCES[question_type].format(**slots), answer)


STYLE = Style(
    name="gqa",
    sentences=SENTENCES,
    per_picture={
        "attribute": 1,
        "category": 1,
        "verify": 1,
        "choose": 1,
        "place": 2,
        "relation": 3,
        "neighbor": 2,
    },
    candidates=candidates,
    stream=4,
)
