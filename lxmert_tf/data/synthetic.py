"""A made-up visual question answering set: pictures of coloured shapes, in the file formats of the original LXMERT.

Every scene is a pure function of (seed, index), so files are written one after the other in constant memory, and the
same arguments always give the same set.

Shapes: N = boxes per image, D = feature dimension.
"""

import functools
import json
import os
import string
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from lxmert_tf.data.annotations import Annotation, AnswerTable, write_annotations, write_answers
from lxmert_tf.data.region_features import RegionFeatures, write_tsv
from lxmert_tf.files import write_text

SHAPES = ("circle", "square", "triangle", "star")
COLORS = {
    "red": (215, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 80, 215),
    "yellow": (235, 205, 40),
    "purple": (150, 60, 180),
    "black": (35, 35, 35),
}
BACKGROUND = len(SHAPES)  # objects_id of a box without a shape
PLAIN = len(COLORS)  # attrs_id of a box without a shape
MIN_SHAPES, MAX_SHAPES = 2, 5
SIDES = ("left", "right")
ANSWERS = ("yes", "no", *map(str, range(1, MAX_SHAPES + 1)), *COLORS, *SHAPES, *SIDES)
SENTENCES = {  # question_type -> the question
    "color": "what color is the {shape}?",
    "shape": "what shape is {color}?",
    "count": "how many {things} are there?",
    "existence": "is there a {color} {shape}?",
    "position": "where is the {name}?",
    "order": "is the {name} left of the {other}?",
    "neighbor": "what is {side} of the {name}?",
}
ANSWER_TYPES = {"count": "number", "existence": "yes/no", "order": "yes/no"}  # others: "other"
PER_PICTURE = {  # how many questions of each type; more of what takes several looks at a picture
    "color": 1,
    "shape": 1,
    "count": 2,
    "existence": 1,
    "position": 2,
    "order": 3,
    "neighbor": 2,
}
CROP = 12  # pixels per side of a box, before the projection

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


class Question(NamedTuple):
    """A question of one of the `SENTENCES`, and its only answer."""

    question_type: str
    sent: str
    answer: str


def write_vqa(
    directory: str | os.PathLike, num_images: int = 4000, boxes: int = 10, feat_dim: int = 64, seed: int = 0
) -> Path:
    """Writes a whole set: features.tsv, {train,valid,test}.json, label2ans.json, ans2label.json, vocab.txt, config.json
    (a small LXMERT that learns it) and images/IMG_ID.png.

    Of the images 80% are for training, 10% for validation and 10% for testing; no two splits share one. Each image has
    a few questions (see `PER_PICTURE`); test.json has no labels. Written beside `directory` and renamed at the end.

    Args:
        directory: where to write; must not exist yet, or be empty.
        num_images: how many pictures, at least 10.
        boxes: boxes per picture, at least 5: one per shape, the others show background or a shape cut off.
        feat_dim: values per box.
        seed: another seed, another set; region features of the same pixels stay the same.

    Returns:
        `directory`.

    Raises:
        ValueError: an argument is out of its range.
        FileExistsError: `directory` is not empty.
        ImportError: Pillow is not installed.
    """
    for name, value, least in (
        ("num_images", num_images, 10),
        ("boxes", boxes, MAX_SHAPES),
        ("feat_dim", feat_dim, 1),
        ("seed", seed, 0),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    directory = Path(directory)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise FileExistsError(f"{directory} is there already; name a new or an empty directory")
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}.") as folder:
        part = Path(folder, "set")
        (part / "images").mkdir(parents=True)
        progress = tqdm(range(num_images), "pictures", unit="picture", disable=num_images < 1000)
        write_tsv(part / "features.tsv", _draw_all(part / "images", progress, boxes, feat_dim, seed))
        for split, indices in splits(num_images).items():
            write_annotations(part / f"{split}.json", _annotate(indices, seed, labels=split != "test"))
        write_answers(part / "label2ans.json", part / "ans2label.json", AnswerTable(ANSWERS))
        vocab = vocabulary()
        write_text(part / "vocab.txt", "".join(f"{word}\n" for word in vocab))
        write_text(part / "config.json", json.dumps(model_config(len(vocab), feat_dim), indent=2) + "\n")
        os.replace(part, directory)
    return directory


def splits(num_images: int) -> dict[str, range]:
    """The picture numbers of each split: 80% train, 10% valid, 10% test (rounded down, the rest to train)."""
    held_out = num_images // 10
    first = num_images - 2 * held_out
    return {
        "train": range(first),
        "valid": range(first, first + held_out),
        "test": range(first + held_out, num_images),
    }


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
        box = _random_box(rng, width, height)
        if not any(_touch(box, thing.box) for thing in things):
            things.append(Thing(str(rng.choice(shapes)), str(rng.choice(colors)), box))
    return Scene(index, width, height, tuple(things))


def draw(scene: Scene, seed: int) -> np.ndarray:
    """The picture of a scene: `uint8[height, width, 3]`, RGB, on a light background, with slight noise."""
    rng = np.random.default_rng([seed, scene.index, 1])
    image = _pillow().new("RGB", (scene.width, scene.height), tuple(rng.integers(228, 250, 3).tolist()))
    for thing in scene.things:
        fill = np.clip(np.array(COLORS[thing.color]) + rng.integers(-15, 16, 3), 0, 255)
        _draw_thing(image, thing, tuple(fill.tolist()))
    pixels = np.asarray(image, np.float32) + rng.normal(0, 3, (scene.height, scene.width, 3))
    return np.clip(pixels.round(), 0, 255).astype(np.uint8)


def detect(scene: Scene, pixels: np.ndarray, boxes: int, feat_dim: int, seed: int) -> RegionFeatures:
    """What a detector would find: the box of every shape (confidence 1), then distractors, the most certain first.

    Args:
        scene: the scene that `pixels` shows.
        pixels: `uint8[height, width, 3]`, RGB.
        boxes: N, at least as many as there are shapes.
        feat_dim: D.
        seed: the seed of the set, for the distractors.

    Returns:
        `RegionFeatures`; objects_id is the index in `SHAPES` or `BACKGROUND`, attrs_id that in `COLORS` or `PLAIN`.
    """
    rng = np.random.default_rng([seed, scene.index, 2])
    found = [(*_classes(thing), 1.0, thing.box) for thing in scene.things]
    others = [_distractor(scene, rng, shifted=number % 2 == 0) for number in range(boxes - len(found))]
    found += sorted(others, key=lambda entry: -entry[2])
    objects_id, attrs_id, confidence, places = zip(*found, strict=True)
    return RegionFeatures(
        img_id=scene.img_id,
        img_h=scene.height,
        img_w=scene.width,
        objects_id=np.array(objects_id, np.int64),
        objects_conf=np.array(confidence, np.float32),
        attrs_id=np.array(attrs_id, np.int64),
        attrs_conf=np.array(confidence, np.float32),
        boxes=np.array(places, np.float32),
        features=box_features(pixels, places, feat_dim),
    )


def box_features(pixels: np.ndarray, boxes: Iterable[Box], feat_dim: int) -> np.ndarray:
    """Region features: silhouette and mean colour of what a box shows, projected by a fixed random matrix.

    As a detector's features do, they tell the kind of a thing and its colour apart linearly; the projection of bare
    pixels does not, and takes a small model far longer to learn.

    Args:
        pixels: `uint8[height, width, 3]`, RGB.
        boxes: N boxes in pixels, within the picture.
        feat_dim: D.

    Returns:
        `float32[N, D]`, They depend on nothing but the pixels.
    """
    pillow = _pillow()
    image = pillow.fromarray(pixels)
    crops = [np.asarray(image.resize((CROP, CROP), pillow.Resampling.BILINEAR, box=box)) for box in boxes]
    darkness = 1 - np.stack(crops).reshape(len(crops), CROP * CROP, 3).astype(np.float32) / 255
    silhouette = np.clip(4 * darkness.max(axis=2) - 1, 0, 1)  # float32[N, CROP * CROP]: 0 is background, 1 a shape
    covered = silhouette.sum(axis=1, keepdims=True)
    color = (silhouette[:, :, None] * darkness).sum(axis=1) / np.maximum(covered, 1)  # float32[N, 3]
    return np.concatenate([silhouette, CROP * color], axis=1) @ _projection(feat_dim)


def questions(scene: Scene) -> Iterator[Question]:
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
    yield from _existence(scene)
    yield from _relations(scene)


def vocabulary() -> list[str]:
    """WordPiece vocabulary of the questions: special tokens ([PAD] is 0), punctuation, characters, whole words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = string.digits + string.ascii_lowercase
    slots = dict.fromkeys(("shape", "color", "things", "name", "other", "side"), "")
    words = {word.strip("?") for sentence in SENTENCES.values() for word in sentence.format(**slots).split()}
    words |= {*SHAPES, *(f"{shape}s" for shape in SHAPES), *COLORS, *SIDES, "objects", *ANSWERS}
    pieces = [*characters, *(f"##{character}" for character in characters)]
    return [*special, *string.punctuation, *pieces, *sorted(words - {"", *pieces})]


def model_config(vocab_size: int, feat_dim: int) -> dict:
    """The keys of a config.json: a LXMERT small enough to learn the set on a processor in minutes."""
    return {
        "model_type": "lxmert",
        "vocab_size": vocab_size,
        "hidden_size": 96,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "l_layers": 2,
        "r_layers": 1,
        "x_layers": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 32,
        "type_vocab_size": 2,
        "initializer_range": 0.05,  # 0.02 is for width 768
        "visual_feat_dim": feat_dim,
        "visual_pos_dim": 4,
        "num_qa_labels": len(ANSWERS),
        "num_object_labels": len(SHAPES) + 1,
        "num_attr_labels": len(COLORS) + 1,
        "id2label": {str(row): answer for row, answer in enumerate(ANSWERS)},
        "label2id": {answer: row for row, answer in enumerate(ANSWERS)},
    }


def _draw_all(images: Path, indices: Iterable[int], boxes: int, feat_dim: int, seed: int) -> Iterator[RegionFeatures]:
    """Writes the picture of each scene, and yields its region features."""
    for index in indices:
        scene = make_scene(seed, index)
        pixels = draw(scene, seed)
        _pillow().fromarray(pixels).save(images / f"{scene.img_id}.png")
        yield detect(scene, pixels, boxes, feat_dim, seed)


def _annotate(indices: range, seed: int, labels: bool) -> Iterator[Annotation]:
    """The questions about each picture; `asked` counts those of all pictures before it."""
    asked: Counter = Counter()
    for index in indices:
        scene = make_scene(seed, index)
        rng = np.random.default_rng([seed, index, 3])
        for number, question in enumerate(_choose(list(questions(scene)), asked, rng)):
            yield Annotation(
                question_id=index * sum(PER_PICTURE.values()) + number,
                img_id=scene.img_id,
                sent=question.sent,
                label={question.answer: 1.0} if labels else None,
                answer_type=ANSWER_TYPES.get(question.question_type, "other"),
                question_type=question.question_type,
            )


def _choose(candidates: list[Question], asked: Counter, rng: np.random.Generator) -> Iterator[Question]:
    """Up to `PER_PICTURE` of the candidates of each type, each time one whose answer is the rarest so far."""
    for question_type in SENTENCES:
        left = [question for question in candidates if question.question_type == question_type]
        rng.shuffle(left)
        for _ in range(min(PER_PICTURE[question_type], len(left))):
            # First the answers of a type are kept even, then, for each answer, the sentences.
            question = min(left, key=lambda each: (asked[each.question_type, each.answer], asked[each]))
            left.remove(question)
            asked[question_type, question.answer] += 1
            asked[question] += 1
            yield question


def _question(question_type: str, answer: str, **slots: str) -> Question:
    return Question(question_type, SENTENCES[question_type].format(**slots), answer)


def _existence(scene: Scene) -> Iterator[Question]:
    there = {(thing.color, thing.shape) for thing in scene.things}
    # Where some colour and shape are both there but not together, only those are asked for in vain.
    absent = {(color, shape) for color, _ in there for _, shape in there} - there
    absent = absent or {(color, shape) for color in COLORS for shape in SHAPES} - there
    for pairs, answer in ((there, "yes"), (absent, "no")):
        for color, shape in sorted(pairs):
            yield _question("existence", answer, color=color, shape=shape)


def _relations(scene: Scene) -> Iterator[Question]:
    named = [(thing, name) for thing in scene.things if (name := _name(thing, scene))]
    for thing, name in named:
        if half := _half(thing, scene):
            yield _question("position", half, name=name)
        for other, other_name in named:
            if other is not thing and (there := _side(thing, other)):
                yield _question("order", _yes(there == "left"), name=name, other=other_name)
        sides = [(_side(other, thing), other) for other in scene.things if other is not thing]
        if all(there for there, _ in sides):
            for side in SIDES:
                neighbors = [other for there, other in sides if there == side]
                if len(neighbors) == 1:
                    yield _question("neighbor", neighbors[0].shape, side=side, name=name)


def _yes(truth: bool) -> str:
    return "yes" if truth else "no"


def _name(thing: Thing, scene: Scene) -> str | None:
    """The shortest name that no other shape of the scene has, or None."""
    if sum(other.shape == thing.shape for other in scene.things) == 1:
        return thing.shape
    if sum(other[:2] == thing[:2] for other in scene.things) == 1:
        return f"{thing.color} {thing.shape}"
    return None


def _side(first: Thing, second: Thing) -> str | None:
    """Whether `first` is left or right of `second`; None where they share a column of pixels."""
    if first.box[2] <= second.box[0]:
        return "left"
    return "right" if first.box[0] >= second.box[2] else None


def _half(thing: Thing, scene: Scene) -> str | None:
    """The half of the picture that holds the whole shape, "left" or "right"; None where it is in both."""
    if 2 * thing.box[2] <= scene.width:
        return "left"
    return "right" if 2 * thing.box[0] >= scene.width else None


def _random_box(rng: np.random.Generator, width: int, height: int) -> Box:
    side = int(rng.integers(18, 29))
    x, y = int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1))
    return x, y, x + side, y + side


def _touch(one: Box, other: Box, gap: int = 2) -> bool:
    return one[0] < other[2] + gap and other[0] < one[2] + gap and one[1] < other[3] + gap and other[1] < one[3] + gap


def _classes(thing: Thing) -> tuple[int, int]:
    return SHAPES.index(thing.shape), list(COLORS).index(thing.color)


def _distractor(scene: Scene, rng: np.random.Generator, shifted: bool) -> tuple[int, int, float, Box]:
    """(objects_id, attrs_id, confidence, box) of a box with a cut-off shape, or with background alone."""
    if not shifted:
        for _ in range(20):
            box = _random_box(rng, scene.width, scene.height)
            if not any(_touch(box, thing.box) for thing in scene.things):
                return BACKGROUND, PLAIN, 0.1, box
    thing = scene.things[rng.integers(len(scene.things))]
    box = _shift(thing.box, rng, scene)
    return *_classes(thing), _overlap(thing.box, box), box


def _shift(box: Box, rng: np.random.Generator, scene: Scene) -> Box:
    """The box moved by 50% to 75% of its side, towards the middle of the picture in each direction it moves."""
    side = box[2] - box[0]
    by = int(rng.uniform(0.5, 0.75) * side)
    towards = (by if box[0] + box[2] < scene.width else -by, by if box[1] + box[3] < scene.height else -by)
    dx, dy = ((towards[0], 0), (0, towards[1]), towards)[rng.integers(3)]
    return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy


def _overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0..1."""
    width = max(0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
    return width * height / (areas - width * height)


def _draw_thing(image, thing: Thing, fill: tuple[int, int, int]) -> None:
    from PIL import ImageDraw

    x1, y1, x2, y2 = thing.box
    pen = ImageDraw.Draw(image)
    if thing.shape == "circle":
        pen.ellipse((x1, y1, x2 - 1, y2 - 1), fill)
    else:
        corners = _corners(thing.shape) * (x2 - x1 - 1, y2 - y1 - 1) + (x1, y1)
        pen.polygon([tuple(corner) for corner in corners.tolist()], fill)


@functools.cache
def _corners(shape: str) -> np.ndarray:
    """Corners of a shape in a box from 0 to 1, `float64[corners, 2]`; they touch all four sides."""
    if shape == "star":
        angles = np.arange(10) * np.pi / 5
        radius = np.where(np.arange(10) % 2, 0.42, 1.0)
        points = np.stack([np.sin(angles), -np.cos(angles)], axis=1) * radius[:, None]
        return (points - points.min(axis=0)) / np.ptp(points, axis=0)
    corners = {"square": ((0, 0), (1, 0), (1, 1), (0, 1)), "triangle": ((0.5, 0), (1, 1), (0, 1))}
    return np.array(corners[shape], np.float64)


@functools.cache
def _projection(feat_dim: int) -> np.ndarray:
    """`float32[CROP * CROP * 3, D]`, the same for every set."""
    inputs = CROP * CROP + 3  # silhouette and colour
    matrix = np.random.default_rng(1908_07490).normal(0, inputs**-0.5, (inputs, feat_dim))
    return matrix.astype(np.float32)


def _pillow():
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("drawing the synthetic set needs Pillow: pip install 'lxmert-tf[viz]'") from error
    return Image
