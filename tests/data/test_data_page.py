"""docs/data.md: its Python runs, on small files."""

import json
from dataclasses import replace

from support.data import make_questions, make_regions, make_tokenizer
from support.models import tiny_model
from support.pages import blocks

from lxmert_tf.data import build_features, write_annotations, write_tsv

IMAGE = "COCO_train2014_000000458752"


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tsv("coco.tsv", [make_regions(IMAGE, feat_dim=9)])
    build_features("coco.tsv", "coco.h5")
    (tmp_path / "vqa").mkdir()
    write_annotations("vqa/train.json", [replace(question, img_id=IMAGE) for question in make_questions(32)])
    (tmp_path / "trainval_label2ans.json").write_text(json.dumps(["yes", "no"]))
    model = tiny_model(vocab_size=50, num_qa_labels=2, max_position_embeddings=20)
    model.compile("adam", run_eagerly=True)
    names = {"model": model, "tokenizer": make_tokenizer(tmp_path)}
    for _, example in blocks("docs/data.md", "python"):
        exec(example, names)
    assert model.optimizer.iterations == 4 * len(names["dataset"])
