"""Extractor: the detector as the region features of pictures are made with it, on one machine and on many."""

import os
from dataclasses import asdict, replace
from typing import Any

from conversion.source import open_detector_source
from lxmert_tf.data.features.regions import RegionFeatures, check_regions
from lxmert_tf.detector.image_processor import MAX_PIXELS, ImageProcessor, ProcessedImage
from lxmert_tf.detector.modeling import FasterRCNN
from lxmert_tf.detector.pipelines import DEFAULT, make_pipeline
from lxmert_tf.detector.regions import check_found
from lxmert_tf.files import sha256
from lxmert_tf.versions import installed

BOXES = 36  # of a picture, where nobody says how many
PRECISIONS = ("float32", "bfloat16")
PACKAGES = ("keras", "tensorflow", "numpy", "pillow")


class Extractor:
    """Region features of one picture after the other.

    Args:
        detector: a checkpoint: directory, file or Hub id.
        pipeline: one of `lxmert_tf.detector.pipelines.PIPELINES`.
        min_boxes, max_boxes: of a picture. Default: 36 each; one alone moves the other where they would cross.
        precision: what is computed in, "float32" or "bfloat16"; features are float32.
        max_pixels: as of `ImageProcessor`.
        settings: numbers in place of the pipeline's, as of `make_pipeline`.

    Attributes:
        has_labels: whether there are attributes, without which files hold no classes.
        options: all that decides what is computed, as JSON.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is no detector's, or an option is bad.
    """

    def __init__(
        self,
        detector: str | os.PathLike,
        pipeline: str = DEFAULT,
        min_boxes: int | None = None,
        max_boxes: int | None = None,
        precision: str = PRECISIONS[0],
        max_pixels: int = MAX_PIXELS,
        **settings: Any,
    ):
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")
        checkpoint = open_detector_source(detector)
        config = checkpoint.config
        self.pipeline = make_pipeline(pipeline, config, min_boxes, max_boxes, **settings)
        if min_boxes is max_boxes is None:
            self.pipeline = replace(self.pipeline, min_boxes=BOXES, max_boxes=BOXES)
        self.processor = ImageProcessor(config, self.pipeline, max_pixels)
        self.detector = FasterRCNN.from_pretrained(checkpoint, dtype=precision)
        self.has_labels = config.num_attributes > 0
        self.options: dict[str, Any] = {
            "detector": {"file": checkpoint.path.name, "sha256": sha256(checkpoint.path)},
            "pipeline": asdict(self.pipeline) | {"nms": list(self.pipeline.nms)},
            "precision": precision,
            "max_pixels": max_pixels,
        }

    def provenance(self) -> dict[str, Any]:
        """What a file of the features records of how they were made, as JSON."""
        return {**self.options, "versions": installed(PACKAGES)}

    def prepare(self, image: Any, name: str | None = None) -> ProcessedImage:
        """A picture as the network takes it, as of `ImageProcessor`; threads may do this ahead."""
        return self.processor(image, name)

    def describe(self, img_id: str, image: ProcessedImage, name: str, boxes: Any = None) -> RegionFeatures:
        """The region features of a picture.

        Args:
            img_id: the image's name.
            image: of `prepare`.
            name: what messages call it.
            boxes: float[n, 4], in pixels of the picture; these are described instead of the detector's own.

        Raises:
            ValueError: the boxes are not in the picture, or there are none.
        """
        regions = self.detector.detect_processed(image, self.pipeline, boxes, name=name)
        height, width = image.size
        check_found(regions, name)
        found = RegionFeatures(
            img_id=img_id,
            img_h=height,
            img_w=width,
            objects_id=regions.object_ids if self.has_labels else None,
            objects_conf=regions.object_scores if self.has_labels else None,
            attrs_id=regions.attribute_ids,
            attrs_conf=regions.attribute_scores,
            boxes=regions.boxes,
            features=regions.features,
        )
        try:
            check_regions(found)
        except ValueError as error:
            raise ValueError(f"{name}, image {img_id!r}: {error}.") from error
        return found
