"""Pipelines: the ways upstream's programs go from a picture to boxes with one network. Imports no framework.

| | caffe | detectron2 | detectron2-demo | huggingface |
|---|---|---|---|---|
| program | LXMERT's own extraction | airsplay's scripts | airsplay's notebooks | the demo in transformers |
| size | 600, at most 1000 | 600, at most 1000 | 800, at most 1333 | the config's |
| boxes | proposals | regressed | regressed | regressed |
| suppression | each class, on proposals | one class for each box | each class | one class for each box |
| order | best score falling, or of the proposals | class score falling | class score falling | class score falling |

The published LXMERT checkpoints are trained on features of the first. Two faults of the last program are not repeated:
it gives pictures that it reads from files to the network with red and blue swapped, and fails where no threshold leaves
`min_boxes`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from lxmert_tf.detector.configuration import DetectorConfig

DEFAULT = "caffe"
SETTINGS = ("min_size", "max_size", "rpn_min_size", "pre_nms", "post_nms", "rpn_nms", "nms", "conf")


@dataclass(frozen=True)
class Pipeline:
    """The numbers of a pipeline.

    Args:
        name: "caffe", "detectron2", "detectron2-demo" or "huggingface".
        min_size, max_size: pixels of the shorter side, and at most of the longer, that pictures are resized to.
        rpn_min_size: of proposals; in pixels of the picture ("caffe"), else above which the sides of a proposal are, in
            pixels of the resized one.
        pre_nms, post_nms: proposals before and after their suppression.
        rpn_nms: intersection over union from which ("caffe") or above which it suppresses.
        nms: the same of the last suppression; of several, the first that leaves `min_boxes` or else the last.
        conf: class score from which ("caffe") or above which ("detectron2-demo") a box counts; not used by the others.
        min_boxes, max_boxes: boxes of a picture; there are fewer where the proposals are fewer.
    """

    name: str
    min_size: int
    max_size: int
    rpn_min_size: float
    pre_nms: int
    post_nms: int
    rpn_nms: float
    nms: tuple[float, ...]
    conf: float
    min_boxes: int
    max_boxes: int

    @property
    def is_caffe(self) -> bool:
        """Whether pixels count from their edges: a box from x1 to x2 is x2 - x1 + 1 wide."""
        return self.name == "caffe"

    @property
    def longest_side(self) -> int:
        """What no side of a resized picture is longer than."""
        return max(self.min_size, self.max_size)


# What each pipeline does not take from the config. Thresholds are those that upstream's loops count up to.
_NUMBERS: dict[str, dict[str, Any]] = {
    "caffe": {"min_size": 600, "max_size": 1000, "rpn_min_size": 16, "nms": (0.3,), "min_boxes": 36, "max_boxes": 36},
    "detectron2": {
        "min_size": 600,
        "max_size": 1000,
        "nms": tuple(0.3 + 0.1 * step for step in range(7)),
        "min_boxes": 36,
        "max_boxes": 36,
    },
    "detectron2-demo": {
        "min_size": 800,
        "max_size": 1333,
        "nms": tuple(0.5 + 0.1 * step for step in range(5)),
        "min_boxes": 36,
        "max_boxes": 36,
    },
    "huggingface": {},
}
PIPELINES = tuple(_NUMBERS)


def make_pipeline(
    name: str = DEFAULT,
    config: DetectorConfig | None = None,
    min_boxes: int | None = None,
    max_boxes: int | None = None,
    **settings: Any,
) -> Pipeline:
    """A pipeline with the numbers of a detector.

    Args:
        name: one of `PIPELINES`.
        config: of the detector. Default: the published one's.
        min_boxes, max_boxes: in place of the pipeline's own. One given alone moves the other where they would cross.
        **settings: other numbers in place of its own, by the names in `SETTINGS`; `nms` may be one number or several.

    Raises:
        ValueError: naming what is wrong, what is expected and what was given.
    """
    if name not in _NUMBERS:
        raise ValueError(f"pipeline must be one of {', '.join(PIPELINES)}, got {name!r}.")
    if unknown := sorted(set(settings) - set(SETTINGS)):
        raise ValueError(
            f"A pipeline has no number {unknown[0]!r}; it has min_boxes, max_boxes, {', '.join(SETTINGS)}."
        )
    config = config or DetectorConfig()
    shared = {field.name: getattr(config, field.name, None) for field in fields(Pipeline)}
    own = {**shared, "conf": 0.2, "rpn_min_size": config.rpn_min_size, **_NUMBERS[name]}
    pipeline = replace(Pipeline(**{**own, "name": name}), **_checked(settings))
    low, high = _check_count("min_boxes", min_boxes), _check_count("max_boxes", max_boxes)
    if low is None:
        low = pipeline.min_boxes if high is None else min(pipeline.min_boxes, high)
    if high is None:
        high = max(pipeline.max_boxes, low)
    if high < max(low, 1):
        raise ValueError(f"max_boxes must be at least 1 and at least min_boxes={low}, got {high}.")
    if min_boxes is not None and low > pipeline.post_nms:
        raise ValueError(
            f"min_boxes must be at most {pipeline.post_nms}, since post_nms leaves only so many proposals, got {low}."
        )
    if pipeline.max_size < pipeline.min_size:
        raise ValueError(f"max_size must be at least min_size={pipeline.min_size}, got {pipeline.max_size}.")
    return replace(pipeline, min_boxes=low, max_boxes=high)


def _checked(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, each a number of its kind."""
    values = {}
    for name, value in settings.items():
        if name in ("min_size", "max_size", "pre_nms", "post_nms"):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
        elif name == "nms":
            value = tuple(value) if isinstance(value, list | tuple) else (value,)
            if not value or not all(_is_share(each) for each in value):
                raise ValueError(f"nms must be one or several numbers from 0 to 1, got {settings[name]!r}.")
        elif name == "rpn_min_size":
            if not _is_number(value) or value < 0:
                raise ValueError(f"{name} must be a number of at least 0, got {value!r}.")
        elif not _is_share(value) or (name == "conf" and value == 0):
            raise ValueError(
                f"{name} must be a number {'above 0' if name == 'conf' else 'from 0'} to 1, got {value!r}."
            )
        values[name] = value
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _check_count(name: str, value: int | None) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ValueError(f"{name} must be an integer of at least 0, got {value!r}.")
    return value
