"""Files of region features while they are written, image after image, so that writing can go on after a kill."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lxmert_tf.data.features.regions import LABELS, RegionFeatures
from lxmert_tf.data.features.rows import BINARY, FileRows, hdf5_rows
from lxmert_tf.data.features.tsv import PROVENANCE, format_line
from lxmert_tf.files import write_text

if TYPE_CHECKING:
    import h5py

BLOCK = 512  # boxes that lie together in the file: 4 MB of float32[2048]
METADATA = 2**15  # bytes at the beginning of the file, and one more for each box, for where its blocks are
Image = tuple[str, int, int, int]  # img_id, img_h, img_w, boxes


class Writer(Protocol):
    """A file that is being written.

    Attributes:
        written: how far, as the file counts it: what it is opened with again after a kill.
        feat_dim: D of the features in it; None where it does not say.
    """

    written: int
    feat_dim: int | None

    def has_space(self, regions: RegionFeatures) -> bool:
        """Whether the image can be written without `grow`."""

    def grow(self, boxes: int) -> "Writer":
        """The file with space for so many boxes in all; nothing can be gone on from meanwhile."""

    def write(self, regions: RegionFeatures) -> None:
        """Writes one image behind those before."""

    def flush(self) -> None:
        """Waits until what is written is on disk."""

    def finish(self, out: Path, images: list[Image], provenance: dict[str, Any]) -> None:
        """Writes what comes at the end, and closes the file, which is yet to be renamed to `out`."""

    def close(self) -> None:
        """Closes the file."""


class TsvWriter:
    """A TSV file of the original's ten columns; its provenance is another file beside it."""

    def __init__(self, path: Path, written: int = 0):
        self.written = written
        self.feat_dim: int | None = None
        self.file = open(path, "r+b" if written else "wb")  # noqa: SIM115 (closed by `close`)
        self.file.truncate(written)
        self.file.seek(written)

    def has_space(self, regions: RegionFeatures) -> bool:
        return True

    def grow(self, boxes: int) -> "TsvWriter":
        return self

    def write(self, regions: RegionFeatures) -> None:
        self.written += self.file.write(format_line(regions))

    def flush(self) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())

    def finish(self, out: Path, images: list[Image], provenance: dict[str, Any]) -> None:
        self.flush()
        self.close()
        write_text(out.with_name(out.name + PROVENANCE), json.dumps(provenance, indent=2) + "\n")

    def close(self) -> None:
        self.file.close()


class Hdf5Writer:
    """An HDF5 file with space for more boxes than it will have, written at the offsets of its rows."""

    def __init__(self, path: Path, labels: bool, written: int = 0):
        import h5py

        self.path, self.labels, self.written = path, labels, written
        self.descriptor = os.open(path, os.O_RDWR | BINARY)
        with h5py.File(path, "r") as file:
            rows = {name: hdf5_rows(file[name], self.descriptor) for name in _box_arrays(labels)}
        self.rows = {name: each for name, each in rows.items() if isinstance(each, FileRows)}
        if len(self.rows) < len(rows):
            self.close()
            raise ValueError(f"the arrays of {path} are not plain rows")
        self.feat_dim: int | None = self.rows["image_features"].width

    @classmethod
    def create(cls, path: Path, boxes: int, feat_dim: int, dtype: str, labels: bool) -> "Hdf5Writer":
        """A new file with space for so many boxes."""
        import h5py

        shapes = {"image_features": (boxes, feat_dim), "image_bb": (boxes, 4)}
        dtypes = {"image_features": dtype, "image_bb": "float32", **LABELS}
        with h5py.File(path, "w", meta_block_size=METADATA + boxes) as file:
            # The features last: what they turn out not to need is at the end of the file, which becomes shorter.
            for name in reversed(_box_arrays(labels)):
                _allocate(file, name, shapes.get(name, (boxes,)), dtypes[name])
        return cls(path, labels)

    @classmethod
    def extend(cls, path: Path, boxes: int, labels: bool, written: int) -> "Hdf5Writer":
        """A file that there is, with space for so many boxes in all."""
        import h5py

        with h5py.File(path, "r+") as file:
            for name in _box_arrays(labels):
                file[name].resize(boxes, axis=0)
        return cls(path, labels, written)

    def has_space(self, regions: RegionFeatures) -> bool:
        return self.written + len(regions.boxes) <= self.rows["image_features"].count

    def grow(self, boxes: int) -> "Hdf5Writer":
        self.close()
        return self.extend(self.path, boxes, self.labels, self.written)

    def write(self, regions: RegionFeatures) -> None:
        stored = self.rows["image_features"].dtype
        with np.errstate(over="ignore"):
            features = regions.features.astype(stored, copy=False)
        if features is not regions.features and not np.isfinite(features).all():
            raise ValueError(f"image {regions.img_id!r}: features are too large for {stored}; use float32")
        values = {"image_features": features, "image_bb": regions.boxes, **regions.labels()}
        for name, rows in self.rows.items():
            rows.write(self.written, values[name])
        self.written += len(regions.boxes)

    def flush(self) -> None:
        os.fsync(self.descriptor)

    def finish(self, out: Path, images: list[Image], provenance: dict[str, Any]) -> None:
        self.close()
        write_index(self.path, images, provenance)

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _box_arrays(labels: bool) -> tuple[str, ...]:
    """The names of the arrays that have a row for each box."""
    return ("image_features", "image_bb", *(LABELS if labels else ()))


def _allocate(file: "h5py.File", name: str, shape: tuple[int, ...], dtype: str) -> None:
    """Creates a dataset whose blocks are all allocated, without writing them."""
    import h5py

    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((BLOCK, *shape[1:]))
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple(shape, (h5py.h5s.UNLIMITED, *shape[1:]))
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(np.dtype(dtype)), space, plist)


def write_index(path: Path, images: list[Image], provenance: dict[str, Any]) -> None:
    """Frees the space that is left over, and writes the images' names, sizes and rows."""
    import h5py

    img_ids, heights, widths, counts = zip(*images, strict=True)
    ends = np.cumsum(counts, dtype=np.int64)
    with h5py.File(path, "r+") as file:
        for name in _box_arrays("objects_id" in file):
            file[name].resize(int(ends[-1]), axis=0)
        for name in {"image_ids", "img_h", "img_w", "pos_boxes"} & set(file):
            del file[name]
        file.create_dataset("image_ids", data=list(img_ids), dtype=h5py.string_dtype())
        file.create_dataset("img_h", data=np.array(heights, np.int32))
        file.create_dataset("img_w", data=np.array(widths, np.int32))
        file.create_dataset("pos_boxes", data=np.stack([ends - counts, ends], axis=1))
        file.attrs["provenance"] = json.dumps(provenance)
