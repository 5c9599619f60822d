"""The pictures to extract features of: files, patterns, directories and lists of them; and boxes given for them.

An image is called as its file, without the suffix.
"""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lxmert_tf.data.features.image import PICTURES
from lxmert_tf.data.features.sources import is_store
from lxmert_tf.data.features.store import open_features
from lxmert_tf.data.features.tsv import read_tsv
from lxmert_tf.files import read_json_as

SUFFIXES = (*PICTURES, ".tif", ".tiff")  # of what is taken from a directory
LIST = ".txt"  # the suffix of a list of paths


def find_pictures(
    images: Sequence[str | os.PathLike] | str | os.PathLike, shard: tuple[int, int] | None = None
) -> dict[str, Path]:
    """The pictures by their names, in the order of these.

    Args:
        images: files, patterns of the shell, directories, whose pictures at any depth are meant, and lists: `.txt`
            files with a path on each line.
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
        elif path.suffix == LIST and path.is_file():
            yield from (Path(os.fsdecode(line)) for line in path.read_bytes().splitlines() if line.strip())
        elif os.path.lexists(path):
            yield path
        elif glob.has_magic(os.fspath(given)):
            matches = glob.glob(os.fspath(given), recursive=True)
            if not matches:
                raise FileNotFoundError(f"There is no file {os.fspath(given)!r}.")
            yield from map(Path, matches)
        else:
            raise FileNotFoundError(f"There is no file {os.fspath(given)!r}.")


def read_boxes(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The boxes of each image in a file.

    Args:
        path: a file of region features: HDF5, npz or TSV; or JSON, `{"image": [[x1, y1, x2, y2], ...], ...}`.

    Returns:
        float32[n, 4] by the image's name, in pixels of the image.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none of these.
    """
    path = Path(path)
    if path.suffix == ".json":
        boxes = read_json_as(path, dict, '{"image": [[x1, y1, x2, y2], ...], ...}')
        return {name: _boxes(value, f"{path}, image {name!r}") for name, value in boxes.items()}
    if is_store(path):
        store = open_features(path)
        return {img_id: store.boxes_in_pixels(row) for row, img_id in enumerate(store.img_ids)}
    return {regions.img_id: regions.boxes for regions in read_tsv(path)}


def _boxes(value: object, where: str) -> np.ndarray:
    try:
        boxes = np.array(value, "float32")
    except (TypeError, ValueError):
        boxes = np.zeros(0)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not len(boxes):
        raise ValueError(f"{where}: the boxes must be a list of [x1, y1, x2, y2], at least one.")
    return boxes
