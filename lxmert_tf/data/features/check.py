"""Checking a whole file of region features."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tqdm import tqdm

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.data.features.regions import ROUNDING, Series, check_name, class_counts
from lxmert_tf.data.features.sources import is_store, open_sources
from lxmert_tf.data.features.store import FeatureStore, open_features

BATCH = 64  # images read at once


def check_features(
    path: str | os.PathLike, progress: bool = False, config: LxmertConfig | None = None
) -> Iterator[str]:
    """Yields a message for each problem of a file of region features, of a source of one or built.

    Every line and every image is read: names printable, boxes within the image and in
    order, features finite, classes those of the config, confidences in 0..1.

    Args:
        path: the file.
        progress: show a bar.
        config: whose `num_object_labels` and `num_attr_labels` say which classes there are. Default: `LxmertConfig()`.

    Raises:
        ValueError: an HDF5 or npz file is damaged as a whole, or of another layout.
    """
    path, config = os.fspath(path), config or LxmertConfig()
    if not is_store(path):
        yield from _check_sources(path, config, progress)
        return
    store = open_features(path)
    with tqdm(total=len(store), unit=" images", disable=not progress or None) as bar:
        for start in range(0, len(store), BATCH):
            rows = np.arange(start, min(start + BATCH, len(store)))
            try:
                yield from _check_images(store, rows, config)
            except ValueError:  # one of them: find out which, and check the others
                for row in rows:
                    try:
                        yield from _check_images(store, np.array([row]), config)
                    except ValueError as error:
                        yield str(error)
            bar.update(len(rows))


def _check_sources(path: str, config: LxmertConfig, progress: bool) -> Iterator[str]:
    series = Series(config)
    for source in open_sources([Path(path)]):
        with tqdm(total=source.size, unit="B", unit_scale=True, disable=not progress or None) as bar:
            for record in source.records():
                try:
                    series.add(record.read(series))
                except ValueError as error:
                    yield str(error)
                bar.update(record.size)
        if not source.size:
            yield f"{path} is empty"


def _check_images(store: FeatureStore, rows: np.ndarray, config: LxmertConfig) -> Iterator[str]:
    arrays = store.read_rows(rows)
    present = arrays["visual_attention_mask"] == 1
    boxes = arrays["visual_pos"]
    problems = {
        "features must be finite": ~np.isfinite(arrays["visual_feats"]).all(axis=2),
        "boxes must be x1 y1 x2 y2 with x1 <= x2 and y1 <= y2": (boxes[..., :2] > boxes[..., 2:]).any(axis=2),
    }
    for name, (count, origin) in class_counts(config).items():
        if name in arrays:
            ids = arrays[name]
            problems[f"{name} must lie in 0..{count - 1}, as {origin} of the config says"] = (ids < 0) | (ids >= count)
    for name in ("objects_conf", "attrs_conf"):
        if name in arrays:
            problems[f"{name} must lie in 0..1"] = ~((arrays[name] >= 0) & (arrays[name] <= 1 + ROUNDING))
    for row in rows:
        try:
            check_name(store.img_ids[row])
        except ValueError as error:
            yield f"{store.path}, image {store.img_ids[row]!r}: {error}"
    for problem, where in problems.items():
        for index in np.flatnonzero((where & present).any(axis=1)):
            yield f"{store.path}, image {store.img_ids[rows[index]]!r}: {problem}"
