"""`lxmert-tf features`: build, info, check, and what each refuses."""

import dataclasses
import json
import os

import numpy as np
import pytest
from support.data import make_regions

from lxmert_tf import LxmertConfig
from lxmert_tf.cli import main
from lxmert_tf.data.features.store import open_features
from lxmert_tf.data.features.tsv import write_tsv


def run(*arguments):
    return main(["features", *map(str, arguments)])


@pytest.fixture
def tsv(tmp_path):
    write_tsv(tmp_path / "a.tsv", [make_regions(f"image_{n}", 3 + n, seed=n) for n in range(5)])
    return tmp_path / "a.tsv"


def test_build_info_check(tsv, tmp_path, capsys):
    out = tmp_path / "new" / "a.h5"
    assert run("build", tsv, out, "--extractor", "R-CNN, BGR") == 0
    assert capsys.readouterr().out == f"{out}: 5 images, 25 boxes\n"
    assert run("info", out, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["images"] == 5
    assert facts["boxes_per_image"] == [3, 7]
    assert facts["feature_dimension"] == 4
    assert facts["box_format"] == "x1 y1 x2 y2 in pixels"
    assert facts["provenance"]["extractor"] == "R-CNN, BGR"
    assert facts["provenance"]["sources"][0]["bytes"] == tsv.stat().st_size
    assert run("info", out) == 0
    text = capsys.readouterr().out
    for word in ("3 to 7", "R-CNN, BGR", facts["provenance"]["sources"][0]["sha256"]):
        assert word in text
    for file in (out, tsv):
        assert run("check", file) == 0
        assert capsys.readouterr().out == f"{file}: no problems\n"


def test_several_files_and_append(tsv, tmp_path, capsys):
    write_tsv(tmp_path / "b.tsv", [make_regions("other")])
    assert run("build", tsv, tmp_path / "b.tsv", tmp_path / "both.h5") == 0
    assert run("build", tsv, tmp_path / "two.h5", "--dtype", "float16") == 0
    assert run("build", tmp_path / "b.tsv", tmp_path / "two.h5", "--append") == 0
    assert capsys.readouterr().out.endswith("two.h5: 6 images, 1 of them new, 28 boxes\n")
    both, two = open_features(tmp_path / "both.h5"), open_features(tmp_path / "two.h5")
    assert both.img_ids == two.img_ids
    assert str(two.dtype) == "float16"


def test_what_is_there_is_kept_unless_told(tsv, tmp_path, capsys):
    assert run("build", tsv, tmp_path / "a.h5") == 0
    before = (tmp_path / "a.h5").read_bytes()
    assert run("build", tsv, tmp_path / "a.h5") == 2
    assert "--append) or overwrite it (--overwrite)" in capsys.readouterr().err
    assert (tmp_path / "a.h5").read_bytes() == before
    assert run("build", tsv, tmp_path / "a.h5", "--overwrite", "--dtype", "float16") == 0
    assert str(open_features(tmp_path / "a.h5").dtype) == "float16"


def test_bad_lines(tsv, tmp_path, capsys):
    lines = tsv.read_bytes().splitlines(keepends=True)
    (tmp_path / "bad.tsv").write_bytes(b"".join([lines[0], b"broken\tline\n", *lines[1:], lines[2]]))
    assert run("build", tmp_path / "bad.tsv", tmp_path / "bad.h5") == 2
    error = capsys.readouterr().err
    assert f"{tmp_path / 'bad.tsv'}, line 2, image 'broken': expected 10 tab-separated fields" in error
    assert not (tmp_path / "bad.h5").exists()
    assert run("check", tmp_path / "bad.tsv") == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith("bad.tsv: 2 problems")
    assert run("build", tmp_path / "bad.tsv", tmp_path / "bad.h5", "--skip-bad") == 0
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'bad.h5'}: 5 images, 25 boxes; 2 bad images skipped\n"
    assert printed.err.count("skipped: ") == 2
    assert "line 7, image 'image_2': this img_id is already in the file" in printed.err


def test_a_side_beyond_int32_is_a_bad_line(tsv, tmp_path, capsys):
    fields = tsv.read_bytes().split(b"\t")
    fields[1] = b"99999999999"
    tsv.write_bytes(b"\t".join(fields))
    assert run("build", tsv, tmp_path / "a.h5") == 2
    assert f"{tsv}, line 1, image 'image_0': img_h must be above 0 and at most 2147483647" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]


UNUSABLE = {
    "NUL": ({"img_id": "b\0c"}, r"image 'b\x00c': img_id must be a name of printable characters"),
    "control character": ({"img_id": "b\x1bc"}, r"image 'b\x1bc': img_id must be a name of printable characters"),
    "object class": ({"objects_id": np.array([0, 1600, 2])}, "objects_id must lie in 0..1599, as num_object_labels"),
    "attribute class": ({"attrs_id": np.array([0, 2, 400])}, "attrs_id must lie in 0..399, as num_attr_labels"),
    "confidence": ({"attrs_conf": np.float32([0, 1.01, 0])}, "attrs_conf must lie in 0..1, got 0 to 1.01"),
}


@pytest.mark.parametrize(("changed", "complaint"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_a_model_cannot_use_is_a_bad_line(tmp_path, capsys, monkeypatch, changed, complaint):
    regions = [make_regions(name, seed=seed) for seed, name in enumerate("abd")]
    regions[1] = dataclasses.replace(regions[1], **changed)
    with monkeypatch.context() as context:
        context.setattr("lxmert_tf.data.features.tsv.check_regions", lambda regions: None)
        write_tsv(tmp_path / "a.tsv", regions)
    where = f"{tmp_path / 'a.tsv'}, line 2, image "
    assert run("check", tmp_path / "a.tsv") == 1
    problem, total = capsys.readouterr().out.splitlines()
    assert problem.startswith(where) and complaint in problem
    assert total.endswith("a.tsv: 1 problem")
    assert run("build", tmp_path / "a.tsv", tmp_path / "a.h5") == 2
    assert problem in capsys.readouterr().err
    assert run("build", tmp_path / "a.tsv", tmp_path / "a.h5", "--skip-bad") == 0
    assert problem in capsys.readouterr().err
    assert open_features(tmp_path / "a.h5").img_ids == ("a", "d")


def test_the_config_says_which_classes_there_are(tmp_path, capsys):
    regions = make_regions("a")
    write_tsv(tmp_path / "a.tsv", [dataclasses.replace(regions, objects_id=np.array([0, 9, 1600]))])
    config = LxmertConfig(num_object_labels=1601)
    config.save_pretrained(tmp_path / "larger")
    assert run("check", tmp_path / "a.tsv", "--config", tmp_path / "larger") == 0
    assert run("build", tmp_path / "a.tsv", tmp_path / "a.h5", "--config", tmp_path / "larger" / "config.json") == 0
    assert run("check", tmp_path / "a.h5", "--config", tmp_path / "larger") == 0
    assert run("check", tmp_path / "a.h5") == 1
    assert "image 'a': objects_id must lie in 0..1599, as num_object_labels of the config" in capsys.readouterr().out


def test_names_in_a_file_of_another_program(tmp_path, capsys):
    arrays = {"features": np.zeros((2, 1, 3), "f4"), "spatial_features": np.zeros((2, 1, 4), "f4")}
    np.savez(tmp_path / "a.npz", image_ids=np.array(["a", "b\0c"]), **arrays)
    assert run("check", tmp_path / "a.npz") == 1
    assert r"a.npz, image 'b\x00c': img_id must be a name of printable" in capsys.readouterr().out


def test_blank_lines_are_passed_over_at_the_end_only(tsv, tmp_path, capsys):
    whole = tsv.read_bytes()
    tsv.write_bytes(whole + b"\n \r\n\n")
    assert run("build", tsv, tmp_path / "a.h5") == 0
    assert run("check", tsv) == 0
    assert len(open_features(tmp_path / "a.h5")) == 5
    tsv.write_bytes(b"\n" + whole)
    assert run("build", tsv, tmp_path / "b.h5") == 2
    assert f"{tsv}, line 1, image '': the line is blank" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--overwrite", "--append"])
def test_no_build_onto_its_own_source(tsv, tmp_path, capsys, option):
    before = tsv.read_bytes()
    (tmp_path / "link.tsv").symlink_to(tsv)
    for out in (tsv, tmp_path / "link.tsv"):
        assert run("build", tsv, out, option) == 2
        assert f"{out} would be overwritten, but it is also an input" in capsys.readouterr().err
    assert tsv.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.tsv", "link.tsv"}


def test_a_place_that_cannot_be_written_is_named_as_it_was_given(tsv, tmp_path, capsys):
    os.mkfifo(tmp_path / "pipe.h5")
    for out in (tsv / "a.h5", tsv / "deep" / "a.h5", tmp_path / "pipe.h5"):
        assert run("build", tsv, out, "--overwrite") == 2
        error = capsys.readouterr().err
        assert str(out) in error
        assert ".partial" not in error
    assert (tmp_path / "pipe.h5").is_fifo()


def test_a_bug_leaves_nothing_behind(tsv, tmp_path, monkeypatch):
    monkeypatch.setattr("lxmert_tf.data.features.writers.write_index", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run("build", tsv, tmp_path / "a.h5")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("info", "nothing.h5"), "No such file or directory: nothing.h5"),
        (("info", "a.tsv"), "build a file that has: lxmert-tf features build a.tsv a.h5"),
        (("check", "text.h5"), "text.h5 is neither an HDF5 nor an npz file"),
        (("build", "nothing.tsv", "a.h5"), "No such file or directory: nothing.tsv"),
        (("build", "empty.tsv", "a.h5"), "no images in empty.tsv"),
        (("build", "a.tsv", "new.h5", "--append"), "new.h5 does not exist, so nothing can be appended"),
        (("build", "text.h5", "a.h5"), "text.h5 is not a TSV file"),
    ],
)
def test_refusals_are_one_sentence(tsv, tmp_path, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.h5").write_text("no features")
    (tmp_path / "empty.tsv").write_text("")
    assert run(*arguments) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a.h5").exists()
    assert not list(tmp_path.glob("*.partial*"))
