"""What upstream's authors published of the real weights, and how far off this code is: a table of comparisons.

Weights are looked for in a folder, then on the Hub. Each check takes its numbers, so that it can be tried on others.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_tf.answers import read_answers
from lxmert_tf.data.features.tsv import read_tsv
from lxmert_tf.detector.boxes import overlaps
from lxmert_tf.detector.pipelines import DEFAULT

NUMBERS = json.loads((Path(__file__).parents[1] / "published/numbers.json").read_text())


class Missing(Exception):
    """A file that a check needs is neither in the folder nor to be had from the Hub."""


@dataclass(frozen=True)
class Comparison:
    """One line of the table: what was published, what was found, and whether that is the same."""

    what: str
    published: str
    found: str
    same: bool


@dataclass(frozen=True)
class Files:
    """Where the real weights are.

    Args:
        folder: of files by the names they were published under, repositories without their owner; or None.
        fetch: the local path of a Hub id, or an exception; None for no network.
    """

    folder: Path | None
    fetch: Callable[[str], Path] | None

    def file(self, name: str, sha256: str | None = None) -> Path:
        path = None if self.folder is None else self.folder / name
        if path is None or not path.exists():
            raise Missing(f"{name} is not in LXMERT_WEIGHTS={self.folder or ''}")
        if sha256 and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise Missing(f"{path} is another file than was published: its SHA-256 is not {sha256}")
        return path

    def first(self, names: tuple[str, ...]) -> Path:
        """That of several files or directories which there is."""
        for name in names:
            if self.folder is not None and (self.folder / name).exists():
                return self.folder / name
        raise Missing(f"none of {', '.join(names)} is in LXMERT_WEIGHTS={self.folder or ''}")

    def repository(self, name: str) -> Path:
        """A directory of the folder, else a snapshot of the Hub's repository."""
        local = None if self.folder is None else self.folder / name.split("/")[-1]
        if local is not None and local.exists():
            return local
        if self.fetch is None:
            raise Missing(f"{name.split('/')[-1]} is not in LXMERT_WEIGHTS={self.folder or ''}")
        try:
            return self.fetch(name)
        except FileNotFoundError as error:
            raise Missing(str(error)) from error


def table(comparisons: list[Comparison]) -> str:
    """Lines under a heading, one for each comparison."""
    rows = [("", "what", "published", "found")]
    rows += [("same" if each.same else "OFF", each.what, each.published, each.found) for each in comparisons]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


# The checks


def backbone_slice(
    files: Files, backbone: Any, framework: str, numbers: Mapping[str, Any] = NUMBERS["backbone"]
) -> Iterator[Comparison]:
    """Hidden states of a bare model, given by its class, on inputs that NumPy's old generator draws."""
    model = backbone.from_pretrained(files.repository(numbers["weights"]))
    inputs: dict[str, Any] = {"input_ids": np.array([numbers["input_ids"]])}
    for name, width in (("visual_feats", model.config.visual_feat_dim), ("visual_pos", 4)):
        np.random.seed(0)
        inputs[name] = np.random.rand(1, 10, width).astype("float32")
    if framework == "torch":
        import torch

        inputs = {name: torch.from_numpy(value) for name, value in inputs.items()}
        with torch.no_grad():
            found = model.eval()(**inputs).language_output.numpy()
    else:
        found = np.asarray(model(inputs).language_output)
    expected = np.array(numbers["language_output"])
    found = found[0, : expected.shape[0], : expected.shape[1]]
    off = np.abs(found - expected).max()
    what = f"{numbers['weights']} in {framework}, language_output[0, :3, :3]"
    yield Comparison(what, "within 1e-4", f"{off:.1e} off", bool(off <= 1e-4))


def demo_answers(
    files: Files, name: str, numbers: Mapping[str, Any] = NUMBERS["answers"], **settings: Any
) -> Iterator[Comparison]:
    """Answers of a model to questions on one picture, by the Hugging Face pipeline; `settings` as of `detect`."""
    from lxmert_tf import LxmertTokenizer, TFLxmertForQuestionAnswering
    from lxmert_tf.detector import FasterRCNN

    picture = files.file(f"images/{numbers['image']}")
    directory = files.repository(name)
    model = TFLxmertForQuestionAnswering.from_pretrained(directory)
    answers = read_answers(files.file(f"{name.split('/')[-1]}.label2ans.json"))
    tokenizer = LxmertTokenizer.from_pretrained(directory)
    detector = FasterRCNN.from_pretrained(files.repository(numbers["detector"]))
    regions = detector.detect(picture, "huggingface", 36, 36, **settings)[0]
    encoded = tokenizer(list(numbers["questions"]), padding=True, return_tensors="np")
    boxes = {"visual_feats": regions.features, "visual_pos": regions.normalized_boxes}
    count = len(numbers["questions"])
    repeated = {key: np.repeat(value[None], count, axis=0) for key, value in boxes.items()}
    best = np.asarray(model({**encoded, **repeated}).question_answering_score).argmax(axis=-1)
    for question, row, expected in zip(numbers["questions"], best, numbers[name], strict=True):
        yield Comparison(f"{name}, {question!r}", expected, answers[int(row)], answers[int(row)] == expected)


def demo_boxes(
    files: Files,
    weights: str,
    numbers: Mapping[str, Any] | None = None,
    config: Any = None,
    **settings: Any,
) -> Iterator[Comparison]:
    """Boxes of the notebooks of detectron2's port: to the five digits that they print."""
    from lxmert_tf.detector import DetectorConfig, FasterRCNN

    numbers = NUMBERS["demos"][weights] if numbers is None else numbers
    choices = {key: numbers[key] for key in ("caffe_max_pool", "num_attributes")}
    detector = FasterRCNN.from_pretrained(files.file(weights), config=config or DetectorConfig(**choices))
    picture = files.file(f"images/{numbers['image']}", numbers.get("sha256"))
    count = len(numbers["boxes"])
    regions = detector.detect(picture, "detectron2-demo", count, count, output_intermediates=True, **settings)[0]
    proposals = len(regions.intermediates["proposals"])
    yield Comparison(
        f"{weights}, proposals", str(numbers["proposals"]), str(proposals), proposals == numbers["proposals"]
    )
    places, shared = _matched(np.array(numbers["boxes"], "float32"), regions.boxes)
    yield _share(f"{weights}, boxes that overlap by 0.99", shared >= 0.99)
    if "classes" in numbers:
        classes = np.array(numbers["classes"])
        found, scores = regions.object_ids[places], regions.object_scores[places]
        yield _share(f"{weights}, their classes", found == classes)
        off = float(np.abs(scores - numbers["scores"]).max())
        yield Comparison(f"{weights}, their scores", "within 1e-3", f"{off:.1e} off", off <= 1e-3)


# Of the model with 36 boxes, or converted from it
WITH_36_BOXES = (
    "resnet101_faster_rcnn_final_iter_320000.caffemodel",
    "faster_rcnn_from_caffe_attr.pkl",
    "bua-caffe-frcn-r101-k36.pth",
)


def published_rows(
    files: Files,
    weights: tuple[str, ...] = WITH_36_BOXES,
    rows: str = "train2014_obj36.tsv",
    sha256: str | None = NUMBERS["rows"]["sha256"],
    pipeline: str = DEFAULT,
    **settings: Any,
) -> Iterator[Comparison]:
    """Rows of the features that LXMERT was trained on, extracted again from their pictures."""
    from lxmert_tf.detector import FasterRCNN

    source = files.file(rows, sha256)
    detector = FasterRCNN.from_pretrained(files.first(weights))
    for row in read_tsv(source):
        picture = files.file(f"images/{row.img_id}.jpg")
        count = len(row.boxes)
        regions = detector.detect(picture, pipeline, count, count, **settings)[0]
        places, shared = _matched(row.boxes, regions.boxes)
        same = shared >= 0.99
        yield _share(f"{row.img_id}, boxes that overlap by 0.99", same)
        if not same.any():
            continue
        off = np.abs(regions.features[places] - row.features)[same].max() / np.abs(row.features).max()
        yield Comparison(f"{row.img_id}, their features", "within 1e-2", f"{off:.1e} of the largest", off <= 1e-2)
        if row.objects_id is not None:
            yield _share(f"{row.img_id}, their objects", (regions.object_ids[places] == row.objects_id)[same])
            yield _share(f"{row.img_id}, their attributes", (regions.attribute_ids[places] == row.attrs_id)[same])


def _matched(boxes: np.ndarray, found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in `found` is what overlaps most with each box, and by how much."""
    shares = np.asarray(overlaps(boxes, found, False))
    return shares.argmax(axis=1), shares.max(axis=1)


def _share(what: str, same: np.ndarray, least: float = 0.9) -> Comparison:
    """Ties and a decoder's rounding move single boxes; a wrong pipeline moves nearly all."""
    return Comparison(what, f"{len(same)}", f"{int(same.sum())}", bool(same.mean() >= least))
