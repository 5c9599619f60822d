"""What a question is asked about: a picture's boxes with their features and names, and its pixels."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lxmert_tf.data.features.store import FeatureStore, open_features
from lxmert_tf.detector.configuration import DetectorConfig
from lxmert_tf.detector.image_processor import MAX_PIXELS, read_image
from lxmert_tf.detector.regions import class_name

if TYPE_CHECKING:
    from lxmert_tf.detector import FasterRCNN

BLANK = (600, 800)  # height and width where a file tells neither


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture as LXMERT takes it and as people see it. N boxes, D feature dimension.

    Args:
        features: float32[N, D].
        boxes: float32[N, 4], x1, y1, x2, y2 in 0..1.
        names: what is in each box.
        pixels: uint8[h, w, 3], red, green and blue; white where the picture itself is not there.
    """

    features: np.ndarray
    boxes: np.ndarray
    names: list[str]
    pixels: np.ndarray


def from_photo(
    photo: str | os.PathLike,
    detector: "FasterRCNN | str",
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
    **settings: Any,
) -> Scene:
    """A picture's boxes as a detector finds them.

    Args:
        photo: the picture's file.
        detector: a detector, or its checkpoint of any format, or Hub id.
        max_pixels: more than these are refused before they are decoded.
        name: what messages call the picture. Default: its path.
        **settings: as of `FasterRCNN.detect`: the pipeline and its numbers.

    Raises:
        FileNotFoundError, ValueError: a file does not exist, or is no picture or no detector.
    """
    from lxmert_tf.detector import FasterRCNN

    pixels = read_image(photo, max_pixels, name)
    if isinstance(detector, str):
        detector = FasterRCNN.from_pretrained(detector)
    [found] = detector.detect([pixels], max_pixels=max_pixels, **settings)
    return Scene(found.features, found.normalized_boxes, found.labels(), pixels)


def from_features(
    features: FeatureStore | str,
    image: str,
    photo: str | os.PathLike | None = None,
    detector: DetectorConfig | str | None = None,
) -> Scene:
    """A picture's boxes as a file of region features has them.

    Args:
        features: the file, or its path.
        image: the picture's name in it.
        photo: the picture's file; without it boxes are drawn on white.
        detector: a detector's config, or directory, whose names of classes the boxes get.

    Raises:
        FileNotFoundError: a file does not exist.
        ValueError: there is no such image, or a file is no picture or no detector.
    """
    store = features if isinstance(features, FeatureStore) else open_features(features)
    read = {name: values[0] for name, values in store.read([image]).items()}
    config = DetectorConfig.from_pretrained(detector) if isinstance(detector, str) else detector or DetectorConfig()
    number = len(read["visual_feats"])
    names = [f"box {index}" for index in range(number)]
    if "objects_id" in read:
        objects = [class_name(config.object_names, index, "object ") for index in read["objects_id"]]
        attributes = [class_name(config.attribute_names, index) for index in read["attrs_id"]]
        names = [f"{attribute} {name}".strip() for attribute, name in zip(attributes, objects, strict=True)]
    blank = np.full((*(store.size(image) or BLANK), 3), 255, np.uint8)
    return Scene(read["visual_feats"], read["visual_pos"], names, blank if photo is None else read_image(photo))
