"""`lxmert-tf features extract` writes what upstream's own programs compute."""

import numpy as np
import pytest
from support.detector import CASES, DEEP32, HF, IMAGES, PIXEL, SCORES32, golden
from support.golden import assert_close

from lxmert_tf.cli import main
from lxmert_tf.data import read_tsv
from lxmert_tf.data.features import extractor

PAIRS = [("caffe", "range"), ("d2", "maxnms"), ("hf", "range")]


def extract(out, lineage, case, images):
    numbers = dict(CASES[lineage, case])
    named = [f"--{name.replace('_', '-')}={numbers.pop(name)}" for name in ("pipeline", "min_boxes", "max_boxes")]
    others = [f"--set={name}={value}" for name, value in numbers.items()]
    assert main(["features", "extract", *map(str, images), str(out), "--detector", str(HF), *named, *others]) == 0


def assert_golden(out, lineage, case, images):
    found = {regions.img_id: regions for regions in read_tsv(out)}
    assert set(found) == {path.stem for path in images}
    for path in images:
        regions, prefix = found[path.stem], f"image{IMAGES.index(path)}/{case}/"
        expected = {name.removeprefix(prefix): value for name, value in golden(lineage).items() if prefix in name}
        np.testing.assert_array_equal(regions.objects_id, expected["obj_ids"])
        np.testing.assert_array_equal(regions.attrs_id, expected["attr_ids"])
        np.testing.assert_allclose(regions.boxes, expected["boxes"], rtol=0, atol=PIXEL)
        assert_close(regions.objects_conf, expected["obj_probs"], SCORES32)
        assert_close(regions.attrs_conf, expected["attr_probs"], SCORES32)
        if "roi_features" not in expected:
            expected["roi_features"] = golden(lineage)[f"image{IMAGES.index(path)}/features"][expected["keep"]]
        assert_close(regions.features, expected["roi_features"], DEEP32)


@pytest.mark.parametrize(("lineage", "case"), PAIRS)
def test_one_picture(detector, eagerly, monkeypatch, tmp_path, lineage, case):
    monkeypatch.setattr(extractor.FasterRCNN, "from_pretrained", lambda source, dtype: detector)
    extract(tmp_path / "out.tsv", lineage, case, IMAGES[:1])
    assert_golden(tmp_path / "out.tsv", lineage, case, IMAGES[:1])


@pytest.mark.slow
@pytest.mark.parametrize(("lineage", "case"), PAIRS)
def test_all_pictures(tmp_path, lineage, case):
    extract(tmp_path / "out.tsv", lineage, case, IMAGES)
    assert_golden(tmp_path / "out.tsv", lineage, case, IMAGES)
