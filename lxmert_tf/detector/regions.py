"""Regions: what the detector finds in a picture, as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lxmert_tf.detector.configuration import DetectorConfig
from lxmert_tf.detector.image_processor import BadImage


@dataclass(frozen=True)
class Regions:
    """The regions of a picture, n of them.

    Args:
        boxes: float32[n, 4], x1, y1, x2, y2 in pixels of the picture.
        normalized_boxes: the same in 0..1 of its width and height.
        features: float32[n, F].
        object_ids: int32[n], classes without the background.
        object_scores: float32[n], their probabilities among the classes with the background.
        attribute_ids, attribute_scores: likewise, or None of a detector without attributes.
        object_names, attribute_names: of the ids, the first spelling; None where the detector does not know them.
        size: height and width of the picture, in pixels.
        intermediates: what else was asked for, by name: `pixels`, `feature_map`, `rpn_logits`, `rpn_deltas`,
            `proposals` in pixels of the resized picture and their `proposal_logits`; `features`, `class_logits`,
            `attribute_logits` and `box_deltas` of all proposals; `keep`, which of them the regions are of;
            `nms_threshold`, which left enough.
    """

    boxes: np.ndarray
    normalized_boxes: np.ndarray
    features: np.ndarray
    object_ids: np.ndarray
    object_scores: np.ndarray
    attribute_ids: np.ndarray | None
    attribute_scores: np.ndarray | None
    object_names: list[str] | None
    attribute_names: list[str] | None
    size: tuple[int, int]
    intermediates: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.boxes)

    def labels(self) -> list[str]:
        """What each region shows: "brown dog", or the number of its class where the detector knows no names."""
        objects = self.object_names or [f"object {number}" for number in self.object_ids]
        attributes = self.attribute_names or [""] * len(self)
        return [f"{attribute} {name}".strip() for attribute, name in zip(attributes, objects, strict=True)]

    @classmethod
    def of(
        cls,
        output: Mapping[str, Any],
        config: DetectorConfig,
        size: tuple[int, int],
        intermediates: Mapping[str, Any] | None = None,
    ) -> "Regions":
        """The regions that a detector's output arrays, by name, are."""
        values: dict[str, Any] = {name: output.get(name) for name in _ARRAYS}
        return cls(
            **values,
            object_names=_named(values["object_ids"], config.object_names),
            attribute_names=_named(values["attribute_ids"], config.attribute_names),
            size=size,
            intermediates=dict(intermediates or {}),
        )


_ARRAYS = (
    "boxes",
    "normalized_boxes",
    "features",
    "object_ids",
    "object_scores",
    "attribute_ids",
    "attribute_scores",
)


def _named(ids: np.ndarray | None, names: tuple[str, ...] | None) -> list[str] | None:
    return None if ids is None or names is None else [class_name(names, each) for each in ids]


def class_name(names: tuple[str, ...] | None, index: int, other: str = "") -> str:
    """The first spelling of a class's name; where it has none, its number after `other`, or nothing."""
    if names is not None and index < len(names):
        return names[index].split(",")[0]
    return f"{other}{index}" if other else ""


def check_boxes(boxes: Any, size: tuple[int, int], name: str) -> np.ndarray:
    """float32[n, 4] of the boxes given for a picture of this height and width.

    Raises:
        ValueError: they are not boxes inside the picture.
    """
    array = np.asarray(boxes, "float32")
    if array.ndim != 2 or array.shape[1] != 4 or not len(array):
        raise ValueError(f"The boxes of {name} must be numbers [n, 4] with n above 0, got {list(array.shape)}.")
    height, width = size
    inside = np.isfinite(array).all() and (array >= 0).all() and (array <= [width, height, width, height]).all()
    if not inside or not (array[:, :2] <= array[:, 2:]).all():
        raise ValueError(
            f"The boxes of {name} must be x1, y1, x2, y2 in pixels of the picture, x1 <= x2 <= {width} and "
            f"y1 <= y2 <= {height}."
        )
    return array


def check_found(regions: Regions, name: str) -> None:
    """BadImage if there are no regions in a picture of this name."""
    if not len(regions):
        height, width = regions.size
        raise BadImage(f"{name}, {width}x{height} pixels, has no boxes: the detector proposes none in it.")
