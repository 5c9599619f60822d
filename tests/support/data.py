"""What the tests of data share: made-up region features, a vocabulary and annotations. Imports no framework."""

from pathlib import Path

import h5py
import numpy as np

from lxmert_tf import LxmertTokenizer
from lxmert_tf.data import FeatureStore, build_features, open_features
from lxmert_tf.data.annotations import Annotation, NLVR2Annotation, PretrainingAnnotation
from lxmert_tf.data.features.regions import RegionFeatures
from lxmert_tf.data.features.tsv import write_tsv

WORDS = [f"word{number}" for number in range(40)]


def make_regions(img_id="image_0", num_boxes=3, feat_dim=4, seed=0):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (num_boxes, 2, 2)), axis=1).reshape(num_boxes, 4)
    return RegionFeatures(
        img_id=img_id,
        img_h=480,
        img_w=640,
        objects_id=rng.integers(0, 1600, num_boxes),
        objects_conf=rng.random(num_boxes, np.float32),
        attrs_id=rng.integers(0, 400, num_boxes),
        attrs_conf=rng.random(num_boxes, np.float32),
        boxes=(corners * (640, 480, 640, 480)).astype(np.float32),
        features=rng.standard_normal((num_boxes, feat_dim), np.float32),
    )


def make_store(folder, images=12, feat_dim=4, boxes=range(3, 7), **options) -> FeatureStore:
    """A built file of images "image_0", "image_1", ... whose numbers of boxes vary."""
    regions = [make_regions(f"image_{n}", boxes[n % len(boxes)], feat_dim, seed=n) for n in range(images)]
    write_tsv(folder / "features.tsv", regions)
    build_features(folder / "features.tsv", folder / "features.h5", **options)
    return open_features(folder / "features.h5")


def write_hdf5(path, arrays, **options) -> Path:
    """A file of other programs; `options` say how its features are stored."""
    with h5py.File(path, "w") as file:
        for name, value in arrays.items():
            file.create_dataset(name, data=value, **(options if name == "features" else {}))
    return path


def make_tokenizer(folder) -> LxmertTokenizer:
    """One token for each of `WORDS`."""
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "?", *WORDS]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocab))
    return LxmertTokenizer(folder / "vocab.txt")


def make_questions(number, images=12, labels=True) -> list[Annotation]:
    """Questions of 1 to 9 words; each is about another image than the one before, and has its number as a word."""
    return [
        Annotation(
            question_id=index,
            img_id=f"image_{index % images}",
            sent=" ".join(WORDS[(index + place) % len(WORDS)] for place in range(1 + index * 5 % 9)),
            label={"yes": 1.0, "no": 0.3} if labels else None,
        )
        for index in range(number)
    ]


def make_pairs(number, images=12) -> list[NLVR2Annotation]:
    """Pairs of neighbouring images, every third of which the sentence is true of."""
    return [
        NLVR2Annotation(
            uid=f"uid_{n}",
            identifier=f"dev-{n}-0-0",
            img0=f"image_{n % images}",
            img1=f"image_{(n + 1) % images}",
            sent=WORDS[n % len(WORDS)],
            label=int(n % 3 == 0),
        )
        for n in range(number)
    ]


def files_of(data: Path) -> list:
    """The arguments of `lxmert-tf train` that name the files of a made-up set, and the config of its small model."""
    files = ["--train", data / "train.json", "--valid", data / "valid.json", "--features", data / "features.h5"]
    return [
        *files,
        "--answers",
        data / "label2ans.json",
        "--vocab",
        data / "vocab.txt",
        "--config",
        data / "config.json",
    ]


def make_captions(images=12, sentences=4) -> list[PretrainingAnnotation]:
    """Images with captions, and questions whose answers have the scores 1 and 3."""
    return [
        PretrainingAnnotation(
            f"image_{n}",
            {
                "mscoco": [" ".join([WORDS[n], *WORDS[place : place + 8]]) for place in range(sentences)],
                "vqa": [f"{WORDS[n]} {WORDS[20 + place]}?" for place in range(sentences)],
            },
            {"vqa": [{"yes": 0.25, "No.": 0.75}] * sentences},
        )
        for n in range(images)
    ]
