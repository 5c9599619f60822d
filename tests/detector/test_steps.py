"""Single steps against what upstream's code computes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from keras import ops
from support.detector import golden

from lxmert_pt.detector import boxes as pt_boxes
from lxmert_pt.detector import nms as pt_nms
from lxmert_pt.detector.layers.pooling import RoiPooling as PtRoiPooling
from lxmert_pt.detector.layers.resnet import max_pool as pt_max_pool
from lxmert_tf.detector import DetectorConfig, boxes, make_pipeline
from lxmert_tf.detector.anchors import cell_anchors, roi_bins
from lxmert_tf.detector.image_processor import resize_antialiased, resize_bilinear, resized_size
from lxmert_tf.detector.layers.pooling import RoiPooling
from lxmert_tf.detector.layers.primitives import FrozenBatchNorm, NormalizedConvolution
from lxmert_tf.detector.layers.resnet import max_pool
from lxmert_tf.detector.nms import suppress
from lxmert_tf.detector.thresholds import exceeded

UNITS = golden("units")


def unit(name: str) -> np.ndarray:
    return UNITS[name]


def test_roi_pooling():
    feature_map = unit("roi_pool/map")[0].transpose(1, 2, 0)
    pooled = RoiPooling(ops.convert_to_tensor(feature_map), 14, 70)(ops.convert_to_tensor(unit("roi_pool/boxes")))
    np.testing.assert_array_equal(np.asarray(pooled).transpose(0, 3, 1, 2), unit("roi_pool/out14"))
    pooled = PtRoiPooling(torch.tensor(unit("roi_pool/map")[0]), 14)(torch.tensor(unit("roi_pool/boxes")))
    np.testing.assert_array_equal(pooled, unit("roi_pool/out14"))


def test_bins_of_regions():
    """In float32, where they are not those of exact numbers, nor those of a multiplication by 1 / 14."""
    starts, ends = roi_bins(128, 14, "float32")
    np.testing.assert_array_equal(starts[unit("roi_pool/bins_cells")], unit("roi_pool/bins_start"))
    np.testing.assert_array_equal(ends[unit("roi_pool/bins_cells")], unit("roi_pool/bins_end"))
    exact = np.arange(129)[:, None] * np.arange(15)
    moved = (exact[:, :-1] // 14 != starts) | (-(-exact[:, 1:] // 14) != ends)
    assert {57, 62, 114, 121, 124} == set(np.nonzero(moved.any(axis=1))[0])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("kind", ["small", "small_caffe", "random"])
def test_suppression(kind, threshold):
    size, _, caffe = kind.partition("_")
    candidates = unit(f"nms/{size}_boxes")
    scores = unit("nms/caffe_scores" if caffe else f"nms/{size}_scores")
    expected = unit(f"nms/{size}_keep_{'caffe_' if caffe else ''}{threshold}")
    bound = exceeded(threshold, "float32", inclusive=bool(caffe))

    def overlapping(best):
        return boxes.overlaps(ops.take(candidates, best, axis=0), candidates, bool(caffe)) > bound

    kept = np.asarray(suppress(ops.convert_to_tensor(scores[None]), np.ones((1, len(scores)), bool), overlapping))[0]
    assert np.array_equal(sorted(expected), np.nonzero(kept)[0])
    assert np.array_equal(expected, sorted(expected, key=lambda place: -scores[place]))

    tensor = torch.tensor(candidates)
    places = pt_nms.suppress(
        torch.tensor(scores), lambda place: pt_boxes.overlaps(tensor[place][None], tensor, bool(caffe))[0] > bound
    )
    np.testing.assert_array_equal(places, expected)


def test_suppression_stops_when_there_are_enough():
    scores = ops.convert_to_tensor(np.float32([[0.1, 0.9, 0.5], [0.3, 0.2, 0.9]]))
    kept = suppress(scores, np.ones((2, 3), bool), lambda best: np.zeros((2, 3), bool), most=2)
    np.testing.assert_array_equal(kept, [[False, True, True], [True, False, True]])


@pytest.mark.parametrize(
    ("threshold", "inclusive", "expected"),
    [
        (0.3, False, np.nextafter(np.float32(0.3), np.float32(0))),
        (0.5, False, 0.5),
        (0.7, False, np.float32(0.7)),
        (0.5, True, np.nextafter(np.float32(0.5), np.float32(0))),
        (0.7, True, np.float32(0.7)),
    ],
)
def test_thresholds(threshold, inclusive, expected):
    """float32(0.3) is more than 0.3, float32(0.7) less than 0.7."""
    assert exceeded(threshold, "float32", inclusive) == expected


def test_anchors():
    config = DetectorConfig()
    np.testing.assert_array_equal(cell_anchors(config, False), unit("anchors/cell_detectron"))
    order = unit("anchors/caffe_to_detectron")
    np.testing.assert_array_equal(cell_anchors(config, True)[order], unit("anchors/cell_caffe"))
    cells = cell_anchors(config, False)
    grid = boxes.grid_of_anchors(cells, 3, 5, 0.0, "float32")
    np.testing.assert_array_equal(grid, unit("anchors/grid_3x5"))
    np.testing.assert_array_equal(pt_boxes.grid_of_anchors(torch.tensor(cells), 3, 5, 0.0), unit("anchors/grid_3x5"))


@pytest.mark.parametrize(
    ("name", "weights", "is_caffe"),
    [("weights_1", (1.0,) * 4, False), ("weights_10", (10.0, 10.0, 5.0, 5.0), False), ("caffe", (1.0,) * 4, True)],
)
def test_decoding(name, weights, is_caffe):
    given, deltas = unit("decode/boxes"), unit("decode/deltas")
    given = given, np.tile(deltas[:1], (3, 1)) if is_caffe else deltas  # without a bound, the others are enormous
    tolerance = {"rtol": 1e-6, "atol": 1e-4}  # a few float32 roundings of sides of up to 6000 pixels
    ours = boxes.decode(*map(ops.convert_to_tensor, given), weights, is_caffe)
    theirs = pt_boxes.decode(*map(torch.tensor, given), weights, is_caffe)
    expected = unit(f"decode/{name}")
    np.testing.assert_allclose(ours, expected, **tolerance)
    np.testing.assert_allclose(theirs, expected, **tolerance)


@pytest.mark.parametrize("size", ["8x9", "9x8", "7x7", "10x10"])
@pytest.mark.parametrize("kind", ["caffe", "pad1"])
def test_pooling_of_the_stem(size, kind):
    x = np.maximum(unit(f"maxpool/in_{size}"), 0)
    expected = np.maximum(unit(f"maxpool/{kind}_{size}"), 0)
    ours = np.asarray(max_pool(ops.convert_to_tensor(x.transpose(0, 2, 3, 1)), kind == "caffe")).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(ours, expected)
    np.testing.assert_array_equal(pt_max_pool(torch.tensor(x), kind == "caffe"), expected)


def test_sizes():
    rows = unit("sizes/h_w_hf800_hf600_caffe600").tolist()
    pipelines = [
        make_pipeline("huggingface", min_size=800, max_size=1333),
        make_pipeline("detectron2"),
        make_pipeline("caffe"),
    ]
    for height, width, *expected in rows:
        found = [size for pipeline in pipelines for size in resized_size(height, width, pipeline)[:2]]
        assert found == expected, (height, width)


def test_caffe_rounds_halves_to_even():
    assert resized_size(400, 1600, make_pipeline("caffe", min_size=202, max_size=1000))[:2] == (202, 808)
    for height, rounded in ((5, 2), (7, 4)):  # 2.5 and 3.5
        assert resized_size(height, 10, make_pipeline("caffe", min_size=5, max_size=5))[0] == rounded


@pytest.mark.parametrize("size", ["37x50", "11x15"])
def test_resizing(size):
    image, (height, width) = unit("resize/image"), map(int, size.split("x"))
    scales = np.array([image.shape[0] / height, image.shape[1] / width])
    np.testing.assert_array_equal(resize_antialiased(image, height, width), unit(f"resize/pil_{size}"))
    pixels = image.astype("float32")
    np.testing.assert_allclose(
        resize_bilinear(pixels, height, width, np.float32(scales)), unit(f"resize/torch_{size}"), rtol=0, atol=1e-3
    )


def test_normalisation_is_folded_into_the_kernel():
    rng = np.random.default_rng(0)
    layer = NormalizedConvolution(3, 5, 3, dilation=2, dtype="float64")
    layer.build()
    for weight in layer.weights:
        weight.assign(rng.uniform(0.5, 2, weight.shape))
    x = rng.normal(size=(2, 7, 6, 3))
    assert isinstance(layer.norm, FrozenBatchNorm)
    plain = layer.norm(ops.conv(x, layer.kernel, 1, "same", data_format="channels_last", dilation_rate=2))
    np.testing.assert_allclose(layer(x), plain, rtol=1e-12)
    kernel = torch.tensor(np.asarray(layer.kernel)).permute(3, 2, 0, 1)
    norm = [torch.tensor(np.asarray(each)) for each in (layer.norm.moving_mean, layer.norm.moving_variance)]
    norm += [torch.tensor(np.asarray(each)) for each in (layer.norm.gamma, layer.norm.beta)]
    expected = F.batch_norm(F.conv2d(torch.tensor(x).permute(0, 3, 1, 2), kernel, padding=2, dilation=2), *norm)
    np.testing.assert_allclose(layer(x), expected.permute(0, 2, 3, 1), rtol=1e-12)
