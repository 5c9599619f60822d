"""Region features: the tab-separated `*_obj36.tsv` files of the original LXMERT, read and written as a stream.

One line per image, no header, ten fields: img_id, img_h, img_w, objects_id, objects_conf, attrs_id, attrs_conf,
num_boxes, boxes, features; or the six of bottom-up attention: img_id, img_w, img_h, num_boxes, boxes, features. The
arrays are base64 of little-endian int64 (ids) or float32 (all others). Fields may be as Python prints bytes: b'...'.

Shapes: N = boxes in the image, D = feature dimension.
"""

import base64
import binascii
import os
from collections.abc import Iterable, Iterator

import numpy as np

from lxmert_tf.data.features.regions import LABELS, RegionFeatures, Series, check_regions
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
BOTTOM_UP_FIELDS = ("img_id", "img_w", "img_h", "num_boxes", "boxes", "features")
PROVENANCE = ".json"  # what is added to the name of a TSV file for that of its provenance


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
    series = Series()
    with open(path, "rb", buffering=1 << 20) as file:
        for number, line in numbered_lines(file):
            regions = parse_line(line, os.fspath(path), number, series)
            series.add(regions)
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


def parse_line(line: bytes, path: str, number: int, series: Series) -> RegionFeatures:
    """One line of a TSV of region features.

    Args:
        line: with or without its line end.
        path, number: of the line, for errors.
        series: the images before.

    Raises:
        ValueError: the line cannot be read, or its image does not go with those before. The message names the file, the
            line and the image.
    """
    fields = line.rstrip(b"\r\n").split(b"\t")
    try:
        regions = _parse(fields)
        series.check(regions)
    except ValueError as error:
        img_id = plain_field(fields[0]).decode("utf-8", "replace")
        raise ValueError(f"{path}, line {number}, image {img_id[:80]!r}: {error}") from error
    return regions


def format_line(regions: RegionFeatures) -> bytes:
    """The line of one valid image, with its line end."""
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


def write_tsv(path: str | os.PathLike, regions: Iterable[RegionFeatures]) -> None:
    """Writes region features one image at a time, beside `path`, and renames at the end.

    Args:
        path: the file to write; an existing one is replaced, but only when all is written.
        regions: the images in order. What is written reads back bit by bit with `read_tsv`.

    Raises:
        ValueError: an image could not be read back: wrong shapes, values that are not finite, boxes outside the image,
            an img_id twice, or another feature dimension than before.
    """
    series = Series()
    with replacing(path) as part, open(part, "wb") as file:
        for number, entry in enumerate(regions, start=1):
            try:
                check_regions(entry)
                if not entry.labels():
                    raise ValueError(f"a line of {len(FIELDS)} fields needs {', '.join(LABELS)}")
                series.check(entry)
            except ValueError as error:
                raise ValueError(f"{os.fspath(path)}, line {number}, image {entry.img_id!r}: {error}") from error
            series.add(entry)
            file.write(format_line(entry))


def _parse(fields: list[bytes]) -> RegionFeatures:
    if not any(field.strip() for field in fields):
        raise ValueError("the line is blank, which only the last lines may be")
    names = FIELDS if len(fields) != len(BOTTOM_UP_FIELDS) else BOTTOM_UP_FIELDS
    if len(fields) != len(names):
        raise ValueError(
            f"expected {len(FIELDS)} tab-separated fields ({', '.join(FIELDS)}) "
            f"or {len(BOTTOM_UP_FIELDS)} ({', '.join(BOTTOM_UP_FIELDS)}), got {len(fields)}"
        )
    raw = dict(zip(names, map(plain_field, fields), strict=True))
    num_boxes = _integer(raw, "num_boxes")
    boxes = _array(raw, "boxes", "<f4", num_boxes * 4).reshape(num_boxes, 4)
    labels: dict[str, np.ndarray | None] = dict.fromkeys(LABELS)
    if names is FIELDS:
        labels = {name: _array(raw, name, "<i8" if name.endswith("_id") else "<f4", num_boxes) for name in LABELS}
    regions = RegionFeatures(
        img_id=raw["img_id"].decode("utf-8"),
        img_h=_integer(raw, "img_h"),
        img_w=_integer(raw, "img_w"),
        **labels,
        boxes=boxes,
        features=_features(raw, num_boxes),
    )
    check_regions(regions)
    return regions


def plain_field(field: bytes) -> bytes:
    """A field without the b'...' in which Python writes bytes."""
    quoted = field[:2] in (b"b'", b'b"') and len(field) > 2 and field[-1:] == field[1:2]
    return field[2:-1] if quoted else field


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


def _encode(array: np.ndarray | None, dtype: str) -> bytes:
    return base64.b64encode(np.ascontiguousarray(array, dtype).tobytes())


def _short(value: bytes) -> str:
    return repr(value[:40].decode("utf-8", "replace"))
