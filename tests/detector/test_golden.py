"""The detector computes what upstream's own programs do, through all pipelines."""

from dataclasses import replace

import numpy as np
import pytest
from support.detector import (
    CASES,
    DEEP32,
    HF,
    IMAGES,
    LOGITS32,
    PIXEL,
    SCORES,
    assert_regions,
    golden,
    golden_pixels,
    pipeline_of,
)
from support.golden import REL64, assert_close

from lxmert_tf.detector import FasterRCNN, ImageProcessor, make_pipeline


@pytest.mark.parametrize(("lineage", "case"), CASES)
def test_pipelines(detector, lineage, case):
    for image, regions in enumerate(detector.detect(IMAGES, output_intermediates=True, **CASES[lineage, case])):
        assert_regions(regions, lineage, case, image)


def test_float64():
    detector = FasterRCNN.from_pretrained(HF, dtype="float64")
    arrays = golden("hf")
    for image in (0, 3):
        processed = ImageProcessor(detector.config, "huggingface")(IMAGES[image])
        pixels, scales = golden_pixels(image), np.float32(processed.scales)
        size = np.int32(pixels.shape[:2])
        found = detector.find(pixels, size, scales, None, make_pipeline("huggingface", detector.config))
        for name in ("proposals", "features", "class_logits"):
            if (full := f"image{image}/{name}_f64") in arrays:
                assert_close(found[name], arrays[full], REL64, name)
        for case in ("fixed", "range", "all"):
            pipeline = pipeline_of("hf", case, detector.config)
            output = detector.choose(found, size, np.int32(processed.size), scales, None, pipeline)
            for name, ours in {"boxes": "boxes", **SCORES}.items():
                assert_close(output[ours], arrays[f"image{image}/{case}/{name}_f64"], REL64, name)


def test_a_batch_that_upstream_has_padded(detector):
    """Three pictures with zeros up to the largest; what the network sees at the edges changes its features."""
    arrays, pipeline = golden("hf"), make_pipeline("huggingface", detector.config)
    height, width = arrays["batch/sizes"].max(axis=0)
    for number, image in enumerate((0, 1, 3)):
        processed = ImageProcessor(pipeline=pipeline)(IMAGES[image])
        size = processed.pixels.shape[:2]
        np.testing.assert_array_equal(size, arrays["batch/sizes"][number])
        padding = [(0, height - size[0]), (0, width - size[1]), (0, 0)]
        find, choose = detector.programs(pipeline, with_boxes=False)
        size, scales = np.int32(size), np.float32(processed.scales)
        found = find(np.pad(processed.pixels, padding), size, scales)
        output = choose(found, size, np.int32(processed.size), scales)
        expected = {k.rpartition("/")[2]: v for k, v in arrays.items() if k.startswith(f"batch/image{image}/")}
        np.testing.assert_array_equal(output["object_ids"], expected["obj_ids"])
        np.testing.assert_array_equal(output["attribute_ids"], expected["attr_ids"])
        np.testing.assert_allclose(output["boxes"], expected["boxes"], rtol=0, atol=PIXEL)
        assert_close(output["features"], expected["roi_features"], DEEP32)


def test_given_boxes(detector):
    arrays, pipeline = golden("hf"), make_pipeline("huggingface", detector.config)
    processed = ImageProcessor(pipeline=pipeline)(IMAGES[0])
    processed = replace(processed, pixels=golden_pixels(0))
    down, across = np.float32(processed.scales)
    boxes = arrays["given/boxes_in_input"] * [across, down, across, down]
    regions = detector.detect_processed(processed, pipeline, boxes, output_intermediates=True)
    np.testing.assert_array_equal(regions.boxes, boxes.astype("float32"))
    assert_close(regions.features, arrays["given/features"], DEEP32)
    for name, ours in (("class_logits", "class_logits"), ("attr_logits", "attribute_logits")):
        assert_close(regions.intermediates[ours], arrays[f"given/{name}"], LOGITS32, name)


def test_given_boxes_are_described_as_the_detector_describes_its_own(detector):
    """In every pipeline whose boxes are proposals; pixels of the picture are turned into the network's and back."""
    found = detector.detect(IMAGES[3], **CASES["caffe", "fixed"])[0]
    given = detector.detect(IMAGES[3], boxes=[found.boxes], **CASES["caffe", "fixed"])[0]
    np.testing.assert_array_equal(given.object_ids, found.object_ids)
    assert_close(given.features, found.features, 1e-6)
    assert given.object_names == [f"thing {each}" for each in found.object_ids]


def test_red_and_blue_swapped_is_what_upstream_does_with_files(detector):
    """It is not what the weights were trained on."""
    from PIL import Image

    swapped = np.asarray(Image.open(IMAGES[0]).convert("RGB"))[:, :, ::-1]
    regions = detector.detect(swapped, "huggingface")[0]
    arrays = golden("hf")
    np.testing.assert_array_equal(regions.object_ids, arrays["file_rgb/image0/obj_ids"])
    np.testing.assert_allclose(regions.boxes, arrays["file_rgb/image0/boxes"], rtol=0, atol=PIXEL)


def test_the_stem_pools_as_its_config_says(detector):
    """detectron2's first notebooks pad the map, which is another network."""
    padded = FasterRCNN.from_pretrained(detector, config=replace(detector.config, caffe_max_pool=False))
    pixels = ImageProcessor(pipeline=make_pipeline("detectron2", min_size=112, max_size=224))(IMAGES[0]).pixels
    feature_map = np.asarray(padded.backbone(pixels[None]))[0].transpose(2, 0, 1)
    assert_close(feature_map, golden("d2")["image0/res4_without_caffemaxpool"], DEEP32)
