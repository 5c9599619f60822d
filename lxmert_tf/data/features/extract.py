"""Region features of pictures, extracted into a file, image after image, so that a kill costs seconds."""

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.data.features.build import FORMAT, TSV, Build, BuildReport, locked_journal
from lxmert_tf.data.features.extractor import Extractor
from lxmert_tf.data.features.pictures import GivenBoxes, find_pictures, is_list, read_list
from lxmert_tf.data.features.regions import RegionFeatures, Series
from lxmert_tf.data.features.sources import Record, Update
from lxmert_tf.detector.image_processor import ProcessedImage
from lxmert_tf.files import check_apart, sha256

CHECKPOINT = 8  # images between entries of the journal
AHEAD = 4  # pictures that are decoded ahead, 7 MB each at the usual size
DECODERS = 2  # threads
SUFFIXES = (".h5", ".hdf5", ".tsv")


def extract_features(
    images: Sequence[str | os.PathLike] | str | os.PathLike,
    out: str | os.PathLike,
    detector: str | os.PathLike,
    *,
    boxes_from: str | os.PathLike | None = None,
    shard: tuple[int, int] | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    **options: Any,
) -> BuildReport:
    """Extracts the region features of pictures, one picture after the other, since padding would change them.

    The file is written beside `out`, as `OUT.partial`, and renamed at the end. After an interruption the same call
    resumes. Memory does not grow with the number of pictures. An image is called as its file, without the suffix, and
    images are in the order of their names.

    Args:
        images: files, patterns of the shell, directories, whose pictures at any depth are meant, and lists: `.txt`
            files with a path on each line, relative to the working directory.
        out: an HDF5 file in the layout of docs/data.md, or a `.tsv` of the original's ten columns, whose provenance is
            beside it in `OUT.json`.
        detector: a checkpoint of any format: directory, file or Hub id.
        boxes_from: a file of boxes for each image, which are described in place of the detector's own: region features
            (HDF5, npz or TSV) or JSON, `{"image": [[x1, y1, x2, y2], ...], ...}`, in pixels.
        shard: (i, n), to extract only every n-th image from the i-th on, counted from 0.
        skip_bad: leave out pictures that cannot be read or have no boxes, and report them.
        overwrite: replace an existing `out`, and what other options have begun.
        progress: show a bar.
        **options: `pipeline`, `min_boxes`, `max_boxes`, `precision`, `max_pixels` and numbers of the pipeline, as of
            `Extractor`.

    Raises:
        ValueError: a picture is bad and not to be skipped, two have one name, other options have begun the same file,
            or an option is bad.
        FileExistsError: `out` exists, and is not to be replaced.
        FileNotFoundError: there is no such picture, file of boxes or detector.
        OSError: `out` cannot be written.
        BlockingIOError: another process is writing the same file.
    """
    out = Path(out)
    if out.suffix not in SUFFIXES:
        raise ValueError(f"The name of the file to write must end with {', '.join(SUFFIXES)}, got {os.fspath(out)!r}.")
    images = [images] if isinstance(images, str | os.PathLike) else images
    paths = find_pictures(images, shard)
    check_apart(out, paths.values())
    boxes = None if boxes_from is None else GivenBoxes(boxes_from)
    if not skip_bad:
        _check_all_there(paths, images)
        if boxes is not None:
            boxes.check(paths)
    extractor = Extractor(detector, **options)
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} already exists; overwrite it (--overwrite).")
    if out.suffix == ".tsv" and not extractor.has_labels:
        raise ValueError(f"A detector without attributes has no lines for a TSV file; write {out.with_suffix('.h5')}.")
    extraction = extractor.options | {
        "shard": list(shard) if shard else None,
        "boxes_from": boxes_from and {"file": Path(boxes_from).name, "sha256": sha256(boxes_from)},
    }
    config = extractor.detector.config
    pictures = Pictures(paths, extractor, boxes)
    plan = {
        "format": FORMAT,
        "sources": [pictures.fingerprint],
        "labels": extractor.has_labels,
        "base": None,
        "dtype": "float32",
        "layout": TSV if out.suffix == ".tsv" else None,
        "extraction": extraction,
    }
    classes = LxmertConfig(num_object_labels=config.num_classes, num_attr_labels=max(config.num_attributes, 1))
    with locked_journal(out) as journal:
        build = Build(
            out, journal, plan, [pictures], classes, lambda _: pictures.most_boxes, skip_bad, overwrite, CHECKPOINT
        )
        name = f"{Path(detector).name}, pipeline {extractor.pipeline.name}"
        return build.run({"extractor": name, "extraction": extraction | extractor.provenance()}, progress)


class Pictures:
    """Pictures as a source of region features.

    Args:
        paths: by the images' names.
        extractor: what describes them.
        boxes: of each image; None to have the detector find them.
    """

    unit = " images"

    def __init__(self, paths: Mapping[str, Path], extractor: Extractor, boxes: GivenBoxes | None):
        self.paths, self.extractor, self.boxes = paths, extractor, boxes
        self.path = next(iter(paths.values())).absolute().parent
        self.kind, self.size = "pictures", len(paths)
        self.record: dict[str, Any] = {}  # `extract_features` has it
        listed = "\n".join(map(os.fspath, paths.values()))
        self.fingerprint = [len(paths), hashlib.sha256(os.fsencode(listed)).hexdigest()]

    @property
    def most_boxes(self) -> int:
        """How many boxes there are at most."""
        if self.boxes is not None:
            return sum(map(self.boxes.number, self.paths))
        pipeline = self.extractor.pipeline
        return len(self.paths) * min(pipeline.max_boxes, pipeline.post_nms)

    def records(self, done: int = 0, offset: int = 0, update: Update = lambda data: None) -> Iterator[Record]:
        names = list(self.paths)[done:]
        with ThreadPoolExecutor(DECODERS, "decoder") as pool:
            ahead: deque[Future[ProcessedImage]] = deque()
            try:
                for number, img_id in enumerate(names):
                    for name in names[number + len(ahead) : number + AHEAD]:
                        ahead.append(pool.submit(self.extractor.prepare, self.paths[name]))
                    yield Record(done + number + 1, 1, self._reader(img_id, ahead.popleft()))
            finally:
                pool.shutdown(cancel_futures=True)

    def _reader(self, img_id: str, image: "Future[ProcessedImage]") -> Callable[[Series], RegionFeatures]:
        def read(series: Series) -> RegionFeatures:
            path = os.fspath(self.paths[img_id])
            try:
                processed = image.result()
            except FileNotFoundError as error:  # one of many, which can be skipped
                raise ValueError(str(error)) from error
            boxes = None if self.boxes is None else self.boxes.of(img_id, processed.size)
            regions = self.extractor.describe(img_id, processed, path, boxes)
            series.check(regions)
            return regions

        return read

    def provenance(self, digest: str) -> dict[str, Any]:
        return {"name": self.path.name, "kind": self.kind, "images": self.size}


def _check_all_there(paths: Mapping[str, Path], images: Iterable[str | os.PathLike]) -> None:
    missing = [path for path in paths.values() if not path.exists()]
    if missing:
        more = f" nor {len(missing) - 1:,} others" if len(missing) > 1 else ""
        lists = [given for given in map(Path, images) if is_list(given) and missing[0] in read_list(given)]
        listed = f", which {lists[0]} lists; its paths are relative to the working directory" if lists else ""
        raise FileNotFoundError(f"There is no file {os.fspath(missing[0])!r}{more}{listed}.")
