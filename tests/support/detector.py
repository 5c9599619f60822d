"""Golden files of the detector, and the comparison with them. Imports no framework."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from support.golden import GOLDEN, assert_close

from lxmert_tf.detector import DetectorConfig, Pipeline, Regions, make_pipeline
from lxmert_tf.detector.configuration import DEPTHS, MEAN

DETECTOR = GOLDEN / "detector"
HF = DETECTOR / "seed1" / "hf"
IMAGES = [DETECTOR / "seed1" / "images" / f"image{i}.png" for i in ("0_97x143", "1_151x88", "2_53x311", "3_240x301")]

SMALL = {"min_size": 112, "max_size": 224}
# Golden file and case -> the pipeline and its numbers
CASES: dict[tuple[str, str], dict[str, Any]] = {
    ("hf", "fixed"): {"pipeline": "huggingface"},
    ("hf", "range"): {"pipeline": "huggingface", "min_boxes": 3, "max_boxes": 20, "nms": 0.4},
    ("hf", "all"): {"pipeline": "huggingface", "min_boxes": 0, "max_boxes": 1000, "nms": 0.6},
    ("d2", "maxnms"): {"pipeline": "detectron2", "min_boxes": 8, "max_boxes": 8, **SMALL},
    ("d2", "classnms"): {"pipeline": "detectron2-demo", "min_boxes": 8, "max_boxes": 8, **SMALL},
    ("caffe", "fixed"): {"pipeline": "caffe", "min_boxes": 8, "max_boxes": 8, "rpn_min_size": 8, **SMALL},
    ("caffe", "range"): {"pipeline": "caffe", "min_boxes": 3, "max_boxes": 20, "rpn_min_size": 8, **SMALL},
}
# The network is a hundred layers deep: the golden float32 results are off from float64 ones by up to 2.5e-5 in maps and
# features, 7e-5 in logits, 4e-5 in probabilities and 3.2e-3 pixels, and ours may be by as much.
DEEP32, LOGITS32, SCORES32, PIXEL = 5e-5, 1.5e-4, 1e-4, 5e-3
PIXELS = {"preprocessed": 1e-3 * 255, "blob": 1e-4 * 255, "resized_uint8_bgr": 0}
MAPS = {"res4": "feature_map", "rpn_logits": "rpn_logits", "rpn_deltas": "rpn_deltas"}
ROWS = {
    "proposals": "proposals",
    "rois": "proposals",
    "proposal_logits": "proposal_logits",
    "features": "features",
    "class_logits": "class_logits",
    "attr_logits": "attribute_logits",
    "box_deltas": "box_deltas",
}
SCORES = {"obj_probs": "object_scores", "attr_probs": "attribute_scores"}

DEPTHS[10] = (1, 1, 1, 1)  # no ResNet that anyone trains, but it takes a fifth of the time to compile
# Of `tiny_detector`, whose pictures have fewer boxes than the most and more than the least
TINY = {"min_size": 64, "max_size": 128, "min_boxes": 3, "max_boxes": 8}
TINY_CONFIG = DetectorConfig(
    depth=10,
    stem_out_channels=4,
    res2_out_channels=8,
    width_per_group=2,
    rpn_hidden_channels=8,
    anchor_sizes=(32, 64, 96),
    num_classes=5,
    num_attributes=3,
    pooler_resolution=7,
    pre_nms=60,
    post_nms=12,
    object_names=("cat", "dog,puppy", "table", "sky", "cup"),
    attribute_names=("red", "round", "old"),
    **TINY,
)


@cache
def tiny_detector() -> Any:
    """A `FasterRCNN` that is computed in no time; features of 64, whose sizes and differences are about 1."""
    from lxmert_tf.detector import FasterRCNN

    detector, rng = FasterRCNN(TINY_CONFIG), np.random.default_rng(1)
    scales = {"cls_score": 0.1, "attr_score": 0.1, "fc_attr": 0.5, "bbox_pred": 0.02, "rpn_head": 0.1}
    for weight in detector.weights:
        if weight.path.endswith(("kernel", "embeddings")):
            inputs = np.prod(weight.shape[:-1])
            scale = next((scale for name, scale in scales.items() if name in weight.path), (2 / inputs) ** 0.5)
            weight.assign(scale * rng.standard_normal(weight.shape))
        elif weight.path.endswith("conv3/norm/gamma"):
            weight.assign(0.3 * weight)
        elif weight.path.endswith("conv1/norm/gamma") and "stem" in weight.path:
            weight.assign(0.02 * weight)
    return detector


def pipeline_of(lineage: str, case: str, config: DetectorConfig) -> Pipeline:
    """The pipeline of a golden case."""
    settings = dict(CASES[lineage, case])
    return make_pipeline(settings.pop("pipeline"), config, **settings)


@cache
def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of seed1/expected_`name`.npz, or of units.npz."""
    path = DETECTOR / "units.npz" if name == "units" else DETECTOR / "seed1" / f"expected_{name}.npz"
    with np.load(path) as arrays:
        return dict(arrays)


def golden_pixels(image: int) -> np.ndarray:
    """float32[h, w, 3], a picture as upstream's code gave it to the network."""
    return np.ascontiguousarray(golden("hf")[f"image{image}/preprocessed"].transpose(1, 2, 0))


def assert_regions(regions: Regions, lineage: str, case: str, image: int) -> None:
    """Asserts that regions and all their intermediates are the golden ones."""
    arrays, found, prefix = golden(lineage), regions.intermediates, f"image{image}/"
    expected = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    chosen = {name.removeprefix(f"{case}/"): value for name, value in expected.items() if name.startswith(f"{case}/")}
    np.testing.assert_array_equal(found["keep"], chosen["keep"])
    np.testing.assert_array_equal(regions.object_ids, chosen["obj_ids"])
    np.testing.assert_array_equal(regions.attribute_ids, chosen["attr_ids"])
    np.testing.assert_allclose(regions.boxes, chosen["boxes"], rtol=0, atol=PIXEL)
    if "nms_thresh" in chosen:
        assert found["nms_threshold"] == np.float32(chosen["nms_thresh"])
    height, width = regions.size
    sides = np.array([width, height, width, height])
    pixels = regions.normalized_boxes * sides, chosen["normalized_boxes"] * sides
    np.testing.assert_allclose(*pixels, rtol=0, atol=PIXEL)
    for name, ours in SCORES.items():
        assert_close(getattr(regions, ours), chosen[name], SCORES32, name)
    if "roi_features" in chosen:
        assert_close(regions.features, chosen["roi_features"], DEEP32, "roi_features")
    for name, tolerance in PIXELS.items():
        if name in expected:
            theirs = expected[name] - np.float32(MEAN) if "uint8" in name else expected[name].transpose(1, 2, 0)
            np.testing.assert_allclose(found["pixels"], theirs, rtol=0, atol=tolerance)
    for name, ours in MAPS.items():
        if name in expected:
            assert_close(found[ours].transpose(2, 0, 1), expected[name], DEEP32, name)
    order = same_order(found["proposals"], expected.get("proposals", expected.get("rois")))
    for name, ours in ROWS.items():
        if name in expected:
            assert_close(found[ours][order], expected[name], LOGITS32 if "logits" in name else DEEP32, name)


def same_order(proposals: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """The places of the expected proposals, at most one from where they are: logits differ by less than rounding."""
    nearest = np.abs(proposals[None] - expected[:, None]).max(axis=2).argmin(axis=1)
    assert np.abs(nearest - np.arange(len(expected))).max() <= 1
    return nearest


# Numbers of a pipeline for the next one
SMALLEST = {"min_size": 32, "max_size": 64, "min_boxes": 2, "max_boxes": 4}


def write_tiny_detector(folder: Path, num_attributes: int = 3) -> Path:
    """A detector that programs of their own load, as small as can be; returns its folder."""
    import keras

    from lxmert_tf.detector import FasterRCNN

    config = DetectorConfig(
        depth=50,
        stem_out_channels=4,
        res2_out_channels=8,
        width_per_group=2,
        rpn_hidden_channels=4,
        anchor_sizes=(16, 32),
        num_classes=5,
        num_attributes=num_attributes,
        pooler_resolution=2,
        pre_nms=50,
        post_nms=8,
        min_boxes=10,
        max_boxes=20,
    )
    keras.utils.set_random_seed(0)
    FasterRCNN(config).save_pretrained(folder)
    return folder
