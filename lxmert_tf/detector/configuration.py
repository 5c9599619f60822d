"""DetectorConfig: every size and number of the detector, from its own JSON and from each lineage's config.yaml.

Imports no framework.
"""

import json
import math
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from lxmert_tf.files import read_json, write_text

CONFIG_NAME, YAML_NAME = "config.json", "config.yaml"
VOCABULARIES = {"object_names": "objects_vocab.txt", "attribute_names": "attributes_vocab.txt"}
MODEL_TYPE = "faster_rcnn"

# Bottlenecks of res2, res3, res4 and res5.
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STRIDE = 16  # pixels of the network's input in a cell of its feature map
MEAN = (102.9801, 115.9465, 122.7717)  # of blue, green and red, in 0..255

_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "size": ("an integer of at least 1", lambda v: _is_int(v) and v >= 1),
    "count": ("an integer of at least 0", lambda v: _is_int(v) and v >= 0),
    "depth": (f"one of {', '.join(map(str, DEPTHS))}", lambda v: _is_int(v) and v in DEPTHS),
    "switch": ("true or false", lambda v: isinstance(v, bool)),
    "share": ("a number from 0 to 1", lambda v: _is_number(v) and 0 <= v <= 1),
    "nonnegative": ("a number of at least 0", lambda v: _is_number(v) and v >= 0),
    "shares": ("numbers from 0 to 1", lambda v: _are(v, lambda each: 0 <= each <= 1)),
    "positives": ("numbers above 0", lambda v: _are(v, lambda each: each > 0)),
    "weights": ("4 numbers above 0", lambda v: _are(v, lambda each: each > 0) and len(v) == 4),
    "colours": ("3 numbers, of blue, green and red", lambda v: _are(v, math.isfinite) and len(v) == 3),
    "names": ("a list of names, or null", lambda v: v is None or all(isinstance(name, str) for name in v)),
}


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _are(values: Any, holds: Callable[[float], bool]) -> bool:
    return isinstance(values, tuple) and len(values) > 0 and all(_is_number(v) and holds(v) for v in values)


@dataclass(frozen=True)
class DetectorConfig:
    """Configuration of the bottom-up-attention detector: a Faster R-CNN on ResNet's fourth stage, for Visual Genome.

    Args:
        depth: of the ResNet: 50, 101 or 152.
        stem_out_channels, res2_out_channels: channels after the stem and the first stage; each stage doubles them.
        width_per_group: inner channels of the first stage's bottlenecks, likewise doubled.
        caffe_max_pool: the stem pools without padding and in ceil mode, as Caffe does; else with a padding of 1.
        rpn_hidden_channels: of the region proposal network.
        anchor_sizes: sides of square anchors, in pixels of the network's input.
        anchor_ratios: height over width.
        anchor_offset: of the anchors' centres, in cells.
        num_classes: object classes, without background.
        num_attributes: attribute classes, without background; 0 for a detector without the attribute head.
        class_embedding_size, attribute_hidden_size: of the attribute head. Default: an 8th and a 4th of the features.
        pooler_resolution: side of a pooled region, in bins.
        class_agnostic_boxes: one regressed box for all classes instead of one for each.
        box_weights, rpn_box_weights: what regressed offsets (x, y, width, height) are divided by.
        pixel_mean, pixel_std: of blue, green and red, in 0..255.
        min_size, max_size: of the Hugging Face pipeline, in pixels: of the shorter side, and at most of the longer.
        pre_nms, post_nms: proposals before and after the suppression of the region proposal network.
        rpn_nms: intersection over union above which it suppresses.
        rpn_min_size: sides above which the Hugging Face and detectron2 pipelines keep proposals, in pixels.
        nms: of the Hugging Face pipeline: thresholds that are tried until there are `min_boxes`.
        min_boxes, max_boxes: of the Hugging Face pipeline.
        object_names, attribute_names: of the classes, if they are known; several spellings with commas between them.

    Raises:
        ValueError: naming the field, its rule and its value.

    Source: Anderson et al. 2018, section 3.1, and their published configuration.
    """

    depth: int = 101
    stem_out_channels: int = 64
    res2_out_channels: int = 256
    width_per_group: int = 64
    caffe_max_pool: bool = True
    rpn_hidden_channels: int = 512
    anchor_sizes: tuple[float, ...] = (64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    anchor_offset: float = 0.0
    num_classes: int = 1600
    num_attributes: int = 400
    class_embedding_size: int = 0
    attribute_hidden_size: int = 0
    pooler_resolution: int = 14
    class_agnostic_boxes: bool = False
    box_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0)
    rpn_box_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0)
    pixel_mean: tuple[float, ...] = MEAN
    pixel_std: tuple[float, ...] = (1.0, 1.0, 1.0)
    min_size: int = 800
    max_size: int = 1333
    pre_nms: int = 6000
    post_nms: int = 300
    rpn_nms: float = 0.7
    rpn_min_size: float = 0
    nms: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9)
    min_boxes: int = 36
    max_boxes: int = 36
    object_names: tuple[str, ...] | None = None
    attribute_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        for field in fields(self):
            _check(field.name, getattr(self, field.name), _FIELD_RULES[field.name])
        object.__setattr__(self, "class_embedding_size", self.class_embedding_size or self.feature_size // 8)
        object.__setattr__(self, "attribute_hidden_size", self.attribute_hidden_size or self.feature_size // 4)
        if self.max_size < self.min_size:
            raise ValueError(f"max_size must be at least min_size={self.min_size}, got {self.max_size}.")
        if self.max_boxes < self.min_boxes:
            raise ValueError(f"max_boxes must be at least min_boxes={self.min_boxes}, got {self.max_boxes}.")
        for name, count in (("object_names", self.num_classes), ("attribute_names", self.num_attributes)):
            names = getattr(self, name)
            if names is not None and len(names) != count:
                raise ValueError(f"{name} must name {count} classes, got {len(names)}.")

    # What follows from the fields

    @property
    def blocks(self) -> tuple[int, ...]:
        """Bottlenecks of res2, res3, res4 and res5."""
        return DEPTHS[self.depth]

    def stage_channels(self, stage: int) -> tuple[int, int]:
        """Inner and outer channels of the bottlenecks of a stage, 2 to 5."""
        return self.width_per_group << (stage - 2), self.res2_out_channels << (stage - 2)

    @property
    def feature_size(self) -> int:
        """Width of a region's features."""
        return self.stage_channels(5)[1]

    @property
    def num_anchors(self) -> int:
        """Anchors in each cell of the feature map."""
        return len(self.anchor_sizes) * len(self.anchor_ratios)

    @property
    def num_box_classes(self) -> int:
        """Boxes that are regressed for each region."""
        return 1 if self.class_agnostic_boxes else self.num_classes

    # Reading

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> "DetectorConfig":
        """A config from a dict such as a parsed config.json; `overrides` win over it.

        Raises:
            TypeError, ValueError: it is none of a detector, has a field that there is not, or breaks a rule.
        """
        if not isinstance(values, Mapping):
            raise TypeError(f"A detector's config must be a JSON object, got {type(values).__name__}.")
        values = {**values, **overrides}
        model_type = values.pop("model_type", MODEL_TYPE)
        if model_type != MODEL_TYPE:
            raise ValueError(
                f"model_type must be {MODEL_TYPE!r}, got {reprlib.repr(model_type)}: the config is of another model."
            )
        known = {field.name for field in fields(cls)}
        if unknown := sorted(map(str, set(values) - known)):
            raise ValueError(f"A detector's config has no field {unknown[0]!r}; it has {', '.join(sorted(known))}.")
        return cls(**values)

    @classmethod
    def from_file(cls, path: str | os.PathLike, **overrides: Any) -> "DetectorConfig":
        """A config from a config.json of ours or a config.yaml of Hugging Face or detectron2, with vocabularies beside.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it cannot be parsed, or breaks a rule; the message names the file.
        """
        path = Path(path)
        try:
            values = read_json(path) if path.suffix == ".json" else _from_yaml(path.read_text(encoding="utf-8"))
            if isinstance(values, Mapping):
                values = {**values, **_vocabularies_beside(path, values)}
            return cls.from_dict(values, **overrides)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike, **overrides: Any) -> "DetectorConfig":
        """A config from a directory with a config.json or a config.yaml, or from such a file.

        Raises:
            FileNotFoundError: there is no such file, or none in the directory.
            ValueError: as `from_file`.
        """
        path = Path(source)
        found = find_config(path) if path.is_dir() else path
        if found is None:
            raise FileNotFoundError(f"{path} has neither {CONFIG_NAME} nor {YAML_NAME}.")
        return cls.from_file(found, **overrides)

    # Writing

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain JSON values; names only where they are known."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"model_type": MODEL_TYPE, **{name: value for name, value in plain.items() if value is not None}}

    def to_json_string(self) -> str:
        """The text of a config.json."""
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_yaml_string(self) -> str:
        """The text of a config.yaml that Hugging Face's code reads; names are in files of their own there."""
        import yaml

        tree: dict[str, Any] = {}
        for path, value in (*_HF_CONSTANTS.items(), *((path, getattr(self, f)) for f, (path, _) in _YAML.items())):
            *parents, last = path.split(".")
            place = tree
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = list(value) if isinstance(value, tuple) else value
        tree["anchor_generator"]["sizes"] = [tree["anchor_generator"]["sizes"]]
        tree["anchor_generator"]["aspect_ratios"] = [tree["anchor_generator"]["aspect_ratios"]]
        tree["roi_box_head"]["attr"] = self.num_attributes > 0
        return yaml.safe_dump(tree, sort_keys=False)

    def save_pretrained(self, directory: str | os.PathLike) -> None:
        """Writes `directory`/config.json, whole or not at all."""
        write_text(Path(directory) / CONFIG_NAME, self.to_json_string())

    def with_sizes(self, **values: Any) -> "DetectorConfig":
        """The same with other values of some fields."""
        return replace(self, **values)


def find_config(directory: Path) -> Path | None:
    """The config of a detector's directory, or None."""
    return next((path for name in (CONFIG_NAME, YAML_NAME) if (path := directory / name).is_file()), None)


def read_names(path: str | os.PathLike) -> tuple[str, ...]:
    """The classes of a vocabulary: one in a line."""
    return tuple(Path(path).read_text(encoding="utf-8").splitlines())


# Field -> its place in Hugging Face's config.yaml, and in detectron2's.
_YAML = {
    "depth": ("resnets.depth", "MODEL.RESNETS.DEPTH"),
    "stem_out_channels": ("resnets.stem_out_channels", "MODEL.RESNETS.STEM_OUT_CHANNELS"),
    "res2_out_channels": ("resnets.res2_out_channels", "MODEL.RESNETS.RES2_OUT_CHANNELS"),
    "width_per_group": ("resnets.width_per_group", "MODEL.RESNETS.WIDTH_PER_GROUP"),
    "caffe_max_pool": ("model.max_pool", "MODEL.CAFFE_MAXPOOL"),
    "rpn_hidden_channels": ("proposal_generator.hidden_channels", "MODEL.PROPOSAL_GENERATOR.HID_CHANNELS"),
    "anchor_sizes": ("anchor_generator.sizes", "MODEL.ANCHOR_GENERATOR.SIZES"),
    "anchor_ratios": ("anchor_generator.aspect_ratios", "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"),
    "anchor_offset": ("anchor_generator.offset", "MODEL.ANCHOR_GENERATOR.OFFSET"),
    "num_classes": ("roi_heads.num_classes", "MODEL.ROI_HEADS.NUM_CLASSES"),
    "num_attributes": ("roi_box_head.num_attrs", "MODEL.ROI_BOX_HEAD.NUM_ATTRS"),
    "pooler_resolution": ("roi_box_head.pooler_resolution", "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION"),
    "class_agnostic_boxes": ("roi_box_head.cls_agnostic_bbox_reg", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG"),
    "box_weights": ("roi_box_head.bbox_reg_weights", "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"),
    "rpn_box_weights": ("rpn.bbox_reg_weights", "MODEL.RPN.BBOX_REG_WEIGHTS"),
    "pixel_mean": ("model.pixel_mean", "MODEL.PIXEL_MEAN"),
    "pixel_std": ("model.pixel_std", "MODEL.PIXEL_STD"),
    "min_size": ("input.min_size_test", "INPUT.MIN_SIZE_TEST"),
    "max_size": ("input.max_size_test", "INPUT.MAX_SIZE_TEST"),
    "pre_nms": ("rpn.pre_nms_topk_test", "MODEL.RPN.PRE_NMS_TOPK_TEST"),
    "post_nms": ("rpn.post_nms_topk_test", "MODEL.RPN.POST_NMS_TOPK_TEST"),
    "rpn_nms": ("rpn.nms_thresh", "MODEL.RPN.NMS_THRESH"),
    "rpn_min_size": ("proposal_generator.min_size", "MODEL.PROPOSAL_GENERATOR.MIN_SIZE"),
    "nms": ("roi_heads.nms_thresh_test", "MODEL.ROI_HEADS.NMS_THRESH_TEST"),
    "min_boxes": ("min_detections", ""),
    "max_boxes": ("max_detections", ""),
}
# What this architecture leaves no choice in: its value, and its places in both files.
_FIXED = {
    ("resnets.num_groups", "MODEL.RESNETS.NUM_GROUPS"): 1,
    ("resnets.stride_in_1x1", "MODEL.RESNETS.STRIDE_IN_1X1"): True,
    ("roi_box_head.res5halve", "MODEL.ROI_BOX_HEAD.RES5HALVE"): False,
    ("size_divisibility", ""): 0,
}
# What Hugging Face's code looks up and nothing here depends on.
_HF_CONSTANTS: dict[str, Any] = {
    "model.load_proposals": False,
    "model.device": "cpu",
    "model.chkpoint": "",
    "input.format": "BGR",
    "size_divisibility": 0,
    "pad_value": 0,
    "backbone.freeze_at": 2,
    "resnets.num_groups": 1,
    "resnets.norm": "BN",
    "resnets.stride_in_1x1": True,
    "resnets.res5_dilation": 1,
    "resnets.out_features": ["res4"],
    "rpn.in_features": ["res4"],
    "rpn.pre_nms_topk_train": 12000,
    "rpn.post_nms_topk_train": 2000,
    "rpn.batch_size_per_image": 256,
    "rpn.positive_fraction": 0.5,
    "rpn.smooth_l1_beta": 0.0,
    "rpn.loss_weight": 1.0,
    "rpn.boundary_thresh": -1,
    "rpn.iou_thresholds": [0.3, 0.7],
    "rpn.iou_labels": [0, -1, 1],
    "roi_heads.in_features": ["res4"],
    "roi_heads.score_thresh_test": 0.2,
    "roi_heads.positive_fraction": 0.25,
    "roi_heads.proposal_append_gt": True,
    "roi_heads.iou_thresholds": [0.5],
    "roi_heads.iou_labels": [0, 1],
    "roi_box_head.pooler_sampling_ratio": 0,
    "roi_box_head.res5halve": False,
    "roi_box_head.smooth_l1_beta": 0.0,
}


def _from_yaml(text: str) -> dict[str, Any]:
    """The fields that a config.yaml of either lineage gives."""
    import yaml

    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"it is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(tree, dict):
        raise ValueError("it must hold sections of settings, as a detector's config.yaml does")
    side = 1 if "MODEL" in tree else 0
    for places, expected in _FIXED.items():
        given = _value_at(tree, places[side])
        if given is not None and given != expected:
            raise ValueError(f"{places[side]} must be {expected}, got {given!r}: that is another network")
    found = {field: _value_at(tree, places[side]) for field, places in _YAML.items()}
    values = {field: value for field, value in found.items() if value is not None}
    if not values:
        raise ValueError("it has none of a detector's settings")
    for field in ("anchor_sizes", "anchor_ratios"):
        if isinstance(values.get(field), list) and len(values[field]) == 1 and isinstance(values[field][0], list):
            values[field] = values[field][0]
    if "nms" in values and _is_number(values["nms"]):
        values["nms"] = [values["nms"]]
    if _value_at(tree, ("roi_box_head.attr", "MODEL.ROI_BOX_HEAD.ATTR")[side]) is False:
        values["num_attributes"] = 0
    return values


def _value_at(tree: Any, path: str) -> Any:
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def _vocabularies_beside(path: Path, values: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """The names of the vocabularies beside a config that gives none."""
    files = {field: path.with_name(name) for field, name in VOCABULARIES.items() if values.get(field) is None}
    return {field: read_names(file) for field, file in files.items() if file.is_file()}


_FIELD_RULES = {
    **dict.fromkeys(
        ("stem_out_channels", "res2_out_channels", "width_per_group", "rpn_hidden_channels", "num_classes"), "size"
    ),
    **dict.fromkeys(("pooler_resolution", "min_size", "max_size", "pre_nms", "post_nms", "max_boxes"), "size"),
    **dict.fromkeys(("num_attributes", "class_embedding_size", "attribute_hidden_size", "min_boxes"), "count"),
    **dict.fromkeys(("caffe_max_pool", "class_agnostic_boxes"), "switch"),
    **dict.fromkeys(("anchor_sizes", "anchor_ratios"), "positives"),
    **dict.fromkeys(("anchor_offset", "rpn_nms"), "share"),
    **dict.fromkeys(("box_weights", "rpn_box_weights"), "weights"),
    **dict.fromkeys(("object_names", "attribute_names"), "names"),
    "depth": "depth",
    "pixel_mean": "colours",
    "pixel_std": "positives",
    "rpn_min_size": "nonnegative",
    "nms": "shares",
}


def _check(name: str, value: Any, rule: str) -> None:
    description, holds = _RULES[rule]
    if not holds(value):
        raise ValueError(f"{name} must be {description}, got {reprlib.repr(value)}.")
