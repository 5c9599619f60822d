"""Checking a whole file of region features."""

import os
from collections.abc import Iterator

import numpy as np
from tqdm import tqdm

from lxmert_tf.data.features.store import FeatureStore, open_features
from lxmert_tf.data.features.tsv import numbered_lines, parse_line

BATCH = 64  # images read at once


def check_features(path: str | os.PathLike, progress: bool = False) -> Iterator[str]:
    """Yields a message for each problem of a file of region features, TSV, HDF5 or npz.

    Of a TSV every line is parsed. Of the others every image is read: boxes within the image and in order, features and
    confidences finite, classes not negative.

    Raises:
        ValueError: an HDF5 or npz file is damaged as a whole, or of another layout.
    """
    path = os.fspath(path)
    if path.endswith(".tsv"):
        yield from _check_tsv(path, progress)
        return
    store = open_features(path)
    with tqdm(total=len(store), unit=" images", disable=not progress) as bar:
        for start in range(0, len(store), BATCH):
            rows = np.arange(start, min(start + BATCH, len(store)))
            try:
                yield from _check_images(store, rows)
            except ValueError:  # one of them: find out which, and check the others
                for row in rows:
                    try:
                        yield from _check_images(store, rows=np.array([row]))
                    except ValueError as error:
                        yield str(error)
            bar.update(len(rows))


def _check_tsv(path: str, progress: bool) -> Iterator[str]:
    seen: set[str] = set()
    feat_dim = None
    size = os.path.getsize(path)
    with (
        open(path, "rb", buffering=1 << 20) as file,
        tqdm(total=size, unit="B", unit_scale=True, disable=not progress) as bar,
    ):
        for number, line in numbered_lines(file):
            try:
                regions = parse_line(line, path, number, seen, feat_dim)
            except ValueError as error:
                yield str(error)
            else:
                seen.add(regions.img_id)
                feat_dim = regions.features.shape[1]
            bar.update(len(line))
    if not size:
        yield f"{path} is empty"


def _check_images(store: FeatureStore, rows: np.ndarray) -> Iterator[str]:
    arrays = store.read_rows(rows)
    present = arrays["visual_attention_mask"] == 1
    boxes = arrays["visual_pos"]
    problems = {
        "features must be finite": ~np.isfinite(arrays["visual_feats"]).all(axis=2),
        "boxes must be x1 y1 x2 y2 with x1 <= x2 and y1 <= y2": (boxes[..., :2] > boxes[..., 2:]).any(axis=2),
    }
    for name in ("objects", "attrs"):
        if f"{name}_id" in arrays:
            problems[f"{name}_id must not be negative"] = arrays[f"{name}_id"] < 0
        if f"{name}_conf" in arrays:
            conf = arrays[f"{name}_conf"]
            problems[f"{name}_conf must lie in 0..1"] = ~((conf >= 0) & (conf <= 1 + 1e-5))
    for problem, where in problems.items():
        for index in np.flatnonzero((where & present).any(axis=1)):
            yield f"{store.path}, image {store.img_ids[rows[index]]!r}: {problem}"
