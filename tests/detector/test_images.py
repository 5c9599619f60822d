"""Pictures of every kind are read as upstream's programs read them, or refused in one sentence."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.detector import IMAGES, TINY, tiny_detector

from lxmert_tf.detector import BadImage, ImageProcessor, make_pipeline
from lxmert_tf.detector.image_processor import read_image

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (20, 30, 3), "uint8")
GREY = RNG.integers(0, 256, (20, 30), "uint8")


def encoded(image: Image.Image, format: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """The beginning of a PNG that says it is of this size."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(99)))
    framed = (struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


PNG = encoded(Image.fromarray(COLOURS))
JPEG = encoded(Image.fromarray(np.kron(COLOURS, np.ones((4, 4, 1), "uint8"))), "JPEG")

READ = {
    "array": (COLOURS, COLOURS),
    "grey array": (GREY, np.stack([GREY] * 3, axis=2)),
    "grey array with an axis": (GREY[:, :, None], np.stack([GREY] * 3, axis=2)),
    "array with alpha": (np.dstack([COLOURS, GREY]), COLOURS),
    "16 bit array": (COLOURS.astype("uint16") * 256 + 255, COLOURS),
    "PIL": (Image.fromarray(COLOURS), COLOURS),
    "bytes": (PNG, COLOURS),
    "bytearray": (bytearray(PNG), COLOURS),
    "grey": (encoded(Image.fromarray(GREY)), np.stack([GREY] * 3, axis=2)),
    "grey with alpha": (
        encoded(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(GREY)])),
        np.stack([GREY] * 3, axis=2),
    ),
    "alpha is dropped, not blended": (encoded(Image.fromarray(np.dstack([COLOURS, GREY]))), COLOURS),
    "16 bit": (
        encoded(Image.fromarray(GREY.astype("uint16") * 256 + 7)),
        np.stack([GREY] * 3, axis=2),
    ),
    "1 bit": (
        encoded(Image.fromarray(GREY > 127)),
        np.stack([(GREY > 127).astype("uint8") * 255] * 3, axis=2),
    ),
    "palette": (
        encoded(Image.fromarray(COLOURS).quantize(16)),
        np.asarray(Image.fromarray(COLOURS).quantize(16).convert("RGB")),
    ),
    "palette with transparency": (
        encoded(Image.fromarray(COLOURS).quantize(16), transparency=bytes(range(16))),
        np.asarray(Image.fromarray(COLOURS).quantize(16).convert("RGB")),
    ),
    "CMYK": (
        encoded(Image.fromarray(COLOURS).convert("CMYK"), "TIFF"),
        np.asarray(Image.fromarray(COLOURS).convert("CMYK").convert("RGB")),
    ),
    "the first of an animation": (
        encoded(
            Image.fromarray(GREY),
            "GIF",
            save_all=True,
            append_images=[Image.fromarray(255 - GREY)],
        ),
        np.stack([GREY] * 3, axis=2),
    ),
    "1x1": (np.full((1, 1, 3), 7, "uint8"), np.full((1, 1, 3), 7, "uint8")),
}


@pytest.mark.parametrize("kind", READ)
def test_read(kind):
    image, expected = READ[kind]
    np.testing.assert_array_equal(read_image(image), expected)


@pytest.mark.parametrize("orientation", range(1, 7))
def test_exif_turns(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "turned.png").write_bytes(encoded(Image.fromarray(COLOURS), exif=exif))
    with Image.open(tmp_path / "turned.png") as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
        np.testing.assert_array_equal(read_image(image), expected)
    for path in (tmp_path / "turned.png", str(tmp_path / "turned.png")):
        np.testing.assert_array_equal(read_image(path), expected)


def test_the_suffix_does_not_matter(tmp_path):
    (tmp_path / "a.jpg").write_bytes(PNG)
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg"), COLOURS)


def test_exif_that_is_damaged_is_ignored():
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(COLOURS), exif=b"Exif\0\0II*\0\xff\xff")), COLOURS)


REFUSED = {
    "empty": (b"", "is empty"),
    "text": (b"not a picture", "is not a picture of a known kind"),
    "PNG cut in its header": (PNG[:20], "is cut short or damaged|is not a picture"),
    "PNG cut in its pixels": (PNG[: len(PNG) // 2], "is cut short or damaged"),
    "JPEG cut": (JPEG[: len(JPEG) // 2], "is cut short or damaged"),
    "JPEG cut at its end": (JPEG[:-200], "is cut short or damaged"),
    "PNG with a wrong checksum": (PNG[:60] + bytes([PNG[60] ^ 255]) + PNG[61:], "is cut short or damaged"),
    "many pixels": (png_of(20_000, 5_000), r"has 20000x5000 pixels, more than the 89,478,485 that max_pixels allows"),
    "enormous": (png_of(60_000, 60_000), "has more than .* pixels, which Pillow refuses"),
    "fractions": (encoded(Image.fromarray(GREY.astype("float32")), "TIFF"), "grey values that are fractions"),
    "floats": (COLOURS / 255, r"must be uint8 or uint16 .*, got float64 \[20, 30, 3\]"),
    "two channels": (COLOURS[:, :, :2], r"got uint8 \[20, 30, 2\]"),
    "no rows": (COLOURS[:0], "is 30x0 pixels; there is nothing in it"),
    "a column": (np.zeros((5000, 1, 3), "uint8"), "is 1x5000 pixels, too narrow: resized to 0x1000"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(kind):
    image, message = REFUSED[kind]
    with pytest.raises(BadImage, match=message) as caught:
        ImageProcessor()(image)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)


def test_what_is_no_picture_at_all(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_image(tmp_path / "a.jpg")
    with pytest.raises(BadImage, match="is not a file"):
        read_image(tmp_path)
    with pytest.raises(TypeError, match="a path, the bytes of a file, a PIL image or an array, got int"):
        read_image(3)
    (tmp_path / "a.jpg").write_bytes(b"")
    with pytest.raises(BadImage, match=r"a\.jpg is empty"):
        read_image(tmp_path / "a.jpg")


def test_urls_are_not_opened():
    with pytest.raises(BadImage, match=r"^http://example\.org/a\.png is a URL, which is not opened: download it"):
        ImageProcessor()("http://example.org/a.png")


def test_the_limit_of_pixels_can_be_set():
    assert ImageProcessor(max_pixels=600)(PNG).size == (20, 30)
    with pytest.raises(BadImage, match="has 30x20 pixels, more than the 599"):
        ImageProcessor(max_pixels=599)(PNG)


def test_without_pillow(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'lxmert-tf\[detector\]'"):
        read_image(PNG)
    assert read_image(COLOURS) is not None


def test_pictures_that_are_narrow_are_resized_as_they_are():
    processed = ImageProcessor()(np.zeros((10, 2000, 3), "uint8"))
    assert processed.pixels.shape == (5, 1000, 3)
    assert processed.scales == (2.0, 2.0)


def test_programs_are_traced_once_for_pictures_of_all_sizes(monkeypatch):
    detector, traced = tiny_detector(), []
    choose = type(detector).choose
    monkeypatch.setattr(type(detector), "choose", lambda *args: traced.append(args) or choose(*args))
    for height, width in ((40, 100), (100, 40), (60, 60)):
        detector.detect(np.zeros((height, width, 3), "uint8"), **TINY | {"conf": 0.123})
    assert len(traced) == 1


def test_bad_boxes(detector):
    """Checked before anything is computed."""
    for boxes, message in [
        ([[[0, 0, 5]]], r"must be numbers \[n, 4\] with n above 0, got \[1, 3\]"),
        ([np.zeros((0, 4))], r"got \[0, 4\]"),
        ([[[0, 0, 144, 50]]], r"x1 <= x2 <= 143 and y1 <= y2 <= 97"),
        ([[[9, 0, 5, 50]]], "x1 <= x2"),
        ([[[0, 0, float("nan"), 50]]], "must be x1, y1, x2, y2"),
        ([], "There must be boxes for each picture, got 0 for 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            detector.detect(IMAGES[0], boxes=boxes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "fast"}, "pipeline must be one of caffe, detectron2, detectron2-demo, huggingface, got 'fast'"),
        ({"min_boxes": 5, "max_boxes": 3}, "max_boxes must be at least 1 and at least min_boxes=5, got 3"),
        ({"min_boxes": -1}, "min_boxes must be an integer of at least 0, got -1"),
        ({"max_boxes": 2.5}, r"max_boxes must be an integer of at least 0, got 2\.5"),
        ({"min_size": 0}, "min_size must be an integer of at least 1, got 0"),
        ({"max_size": 10}, "max_size must be at least min_size=600, got 10"),
        ({"nms": [0.5, 2]}, r"nms must be one or several numbers from 0 to 1, got \[0\.5, 2\]"),
        ({"conf": 0}, "conf must be a number above 0 to 1, got 0"),
        ({"rpn_nms": "a"}, "rpn_nms must be a number from 0 to 1, got 'a'"),
        ({"rpn_min_size": -1}, "rpn_min_size must be a number of at least 0, got -1"),
        ({"min_boxes": 301}, "min_boxes must be at most 300, since post_nms leaves only so many proposals, got 301"),
        ({"threshold": 1}, "A pipeline has no number 'threshold'; it has min_boxes, max_boxes, min_size"),
    ],
)
def test_bad_numbers_of_a_pipeline(settings, message):
    with pytest.raises(ValueError, match=message):
        make_pipeline(**settings)


def test_numbers_of_a_pipeline():
    assert make_pipeline().min_boxes == make_pipeline().max_boxes == 36
    assert make_pipeline(min_boxes=50).max_boxes == 50
    assert make_pipeline(max_boxes=10).min_boxes == 10
    assert make_pipeline(nms=0.4).nms == (0.4,)
