"""A whole synthetic set on disk."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tqdm import tqdm

from lxmert_tf.answers import AnswerTable, write_all_answers, write_answers
from lxmert_tf.data.annotations import (
    write_annotations,
    write_nlvr2,
    write_pretraining,
)
from lxmert_tf.data.features.regions import RegionFeatures
from lxmert_tf.data.features.tsv import write_tsv
from lxmert_tf.demo import gqa, nlvr2, pretraining, vqa
from lxmert_tf.demo.model import model_config, vocabulary
from lxmert_tf.demo.pictures import class_names, detect, draw, pillow
from lxmert_tf.demo.questions import ANSWERS
from lxmert_tf.demo.scenes import MAX_SHAPES, SPLITS, make_scene, splits
from lxmert_tf.files import staged, write_text
from lxmert_tf.tasks import TASKS

SHARED_FILES = (
    "features.tsv",
    "label2ans.json",
    "ans2label.json",
    "all_ans.json",
    "vocab.txt",
    "config.json",
    "detector.json",
)
SHOW_PROGRESS = 1000  # pictures; fewer take a few seconds
SPLIT_FILES = tuple(f"{split}.json" for split in SPLITS)


def write_dataset(
    directory: str | os.PathLike,
    task: str = "vqa",
    num_images: int = 2000,
    boxes: int = 10,
    feat_dim: int = 64,
    seed: int = 0,
    pictures: bool = True,
    overwrite: bool = False,
) -> Path:
    """Writes a whole set: features.tsv, {train,valid,test}.json, label2ans.json, ans2label.json, all_ans.json,
    vocab.txt, config.json (a small LXMERT that learns it), detector.json (the boxes' classes) and images/IMG_ID.png.

    Of the images 80% are for training, 10% for validation and 10% for testing; no two splits share one, and test.json
    has no labels. Pictures, answers, vocabulary and configuration are the same for every task, so a model pretrained on
    one fits the others. Written beside `directory` and renamed at the end.

    Args:
        directory: where to write; must not exist yet, be empty, or hold an earlier set and `overwrite` be given.
        task: "vqa", "gqa", "nlvr2", "pretrain", or "all": then the json files of each are in a folder of its name.
        num_images: how many pictures, at least 10; for NLVR2 at least 100.
        boxes: boxes per picture, at least 5: one per shape, the others show background or a shape cut off.
        feat_dim: values per box.
        seed: another seed, another set; region features of the same pixels stay the same.
        pictures: whether to write images/.
        overwrite: replace an earlier set.

    Returns:
        `directory`.

    Raises:
        ValueError: an argument is out of its range.
        FileExistsError: `directory` is not empty, or holds something else than an earlier set.
        ImportError: Pillow is not installed.
    """
    if task not in (*TASKS, "all"):
        raise ValueError(f"task must be one of {', '.join(TASKS)} or all, got {task!r}")
    tasks = TASKS if task == "all" else (task,)
    if "nlvr2" in tasks and 10 <= num_images < nlvr2.LEAST_IMAGES:
        raise ValueError(
            f"num_images (--images) must be at least {nlvr2.LEAST_IMAGES} for nlvr2, whose pairs are of pictures of "
            f"one split, got {num_images}"
        )
    for name, option, value, least in (
        ("num_images", "--images", num_images, 10),
        ("boxes", "--boxes", boxes, MAX_SHAPES),
        ("feat_dim", "--dim", feat_dim, 1),
        ("seed", "--seed", seed, 0),
    ):
        if value < least:
            raise ValueError(f"{name} ({option}) must be at least {least}, got {value}")
    pillow()  # fails early if it is not installed
    directory = Path(directory)
    _check_free(directory, overwrite)
    with staged(directory) as part:
        part.mkdir()
        _write_shared(part, feat_dim)
        for each in tasks:
            _write_sentences(part / each if task == "all" else part, each, num_images, seed)
        images = part / "images" if pictures else None
        progress = tqdm(range(num_images), "pictures", unit="picture", disable=num_images < SHOW_PROGRESS or None)
        write_tsv(part / "features.tsv", _draw_all(images, progress, boxes, feat_dim, seed))
    return directory


def _check_free(directory: Path, overwrite: bool) -> None:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not overwrite:
        raise FileExistsError(
            f"{directory} already exists; choose a new or an empty directory, or overwrite it (--overwrite)"
        )
    foreign = min((path for path in [directory, *directory.rglob("*")] if not _is_ours(path, directory)), default=None)
    if foreign is not None:
        raise FileExistsError(
            f"{foreign} does not belong to a synthetic set; only a set with nothing else in it is overwritten"
        )


def _is_ours(path: Path, directory: Path) -> bool:
    """Whether `write_dataset` writes such a file or directory, or `features build` does."""
    where = path.relative_to(directory)
    if path.is_dir():
        return str(where) in (".", "images", *TASKS)
    if where.parent.name == "images":
        return where.match("synthetic_*.png")
    return where.name in SPLIT_FILES or str(where) in (*SHARED_FILES, "features.h5")


def _write_shared(part: Path, feat_dim: int) -> None:
    table = AnswerTable(ANSWERS)
    write_answers(part / "label2ans.json", part / "ans2label.json", table)
    write_all_answers(part / "all_ans.json", table, {"vqa": ANSWERS, "gqa": gqa.ANSWERS})
    vocab = vocabulary()
    write_text(part / "vocab.txt", "".join(f"{word}\n" for word in vocab))
    write_text(part / "config.json", json.dumps(model_config(len(vocab), feat_dim), indent=2) + "\n")
    write_text(part / "detector.json", json.dumps(class_names(), indent=2) + "\n")


def _write_sentences(folder: Path, task: str, num_images: int, seed: int) -> None:
    folder.mkdir(exist_ok=True)
    for split, indices in splits(num_images).items():
        labels = split != "test"
        write: Callable[[Path, Iterable], int]
        annotations: Iterable
        if task == "nlvr2":
            write, annotations = write_nlvr2, nlvr2.annotate(split, indices, seed, labels)
        elif task == "pretrain":
            write, annotations = write_pretraining, pretraining.annotate(indices, seed, labels)
        else:
            write, annotations = write_annotations, {"vqa": vqa, "gqa": gqa}[task].annotate(indices, seed, labels)
        progress = tqdm(annotations, f"{task} {split}", unit=" entries", disable=num_images < SHOW_PROGRESS or None)
        write(folder / f"{split}.json", progress)


def _draw_all(
    images: Path | None, indices: Iterable[int], boxes: int, feat_dim: int, seed: int
) -> Iterator[RegionFeatures]:
    """Yields the region features of each scene, and writes its picture if there is a folder for them."""
    if images:
        images.mkdir()
    for index in indices:
        scene = make_scene(seed, index)
        pixels = draw(scene, seed)
        if images:
            pillow().fromarray(pixels).save(images / f"{scene.img_id}.png")
        yield detect(scene, pixels, boxes, feat_dim, seed)
