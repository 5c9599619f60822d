"""Extraction by Apache Beam gives the rows of the command line, and bad pictures do not end it."""

import io
import os
import re

import pytest
from support.bad_images import BAD_IMAGES, write_bad_images
from support.detector import SMALLEST, write_tiny_detector

from lxmert_tf.cli import beam as command
from lxmert_tf.data import extract_features

pytest.importorskip("apache_beam")
from lxmert_tf.data import beam

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
WORKERS = ["--direct_num_workers=4", "--direct_running_mode=multi_threading"]
NUMBERS = [f"--set={name}={SMALLEST[name]}" for name in ("min_size", "max_size")] + ["--min-boxes=2", "--max-boxes=4"]


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    write_bad_images(tmp_path / "pictures")
    return tmp_path / "pictures"


def test_patterns_that_match_nothing_are_left_out(pictures):
    match = beam._Match()
    assert sorted(match.process(f"{pictures}/a*.png")) == [f"{pictures}/alpha.png", f"{pictures}/animated_png.png"]
    for pattern, reason in [
        (f"{pictures}/b*.xyz", f"There is no file '{pictures}/b*.xyz'."),
        ("unknown://pictures/*", "unknown"),
    ]:
        (left_out,) = match.process(pattern)
        assert (left_out.tag, left_out.value[0]) == (beam.BAD, pattern)
        assert reason in left_out.value[1]


def test_pictures_of_one_name_are_left_out():
    left_out = [each.value for each in beam._Describe("", {}).process(("a", ["b/a.png", "a.jpg", "a.jpg"]))]
    reason = "a.jpg and b/a.png would all be the image 'a'; rename them."
    assert left_out == [("a.jpg", reason), ("b/a.png", reason)]


def test_files_elsewhere(tmp_path, monkeypatch):
    (tmp_path / "from").mkdir()
    (tmp_path / "from" / "config.json").write_bytes(b"12345")
    beam.copy_files(f"{tmp_path}/from", str(tmp_path))
    assert (tmp_path / "config.json").read_bytes() == b"12345"
    with pytest.raises(FileNotFoundError, match="There are no files in"):
        beam.copy_files(f"{tmp_path}/nothing", str(tmp_path))
    monkeypatch.setattr(beam.FileSystems, "open", lambda path, compression_type: io.BytesIO(b"12345"))
    assert beam._content("a.png") == "a.png"
    assert beam._content("gs://b/a.png") == b"12345"
    monkeypatch.setattr(beam, "LARGEST", 4)
    with pytest.raises(ValueError, match=r"gs://b/a\.png has more than 4 bytes, too many for a picture"):
        beam._content("gs://b/a.png")


def test_options(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--images=a", "--output=b", "--detector=c", "--boxes=3", "--min-boxes=2"])
    assert "--boxes is --min-boxes and --max-boxes in one" in capsys.readouterr().err


@pytest.mark.slow
def test_four_workers_write_the_rows_of_the_command_line(pictures, tmp_path):
    write_tiny_detector(tmp_path / "tiny")
    files = [f"--images={pictures}/*", f"--images={tmp_path}/nothing.jpg", f"--detector={tmp_path}/tiny"]
    assert command.main([*files, f"--output={tmp_path}/out", "--shards=3", *NUMBERS, RUNNER, *WORKERS]) == 0
    shards = sorted(tmp_path.glob("out-0*.tsv"))
    assert [path.name for path in shards] == [f"out-0000{shard}-of-00003.tsv" for shard in range(3)]
    rows = b"".join(path.read_bytes() for path in shards).splitlines()

    (tmp_path / "list.txt").write_bytes(b"\n".join(os.fsencode(path) for path in pictures.iterdir()))
    extract_features(tmp_path / "list.txt", tmp_path / "one.tsv", tmp_path / "tiny", skip_bad=True, **SMALLEST)
    assert sorted(rows) == sorted((tmp_path / "one.tsv").read_bytes().splitlines())

    bad = dict(line.split("\t") for line in (tmp_path / "out-bad-00000-of-00001.txt").read_text().splitlines())
    assert bad.pop(f"{tmp_path}/nothing.jpg") == f"There is no file '{tmp_path}/nothing.jpg'."
    expected = {f"{pictures}/{image.name}": image for image in BAD_IMAGES if not image.has_boxes}
    for name in ("missing", "link", "directory"):  # no pattern matches what is no file
        del expected[f"{pictures}/{name}.jpg"]
    assert set(bad) == set(expected)
    assert all(image.is_read or re.search(image.verdict, bad[path]) for path, image in expected.items())
