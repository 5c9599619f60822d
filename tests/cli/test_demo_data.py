"""`lxmert-tf demo-data`: what it writes, what it refuses, and that its help tells the truth."""

import argparse
import re

import pytest

from lxmert_tf.cli import demo_data, main
from lxmert_tf.data.annotations import read_annotations, read_nlvr2
from lxmert_tf.data.features.tsv import read_tsv
from lxmert_tf.demo import dataset, gqa, nlvr2, vqa
from lxmert_tf.tasks import TASKS

pytest.importorskip("PIL.Image")

SHARED = {"features.tsv", "label2ans.json", "ans2label.json", "all_ans.json", "vocab.txt", "config.json"}
SHARED |= {"detector.json"}
SPLITS = {"train.json", "valid.json", "test.json"}


def run(*arguments):
    return main(["demo-data", *map(str, arguments)])


def files(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_one_task_fills_one_folder(tmp_path, capsys):
    out = tmp_path / "new" / "gqa"
    assert run(out, "--task", "gqa", "--images", 12, "--boxes", 7, "--dim", 6, "--seed", 4) == 0
    assert capsys.readouterr().out == f"{out}\n"
    pictures = {f"images/synthetic_{number:012d}.png" for number in range(12)}
    assert files(out) == SHARED | SPLITS | pictures
    assert [entry.features.shape for entry in read_tsv(out / "features.tsv")] == [(7, 6)] * 12
    assert read_annotations(out / "train.json") == list(gqa.annotate(range(10), seed=4, labels=True))


def test_bars_are_for_terminals(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dataset, "SHOW_PROGRESS", 1)
    assert run(tmp_path / "set", "--images", 10) == 0
    assert capsys.readouterr().err == ""


def test_defaults_are_vqa_with_the_boxes_of_the_demo(tmp_path):
    assert run(tmp_path / "set", "--images", 10) == 0
    assert {entry.features.shape for entry in read_tsv(tmp_path / "set" / "features.tsv")} == {(10, 64)}
    assert read_annotations(tmp_path / "set" / "valid.json") == list(vqa.annotate(range(8, 9), seed=0, labels=True))
    parser = argparse.ArgumentParser()
    demo_data.add_arguments(parser)
    assert parser.parse_args(["x"]).images == 2000


def test_all_tasks_share_what_they_can(tmp_path):
    assert run(tmp_path / "all", "--task", "all", "--images", 100, "--boxes", 5, "--dim", 4, "--no-pictures") == 0
    assert files(tmp_path / "all") == SHARED | {f"{task}/{split}" for task in TASKS for split in SPLITS}
    assert len(read_nlvr2(tmp_path / "all" / "nlvr2" / "valid.json")) == 4 * nlvr2.PER_PICTURE * 10


def test_refuses_what_is_there_unless_told(tmp_path, capsys):
    small = ("--images", 10, "--boxes", 5, "--dim", 4, "--no-pictures")
    assert run(tmp_path / "set", *small) == 0
    before = (tmp_path / "set" / "features.tsv").read_bytes()
    assert run(tmp_path / "set", *small, "--seed", 1) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"lxmert-tf demo-data: error: {tmp_path / 'set'} already exists")
    assert "--overwrite" in error
    assert (tmp_path / "set" / "features.tsv").read_bytes() == before
    assert run(tmp_path / "set", *small, "--seed", 1, "--overwrite") == 0
    assert (tmp_path / "set" / "features.tsv").read_bytes() != before
    assert (
        main(["features", "build", str(tmp_path / "set" / "features.tsv"), str(tmp_path / "set" / "features.h5")]) == 0
    )
    assert run(tmp_path / "set", *small, "--overwrite") == 0  # what is built from the set goes with it
    assert not (tmp_path / "set" / "features.h5").exists()
    (tmp_path / "set" / "notes.txt").write_text("mine")
    assert run(tmp_path / "set", *small, "--overwrite") == 2
    assert "notes.txt does not belong to a synthetic set" in capsys.readouterr().err
    assert (tmp_path / "set" / "notes.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--images", 3), "num_images (--images) must be at least 10, got 3"),
        (("--task", "nlvr2", "--images", 20), "num_images (--images) must be at least 100 for nlvr2"),
        (("--boxes", 2), "boxes (--boxes) must be at least 5, got 2"),
    ],
)
def test_what_is_too_small_is_named(tmp_path, capsys, arguments, complaint):
    assert run(tmp_path / "set", *arguments) == 2
    assert complaint in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_help_tells_the_files_and_the_numbers(capsys):
    with pytest.raises(SystemExit) as end:
        run("--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    for word in (*SHARED, *SPLITS, *(f"OUT/{task}" for task in TASKS)):
        assert word in text, word
    up_to = re.search(r"up to (\d+) questions of VQA or (\d+) of GQA; NLVR2 has (\d+) pairs", text)
    assert tuple(map(int, up_to.groups())) == (vqa.STYLE.most, gqa.STYLE.most, 4 * nlvr2.PER_PICTURE)
