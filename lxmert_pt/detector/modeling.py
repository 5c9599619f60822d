"""FasterRCNN: the bottom-up-attention detector, from pictures to regions with features."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from conversion.detector.names import rows
from conversion.detector.writers import write_detector
from conversion.source import open_detector_source
from conversion.tensors import from_torch, to_torch
from lxmert_pt.detector.boxes import box_dtype
from lxmert_pt.detector.layers.heads import RoiHeads
from lxmert_pt.detector.layers.pooling import RoiPooling
from lxmert_pt.detector.layers.proposals import ProposalGenerator
from lxmert_pt.detector.layers.resnet import Backbone
from lxmert_pt.detector.selection import describe, normalized, propose, select, to_corners
from lxmert_tf.detector.configuration import DetectorConfig
from lxmert_tf.detector.image_processor import MAX_PIXELS, ImageProcessor, ProcessedImage, name_of
from lxmert_tf.detector.pipelines import DEFAULT, Pipeline, make_pipeline
from lxmert_tf.detector.regions import Regions, check_boxes
from lxmert_tf.model_card import write_model_card

CHUNK = 16  # regions that go through the fifth stage at once: at full size, each of their maps takes 25 MB


class FasterRCNN(nn.Module):
    """The bottom-up-attention detector: Faster R-CNN on a ResNet, with object and attribute classes of Visual Genome.

    Args:
        config: sizes; the published detector's by default.

    Source: Anderson et al. 2018; Ren et al. 2015.
    """

    config_class = DetectorConfig

    def __init__(self, config: DetectorConfig | None = None):
        super().__init__()
        self.config = config or DetectorConfig()
        self.backbone = Backbone(self.config)
        self.proposal_generator = ProposalGenerator(self.config)
        self.roi_heads = RoiHeads(self.config)

    # The network

    def forward(
        self,
        pixels: torch.Tensor,
        size: tuple[int, int],
        picture_size: tuple[int, int],
        scales: tuple[float, float],
        boxes: torch.Tensor | None = None,
        pipeline: Pipeline | None = None,
    ) -> dict[str, Any]:
        """The regions of one picture, and all that they are made of.

        Args:
            pixels: float[H, W, 3], blue, green and red less the means, perhaps with padding at the bottom and right.
            size: height and width without the padding.
            picture_size: those of the picture before it was resized.
            scales: from the resized picture to the picture: down and across.
            boxes: float[n, 4], in pixels of the picture; in place of the network's own.
            pipeline: what to do with proposals. Default: the first one's, with the config's numbers.

        Returns:
            A dict of what `lxmert_tf.detector.regions.Regions` has, with its intermediates under "intermediates"; maps
            are float[C, H, W].
        """
        pipeline = pipeline or make_pipeline(config=self.config)
        feature_map = self.backbone(pixels.permute(2, 0, 1)[None].to(self.dtype))
        found = {"feature_map": feature_map[0]}
        if boxes is None:
            logits, deltas = (each[0] for each in self.proposal_generator(feature_map))
            found |= {"rpn_logits": logits, "rpn_deltas": deltas}
            found |= propose(logits, deltas, size, scales, self.config, pipeline)
        else:
            found["proposals"] = boxes.to(box_dtype(feature_map)) / to_corners(scales, boxes)
        described = self.describe_boxes(feature_map[0], found["proposals"])
        regions = {"proposals": found["proposals"], **described}
        if boxes is None:
            output = select(regions, size, picture_size, scales, self.config, pipeline)
            found |= {name: output.pop(name) for name in ("keep", "nms_threshold")}
        else:
            output = {"boxes": boxes, **describe(regions, pipeline)}
        output["normalized_boxes"] = normalized(output["boxes"], picture_size)
        return {**output, "intermediates": {**found, **described}}

    @property
    def dtype(self) -> torch.dtype:
        """The dtype the model computes in."""
        return self.backbone.stem.conv1.weight.dtype

    def describe_boxes(self, feature_map: torch.Tensor, boxes: torch.Tensor) -> dict[str, torch.Tensor]:
        """What `RoiHeads` gives for boxes float[R, 4], in pixels of the resized picture, of a map float[C, H, W]."""
        pool = RoiPooling(feature_map, self.config.pooler_resolution)
        parts = [self.roi_heads(pool(some)) for some in boxes.split(CHUNK)]
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    # Pictures

    @torch.no_grad()
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
        """The regions of pictures; as that of `lxmert_tf.detector.FasterRCNN`."""
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

    @torch.no_grad()
    def detect_processed(
        self,
        image: ProcessedImage,
        pipeline: Pipeline,
        boxes: Any = None,
        output_intermediates: bool = False,
        name: str = "the picture",
    ) -> Regions:
        """The regions of a picture that `ImageProcessor` has prepared; arguments as of `detect`."""
        given = None if boxes is None else torch.from_numpy(check_boxes(boxes, image.size, name))
        height, width = image.pixels.shape[:2]
        pixels = torch.from_numpy(image.pixels)
        output = self(pixels, (height, width), image.size, image.scales, given, pipeline)
        maps = {name: from_torch(value) for name, value in output.pop("intermediates").items()}
        regions = {name: from_torch(value) for name, value in output.items()}
        for each in ("feature_map", "rpn_logits", "rpn_deltas"):
            if each in maps:
                maps[each] = maps[each].transpose(1, 2, 0)
        extra = {"pixels": image.pixels, **maps} if output_intermediates else None
        return Regions.of(regions, self.config, image.size, extra)

    # Saving and loading

    @classmethod
    def from_pretrained(
        cls,
        source: Any,
        dtype: torch.dtype | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        config: DetectorConfig | None = None,
    ) -> "FasterRCNN":
        """A detector in evaluation mode with the weights of a checkpoint of any format.

        Args:
            source: directory, file, or Hub id; or a model, a state dict or an opened checkpoint.
            dtype: of the weights; PyTorch's default, not the file's.
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
        model = cls(checkpoint.config).to(dtype or torch.get_default_dtype())
        state = model.state_dict()
        for row in table:
            state[row.torch].copy_(to_torch(np.asarray(checkpoint.tensors[row.torch])))
        return model.eval()

    def save_pretrained(self, directory: str | os.PathLike, format: str = "hf-pt-bin", model_card: bool = True) -> None:
        """Writes the config, the weights, and README.md, a model card, unless there is one that was edited.

        Args:
            directory: made if missing.
            format: "hf-pt-bin" (pytorch_model.bin, config.yaml and the vocabularies) or "keras" (model.weights.h5,
                config.json). `conversion.convert.convert` writes the other formats.
            model_card: False to write none.
        """
        state = self.state_dict()
        tensors = {row.torch: from_torch(state[row.torch]) for row in rows(self.config)}
        write_detector(Path(directory), tensors, self.config, format)
        if model_card:
            write_model_card(directory, "detector", ("torch",))
