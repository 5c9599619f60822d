"""What a detector found in one image, and what makes it valid, whatever file it is in.

Shapes: N = boxes in the image, D = feature dimension.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lxmert_tf.configuration import LxmertConfig

# What only pretraining needs: classes and the detector's confidence in them, by their dtypes
LABELS = {"objects_id": "int64", "objects_conf": "float32", "attrs_id": "int64", "attrs_conf": "float32"}
LARGEST = 1e6  # features above this are float64 read as float32
LARGEST_SIDE = 2**31 - 1  # pixels; the built file keeps sizes as int32
LARGEST_CLASS = 2**31 - 1  # models take int32
ROUNDING = 1e-5  # how far a box may pass the edge of its image, as a share of its side: float32 rounding


@dataclass(frozen=True, eq=False)
class RegionFeatures:
    """The boxes that a detector found in one image.

    Args:
        img_id: the image's name, not empty, of printable characters.
        img_h, img_w: height and width of the image in pixels.
        objects_id: `int64[N]`, object class of each box, in 0..2^31-1; None, as the next three, where nobody told.
        objects_conf: `float32[N]`, its confidence in 0..1.
        attrs_id: `int64[N]`, attribute class of each box, in 0..2^31-1.
        attrs_conf: `float32[N]`, its confidence in 0..1.
        boxes: `float32[N, 4]`, pixels, x1 y1 x2 y2, within the image.
        features: `float32[N, D]`.
    """

    img_id: str
    img_h: int
    img_w: int
    objects_id: np.ndarray | None
    objects_conf: np.ndarray | None
    attrs_id: np.ndarray | None
    attrs_conf: np.ndarray | None
    boxes: np.ndarray
    features: np.ndarray

    def labels(self) -> dict[str, np.ndarray]:
        """The arrays of `LABELS` that there are: all or none."""
        return {name: array for name in LABELS if (array := getattr(self, name)) is not None}


def normalize_boxes(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """Divides pixel boxes by (width, height, width, height): the positions that the model takes.

    Args:
        boxes: `float32[N, 4]`, pixels, x1 y1 x2 y2.
        width, height: size of the image in pixels, above 0.

    Returns:
        `float32[N, 4]` in 0..1; coordinates beyond an edge by rounding only (1e-5) are clipped.

    Raises:
        ValueError: the size is not above 0, or a box has not 4 numbers, is reversed, or is outside the image.
    """
    boxes = np.asarray(boxes, np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have the shape [N, 4], got {list(boxes.shape)}")
    if not (width > 0 and height > 0):
        raise ValueError(f"an image must be larger than 0 x 0 pixels, got width {width} and height {height}")
    normalized = boxes / np.array([width, height, width, height], np.float32)
    # As conditions that must hold, so that NaN fails too.
    inside = ((normalized >= -ROUNDING) & (normalized <= 1 + ROUNDING)).all(axis=1)
    ordered = (boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
    if not (inside & ordered).all():
        worst = int(np.argmin(inside & ordered))
        raise ValueError(
            f"box {worst} must be x1 y1 x2 y2 in pixels within width {width} and height {height}, "
            f"got {boxes[worst].tolist()}; are the boxes already divided, or width and height swapped?"
        )
    return np.clip(normalized, 0, 1)


def check_regions(regions: RegionFeatures) -> None:
    """Raises ValueError unless one image is valid."""
    check_name(regions.img_id)
    for name in ("img_h", "img_w"):
        side = getattr(regions, name)
        if not 1 <= side <= LARGEST_SIDE:
            raise ValueError(f"{name} must be above 0 and at most {LARGEST_SIDE}, got {side}")
    if np.ndim(regions.features) != 2 or not np.size(regions.features):
        raise ValueError(f"features must have the shape [N, D], N and D above 0, got {np.shape(regions.features)}")
    num_boxes = len(regions.features)
    labels = regions.labels()
    if labels and len(labels) < len(LABELS):
        raise ValueError(f"there must be all of {', '.join(LABELS)}, or none, got {', '.join(labels)}")
    for name, array in labels.items():
        if np.shape(array) != (num_boxes,):
            raise ValueError(f"{name} must have the shape ({num_boxes},), got {np.shape(array)}")
    if np.shape(regions.boxes) != (num_boxes, 4):
        raise ValueError(f"boxes must have the shape ({num_boxes}, 4), got {np.shape(regions.boxes)}")
    confidences = {name: array for name, array in labels.items() if name.endswith("_conf")}
    for name, array in (confidences | {"features": regions.features}).items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    if max(np.max(regions.features), -np.min(regions.features)) > LARGEST:
        raise ValueError("features exceed a million; are they float64 instead of float32?")
    for name, array in confidences.items():
        low, high = np.min(array), np.max(array)
        if low < 0 or high > 1 + ROUNDING:
            raise ValueError(f"{name} must lie in 0..1, got {low:g} to {high:g}")
    for name in [name for name in labels if name not in confidences]:
        ids = np.asarray(labels[name])
        if (wrong := ids != np.clip(ids.astype(np.int64), 0, LARGEST_CLASS)).any():
            raise ValueError(f"{name} must be integers in 0..{LARGEST_CLASS}, got {ids[wrong][0]}")
    normalize_boxes(regions.boxes, regions.img_w, regions.img_h)
    if np.max(regions.boxes) <= 1 < min(regions.img_h, regions.img_w):
        raise ValueError(
            f"all boxes lie within the first pixel of {regions.img_w} x {regions.img_h}; they must be in pixels, "
            "not divided by width and height"
        )


class Series:
    """The images of one file so far: their names are all different, and their features of one dimension.

    Args:
        config: whose `num_object_labels` and `num_attr_labels` say which classes there are; None takes any.
        img_ids: of the images before.
        feat_dim: D of the images before, or None.

    Attributes:
        labels: whether each must have classes.
    """

    def __init__(self, config: LxmertConfig | None = None, img_ids: Iterable[str] = (), feat_dim: int | None = None):
        self.classes = class_counts(config) if config else {}
        self.img_ids, self.feat_dim, self.labels = set(img_ids), feat_dim, False

    def check(self, regions: RegionFeatures) -> None:
        """Raises ValueError unless a valid image may be the next."""
        if regions.img_id in self.img_ids:
            raise ValueError("this img_id is already in the file")
        feat_dim = regions.features.shape[1]
        if self.feat_dim not in (None, feat_dim):
            raise ValueError(f"features must have {self.feat_dim} values per box, as before, got {feat_dim}")
        if self.labels and not regions.labels():
            raise ValueError("it has no object and attribute classes, which those before have")
        for name, (count, origin) in self.classes.items():
            ids = getattr(regions, name)
            if ids is not None and (beyond := ids >= count).any():
                raise ValueError(
                    f"{name} must lie in 0..{count - 1}, as {origin} of the config says, got {ids[beyond][0]}; "
                    "for another detector give the config of its model (--config)"
                )

    def add(self, regions: RegionFeatures) -> None:
        """Counts an image as one of those before."""
        self.img_ids.add(regions.img_id)
        self.feat_dim = regions.features.shape[1]


def class_counts(config: LxmertConfig) -> dict[str, tuple[int, str]]:
    """How many classes a model of this config knows, and the config's name for that, of each array of classes."""
    names = {"objects_id": "num_object_labels", "attrs_id": "num_attr_labels"}
    return {array: (getattr(config, name), name) for array, name in names.items()}


def check_name(img_id: str) -> None:
    """Raises ValueError unless this can be an image's name in every format of ours."""
    if not img_id or not img_id.isprintable():
        raise ValueError(f"img_id must be a name of printable characters, got {img_id[:80]!r}")
