"""Pictures of scenes, and what a detector would find in them.

Shapes: N = boxes per image, D = feature dimension.
"""

import functools
from collections.abc import Iterable
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from lxmert_tf.data.features.regions import RegionFeatures
from lxmert_tf.demo.scenes import COLORS, SHAPES, Box, Scene, Thing, random_box, touch

if TYPE_CHECKING:
    from PIL import Image

BACKGROUND = len(SHAPES)  # objects_id of a box without a shape
PLAIN = len(COLORS)  # attrs_id of a box without a shape
CROP = 12  # pixels per side of a box, before the projection


def draw(scene: Scene, seed: int) -> np.ndarray:
    """The picture of a scene: `uint8[height, width, 3]`, RGB, on a light background, with slight noise."""
    rng = np.random.default_rng([seed, scene.index, 1])
    image = pillow().new("RGB", (scene.width, scene.height), tuple(rng.integers(228, 250, 3).tolist()))
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


def class_name(object_id: int, attribute_id: int) -> str:
    """What a box shows, such as "red circle", by its classes."""
    if object_id == BACKGROUND:
        return "background"
    return f"{[*COLORS, ''][attribute_id]} {SHAPES[object_id]}".strip()


def class_names() -> dict[str, object]:
    """The classes' names, as a detector's config has them."""
    objects, attributes = [*SHAPES, "background"], [*COLORS, ""]
    return {
        "num_classes": len(objects),
        "num_attributes": len(attributes),
        "object_names": objects,
        "attribute_names": attributes,
    }


def box_features(pixels: np.ndarray, boxes: Iterable[Box], feat_dim: int) -> np.ndarray:
    """Region features: silhouette and mean colour of what a box shows, projected by a fixed random matrix.

    As a detector's features do, they tell the kind of a thing and its colour apart linearly; the projection of bare
    pixels does not, and takes a small model far longer to learn.

    Args:
        pixels: `uint8[height, width, 3]`, RGB.
        boxes: N boxes in pixels, within the picture.
        feat_dim: D.

    Returns:
        `float32[N, D]`. They depend on nothing but the pixels.
    """
    pil = pillow()
    image = pil.fromarray(pixels)
    crops = [np.asarray(image.resize((CROP, CROP), pil.Resampling.BILINEAR, box=box)) for box in boxes]
    darkness = 1 - np.stack(crops).reshape(len(crops), CROP * CROP, 3).astype(np.float32) / 255
    silhouette = np.clip(4 * darkness.max(axis=2) - 1, 0, 1)  # float32[N, CROP * CROP]: 0 is background, 1 a shape
    covered = silhouette.sum(axis=1, keepdims=True)
    color = (silhouette[:, :, None] * darkness).sum(axis=1) / np.maximum(covered, 1)  # float32[N, 3]
    return np.concatenate([silhouette, CROP * color], axis=1) @ _projection(feat_dim)


def _classes(thing: Thing) -> tuple[int, int]:
    return SHAPES.index(thing.shape), list(COLORS).index(thing.color)


def _distractor(scene: Scene, rng: np.random.Generator, shifted: bool) -> tuple[int, int, float, Box]:
    """(objects_id, attrs_id, confidence, box) of a box with a cut-off shape, or with background alone."""
    if not shifted:
        for _ in range(20):
            box = random_box(rng, scene.width, scene.height)
            if not any(touch(box, thing.box) for thing in scene.things):
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


def _draw_thing(image: "Image.Image", thing: Thing, fill: tuple[int, int, int]) -> None:
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
    """`float32[CROP * CROP + 3, D]`, the same for every set."""
    inputs = CROP * CROP + 3  # silhouette and colour
    matrix = np.random.default_rng(1908_07490).normal(0, inputs**-0.5, (inputs, feat_dim))
    return matrix.astype(np.float32)


def pillow() -> ModuleType:
    """The module `PIL.Image`; ImportError with advice if Pillow is not installed."""
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("drawing the synthetic set needs Pillow: pip install 'lxmert-tf[viz]'") from error
    return Image
