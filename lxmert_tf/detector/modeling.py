"""FasterRCNN: the bottom-up-attention detector, from pictures to regions with features."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import ops

from conversion.detector.formats import tensors_of
from conversion.detector.writers import write_detector
from conversion.models import assign_rows
from conversion.source import open_detector_source
from lxmert_tf.backend import compiled, in_order
from lxmert_tf.detector.boxes import box_dtype
from lxmert_tf.detector.configuration import STRIDE, DetectorConfig
from lxmert_tf.detector.image_processor import MAX_PIXELS, ImageProcessor, ProcessedImage, name_of
from lxmert_tf.detector.layers.heads import REGION_OUTPUTS, RoiHeads
from lxmert_tf.detector.layers.pooling import RoiPooling
from lxmert_tf.detector.layers.proposals import ProposalGenerator
from lxmert_tf.detector.layers.resnet import Backbone
from lxmert_tf.detector.pipelines import DEFAULT, Pipeline, make_pipeline
from lxmert_tf.detector.regions import Regions, check_boxes
from lxmert_tf.detector.selection import describe, normalized, propose, select, to_corners
from lxmert_tf.keras_private import set_value, without_values
from lxmert_tf.model_card import write_model_card

CHUNK = 16  # regions that go through the fifth stage at once: at full size, each of their maps takes 25 MB


@keras.saving.register_keras_serializable("lxmert_tf")
class FasterRCNN(keras.Model):
    """The bottom-up-attention detector: Faster R-CNN on a ResNet, with object and attribute classes of Visual Genome.

    Weights exist as soon as it is constructed.

    Args:
        config: sizes; the published detector's by default.
        dtype: a Keras dtype or dtype policy. Boxes and scores are computed in at least float32.

    Examples:
        >>> detector = FasterRCNN.from_pretrained("frcnn")
        >>> regions = detector.detect(["cat.jpg"])[0]
        >>> regions.features.shape, regions.boxes.shape
        ((36, 2048), (36, 4))

    Source: Anderson et al. 2018; Ren et al. 2015.
    """

    config_class = DetectorConfig

    def __init__(self, config: DetectorConfig | None = None, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.config = config or DetectorConfig()
        dtype = self.dtype_policy
        self.backbone = Backbone(self.config, name="backbone", dtype=dtype)
        self.proposal_generator = ProposalGenerator(self.config, name="proposal_generator", dtype=dtype)
        self.roi_heads = RoiHeads(self.config, name="roi_heads", dtype=dtype)
        self.cache = SimpleNamespace(programs={})  # a dict would be saved with the model
        self.build()

    def build(self, input_shape: Any = None) -> None:
        if not self.built:
            self.backbone.build()
            self.proposal_generator.build()
            self.roi_heads.build()

    def build_from_config(self, config: dict) -> None:
        """Nothing to do: the constructor has built the model."""

    # The network

    def call(self, pixels, size, picture_size, scales, boxes=None, pipeline: Pipeline | None = None) -> dict:
        """The regions of one picture, and all that they are made of.

        Args:
            pixels: float[H, W, 3], blue, green and red less the means, perhaps with padding at the bottom and right.
            size: int32[2], height and width without the padding.
            picture_size: int32[2], those of the picture before it was resized.
            scales: float[2], from the resized picture to the picture: down and across.
            boxes: float[n, 4], in pixels of the picture; in place of the network's own.
            pipeline: what to do with proposals. Default: the first one's, with the config's numbers.

        Returns:
            A dict of what `lxmert_tf.detector.regions.Regions` has, with its intermediates under "intermediates".
        """
        pipeline = pipeline or make_pipeline(config=self.config)
        found = self.find(pixels, size, scales, boxes, pipeline)
        return self.choose(found, size, picture_size, scales, boxes, pipeline)

    def find(self, pixels, size, scales, boxes, pipeline: Pipeline) -> dict:
        """All that the network says of a picture: its maps, and what is in its proposals or the boxes given.

        Arguments as of `call`; only the numbers of the pipeline that have to do with proposals matter.
        """
        feature_map = self.backbone(ops.expand_dims(pixels, 0))[0]
        found, dtype = {"feature_map": feature_map}, box_dtype(feature_map)
        if boxes is None:
            logits, deltas = (each[0] for each in self.proposal_generator(ops.expand_dims(feature_map, 0)))
            found |= {"rpn_logits": logits, "rpn_deltas": deltas}
            found |= propose(logits, deltas, size, scales, self.config, pipeline)
        else:
            found["proposals"] = ops.cast(boxes, dtype) / to_corners(scales, dtype)
        return found | self.describe_boxes(feature_map, found["proposals"], pipeline.longest_side)

    def choose(self, found: dict, size, picture_size, scales, boxes, pipeline: Pipeline) -> dict:
        """What `call` returns, of what `find` has found."""
        regions = {name: found[name] for name in ("proposals", *REGION_OUTPUTS) if name in found}
        if boxes is None:
            output = select(regions, size, picture_size, scales, self.config, pipeline)
            found = found | {name: output.pop(name) for name in ("keep", "nms_threshold")}
        else:
            output = {"boxes": ops.cast(boxes, box_dtype(found["proposals"])), **describe(regions, pipeline)}
        output["normalized_boxes"] = normalized(output["boxes"], picture_size)
        return {**output, "intermediates": found}

    def describe_boxes(self, feature_map, boxes, longest_side: int) -> dict:
        """What `RoiHeads` gives for boxes of one picture.

        Args:
            feature_map: float[H, W, C], of the backbone.
            boxes: float[R, 4], in pixels of the resized picture.
            longest_side: what no side of it is longer than, in pixels, where it is not known.
        """
        known = [size for size in feature_map.shape[:2] if size is not None]
        longest = max(-(-longest_side // STRIDE) + 1, *known, 1)
        pool = RoiPooling(feature_map, self.config.pooler_resolution, longest)
        return in_order(lambda some: self.roi_heads(pool(some)), boxes, CHUNK)

    # Pictures

    def detect(
        self,
        images: Any,
        pipeline: str | Pipeline = DEFAULT,
        min_boxes: int | None = None,
        max_boxes: int | None = None,
        boxes: Sequence[Any] | None = None,
        output_intermediates: bool = False,
        max_pixels: int = MAX_PIXELS,
        **settings: Any,
    ) -> list[Regions]:
        """The regions of pictures, one picture after the other, since padding would change their features.

        Args:
            images: one or several of what `ImageProcessor` takes.
            pipeline: one of `lxmert_tf.detector.pipelines.PIPELINES`, or a `Pipeline`.
            min_boxes, max_boxes, **settings: numbers in place of the pipeline's, as of `make_pipeline`.
            boxes: for each picture [n, 4], x1, y1, x2, y2 in its pixels: describes these instead of its own.
            output_intermediates: keep what the regions are made of.
            max_pixels: as of `ImageProcessor`.

        Returns:
            A list, one entry for each picture.

        Raises:
            FileNotFoundError, BadImage, TypeError: as `ImageProcessor`.
            ValueError: a number of the pipeline, or boxes that are not in the picture.
        """
        if not isinstance(pipeline, Pipeline):
            pipeline = make_pipeline(pipeline, self.config, min_boxes, max_boxes, **settings)
        processor = ImageProcessor(self.config, pipeline, max_pixels)
        images = list(images) if isinstance(images, list | tuple) else [images]
        if boxes is not None and len(boxes) != len(images):
            raise ValueError(f"There must be boxes for each picture, got {len(boxes)} for {len(images)}.")
        given = [None] * len(images) if boxes is None else list(boxes)
        return [
            self.detect_processed(processor(image), pipeline, each, output_intermediates, name_of(image))
            for image, each in zip(images, given, strict=True)
        ]

    def detect_processed(
        self,
        image: ProcessedImage,
        pipeline: Pipeline,
        boxes: Any = None,
        output_intermediates: bool = False,
        name: str = "the picture",
    ) -> Regions:
        """The regions of a picture that `ImageProcessor` has prepared; arguments as of `detect`."""
        size, scales = np.array(image.pixels.shape[:2], "int32"), np.array(image.scales, "float32")
        if boxes is not None:
            boxes = check_boxes(boxes, image.size, name)
        find, choose = self.programs(pipeline, boxes is not None)
        given = [] if boxes is None else [boxes]
        found = find(image.pixels, size, scales, *given)
        output = choose(found, size, np.array(image.size, "int32"), scales, *given)
        extra = output.pop("intermediates")
        if not output_intermediates:
            return Regions.of(arrays_of(output), self.config, image.size)
        return Regions.of(arrays_of(output), self.config, image.size, {"pixels": image.pixels, **arrays_of(extra)})

    def programs(self, pipeline: Pipeline, with_boxes: bool) -> tuple[Any, Any]:
        """`find` and `choose` with these choices, compiled once for pictures of all sizes.

        That takes seconds for the network; pipelines that propose the same share it.
        """
        kind = "caffe" if pipeline.is_caffe and not with_boxes else "huggingface"
        proposing = replace(pipeline, name=kind, nms=(), conf=0.0, min_boxes=0, max_boxes=0)
        if with_boxes:
            proposing = replace(proposing, rpn_min_size=0, pre_nms=0, post_nms=0, rpn_nms=0.0)
        signature = SIGNATURE if with_boxes else SIGNATURE[:-1]
        if (key := ("find", proposing, with_boxes)) not in self.cache.programs:

            def find(pixels, size, scales, boxes=None):
                return self.find(pixels, size, scales, boxes, proposing)

            self.cache.programs[key] = compiled(find, signature)
        if (choosing := ("choose", pipeline, with_boxes)) not in self.cache.programs:

            def choose(found, size, picture_size, scales, boxes=None):
                return self.choose(found, size, picture_size, scales, boxes, pipeline)

            read = (self.cache.programs[key], ((2,), "int32"), *signature[1:])
            self.cache.programs[choosing] = compiled(choose, read)
        return self.cache.programs[key], self.cache.programs[choosing]

    # Saving and loading

    @classmethod
    def from_pretrained(
        cls,
        source: Any,
        dtype: Any = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        config: DetectorConfig | None = None,
    ) -> "FasterRCNN":
        """A detector with the weights of a checkpoint of any format.

        Args:
            source: directory, file, or Hub id; or a model, a state dict or an opened checkpoint.
            dtype: a Keras dtype or dtype policy; Keras' default, not the file's.
            revision, cache_dir, local_files_only, token: for the Hub.
            config: in place of the checkpoint's own.

        Raises:
            FileNotFoundError: no such path or repository.
            ValueError: the checkpoint is damaged, of another network, or lacks tensors.
        """
        checkpoint = open_detector_source(
            source, config, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only, token=token
        )
        table = checkpoint.match().loaded
        with without_values(cls, checkpoint.config, dtype=dtype) as model:
            assign_rows(model, table, checkpoint.tensors, set_value)
        return model

    def save_pretrained(self, directory: str | os.PathLike, format: str = "keras", model_card: bool = True) -> None:
        """Writes the config, the weights, and README.md, a model card, unless there is one that was edited.

        Args:
            directory: made if missing.
            format: "keras" (model.weights.h5, config.json) or "hf-pt-bin" (pytorch_model.bin, config.yaml and the
                vocabularies). `conversion.convert.convert` writes the other formats.
            model_card: False to write none.
        """
        write_detector(Path(directory), tensors_of(self), self.config, format)
        if model_card:
            write_model_card(directory, "detector", ("keras", keras.backend.backend()))

    def get_config(self) -> dict:
        policy = keras.saving.serialize_keras_object(self.dtype_policy)
        return {"config": self.config.to_dict(), "name": self.name, "trainable": self.trainable, "dtype": policy}

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None) -> "FasterRCNN":
        config = dict(config)
        return cls(DetectorConfig.from_dict(config.pop("config")), **config)


# Of `find`: pixels, size, scales and boxes
SIGNATURE = (((None, None, 3), "float32"), ((2,), "int32"), ((2,), "float32"), ((None, 4), "float32"))


def arrays_of(output: dict) -> dict[str, np.ndarray]:
    """A dict of tensors as arrays, floats as float32 or float64."""
    arrays = {name: ops.convert_to_numpy(value) for name, value in output.items()}
    return {name: value.astype("float32") if value.dtype.kind == "V" else value for name, value in arrays.items()}
