"""The PyTorch reference computes the same, and both take each other's weights."""

import numpy as np
import pytest
import torch
from support.detector import CASES, HF, IMAGES, SCORES, assert_regions, golden, golden_pixels, pipeline_of
from support.golden import REL64, assert_close

from conversion.detector.names import skip_reason
from lxmert_pt.detector import FasterRCNN, ImageProcessor


@pytest.fixture(scope="module")
def reference() -> FasterRCNN:
    return FasterRCNN.from_pretrained(HF)


@pytest.mark.parametrize(("lineage", "case"), CASES)
def test_pipelines(reference, lineage, case):
    for image, regions in enumerate(reference.detect(IMAGES, output_intermediates=True, **CASES[lineage, case])):
        assert_regions(regions, lineage, case, image)


@torch.no_grad()
def test_float64():
    reference, arrays = FasterRCNN.from_pretrained(HF, dtype=torch.float64), golden("hf")
    for case in ("fixed", "all"):
        processed = ImageProcessor(reference.config, "huggingface")(IMAGES[0])
        pixels, size = torch.from_numpy(golden_pixels(0)), processed.pixels.shape[:2]
        pipeline = pipeline_of("hf", case, reference.config)
        output = reference(pixels, size, processed.size, processed.scales, pipeline=pipeline)
        for name in ("proposals", "features", "class_logits"):
            assert_close(output["intermediates"][name], arrays[f"image0/{name}_f64"], REL64, name)
        for name, ours in {"boxes": "boxes", **SCORES}.items():
            assert_close(output[ours], arrays[f"image0/{case}/{name}_f64"], REL64, name)


def test_given_boxes(reference, detector):
    """Both frameworks describe the same boxes alike, in the order given."""
    boxes = [[[3, 5, 60, 70], [0, 0, 143, 97], [3, 5, 60, 70], [50.5, 20.25, 50.5, 90]]]
    ours, theirs = (each.detect(IMAGES[0], boxes=boxes, **CASES["caffe", "fixed"])[0] for each in (detector, reference))
    assert_close(ours.features, theirs.features, 2e-5)
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)
    np.testing.assert_array_equal(ours.object_ids, theirs.object_ids)
    np.testing.assert_array_equal(ours.features[0], ours.features[2])


def test_its_state_dict_is_upstreams(reference):
    upstream = torch.load(HF / "pytorch_model.bin", weights_only=True)
    state = reference.state_dict()
    assert {name: value.shape for name, value in state.items()} == {n: v.shape for n, v in upstream.items()}
    assert all(torch.equal(state[name], value) for name, value in upstream.items() if not skip_reason(name))
