"""Pictures as they come: of every kind, damaged, or none at all; and what is to be made of each."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Picture(NamedTuple):
    """A picture.

    Attributes:
        name: of its file, whose stem no other has.
        write: puts it at a path.
        verdict: uint8[h, w, 3], what it is read as; or what the message says of it, beside its name, as a regular
            expression.
    """

    name: str
    write: Callable[[Path], object]
    verdict: str | np.ndarray

    @property
    def is_read(self) -> bool:
        return not isinstance(self.verdict, str)

    @property
    def has_boxes(self) -> bool:
        """Whether it has place for a box: the detector's are 16 pixels wide and high, or more."""
        return not isinstance(self.verdict, str) and min(self.verdict.shape[:2]) >= 16

    @property
    def tolerance(self) -> int:
        """By how much its colours may differ: JPEG is lossy."""
        return 4 if self.name.endswith(("jpg", "JPEG")) else 0


# A picture of four colours, in squares of 16 pixels, which even JPEG hardly changes; turned, it is always another one.
_CORNERS = np.array([[[200, 40, 30], [30, 160, 50], [30, 160, 50]], [[40, 60, 190], [220, 210, 60], [220, 210, 60]]])
SCENE = np.kron(_CORNERS, np.ones((16, 16, 1), int)).astype("uint8")
NOISE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), "uint8")
PICTURE, GREY = Image.fromarray(SCENE), Image.fromarray(SCENE).convert("L")
AS_GREY = np.asarray(GREY.convert("RGB"))
SHARP = {"quality": 95, "subsampling": 0}
DAMAGED = "is cut short or damaged"
UNKNOWN = "is not a picture of a known kind"


def encoded(image: Image.Image, format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it is of this size, and holds 99 bytes."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = (header, b"IDAT" + zlib.compress(bytes(99)), b"IEND")
    framed = (struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def turned(orientation: int) -> bytes:
    """A JPEG whose EXIF says how it is to be turned."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(PICTURE, "JPEG", exif=exif, **SHARP)


UPRIGHT = {  # orientation -> the scene, once it is turned
    1: SCENE,
    2: SCENE[:, ::-1],
    3: SCENE[::-1, ::-1],
    4: SCENE[::-1],
    5: SCENE.transpose(1, 0, 2),
    6: SCENE[::-1].transpose(1, 0, 2),
    7: SCENE[::-1, ::-1].transpose(1, 0, 2),
    8: SCENE[:, ::-1].transpose(1, 0, 2),
}
ALPHA = Image.fromarray(np.arange(SCENE[..., 0].size).reshape(SCENE.shape[:2]).astype("uint8"))
PALETTE = PICTURE.quantize(8)
NEXT = Image.fromarray(255 - SCENE)
JPEG, PNG = encoded(PICTURE, "JPEG", **SHARP), encoded(PICTURE, "PNG")
NOISY = {kind: encoded(Image.fromarray(NOISE), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")}
NARROW = "too narrow"

_FILES: list[tuple[str, bytes, str | np.ndarray]] = [
    # No pictures
    ("empty.jpg", b"", "is empty"),
    ("text.jpg", b"not a picture\n", UNKNOWN),
    ("page.jpg", b"<!DOCTYPE html><title>404 Not Found</title>", UNKNOWN),
    ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', UNKNOWN),
    ("zeros.jpg", bytes(1000), UNKNOWN),
    ("random.jpg", NOISE.tobytes()[:1000], UNKNOWN),
    ("movie.jpg", b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(500), UNKNOWN),
    ("program.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", UNKNOWN),
    # Damaged
    ("cut_header.jpg", NOISY["JPEG"][:40], f"{DAMAGED}|{UNKNOWN}"),
    ("half.jpg", NOISY["JPEG"][: len(NOISY["JPEG"]) // 2], DAMAGED),
    ("last.jpg", NOISY["JPEG"][:-200], DAMAGED),
    ("cut_header_png.png", NOISY["PNG"][:20], f"{DAMAGED}|{UNKNOWN}"),
    ("cut_png.png", NOISY["PNG"][: len(NOISY["PNG"]) // 2], DAMAGED),
    ("checksum.png", NOISY["PNG"][:60] + bytes([NOISY["PNG"][60] ^ 255]) + NOISY["PNG"][61:], DAMAGED),
    ("cut_gif.gif", NOISY["GIF"][: len(NOISY["GIF"]) // 2], DAMAGED),
    ("cut_bmp.bmp", NOISY["BMP"][: len(NOISY["BMP"]) // 2], DAMAGED),
    ("cut_tiff.tif", NOISY["TIFF"][: len(NOISY["TIFF"]) // 2], DAMAGED),
    ("cut_webp.webp", NOISY["WEBP"][: len(NOISY["WEBP"]) // 2], DAMAGED),
    # Of sizes that cannot be
    ("bomb.png", png_of(60_000, 60_000), "has more than .* pixels, which Pillow refuses"),
    ("large.png", png_of(20_000, 5_000), "has 20000x5000 pixels, more than the"),
    ("short.png", png_of(30, 30), DAMAGED),
    ("no_columns.png", png_of(0, 30), f"{DAMAGED}|{UNKNOWN}|there is nothing in it"),
    ("1x5000.png", encoded(Image.new("RGB", (1, 5000)), "PNG"), NARROW),
    ("5000x1.png", encoded(Image.new("RGB", (5000, 1)), "PNG"), NARROW),
    ("1x1.png", encoded(Image.new("RGB", (1, 1), (9, 8, 7)), "PNG"), np.array([[[9, 8, 7]]], "uint8")),
    # Of kinds that differ from three times 8 bits
    ("fractions.tif", encoded(Image.fromarray(SCENE[..., 0] / np.float32(255)), "TIFF"), "grey values that are"),
    ("grey.jpg", encoded(GREY, "JPEG", **SHARP), AS_GREY),
    ("grey_alpha.png", encoded(Image.merge("LA", [GREY, ALPHA]), "PNG"), AS_GREY),
    ("alpha.png", encoded(Image.merge("RGBA", [*PICTURE.split(), ALPHA]), "PNG"), SCENE),
    ("palette.png", encoded(PALETTE, "PNG"), np.asarray(PALETTE.convert("RGB"))),
    ("palette_alpha.png", encoded(PALETTE, "PNG", transparency=bytes(range(8))), np.asarray(PALETTE.convert("RGB"))),
    (
        "bit.png",
        encoded(GREY.point(lambda value: 255 * (value > 99), "1"), "PNG"),
        np.where(AS_GREY > 99, 255, 0).astype("uint8"),
    ),
    ("16_bit.png", encoded(Image.fromarray(np.asarray(GREY).astype("uint16") * 257), "PNG"), AS_GREY),
    ("16_bit_tiff.tif", encoded(Image.fromarray(np.asarray(GREY).astype("uint16") * 257), "TIFF"), AS_GREY),
    ("cmyk.jpg", encoded(PICTURE.convert("CMYK"), "JPEG", **SHARP), SCENE),
    ("cmyk_tiff.tif", encoded(PICTURE.convert("CMYK"), "TIFF"), SCENE),
    ("animated.gif", encoded(PALETTE, "GIF", save_all=True, append_images=[NEXT]), np.asarray(PALETTE.convert("RGB"))),
    ("animated_png.png", encoded(PICTURE, "PNG", save_all=True, append_images=[NEXT]), SCENE),
    ("animated_webp.webp", encoded(PICTURE, "WEBP", save_all=True, append_images=[NEXT], lossless=True), SCENE),
    ("pages.tif", encoded(PICTURE, "TIFF", save_all=True, append_images=[NEXT]), SCENE),
    # Pictures after all
    ("png_called.jpg", PNG, SCENE),
    ("no_suffix", PNG, SCENE),
    ("UPPER.JPEG", JPEG, SCENE),
    ("progressive.jpg", encoded(PICTURE, "JPEG", **SHARP, progressive=True), SCENE),
    ("more_behind.jpg", JPEG + b"more", SCENE),
    ("bad_exif.jpg", encoded(PICTURE, "JPEG", **SHARP, exif=b"Exif\0\0II*\0\xff\xff"), SCENE),
    ("name with spaces, and é.png", PNG, SCENE),
    *((f"turned_{number}.jpg", turned(number), upright) for number, upright in UPRIGHT.items()),
    ("turned_9.jpg", turned(9), SCENE),
]

BAD_IMAGES = [
    *(Picture(name, lambda path, data=data: path.write_bytes(data), verdict) for name, data, verdict in _FILES),
    Picture("directory.jpg", lambda path: path.mkdir(), "is not a file"),
    Picture("pipe.jpg", lambda path: os.mkfifo(path), "is not a file"),
    Picture("missing.jpg", lambda path: None, "There is no file"),
    Picture("link.jpg", lambda path: path.symlink_to("nowhere.jpg"), "There is no file"),
    Picture("unreadable.jpg", lambda path: path.symlink_to("/proc/self/mem"), "cannot be read"),
]


def write_bad_images(folder: Path) -> list[Path]:
    """Writes all of them into a folder; returns their paths."""
    paths = [folder / image.name for image in BAD_IMAGES]
    for image, path in zip(BAD_IMAGES, paths, strict=True):
        image.write(path)
    return paths
