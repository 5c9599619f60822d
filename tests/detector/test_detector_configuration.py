"""DetectorConfig reads every lineage's config.yaml and its own config.json, and refuses what is another network."""

import json
from dataclasses import replace

import pytest
import yaml
from support.detector import DETECTOR, HF

from lxmert_tf.detector import DetectorConfig

D2 = DETECTOR / "seed1" / "d2_config.yaml"


def test_both_lineages_say_the_same():
    ours, theirs = DetectorConfig.from_pretrained(HF), DetectorConfig.from_pretrained(D2)
    assert (ours.num_classes, ours.width_per_group, ours.anchor_sizes) == (20, 4, (32, 64, 96, 160))
    assert (ours.nms, ours.min_boxes, ours.max_boxes) == ((0.1, 0.3, 0.5, 0.7, 0.9), 8, 8)
    shared = {"nms": theirs.nms, "min_boxes": 36, "max_boxes": 36, "object_names": None, "attribute_names": None}
    assert replace(ours, **shared) == theirs
    assert ours.object_names[0] == "thing 0,item 0"


def test_sizes_of_the_published_detector():
    config = DetectorConfig()
    assert config.blocks == (3, 4, 23, 3)
    assert [config.stage_channels(stage) for stage in (2, 3, 4, 5)] == [(64, 256), (128, 512), (256, 1024), (512, 2048)]
    assert (config.class_embedding_size, config.attribute_hidden_size, config.num_anchors) == (256, 512, 12)


def test_json_comes_back(tmp_path):
    config = DetectorConfig.from_pretrained(HF)
    config.save_pretrained(tmp_path)
    assert DetectorConfig.from_pretrained(tmp_path) == config
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "faster_rcnn"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("resnets.num_groups", 32, r"resnets\.num_groups must be 1, got 32: that is another network"),
        ("resnets.stride_in_1x1", False, "stride_in_1x1 must be True, got False"),
        ("roi_box_head.res5halve", True, "res5halve must be False, got True"),
        ("resnets.depth", 18, "depth must be one of 50, 101, 152, got 18"),
        ("rpn.nms_thresh", 7, "rpn_nms must be a number from 0 to 1, got 7"),
        ("roi_box_head.bbox_reg_weights", [1, 2], r"box_weights must be 4 numbers above 0, got \(1, 2\)"),
        ("anchor_generator.sizes", [[32], [64]], "anchor_sizes must be numbers above 0"),
        ("roi_heads.num_classes", 21, "object_names must name 21 classes, got 20"),
        ("min_detections", 9, "max_boxes must be at least min_boxes=9, got 8"),
        ("input.max_size_test", 9, "max_size must be at least min_size=112, got 9"),
    ],
)
def test_refused(tmp_path, path, value, message):
    tree = yaml.safe_load((HF / "config.yaml").read_text())
    *parents, last = path.split(".")
    place = tree
    for parent in parents:
        place = place[parent]
    place[last] = value
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "objects_vocab.txt").write_text((HF / "objects_vocab.txt").read_text())
    with pytest.raises(ValueError, match=message) as caught:
        DetectorConfig.from_pretrained(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'config.yaml'}: ")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.yaml", "a: [", "it is not YAML"),
        ("config.yaml", "!!python/object/apply:os.getcwd []", "it is not YAML"),
        ("config.yaml", "just text", "it must hold sections of settings"),
        ("config.yaml", "a: 1", "it has none of a detector's settings"),
        ("config.json", "{", r"config\.json"),
        ("config.json", "[]", "must be a JSON object, got list"),
        ("config.json", '{"model_type": "lxmert"}', "got 'lxmert': the config is of another model"),
        ("config.json", '{"model_type": "faster_rcnn", "deep": 3}', "has no field 'deep'; it has anchor_offset"),
    ],
)
def test_what_is_no_config(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        DetectorConfig.from_pretrained(tmp_path)


def test_there_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has neither config\.json nor config\.yaml"):
        DetectorConfig.from_pretrained(tmp_path)
