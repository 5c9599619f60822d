"""Region features: the tab-separated `*_obj36.tsv` files of the original LXMERT, read and written as a stream.

One line per image, no header, ten fields: img_id, img_h, img_w, objects_id, objects_conf, attrs_id, attrs_conf,
num_boxes, boxes, features. The arrays are base64 of little-endian int64 (ids) or float32 (all others).

Shapes: N = boxes in the image, D = feature dimension.
"""

import base64
import binascii
import os
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from lxmert_tf.files import replacing

FIELDS = (
    "img_id",
    "img_h",
    "img_w",
    "objects_id",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
    "num_boxes",
    "boxes",
    "features",
)
LARGEST = 1e6  # features above this are float64 read as float32
LARGEST_SIDE = 2**31 - 1  # pixels; the built file keeps sizes as int32
LARGEST_CLASS = 2**31 - 1  # models take int32
ROUNDING = 1e-5  # how far a box may pass the edge of its image, as a share of its side: float32 rounding


@dataclass(frozen=True, eq=False)
class RegionFeatures:
    """The boxes that a detector found in one image.

    Args:
        img_id: the image's name, not empty, without tab, line break or NUL.
        img_h, img_w: height and width of the image in pixels.
        objects_id: `int64[N]`, object class of each box, in 0..2^31-1.
        objects_conf: `float32[N]`, its confidence in 0..1.
        attrs_id: `int64[N]`, attribute class of each box, in 0..2^31-1.
        attrs_conf: `float32[N]`, its confidence in 0..1.
        boxes: `float32[N, 4]`, pixels, x1 y1 x2 y2, within the image.
        features: `float32[N, D]`.
    """

    img_id: str
    img_h: int
    img_w: int
    objects_id: np.ndarray
    objects_conf: np.ndarray
    attrs_id: np.ndarray
    attrs_conf: np.ndarray
    boxes: np.ndarray
    features: np.ndarray


def normalize_boxes(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """Divides pixel boxes by (width, height, width, height): the positions that the model takes.

    Args:
        boxes: `float32[N, 4]`, pixels, x1 y1 x2 y2.
        width, height: size of the image in pixels, above 0.

    Returns:
        `float32[N, 4]` in 0..1; coordinates beyond an edge by rounding only (1e-5) are clipped.

    Raises:
        ValueError: the size is not above 0, or a box has not 4 numbers, is reversed, or is outside the image.
    """
    boxes = np.asarray(boxes, np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"boxes must have the shape [N, 4], got {list(boxes.shape)}")
    if not (width > 0 and height > 0):
        raise ValueError(f"an image must be larger than 0 x 0 pixels, got width {width} and height {height}")
    normalized = boxes / np.array([width, height, width, height], np.float32)
    # As conditions that must hold, so that NaN fails too.
    inside = ((normalized >= -ROUNDING) & (normalized <= 1 + ROUNDING)).all(axis=1)
    ordered = (boxes[:, :2] <= boxes[:, 2:]).all(axis=1)
    if not (inside & ordered).all():
        worst = int(np.argmin(inside & ordered))
        raise ValueError(
            f"box {worst} must be x1 y1 x2 y2 in pixels within width {width} and height {height}, "
            f"got {boxes[worst].tolist()}; are the boxes already divided, or width and height swapped?"
        )
    return np.clip(normalized, 0, 1)


def read_tsv(path: str | os.PathLike) -> Iterator[RegionFeatures]:
    """Reads region features one image at a time.

    Memory does not grow with the features: one line is held, and the img_ids, to find duplicates.

    Args:
        path: a `*.tsv` file as described at the top of this module.

    Yields:
        `RegionFeatures`, in the order of the file.

    Raises:
        ValueError: a line cannot be read, repeats an img_id, or changes the feature dimension. The message names
            the file, the line and the image.
        FileNotFoundError: there is no such file.
    """
    seen: set[str] = set()
    feat_dim = None
    with open(path, "rb", buffering=1 << 20) as file:
        for number, line in numbered_lines(file):
            regions = parse_line(line, os.fspath(path), number, seen, feat_dim)
            seen.add(regions.img_id)
            feat_dim = regions.features.shape[1]
            yield regions


def numbered_lines(lines: Iterable[bytes], first: int = 1) -> Iterator[tuple[int, bytes]]:
    """(number, line) of each line, counted from `first`; blank lines at the end are left out."""
    blank = []
    for number, line in enumerate(lines, first):
        if not line.strip():
            blank.append((number, line))
            continue
        yield from blank
        blank.clear()
        yield number, line


def parse_line(
    line: bytes, path: str, number: int, seen: Collection[str] = (), feat_dim: int | None = None
) -> RegionFeatures:
    """One line of a TSV of region features.

    Args:
        line: with or without its line end.
        path, number: of the line, for errors.
        seen: names of the images before.
        feat_dim: D of the images before, or None.

    Raises:
        ValueError: the line cannot be read, repeats an img_id, or changes the feature dimension. The message names the
            file, the line and the image.
    """
    fields = line.rstrip(b"\r\n").split(b"\t")
    try:
        regions = _parse(fields)
        _check_next(regions, seen, feat_dim)
    except ValueError as error:
        img_id = fields[0].decode("utf-8", "replace")
        raise ValueError(f"{path}, line {number}, image {img_id[:80]!r}: {error}") from error
    return regions


def write_tsv(path: str | os.PathLike, regions: Iterable[RegionFeatures]) -> None:
    """Writes region features one image at a time, beside `path`, and renames at the end.

    Args:
        path: the file to write; an existing one is replaced, but only when all is written.
        regions: the images in order. What is written reads back bit by bit with `read_tsv`.

    Raises:
        ValueError: an image could not be read back: wrong shapes, values that are not finite, boxes outside the image,
            an img_id twice, or another feature dimension than before.
    """
    seen: set[str] = set()
    feat_dim = None
    with replacing(path) as part, open(part, "wb") as file:
        for number, entry in enumerate(regions, start=1):
            try:
                _check(entry)
                _check_next(entry, seen, feat_dim)
            except ValueError as error:
                raise ValueError(f"{os.fspath(path)}, line {number}, image {entry.img_id!r}: {error}") from error
            seen.add(entry.img_id)
            feat_dim = np.shape(entry.features)[1]
            file.write(_format(entry))


def _parse(fields: list[bytes]) -> RegionFeatures:
    if not any(field.strip() for field in fields):
        raise ValueError("the line is blank, which only the last lines may be")
    if len(fields) != len(FIELDS):
        raise ValueError(f"expected {len(FIELDS)} tab-separated fields ({', '.join(FIELDS)}), got {len(fields)}")
    raw = dict(zip(FIELDS, fields, strict=True))
    num_boxes = _integer(raw, "num_boxes")
    boxes = _array(raw, "boxes", "<f4", num_boxes * 4).reshape(num_boxes, 4)
    regions = RegionFeatures(
        img_id=raw["img_id"].decode("utf-8"),
        img_h=_integer(raw, "img_h"),
        img_w=_integer(raw, "img_w"),
        objects_id=_array(raw, "objects_id", "<i8", num_boxes),
        objects_conf=_array(raw, "objects_conf", "<f4", num_boxes),
        attrs_id=_array(raw, "attrs_id", "<i8", num_boxes),
        attrs_conf=_array(raw, "attrs_conf", "<f4", num_boxes),
        boxes=boxes,
        features=_features(raw, num_boxes),
    )
    _check(regions)
    return regions


def _integer(raw: dict[str, bytes], name: str) -> int:
    # Not int(raw[name]): that takes b"1_0" and b" 10".
    if not raw[name].isdigit() or int(raw[name]) < 1:
        raise ValueError(f"{name} must be an integer above 0, got {_short(raw[name])}")
    return int(raw[name])


def _decode(raw: dict[str, bytes], name: str) -> bytes:
    try:
        return base64.b64decode(raw[name], validate=True)
    except binascii.Error as error:
        raise ValueError(f"{name} is not base64 ({error}); is the file cut short?") from error


def _array(raw: dict[str, bytes], name: str, dtype: str, length: int) -> np.ndarray:
    data = _decode(raw, name)
    size = np.dtype(dtype).itemsize
    if len(data) != length * size:
        raise ValueError(f"{name} must hold {length} values of {size} bytes, got {len(data)} bytes")
    return np.frombuffer(data, dtype).copy()  # frombuffer alone is read-only


def _features(raw: dict[str, bytes], num_boxes: int) -> np.ndarray:
    data = _decode(raw, "features")
    if not data or len(data) % (4 * num_boxes):
        raise ValueError(f"features must hold float32[{num_boxes}, D], got {len(data)} bytes")
    return np.frombuffer(data, "<f4").reshape(num_boxes, -1).copy()


def _check(regions: RegionFeatures) -> None:
    """Raises ValueError unless one image is valid."""
    if not regions.img_id or any(mark in regions.img_id for mark in "\t\r\n\0"):
        raise ValueError("img_id must be a name without tab, line break or NUL")
    for name in ("img_h", "img_w"):
        side = getattr(regions, name)
        if not 1 <= side <= LARGEST_SIDE:
            raise ValueError(f"{name} must be above 0 and at most {LARGEST_SIDE}, got {side}")
    if np.ndim(regions.features) != 2 or not np.size(regions.features):
        raise ValueError(f"features must have the shape [N, D], N and D above 0, got {np.shape(regions.features)}")
    num_boxes = len(regions.features)
    for name in ("objects_id", "objects_conf", "attrs_id", "attrs_conf"):
        if np.shape(getattr(regions, name)) != (num_boxes,):
            raise ValueError(f"{name} must have the shape ({num_boxes},), got {np.shape(getattr(regions, name))}")
    if np.shape(regions.boxes) != (num_boxes, 4):
        raise ValueError(f"boxes must have the shape ({num_boxes}, 4), got {np.shape(regions.boxes)}")
    for name in ("objects_conf", "attrs_conf", "features"):
        if not np.isfinite(getattr(regions, name)).all():
            raise ValueError(f"{name} must be finite, got NaN or infinity")
    if max(np.max(regions.features), -np.min(regions.features)) > LARGEST:
        raise ValueError("features exceed a million; are they float64 instead of float32?")
    for name in ("objects_conf", "attrs_conf"):
        low, high = np.min(getattr(regions, name)), np.max(getattr(regions, name))
        if low < 0 or high > 1 + ROUNDING:
            raise ValueError(f"{name} must lie in 0..1, got {low:g} to {high:g}")
    for name in ("objects_id", "attrs_id"):
        ids = np.asarray(getattr(regions, name))
        if (wrong := ids != np.clip(ids.astype(np.int64), 0, LARGEST_CLASS)).any():
            raise ValueError(f"{name} must be integers in 0..{LARGEST_CLASS}, got {ids[wrong][0]}")
    normalize_boxes(regions.boxes, regions.img_w, regions.img_h)
    if np.max(regions.boxes) <= 1 < min(regions.img_h, regions.img_w):
        raise ValueError(
            f"all boxes lie within the first pixel of {regions.img_w} x {regions.img_h}; they must be in pixels, "
            "not divided by width and height"
        )


def _check_next(regions: RegionFeatures, seen: Collection[str], feat_dim: int | None) -> None:
    """Raises ValueError unless an image fits those before it."""
    if regions.img_id in seen:
        raise ValueError("this img_id is already in the file")
    if feat_dim is not None and regions.features.shape[1] != feat_dim:
        raise ValueError(f"features must have {feat_dim} values per box, as before, got {regions.features.shape[1]}")


def _format(regions: RegionFeatures) -> bytes:
    fields = (
        regions.img_id.encode(),
        str(int(regions.img_h)).encode(),
        str(int(regions.img_w)).encode(),
        _encode(regions.objects_id, "<i8"),
        _encode(regions.objects_conf, "<f4"),
        _encode(regions.attrs_id, "<i8"),
        _encode(regions.attrs_conf, "<f4"),
        str(len(regions.features)).encode(),
        _encode(regions.boxes, "<f4"),
        _encode(regions.features, "<f4"),
    )
    return b"\t".join(fields) + b"\n"


def _encode(array: np.ndarray, dtype: str) -> bytes:
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes())


def _short(value: bytes) -> str:
    return repr(value[:40].decode("utf-8", "replace"))
