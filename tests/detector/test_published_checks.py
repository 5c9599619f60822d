"""The comparisons of `make published`, tried on small models: they find what is the same, and what is not."""

import shutil

import numpy as np
import pytest
from support.detector import HF, IMAGES, SMALL
from support.golden import GOLDEN
from support.published import (
    Comparison,
    Files,
    Missing,
    backbone_slice,
    demo_answers,
    demo_boxes,
    published_rows,
    table,
)

from lxmert_tf import LxmertConfig, TFLxmertForQuestionAnswering, TFLxmertModel
from lxmert_tf.data.features.regions import RegionFeatures
from lxmert_tf.data.features.tsv import write_tsv
from lxmert_tf.detector import DetectorConfig

pytestmark = pytest.mark.usefixtures("eagerly")

QUESTIONS = ["what is it ?", "where ?"]
SETTINGS = {**SMALL, "rpn_min_size": 8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, detector):
    """Small models under the names of the published ones, and what the detector gives for a picture."""
    folder = tmp_path_factory.mktemp("weights")
    shutil.copytree(HF, folder / "frcnn")
    shutil.copytree(GOLDEN / "hf_pt_model", folder / "backbone")
    (folder / "images").mkdir()
    shutil.copy(IMAGES[0], folder / "images/picture.png")
    shutil.copy(IMAGES[1], folder / "images/row.jpg")
    config = LxmertConfig.from_pretrained(GOLDEN / "hf_pt_qa", visual_feat_dim=detector.config.feature_size)
    TFLxmertForQuestionAnswering(config).save_pretrained(folder / "qa", format="hf-pt")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *["what", "is", "it", "where", "?"]]
    (folder / "qa/vocab.txt").write_text("\n".join(words))
    answers = [f"answer {row}" for row in range(config.num_qa_labels)]
    (folder / "qa.label2ans.json").write_text(str(answers).replace("'", '"'))
    row = detector.detect(IMAGES[1], min_boxes=8, max_boxes=8, **SETTINGS)[0]
    labels = {"objects_id": row.object_ids, "objects_conf": row.object_scores}
    labels |= {"attrs_id": row.attribute_ids, "attrs_conf": row.attribute_scores}
    write_tsv(folder / "rows.tsv", [RegionFeatures("row", *row.size, **labels, boxes=row.boxes, features=row.features)])
    return folder


@pytest.fixture(scope="module")
def files(folder):
    return Files(folder, None)


def outcome(comparisons) -> list[bool]:
    return [each.same for each in comparisons]


def test_hidden_states(files, folder):
    model = TFLxmertModel.from_pretrained(folder / "backbone")
    inputs = {"input_ids": np.array([[5, 6, 7]])}
    for name, width in (("visual_feats", model.config.visual_feat_dim), ("visual_pos", 4)):
        inputs[name] = np.random.RandomState(0).rand(1, 10, width).astype("float32")
    found = np.asarray(model(inputs).language_output)[0, :3, :3]
    numbers = {"weights": "backbone", "input_ids": [5, 6, 7], "language_output": found.tolist()}
    assert outcome(backbone_slice(files, TFLxmertModel, "keras", numbers)) == [True]
    numbers["language_output"][1][1] += 2e-4
    assert outcome(backbone_slice(files, TFLxmertModel, "keras", numbers)) == [False]


@pytest.mark.slow
def test_answers(files):
    numbers = {"detector": "frcnn", "image": "picture.png", "questions": QUESTIONS, "qa": ["no answer"] * 2}
    found = list(demo_answers(files, "qa", numbers))
    assert outcome(found) == [False, False]
    numbers["qa"] = [each.found for each in found]
    assert outcome(demo_answers(files, "qa", numbers)) == [True, True]


@pytest.mark.slow
def test_boxes(files, detector):
    regions = detector.detect(IMAGES[0], "detectron2-demo", 8, 8, output_intermediates=True, **SMALL)[0]
    numbers = {
        "image": "picture.png",
        "proposals": len(regions.intermediates["proposals"]),
        "boxes": regions.boxes.tolist(),
        "classes": regions.object_ids.tolist(),
        "scores": regions.object_scores.tolist(),
        "caffe_max_pool": True,
        "num_attributes": detector.config.num_attributes,
    }
    config = DetectorConfig.from_pretrained(HF)
    assert outcome(demo_boxes(files, "frcnn", numbers, config, **SMALL)) == [True] * 4
    numbers["boxes"] = (regions.boxes * 0.9).tolist()
    numbers["proposals"] += 1
    assert outcome(demo_boxes(files, "frcnn", numbers, config, **SMALL))[:2] == [False, False]


@pytest.mark.slow
def test_rows(files):
    given = {"weights": ("none", "frcnn"), "rows": "rows.tsv", "sha256": None}
    assert outcome(published_rows(files, **given, **SETTINGS)) == [True] * 4
    assert not all(outcome(published_rows(files, **given, pipeline="huggingface")))


def test_what_is_missing_is_named(files, folder):
    with pytest.raises(Missing, match=r"other is not in LXMERT_WEIGHTS="):
        list(demo_boxes(files, "other", {"caffe_max_pool": True, "num_attributes": 0}))
    with pytest.raises(Missing, match="another file than was published"):
        files.file("rows.tsv", "0" * 64)

    def no_network(name):
        raise FileNotFoundError(f"the Hub did not give {name}")

    with pytest.raises(Missing, match="did not give someone/else"):
        Files(None, no_network).repository("someone/else")
    assert Files(None, lambda name: folder / "qa").repository("someone/qa") == folder / "qa"


def test_the_table_shows_what_is_off():
    lines = table([Comparison("a", "1", "1", True), Comparison("b", "1", "2", False)]).splitlines()
    assert lines[2:] == ["same  a     1          1", "OFF   b     1          2"]
