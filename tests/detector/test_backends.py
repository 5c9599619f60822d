"""The detector runs compiled, in half precision, in chunks and on Keras' other backends."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.golden import assert_close, assert_passes_under

from lxmert_pt.detector import FasterRCNN as Reference
from lxmert_tf.backend import in_order
from lxmert_tf.detector import DetectorConfig, FasterRCNN
from lxmert_tf.detector.boxes import overlaps
from lxmert_tf.detector.nms import suppress

HERE = Path(__file__).parent
PICTURE = np.random.default_rng(0).integers(0, 256, (70, 90, 3), "uint8")
BOXES = np.float32([[0, 0, 90, 70], [3, 7, 60, 50], [40, 20, 45, 60], [20.5, 30.25, 21, 31]])


@pytest.fixture(scope="module")
def tiny() -> FasterRCNN:
    """A small detector with random weights."""
    sizes = {"stem_out_channels": 4, "res2_out_channels": 8, "width_per_group": 2, "rpn_hidden_channels": 8}
    config = DetectorConfig(depth=50, num_classes=6, num_attributes=5, pre_nms=100, post_nms=20, **sizes)
    keras.utils.set_random_seed(0)
    return FasterRCNN(config)


def network(detector: FasterRCNN, pixels, boxes) -> dict:
    feature_map = detector.backbone(pixels[None])[0]
    return detector.describe_boxes(feature_map, boxes, 96)


@pytest.mark.slow
def test_xla_computes_the_same(tiny):
    pixels = PICTURE.astype("float32") - 110
    compiled = tf.function(network, jit_compile=True, autograph=False)(tiny, pixels, BOXES)
    for name, expected in network(tiny, tf.constant(pixels), tf.constant(BOXES)).items():
        assert_close(compiled[name], expected, 2e-5, name)


def test_xla_suppresses_the_same():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 50, (40, 2)).astype("float32")
    boxes = np.concatenate([corners, corners + rng.uniform(5, 30, (40, 2)).astype("float32")], axis=1)
    scores = rng.uniform(size=(2, 40)).astype("float32")
    shared = overlaps(boxes, boxes, False)

    def kept():
        return suppress(scores, scores > 0.1, lambda best: tf.gather(shared, best) > 0.3, 12)

    np.testing.assert_array_equal(tf.function(kept, jit_compile=True, autograph=False)(), kept())
    assert set(np.asarray(kept()).sum(axis=1)) <= set(range(13))


@pytest.mark.slow
def test_half_precision(tiny, eagerly):
    """Boxes and scores are float32; the rest is as exact as bfloat16 is."""
    half = FasterRCNN.from_pretrained(tiny, dtype="mixed_bfloat16")
    ours, theirs = (each.detect(PICTURE, boxes=[BOXES], min_size=64, max_size=96)[0] for each in (half, tiny))
    assert ours.features.dtype == ours.object_scores.dtype == ours.boxes.dtype == np.float32
    assert 0 < np.abs(ours.features - theirs.features).max() < 0.1 * np.abs(theirs.features).max()


def test_more_regions_than_fit_at_once(tiny, tmp_path):
    """They go through in chunks, in graphs one after the other."""
    many = np.repeat(BOXES, 40, axis=0)
    regions = tiny.detect(PICTURE, boxes=[many], min_size=64, max_size=96)[0]
    few = tiny.detect(PICTURE, boxes=[BOXES], min_size=64, max_size=96)[0]
    tiny.save_weights(tmp_path / "used.weights.h5")  # what is compiled is not saved
    assert_close(regions.features[::40], few.features, 1e-6)
    assert_close(regions.features[39::40], few.features, 1e-6)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_chunks(size):
    rows = np.arange(21.0).reshape(7, 3)

    def halves(x):
        return {"a": x / 2, "b": x[:, 0]}

    compiled = tf.function(lambda x: in_order(halves, x, size), input_signature=[tf.TensorSpec([None, 3], tf.float64)])
    for each in (compiled(rows), in_order(halves, tf.constant(rows), size)):
        np.testing.assert_array_equal(each["a"], rows / 2)
        np.testing.assert_array_equal(each["b"], rows[:, 0])


@pytest.mark.slow
def test_all_pipelines_find_something(tiny):
    """Whatever the numbers: also where nothing is likely, and where no threshold leaves enough."""
    for pipeline in ("caffe", "detectron2", "detectron2-demo", "huggingface"):
        numbers = {"min_size": 64, "max_size": 96, "conf": 0.15}
        [regions] = tiny.detect(PICTURE, pipeline, 20, 40, **numbers)
        assert len(regions) <= 20
        assert regions.features.shape == (len(regions), tiny.config.feature_size)
        assert (regions.normalized_boxes >= 0).all() and (regions.normalized_boxes <= 1).all()
    [few] = tiny.detect(PICTURE, min_boxes=2, max_boxes=2, min_size=64, max_size=96)
    assert len(few) == 2


@pytest.mark.parametrize("pipeline", ["caffe", pytest.param("huggingface", marks=pytest.mark.slow)])
def test_no_proposals(tiny, pipeline):
    [none] = tiny.detect(PICTURE, pipeline, min_size=64, max_size=96, rpn_min_size=1e4)
    assert len(none) == 0
    assert none.features.shape == (0, tiny.config.feature_size)
    [none] = Reference.from_pretrained(tiny).detect(PICTURE, pipeline, min_size=64, max_size=96, rpn_min_size=1e4)
    assert len(none) == 0


@pytest.mark.slow
def test_torch():
    assert_passes_under("torch", f"{HERE / 'test_golden.py'}::test_pipelines[caffe-fixed]")
