"""Region features of pictures on many machines, by Apache Beam (extra `beam`).

`ExtractFeatures` is a transform for pipelines of your own; `python -m lxmert_tf.cli.beam` runs one from pictures to
TSV files. docs/images.md has the commands.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems
from apache_beam.utils.shared import Shared

from lxmert_tf.command_line import sentence
from lxmert_tf.data.features.pictures import picture_name
from lxmert_tf.data.features.regions import RegionFeatures

BAD = "bad"  # the tag of pictures that are left out
LARGEST = 2**28  # bytes of a file


class ExtractFeatures(beam.PTransform):
    """The region features of the pictures in files.

    From patterns of files, as Beam's file systems take them, to a dict of two collections: "regions", a
    `RegionFeatures` of each picture, and "bad", a pair of path and reason of each that is left out. An image is called
    as its file, without the suffix; where several are called the same, all are left out.

    Args:
        detector: a checkpoint of any format that every worker can read: directory, file or Hub id, or a directory of
            any of Beam's file systems, such as "gs://bucket/frcnn".
        **options: `pipeline`, `min_boxes`, `max_boxes`, `precision`, `max_pixels` and numbers of the pipeline, as of
            `lxmert_tf.data.extract_features`.

    Examples:
        >>> found = pipeline | beam.Create(["gs://bucket/*.jpg"]) | ExtractFeatures("gs://bucket/frcnn", max_boxes=36)
        >>> found["regions"] | beam.Map(lambda regions: (regions.img_id, len(regions.boxes)))
    """

    def __init__(self, detector: str | os.PathLike, **options: Any):
        super().__init__()
        self.detector, self.options = os.fspath(detector), options

    def expand(self, patterns: beam.PCollection) -> Any:  # Beam cannot tell what a dict is of
        files = patterns | "Match" >> beam.ParDo(_Match()).with_outputs(BAD, main="paths")
        named = files["paths"] | "Name" >> beam.Map(lambda path: (picture_name(path), path)) | beam.GroupByKey()
        describe = beam.ParDo(_Describe(self.detector, self.options)).with_outputs(BAD, main="regions")
        found = named | "Describe" >> describe
        bad = (files[BAD], found[BAD]) | "Bad" >> beam.Flatten()
        return {"regions": found["regions"], BAD: bad}


class _Match(beam.DoFn):
    """The paths of a pattern."""

    def process(self, pattern: str) -> Iterator[Any]:
        try:
            (match,) = FileSystems.match([pattern])
            paths = [each.path for each in match.metadata_list]
        except (BeamIOError, OSError, ValueError) as error:
            yield beam.pvalue.TaggedOutput(BAD, (pattern, sentence(error)))
            return
        if not paths:
            yield beam.pvalue.TaggedOutput(BAD, (pattern, f"There is no file {pattern!r}."))
        yield from paths


class _Describe(beam.DoFn):
    """The region features of each name and its paths, by a detector that a worker loads once."""

    def __init__(self, detector: str, options: dict[str, Any]):
        self.detector, self.options, self.shared = detector, options, Shared()

    def setup(self) -> None:
        self.extractor = self.shared.acquire(self._load)

    def _load(self) -> Any:
        from lxmert_tf.data.features.extractor import Extractor

        if "://" not in self.detector:
            return Extractor(self.detector, **self.options)
        with tempfile.TemporaryDirectory() as folder:
            copy_files(self.detector, folder)
            return Extractor(folder, **self.options)

    def process(self, named: tuple[str, Iterable[str]]) -> Iterator[Any]:
        img_id, paths = named[0], sorted(set(named[1]))
        try:
            if len(paths) > 1:
                raise ValueError(f"{' and '.join(paths)} would all be the image {img_id!r}; rename them.")
            yield self._described(img_id, paths[0])
        except (BeamIOError, OSError, ValueError) as error:
            for path in paths:
                yield beam.pvalue.TaggedOutput(BAD, (path, sentence(error)))

    def _described(self, img_id: str, path: str) -> RegionFeatures:
        return self.extractor.describe(img_id, self.extractor.prepare(_content(path), path), path)


def _content(path: str) -> str | bytes:
    """A local path, or what is in a file elsewhere."""
    if "://" not in path:
        return path
    with FileSystems.open(path, compression_type="uncompressed") as file:
        data = file.read(LARGEST + 1)
    if len(data) > LARGEST:
        raise ValueError(f"{path} has more than {LARGEST:,} bytes, too many for a picture.")
    return data


def copy_files(directory: str, folder: str) -> None:
    """Copies the files of a directory of any of Beam's file systems.

    Raises:
        FileNotFoundError: there are none.
    """
    (match,) = FileSystems.match([FileSystems.join(directory, "*")])
    if not match.metadata_list:
        raise FileNotFoundError(f"There are no files in {directory!r}.")
    for each in match.metadata_list:
        target = os.path.join(folder, FileSystems.split(each.path)[1])
        with FileSystems.open(each.path, compression_type="uncompressed") as source, open(target, "wb") as file:
            while block := source.read(1 << 22):
                file.write(block)
