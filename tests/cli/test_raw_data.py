"""From official VQA files and region features of other extractors to a trained model, on the command line alone."""

import base64
import dataclasses
import json
import pickle
import random
import re

import numpy as np
import pytest
from support.data import make_regions

from lxmert_tf import LxmertConfig
from lxmert_tf.cli import main

COLORS = ("red", "blue", "green")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "color", "is", "it", "?"]


def encode(array):
    return base64.b64encode(array.tobytes())


def write_six_columns(path, regions):
    lines = []
    for entry in regions:
        fields = [entry.img_id, entry.img_w, entry.img_h, len(entry.boxes), encode(entry.boxes), encode(entry.features)]
        lines.append("\t".join(map(str, fields)))  # base64 as b'...'
    path.write_text("\n".join(lines))


def write_npz(folder, regions):
    folder.mkdir()
    for entry in regions:
        sizes = {"image_h": entry.img_h, "image_w": entry.img_w, "num_bbox": len(entry.boxes)}
        np.savez_compressed(folder / f"{entry.img_id}.jpg.npz", x=entry.features, bbox=entry.boxes, **sizes)


def write_npy(folder, regions):
    folder.mkdir()
    for entry in regions:
        info = {"bbox": entry.boxes, "image_height": entry.img_h, "image_width": entry.img_w}
        np.save(folder / f"{entry.img_id}.npy", entry.features)
        np.save(folder / f"{entry.img_id}_info.npy", info)


def write_lmdb(folder, regions):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for entry in regions:
            sizes = {"image_h": entry.img_h, "image_w": entry.img_w, "num_boxes": len(entry.boxes)}
            values = {"features": encode(entry.features), "boxes": encode(entry.boxes), **sizes}
            transaction.put(entry.img_id.encode(), pickle.dumps(values))


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Official files of two splits; an image's features tell its colour; one image has none."""
    folder, rng, regions = tmp_path_factory.mktemp("raw"), random.Random(0), {}
    for split, images in (("train2014", 120), ("val2014", 40)):
        questions, annotations = [], []
        for image_id in range(1, images + 1):
            row = rng.randrange(len(COLORS))
            name = f"COCO_{split}_{image_id:012}"
            made = make_regions(name, 4, 8, seed=image_id)
            regions[name] = dataclasses.replace(made, features=made.features * 0.1 + np.eye(3, 8, dtype="f4")[row])
            question = {"question_id": image_id, "image_id": image_id}
            questions.append(question | {"question": "What color is it?"})
            answers = [{"answer": COLORS[row]}] * 8 + [{"answer": "grey"}] * 2
            annotations.append(question | {"multiple_choice_answer": COLORS[row], "answers": answers})
        head = {"data_subtype": split, "data_type": "mscoco"}
        (folder / f"{split}_questions.json").write_text(json.dumps({**head, "questions": questions}))
        (folder / f"{split}_annotations.json").write_text(json.dumps({**head, "annotations": annotations}))
    names = list(regions)
    regions = [regions[name] for name in names[:-1]]
    write_six_columns(folder / "a.tsv", regions[:60])
    write_npz(folder / "npz", regions[60:100])
    write_npy(folder / "npy", regions[100:140])
    write_lmdb(folder / "db", regions[140:])
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16, "num_qa_labels": 3}
    layers = {"l_layers": 1, "r_layers": 0, "x_layers": 1, "visual_feat_dim": 8, "vocab_size": len(WORDS)}
    LxmertConfig(**sizes, **layers).save_pretrained(folder)
    return folder


def run(*arguments):
    return main(list(map(str, arguments)))


@pytest.mark.slow
def test_a_model_learns_from_them(raw, tmp_path, capsys):
    """From all layouts at once; that each gives the same bits is in tests/data/test_foreign_features.py."""
    files = [
        raw / f"{split}_{what}.json" for split in ("train2014", "val2014") for what in ("annotations", "questions")
    ]
    assert run("annotations", "vqa", *files, "--output", tmp_path) == 0
    assert set(json.loads((tmp_path / "trainval_label2ans.json").read_text())) == set(COLORS)
    assert run("features", "build", raw / "a.tsv", raw / "npz", raw / "npy", raw / "db", tmp_path / "a.h5") == 0
    sets = [
        "--features",
        tmp_path / "a.h5",
        "--answers",
        tmp_path / "trainval_label2ans.json",
        "--vocab",
        raw / "vocab.txt",
    ]
    train = ["train", "vqa", "--train", tmp_path / "train2014.json", "--valid", tmp_path / "val2014.json", *sets]
    options = ["--config", raw / "config.json", "--batch-size", 8, "--learning-rate", 1e-2, "--epochs", 12]
    assert run(*train, *options, "--output", tmp_path / "run") == 2
    assert re.search("1 of 40 images have no region features .*--missing skip", capsys.readouterr().err)
    assert run(*train, *options, "--output", tmp_path / "run", "--missing", "skip") == 0
    measure = ["evaluate", "vqa", "--model", tmp_path / "run" / "best", "--data", tmp_path / "val2014.json"]
    capsys.readouterr()
    assert run(*measure, "--features", tmp_path / "a.h5", "--missing", "skip", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["examples"], result["missing_images"]) == (39, 1)
    assert result["accuracy"] > 0.9
