"""The pictures to extract features of: files, patterns, directories and lists of them; and boxes given for them.

An image is called as its file, without the suffix.
"""

import codecs
import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lxmert_tf.data.features.image import PICTURES
from lxmert_tf.data.features.sources import is_store
from lxmert_tf.data.features.store import open_features
from lxmert_tf.data.features.tsv import read_tsv
from lxmert_tf.detector.image_processor import is_url
from lxmert_tf.detector.regions import check_boxes
from lxmert_tf.files import read_json_as

SUFFIXES = (*PICTURES, ".tif", ".tiff")  # of what is taken from a directory
LIST = ".txt"  # the suffix of a list of paths


def find_pictures(
    images: Sequence[str | os.PathLike] | str | os.PathLike, shard: tuple[int, int] | None = None
) -> dict[str, Path]:
    """The pictures by their names, in the order of these.

    Args:
        images: files, patterns of the shell, directories, whose pictures at any depth are meant, and lists: `.txt`
            files with a path on each line, relative to the working directory.
        shard: (i, n), to have only every n-th name from the i-th on, counted from 0.

    Raises:
        FileNotFoundError: there is nothing at one of these.
        ValueError: two pictures have one name, or there are none.
    """
    found: dict[str, Path] = {}
    for path in _files([images] if isinstance(images, str | os.PathLike) else images):
        img_id = picture_name(path)
        other = found.setdefault(img_id, path)
        if other != path:
            raise ValueError(f"{other} and {path} would both be the image {img_id!r}; rename one of them.")
    if not found:
        raise ValueError("There are no pictures; give files, patterns, directories or lists of pictures.")
    index, count = shard or (0, 1)
    if index >= len(found):
        raise ValueError(f"The shard {index}/{count} is empty: there are only {len(found)} pictures.")
    return {img_id: found[img_id] for img_id in sorted(found)[index::count]}


def picture_name(path: str | os.PathLike) -> str:
    """The name of the image in a file."""
    return Path(path).stem


def _files(images: Iterable[str | os.PathLike]) -> Iterable[Path]:
    for given in images:
        path = Path(given)
        if path.is_dir():
            inside = [each for each in path.rglob("*") if each.suffix.lower() in SUFFIXES and not each.is_dir()]
            if not inside:
                raise ValueError(f"{path} has no pictures, files whose names end with {', '.join(SUFFIXES)}.")
            yield from inside
        elif is_list(path):
            yield from read_list(path)
        elif os.path.lexists(path):
            yield path
        elif is_url(given):
            raise ValueError(f"{given} is a URL, which is not opened: download it, and give the file.")
        elif glob.has_magic(os.fspath(given)):
            matches = glob.glob(os.fspath(given), recursive=True)
            if not matches:
                raise FileNotFoundError(f"There is no file {os.fspath(given)!r}.")
            yield from map(Path, matches)
        else:
            raise FileNotFoundError(f"There is no file {os.fspath(given)!r}.")


def is_list(path: Path) -> bool:
    """Whether a path is of a list of pictures."""
    return path.suffix == LIST and path.is_file()


def read_list(path: Path) -> list[Path]:
    """The paths in a list, one on each line; relative ones begin in the working directory."""
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).splitlines()
    return [Path(os.fsdecode(line)) for line in lines if line.strip()]


class GivenBoxes:
    """The boxes of each image in a file, in pixels of the image.

    Args:
        path: a file of region features: HDF5, npz or TSV; or JSON, `{"image": [[x1, y1, x2, y2], ...], ...}`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none of these.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        self.boxes: dict[str, np.ndarray] = {}
        self.sizes: dict[str, tuple[int, int] | None] = {}  # height and width, where the file has them
        if self.path.suffix == ".json":
            found = read_json_as(self.path, dict, '{"image": [[x1, y1, x2, y2], ...], ...}')
            self.boxes = {img_id: _boxes(value) for img_id, value in found.items()}
        elif is_store(self.path):
            store = open_features(self.path)
            for row, img_id in enumerate(store.img_ids):
                self.boxes[img_id], self.sizes[img_id] = store.boxes_in_pixels(row), store.size(img_id)
        else:
            for regions in read_tsv(self.path):
                self.boxes[regions.img_id], self.sizes[regions.img_id] = regions.boxes, (regions.img_h, regions.img_w)

    def number(self, img_id: str) -> int:
        """How many boxes an image has."""
        return len(self.boxes.get(img_id, ()))

    def check(self, img_ids: Iterable[str]) -> None:
        """ValueError if an image has none."""
        missing = [img_id for img_id in img_ids if not self.number(img_id)]
        if not missing:
            return
        if missing[0] in self.boxes:
            raise ValueError(
                f"{self.path}, image {missing[0]!r}: the boxes must be a list of [x1, y1, x2, y2], at least one."
            )
        more = f" and of {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise ValueError(f"{self.path} has no boxes of the image {missing[0]!r}{more}.")

    def of(self, img_id: str, size: tuple[int, int]) -> np.ndarray:
        """float32[n, 4] of an image.

        Raises:
            ValueError: it has none, they are not in a picture of this height and width, or of one of another size.
        """
        self.check([img_id])
        if (recorded := self.sizes.get(img_id) or size) != size:
            (height, width), (high, wide) = size, recorded
            raise ValueError(
                f"{self.path} has the boxes of {img_id!r} for a picture of {wide}x{high} pixels, but it has "
                f"{width}x{height}; give the picture that they are of."
            )
        return check_boxes(self.boxes[img_id], size, f"{img_id!r} in {self.path}")


def _boxes(value: object) -> np.ndarray:
    """float32[n, 4] of JSON; [0, 4] of what are no boxes."""
    try:
        boxes = np.array(value, "float32")
    except (TypeError, ValueError):
        boxes = np.zeros(0)
    return boxes if boxes.ndim == 2 and boxes.shape[1] == 4 else np.zeros((0, 4), "float32")
