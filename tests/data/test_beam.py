"""Extraction by Apache Beam gives the rows of the command line, and bad pictures do not end it."""

import os
import re

import pytest
from support.bad_images import BAD_IMAGES, write_bad_images
from support.detector import TINY, write_tiny_detector

beam = pytest.importorskip("apache_beam")


from lxmert_tf.cli import beam as command  # noqa: E402
from lxmert_tf.data import extract_features  # noqa: E402

RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
NUMBERS = [f"--set={name}={TINY[name]}" for name in ("min_size", "max_size")] + ["--min-boxes=2", "--max-boxes=4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("beam")
    (folder / "pictures").mkdir()
    write_bad_images(folder / "pictures")
    write_tiny_detector(folder / "tiny")
    return folder


def test_four_workers_write_the_rows_of_the_command_line(folder, tmp_path):
    workers = [RUNNER, "--direct_num_workers=4", "--direct_running_mode=multi_threading"]
    files = [f"--images={folder}/pictures/*", f"--images={folder}/nothing.jpg", f"--detector={folder}/tiny"]
    assert command.main([*files, f"--output={tmp_path}/out", "--shards=3", *NUMBERS, *workers]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"out-0000{shard}-of-00003.tsv" for shard in range(3)),
        "out-bad-00000-of-00001.txt",
    ]
    rows = b"".join(path.read_bytes() for path in tmp_path.glob("*.tsv")).splitlines()
    (tmp_path / "list.txt").write_bytes(b"\n".join(os.fsencode(path) for path in (folder / "pictures").iterdir()))
    extract_features(tmp_path / "list.txt", tmp_path / "out.tsv", folder / "tiny", skip_bad=True, **TINY)
    assert sorted(rows) == sorted((tmp_path / "out.tsv").read_bytes().splitlines())
    lines = (tmp_path / "out-bad-00000-of-00001.txt").read_text().splitlines()
    bad = dict(line.split("\t") for line in lines)
    assert bad.pop(f"{folder}/nothing.jpg") == f"There is no file '{folder}/nothing.jpg'."
    expected = {f"{folder}/pictures/{image.name}": image for image in BAD_IMAGES if not image.has_boxes}
    for path, reason in bad.items():
        image = expected.pop(path)
        assert image.is_read or re.search(image.verdict, reason)
    assert set(expected) <= {f"{folder}/pictures/missing.jpg"}
