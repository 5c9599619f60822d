"""What two detectors compute of the same made-up picture, in both frameworks, in float64."""

import importlib.util
from typing import Any

import numpy as np

from conversion.detector.formats import DetectorCheckpoint

# The outputs in the order of computation, each with the block that computes it.
OUTPUTS = (
    ("backbone", "feature_map"),
    ("proposal_generator", "rpn_logits"),
    ("proposal_generator", "rpn_deltas"),
    ("roi_heads.res5", "features"),
    ("roi_heads.box_predictor", "class_logits"),
    ("roi_heads.box_predictor", "box_deltas"),
    ("roi_heads.box_predictor", "attribute_logits"),
)
HEIGHT, WIDTH = 70, 98  # of the picture: odd sizes of the maps
# What the network itself does not depend on
BESIDE_THE_NETWORK = (
    *("min_size", "max_size", "pre_nms", "post_nms", "rpn_nms", "rpn_min_size", "nms", "min_boxes", "max_boxes"),
    *("object_names", "attribute_names", "pixel_mean", "pixel_std"),
)


def example_pixels() -> np.ndarray:
    """float32[h, w, 3], the same at each call."""
    return np.random.default_rng(0).uniform(-120, 150, (HEIGHT, WIDTH, 3)).astype("float32")


def example_boxes() -> np.ndarray:
    """float64[n, 4], large and small boxes."""
    corners = [(0, 0, WIDTH, HEIGHT), (3, 7, 60, 50), (40, 20, 45, 60), (20.5, 30.25, 21, 31)]
    return np.array(corners, "float64")


def runners() -> dict[str, Any]:
    """Package -> what runs a checkpoint in it; only those that are installed."""
    available = {"lxmert_tf": run_in_keras}
    if importlib.util.find_spec("torch"):
        available["lxmert_pt"] = run_in_torch
    return available


def run_in_keras(checkpoint: DetectorCheckpoint) -> dict[str, np.ndarray]:
    """The outputs by name, maps as [H, W, C]."""
    import lxmert_tf.detector.modeling as package

    model = package.FasterRCNN.from_pretrained(checkpoint, dtype="float64")
    feature_map = model.backbone(example_pixels()[None])
    logits, deltas = model.proposal_generator(feature_map)
    regions = model.describe_boxes(feature_map[0], package.ops.convert_to_tensor(example_boxes()), WIDTH)
    maps = {"feature_map": feature_map[0], "rpn_logits": logits[0], "rpn_deltas": deltas[0]}
    return {name: package.ops.convert_to_numpy(value) for name, value in {**maps, **regions}.items()}


def run_in_torch(checkpoint: DetectorCheckpoint) -> dict[str, np.ndarray]:
    """The outputs by name, maps as [H, W, C]."""
    import torch

    from lxmert_pt.detector.modeling import FasterRCNN

    model = FasterRCNN.from_pretrained(checkpoint, dtype=torch.float64)
    with torch.no_grad():
        pixels = torch.from_numpy(example_pixels()).double().permute(2, 0, 1)[None]
        feature_map = model.backbone(pixels)
        logits, deltas = model.proposal_generator(feature_map)
        regions = model.describe_boxes(feature_map[0], torch.from_numpy(example_boxes()))
    maps = {"feature_map": feature_map[0], "rpn_logits": logits[0], "rpn_deltas": deltas[0]}
    arrays = {name: value.permute(1, 2, 0).numpy() for name, value in maps.items()}
    return {**arrays, **{name: value.numpy() for name, value in regions.items()}}
