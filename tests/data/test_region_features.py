"""Region features: round trip bit by bit, and an exact complaint for every kind of damaged file."""

import base64
import dataclasses
import tracemalloc

import numpy as np
import pytest
from support.data import make_regions

from lxmert_tf.data.features.regions import RegionFeatures, normalize_boxes
from lxmert_tf.data.features.tsv import FIELDS, read_tsv, write_tsv


def write_lines(path, *lines):
    path.write_bytes(b"".join(b"\t".join(line) + b"\n" for line in lines))


def line_of(tmp_path, regions, **changed):
    """The fields of one written line, some of them replaced."""
    write_tsv(tmp_path / "one.tsv", [regions])
    fields = (tmp_path / "one.tsv").read_bytes().rstrip(b"\n").split(b"\t")
    return [changed.get(name, field) for name, field in zip(FIELDS, fields, strict=True)]


def encode(values, dtype):
    return base64.b64encode(np.asarray(values, dtype).tobytes())


def test_round_trip_is_bit_exact(tmp_path):
    written = [make_regions(f"image_{n}", num_boxes=n + 1, seed=n) for n in range(4)]
    write_tsv(tmp_path / "features.tsv", written)
    for one, other in zip(written, read_tsv(tmp_path / "features.tsv"), strict=True):
        for field in dataclasses.fields(RegionFeatures):
            before, after = getattr(one, field.name), getattr(other, field.name)
            np.testing.assert_array_equal(before, after, strict=isinstance(before, np.ndarray))
            if isinstance(after, np.ndarray):
                assert after.flags.writeable


def test_layout_is_the_originals(tmp_path):
    regions = make_regions("COCO_val2014_000000000042")
    fields = line_of(tmp_path, regions)
    assert fields[:3] == [b"COCO_val2014_000000000042", b"480", b"640"]
    assert fields[7] == b"3"
    assert base64.b64decode(fields[3]) == regions.objects_id.astype("<i8").tobytes()
    assert base64.b64decode(fields[8]) == regions.boxes.astype("<f4").tobytes()


def test_windows_line_ends_and_no_last_line_end(tmp_path):
    line = b"\t".join(line_of(tmp_path, make_regions()))
    second = b"\t".join(line_of(tmp_path, make_regions("image_1")))
    (tmp_path / "a.tsv").write_bytes(line + b"\r\n" + second)
    assert [regions.img_id for regions in read_tsv(tmp_path / "a.tsv")] == ["image_0", "image_1"]


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"features": b"!not base64"}, "features is not base64"),
        ({"features": encode(np.zeros(12), "<f4")[:-3]}, "features is not base64"),
        ({"features": encode(np.zeros(10), "<f4")}, r"features must hold float32\[3, D\], got 40 bytes"),
        ({"features": b""}, "features must hold"),
        ({"features": encode(np.random.default_rng(0).random((3, 4)), "<f8")}, "are they float64"),
        (
            {"boxes": encode(np.random.default_rng(0).random((3, 4)), "<f8")},
            "boxes must hold 12 values of 4 bytes, got 96",
        ),
        ({"boxes": encode([[0, 0.2, 0.9, 1.0]] * 3, "<f4")}, "not divided by width"),
        ({"features": encode([np.nan] * 12, "<f4")}, "features must be finite"),
        ({"objects_id": encode([1, 2, 3], "<i4")}, "objects_id must hold 3 values of 8 bytes, got 12 bytes"),
        ({"attrs_id": encode([1, 2], "<i8")}, "attrs_id must hold 3 values"),
        ({"objects_conf": encode([1, 2, 3], "<f8")}, "objects_conf must hold 3 values of 4 bytes"),
        ({"attrs_conf": encode([0, 0, np.inf], "<f4")}, "attrs_conf must be finite"),
        ({"objects_conf": encode([0.5, 1.5, 0], "<f4")}, "objects_conf must lie in 0..1, got 0 to 1.5"),
        ({"attrs_conf": encode([0.5, -0.5, 0], "<f4")}, "attrs_conf must lie in 0..1, got -0.5 to 0.5"),
        (
            {"objects_id": encode([1, 2**31, 3], "<i8")},
            "objects_id must be integers in 0..2147483647, got 2147483648",
        ),
        ({"attrs_id": encode([1, 2, -1], "<i8")}, "attrs_id must be integers in 0..2147483647, got -1"),
        ({"num_boxes": b"2"}, "boxes must hold 8 values"),
        ({"num_boxes": b"0"}, "num_boxes must be an integer above 0"),
        ({"num_boxes": b"1_0"}, "num_boxes must be an integer above 0"),
        ({"img_h": b"-480"}, "img_h must be an integer above 0"),
        ({"img_h": b"2147483648"}, "img_h must be above 0 and at most 2147483647, got 2147483648"),
        ({"img_w": b"wide"}, "img_w must be an integer above 0, got 'wide'"),
        ({"img_w": b"100"}, "within width 100"),
        ({"boxes": encode([[0, 0, 1, 1]] * 2 + [[0, 0, 641, 1]], "<f4")}, "box 2 must be x1 y1 x2 y2"),
        ({"boxes": encode([[-1, 0, 1, 1]] * 3, "<f4")}, "box 0 must be"),
        ({"boxes": encode([[9, 0, 1, 1]] * 3, "<f4")}, "box 0 must be"),
        ({"boxes": encode([[0, 0, np.nan, 1]] * 3, "<f4")}, "box 0 must be"),
        ({"img_id": b""}, "img_id must be a name"),
        ({"img_id": b"a\0b"}, "img_id must be a name of printable characters, got 'a.x00b'"),
        ({"img_id": b"a\x07b"}, "img_id must be a name of printable characters"),
        ({"img_id": "\ufeffa".encode()}, r"img_id must be a name of printable characters, got '.ufeffa'"),
        ({"img_id": b"\xff"}, "utf-8"),
    ],
)
def test_damaged_line_is_named(tmp_path, changed, complaint):
    path = tmp_path / "bad.tsv"
    write_lines(path, line_of(tmp_path, make_regions("good")), line_of(tmp_path, make_regions("bad"), **changed))
    reader = read_tsv(path)
    assert next(reader).img_id == "good"
    with pytest.raises(ValueError, match=complaint) as caught:
        next(reader)
    assert str(caught.value).startswith(f"{path}, line 2, image ")


def test_wrong_number_of_fields(tmp_path):
    write_lines(tmp_path / "bad.tsv", line_of(tmp_path, make_regions())[:-1])
    with pytest.raises(ValueError, match=r"line 1, image 'image_0': expected 10 tab-separated fields .*, got 9"):
        list(read_tsv(tmp_path / "bad.tsv"))


def test_file_cut_off_in_the_middle(tmp_path):
    write_tsv(tmp_path / "whole.tsv", [make_regions("image_0"), make_regions("image_1")])
    whole = (tmp_path / "whole.tsv").read_bytes()
    (tmp_path / "cut.tsv").write_bytes(whole[:-30])
    with pytest.raises(ValueError, match="line 2, image 'image_1'"):
        list(read_tsv(tmp_path / "cut.tsv"))


def test_repeated_image(tmp_path):
    line = line_of(tmp_path, make_regions())
    write_lines(tmp_path / "bad.tsv", line, line)
    with pytest.raises(ValueError, match="line 2, image 'image_0': this img_id is already in the file"):
        list(read_tsv(tmp_path / "bad.tsv"))


def test_changed_feature_dimension(tmp_path):
    lines = line_of(tmp_path, make_regions("a", feat_dim=4)), line_of(tmp_path, make_regions("b", feat_dim=5))
    write_lines(tmp_path / "bad.tsv", *lines)
    with pytest.raises(ValueError, match="features must have 4 values per box, as before, got 5"):
        list(read_tsv(tmp_path / "bad.tsv"))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"img_id": "a\tb"}, "img_id must be a name"),
        ({"img_w": 0}, "img_w must be above 0"),
        ({"objects_id": np.array([0, 2.5, 1])}, "objects_id must be integers in 0..2147483647, got 2.5"),
        ({"objects_id": np.zeros(2, np.int64)}, r"objects_id must have the shape \(3,\)"),
        ({"boxes": np.zeros((3, 5), np.float32)}, r"boxes must have the shape \(3, 4\)"),
        ({"boxes": np.full((3, 4), 1e4, np.float32)}, "box 0 must be"),
        ({"features": np.zeros((0, 4), np.float32)}, "features must have the shape"),
        ({"features": np.zeros(3, np.float32)}, "features must have the shape"),
    ],
)
def test_bad_regions_are_not_written(tmp_path, changed, complaint):
    path = tmp_path / "features.tsv"
    path.write_text("what was here before")
    bad = dataclasses.replace(make_regions("bad"), **changed)
    with pytest.raises(ValueError, match=complaint):
        write_tsv(path, [make_regions("good"), bad])
    assert path.read_text() == "what was here before"
    assert list(tmp_path.iterdir()) == [path]


def test_repeated_image_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="line 2, image 'image_0'"):
        write_tsv(tmp_path / "features.tsv", [make_regions(), make_regions()])
    assert not list(tmp_path.iterdir())


def test_memory_does_not_grow_with_the_file(tmp_path):
    images = (make_regions(f"image_{n}", num_boxes=36, feat_dim=512) for n in range(60))
    tracemalloc.start()
    try:
        write_tsv(tmp_path / "features.tsv", images)
        count = sum(1 for _ in read_tsv(tmp_path / "features.tsv"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    size = (tmp_path / "features.tsv").stat().st_size
    assert count == 60
    assert peak < size / 4


def test_normalize_boxes():
    boxes = np.array([[0, 0, 640, 480], [64, 48, 320, 240]], np.float32)
    normalized = normalize_boxes(boxes, width=640, height=480)
    assert normalized.dtype == np.float32
    np.testing.assert_array_equal(normalized, np.array([[0, 0, 1, 1], [0.1, 0.1, 0.5, 0.5]], np.float32))


def test_normalize_boxes_puts_rounding_on_the_edge():
    boxes = np.array([[-1e-4, 0, 640.0001, 480]], np.float32)
    np.testing.assert_array_equal(normalize_boxes(boxes, 640, 480), [[0, 0, 1, 1]])


@pytest.mark.parametrize(
    ("boxes", "width", "height", "complaint"),
    [
        ([[0, 0, 641, 480]], 640, 480, "within width 640 and height 480"),
        ([[0, 0, 480, 640]], 640, 480, "swapped"),
        ([[-1, 0, 1, 1]], 640, 480, "box 0"),
        ([[0, 0, 1, 1], [5, 0, 4, 1]], 640, 480, "box 1"),
        ([[0, 0, float("nan"), 1]], 640, 480, "box 0"),
        ([[0, 0, 1, 1]], 0, 480, "larger than 0 x 0"),
        ([0, 0, 1, 1], 640, 480, r"shape \[N, 4\]"),
    ],
)
def test_normalize_boxes_refuses(boxes, width, height, complaint):
    with pytest.raises(ValueError, match=complaint):
        normalize_boxes(np.array(boxes, np.float32), width, height)
