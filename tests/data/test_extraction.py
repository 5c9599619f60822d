"""Extracting the region features of pictures: what is in the file, after interruptions and with bad pictures, too."""

import itertools
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict

import h5py
import numpy as np
import pytest
from PIL import Image
from support.bad_images import BAD_IMAGES, write_bad_images
from support.detector import SMALLEST, write_tiny_detector
from support.golden import ROOT

from lxmert_tf.cli import main
from lxmert_tf.data import build_features, extract_features, open_features, read_tsv
from lxmert_tf.data.features import extract, extractor
from lxmert_tf.data.features.build import Build
from lxmert_tf.data.features.regions import Series
from lxmert_tf.detector import FasterRCNN


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A detector in tiny/, and 20 pictures of two sizes in pictures/."""
    folder = tmp_path_factory.mktemp("extraction")
    write_tiny_detector(folder / "tiny")
    (folder / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        colours = rng.integers(0, 256, (40, 50 - 10 * (number % 2), 3), "uint8")
        Image.fromarray(colours).save(folder / "pictures" / f"image_{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    return FasterRCNN.from_pretrained(folder / "tiny")


@pytest.fixture(autouse=True)
def one_detector(loaded, monkeypatch):
    """All tests have one detector, since compiling takes seconds."""
    monkeypatch.setattr(extractor.FasterRCNN, "from_pretrained", lambda source, dtype: loaded)


@pytest.fixture(scope="module")
def whole(folder, loaded):
    """The features of all pictures."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(extractor.FasterRCNN, "from_pretrained", lambda source, dtype: loaded)
        extract_features(folder / "pictures", folder / "whole.h5", folder / "tiny", **SMALLEST)
        extract_features(folder / "pictures", folder / "whole.tsv", folder / "tiny", **SMALLEST)
    return folder / "whole.h5"


def run(folder, *arguments, out="out.h5"):
    numbers = [f"--set={name}={SMALLEST[name]}" for name in ("min_size", "max_size")]
    images = list(itertools.takewhile(lambda each: not str(each).startswith("--"), arguments))
    options = arguments[len(images) :]
    boxes = [] if any(each.startswith("--boxes") for each in options) else ["--min-boxes=2", "--max-boxes=4"]
    command = ["features", "extract", *images, out, "--detector", folder / "tiny", *numbers, *boxes, *options]
    return main([str(each) for each in command])


def contents(path):
    with h5py.File(path) as file:
        return {name: file[name][()].tolist() for name in file}, json.loads(file.attrs["provenance"])


@pytest.mark.slow
def test_the_file_has_what_the_detector_finds(folder, whole, loaded):
    store = open_features(whole)
    assert store.img_ids == tuple(f"image_{number:02}" for number in range(20))
    for number in (0, 19):
        regions = loaded.detect(folder / "pictures" / f"image_{number:02}.png", **SMALLEST)[0]
        stored = store.read([f"image_{number:02}"])
        assert (stored["visual_attention_mask"].sum(), store.max_boxes) == (len(regions), 4)
        for name, value in {
            "visual_feats": regions.features,
            "visual_pos": regions.normalized_boxes,
            "objects_id": regions.object_ids,
            "objects_conf": regions.object_scores,
            "attrs_id": regions.attribute_ids,
            "attrs_conf": regions.attribute_scores,
        }.items():
            np.testing.assert_allclose(stored[name][0], value, rtol=1e-6)
    for regions in read_tsv(whole.with_suffix(".tsv")):
        stored = store.read([regions.img_id])
        np.testing.assert_array_equal(stored["visual_feats"][0, : len(regions.features)], regions.features)
    assert (
        whole.stat().st_size < 1.2 * open_features(whole).num_boxes * 64 * 4 + 400_000
    )  # no space for boxes never found


def test_how_they_were_made_is_recorded(folder, whole, capsys):
    made = open_features(whole).provenance["extraction"]
    assert made["detector"]["file"] == "model.weights.h5"
    assert len(made["detector"]["sha256"]) == 64
    assert made["pipeline"]["name"] == "caffe" and made["pipeline"]["max_boxes"] == 4
    assert {"lxmert-tf", "keras", "tensorflow"} <= set(made["versions"])
    assert json.loads((folder / "whole.tsv.json").read_text())["extraction"] == made
    assert main(["features", "info", str(whole)]) == 0
    printed = capsys.readouterr().out
    assert "pictures, 20 pictures" in printed and made["detector"]["sha256"] in printed


def test_36_boxes_unless_told(folder):
    """Also where the detector's config says otherwise of the Hugging Face pipeline."""
    for options, expected in [
        ({}, (36, 36)),
        ({"min_boxes": 10, "max_boxes": 100}, (10, 100)),
        ({"max_boxes": 9}, (9, 9)),
    ]:
        for pipeline in ("caffe", "huggingface"):
            made = asdict(extractor.Extractor(folder / "tiny", pipeline, post_nms=20, **options).pipeline)
            assert (made["min_boxes"], made["max_boxes"]) == expected


# Interruptions


@pytest.fixture
def killed(monkeypatch):
    """Has the next call that extracts die at its 12th picture, and not notice."""

    class Killed(BaseException):
        pass

    def kill(error=Killed, unnoticed=True):
        add, count = Build._add, itertools.count(1)

        def add_some(self, record):
            if next(count) == 12:
                raise error
            add(self, record)

        context = monkeypatch.context()
        patch = context.__enter__()
        patch.setattr(Build, "_add", add_some)
        if unnoticed:
            patch.setattr(Build, "keep_progress", lambda self: None)
        return context, error

    return kill


@pytest.mark.parametrize("suffix", ["h5", "tsv"])
def test_a_killed_extraction_goes_on(folder, whole, tmp_path, killed, suffix):
    out = tmp_path / f"out.{suffix}"
    arguments = (folder / "pictures", out, folder / "tiny")
    context, error = killed()
    with pytest.raises(error):
        extract_features(*arguments, **SMALLEST)
    context.__exit__(None, None, None)
    with open(f"{out}.partial", "ab") as file:  # written, but not in the journal
        file.write(b"torn")
    with pytest.raises(ValueError, match=r'pipeline \{.*"max_boxes": 4\} instead of \{.*"max_boxes": 3\}.*--overwrite'):
        extract_features(*arguments, **SMALLEST | {"max_boxes": 3})
    with pytest.raises(ValueError, match="was begun with other pictures: finish it with the command"):
        extract_features(sorted((folder / "pictures").iterdir())[1:], *arguments[1:], **SMALLEST)
    report = extract_features(*arguments, **SMALLEST)
    assert (report.resumed, report.images) == (8, 20)
    if suffix == "h5":
        assert contents(out) == contents(whole)
    else:
        assert out.read_bytes() == whole.with_suffix(".tsv").read_bytes()
        assert (tmp_path / "out.tsv.json").read_bytes() == (folder / "whole.tsv.json").read_bytes()
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.parametrize("stop", [KeyboardInterrupt, signal.SIGTERM, MemoryError("no memory"), ZeroDivisionError])
def test_what_is_done_is_kept(folder, tmp_path, killed, stop):
    """After an interrupt, on a machine that is taken away, and after any error: it took hours."""
    error = (lambda: os.kill(os.getpid(), stop) or KeyboardInterrupt) if isinstance(stop, signal.Signals) else stop
    if isinstance(stop, signal.Signals):
        error = SystemExit
    context, _ = killed(error, unnoticed=False)
    codes = {KeyboardInterrupt: 130}
    if stop is ZeroDivisionError or error is SystemExit:
        with pytest.raises(error):
            run(folder, folder / "pictures", out=tmp_path / "out.h5")
    else:
        assert run(folder, folder / "pictures", out=tmp_path / "out.h5") == codes.get(stop, 2)
    context.__exit__(None, None, None)
    report = extract_features(folder / "pictures", tmp_path / "out.h5", folder / "tiny", **SMALLEST)
    assert report.resumed == 11


def test_other_options_can_begin_anew(folder, tmp_path, killed):
    context, error = killed()
    with pytest.raises(error):
        extract_features(folder / "pictures", tmp_path / "out.h5", folder / "tiny", **SMALLEST)
    context.__exit__(None, None, None)
    options = SMALLEST | {"max_boxes": 3}
    report = extract_features(folder / "pictures", tmp_path / "out.h5", folder / "tiny", overwrite=True, **options)
    assert report.resumed == 0
    assert open_features(tmp_path / "out.h5").max_boxes == 3


def test_few_pictures_are_decoded_ahead(folder, monkeypatch):
    """Memory does not grow with their number."""
    made = extractor.Extractor(folder / "tiny", **SMALLEST)
    begun = []
    prepare = made.prepare
    monkeypatch.setattr(made, "prepare", lambda path: begun.append(path) or prepare(path))
    pictures = extract.Pictures(extract.find_pictures(folder / "pictures"), made, None)
    for record in pictures.records():
        assert len(begun) <= record.number - 1 + extract.AHEAD
        record.read(Series())
    assert len(begun) == 20


# A process of its own, that has imported everything and computed nothing, forks the ones that are killed.
KILLS = """
import gc, os, pathlib, random, signal, sys, time
from lxmert_tf.data.features.extract import extract_features

pictures, out, detector, options = *sys.argv[1:4], eval(sys.argv[4])
journal = pathlib.Path(out + ".partial.journal")
size = lambda: journal.stat().st_size if journal.exists() else 0
gc.collect()
gc.freeze()  # what every collection of every fork would visit
for attempt in range(11):
    before = size()
    child = os.fork()
    if not child:
        extract_features(pictures, out, detector, **options)
        os._exit(0)
    if attempt == 10:
        os.waitpid(child, 0)
    else:  # while it starts, or a while after it has recorded something
        while attempt % 2 and size() <= before:
            time.sleep(0.02)
        time.sleep(random.uniform(0, 1))
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL, "it was done already"
"""


@pytest.mark.slow
def test_extractions_killed_at_random_moments_end_in_the_same_file(folder, loaded, tmp_path):
    (tmp_path / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for number in range(1000):
        Image.fromarray(rng.integers(0, 256, (32, 40, 3), "uint8")).save(tmp_path / "pictures" / f"{number}.png")
    arguments = tmp_path / "pictures", tmp_path / "out.h5", folder / "tiny"
    options = SMALLEST | {"pre_nms": 20, "post_nms": 4}
    command = [sys.executable, "-c", KILLS, *map(str, arguments), repr(options)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert not list(tmp_path.glob("*.partial*"))
    extract_features(arguments[0], tmp_path / "whole.h5", arguments[2], **options)
    assert contents(tmp_path / "out.h5") == contents(tmp_path / "whole.h5")
    assert len(open_features(tmp_path / "out.h5")) == 1000


# Which pictures


def test_shards_are_put_together(folder, whole, tmp_path):
    for index in range(3):
        assert run(folder, folder / "pictures", "--shard", f"{index}/3", out=tmp_path / f"{index}.tsv") == 0
    build_features([tmp_path / f"{index}.tsv" for index in range(3)], tmp_path / "out.h5")
    merged, expected = open_features(tmp_path / "out.h5"), open_features(whole)
    assert merged.img_ids[:3] == ("image_00", "image_03", "image_06")
    for name, value in merged.read(expected.img_ids).items():
        np.testing.assert_array_equal(value, expected.read(expected.img_ids)[name])
    assert [source["extraction"]["shard"] for source in merged.provenance["sources"]] == [[0, 3], [1, 3], [2, 3]]
    made, whole_made = merged.provenance, expected.provenance
    assert made["extractor"] == whole_made["extractor"]
    assert made["extraction"] | {"shard": None} == whole_made["extraction"] and "shard" not in made["extraction"]


def test_shards_of_different_options_are_not_mixed(whole, tmp_path, capsys):
    original, made = whole.with_suffix(".tsv"), json.loads((whole.parent / "whole.tsv.json").read_text())
    one, other, unknown = (tmp_path / f"{name}.tsv" for name in ("one", "other", "unknown"))
    for path, lines in ((one, slice(0, 2)), (other, slice(2, 4)), (unknown, slice(4, 6))):
        path.write_bytes(b"".join(original.read_bytes().splitlines(keepends=True)[lines]))
    beside = [tmp_path / f"{name}.tsv.json" for name in ("one", "other")]
    for path in beside:
        path.write_text(json.dumps(made))
    for changed, message in [
        ({"pipeline": made["extraction"]["pipeline"] | {"name": "huggingface"}}, 'pipeline name "caffe" and "huggi'),
        ({"detector": {"file": "model.weights.h5", "sha256": "0"}}, "detector sha256 "),
        ({"precision": "bfloat16"}, 'precision "float32" and "bfloat16"; build a file of each.'),
        ({"boxes_from": {"file": "a.json", "sha256": "0"}}, "--boxes-from false and true"),
    ]:
        beside[1].write_text(json.dumps(made | {"extraction": made["extraction"] | changed}))
        with pytest.raises(ValueError, match=f"one.tsv and .*other.tsv were extracted with different .*{message}"):
            build_features([one, other], tmp_path / "out.h5")
    assert not list(tmp_path.glob("out*"))
    build_features([one, unknown], tmp_path / "out.h5")
    mixture = open_features(tmp_path / "out.h5").provenance
    assert "extraction" not in mixture and mixture["sources"][0]["extraction"] == made["extraction"]
    with pytest.raises(ValueError, match=r"out\.h5 and .*other\.tsv were extracted with different options"):
        build_features(other, tmp_path / "out.h5", append=True)
    with pytest.raises(ValueError, match=r"whole.h5 is not a TSV file; .* put together are extracted as \.tsv files"):
        build_features(whole, tmp_path / "again.h5")
    assert main(["features", "info", str(one)]) == 0
    assert made["extraction"]["detector"]["sha256"] in capsys.readouterr().out


def test_files_patterns_directories_and_lists(folder, tmp_path, monkeypatch):
    pictures = folder / "pictures"
    monkeypatch.chdir(folder)
    (tmp_path / "some.txt").write_text("pictures/image_03.png\n\npictures/image_01.png\n")
    for given, expected in [
        ([pictures / "image_02.png", pictures / "image_00.png"], [0, 2]),
        (["pictures/image_1?.png"], range(10, 20)),
        (["**/image_1[0-3].png"], range(10, 14)),
        ([tmp_path / "some.txt", "pictures/image_01.png"], [1, 3]),
        (["."], range(20)),
    ]:
        assert list(extract.find_pictures(given)) == [f"image_{number:02}" for number in expected]


def test_two_pictures_of_one_name(folder, tmp_path, capsys):
    (tmp_path / "image_03.jpg").write_bytes(b"")
    assert run(folder, folder / "pictures", tmp_path / "image_03.jpg", out=tmp_path / "out.h5") == 2
    error = capsys.readouterr().err
    assert f"image_03.png and {tmp_path / 'image_03.jpg'} would both be the image 'image_03'; rename" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "out", "complaint"),
    [
        (["nothing.jpg"], "a.h5", "There is no file 'nothing.jpg'."),
        (["nothing*.jpg"], "a.h5", "There is no file 'nothing*.jpg'."),
        (["missing.txt"], "a.h5", "'nothing.jpg' nor 1 others, which missing.txt lists; its paths are relative"),
        (["empty"], "a.h5", "empty has no pictures, files whose names end with .jpg"),
        (["a.png"], "a.npz", "must end with .h5, .hdf5, .tsv, got 'a.npz'"),
        (["a.png"], "there.h5", "there.h5 already exists; overwrite it (--overwrite)"),
        (["a.png", "--boxes=3", "--min-boxes=2"], "a.h5", "--boxes is --min-boxes and --max-boxes in one"),
        (["a.png", "--boxes-from=b.json", "--boxes=2"], "a.h5", "--boxes-from says which boxes there are"),
        (["a.png", "--boxes-from=b.json"], "a.h5", "b.json has no boxes of the image 'a'"),
        (["a.png", "--boxes-from=c.json"], "a.h5", "c.json, image 'a': the boxes must be a list of [x1, y1, x2, y2]"),
        (["a.png", "--boxes-from=d.json"], "a.h5", "The boxes of 'a' in d.json must be x1, y1, x2, y2 in pixels"),
        (["a.png", "--shard=1/2"], "a.h5", "The shard 1/2 is empty: there are only 1 pictures."),
        (["a.png", "--set=threshold=1"], "a.h5", "--set must be NAME=VALUE with a NAME of min_size"),
        (["a.png", "--set=conf=0"], "a.h5", "conf must be a number above 0 to 1, got 0"),
        (["a.png", "--boxes=0"], "there.h5", "--boxes must be at least 1, got 0"),
        (["a.png", "--boxes=9"], "there.h5", "min_boxes must be at most 8, since post_nms leaves only so many"),
        (["https://example.org/a.png?size=9"], "a.h5", "size=9 is a URL, which is not opened: download it"),
    ],
)
def test_refusals_are_one_sentence(folder, tmp_path, monkeypatch, capsys, arguments, out, complaint):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (40, 40)).save("a.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "missing.txt").write_text("a.png\nnothing.jpg\nnothing2.jpg\n")
    (tmp_path / "there.h5").write_text("")
    (tmp_path / "b.json").write_text('{"b": [[0, 0, 9, 9]]}')
    (tmp_path / "c.json").write_text('{"a": [0, 0, 9, 9]}')
    (tmp_path / "d.json").write_text('{"a": [[0, 0, 99, 9]]}')
    assert run(folder, *arguments, out=out) == 2
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("a.h5*"))


@pytest.mark.parametrize(
    ("argument", "complaint"),
    [
        ("--shard=3/3", "must be I/N with I from 0 to N-1, got '3/3'"),
        ("--shard=1", "got '1'"),
    ],
)
def test_arguments_that_are_no_numbers(capsys, argument, complaint):
    with pytest.raises(SystemExit, match="2"):
        main(["features", "extract", "a.png", "a.h5", "--detector=d", argument])
    assert complaint in capsys.readouterr().err


def test_a_detector_without_attributes_has_no_tsv_file(folder, tmp_path):
    write_tiny_detector(tmp_path / "tiny", num_attributes=0)
    with pytest.raises(ValueError, match=r"without attributes has no lines for a TSV file; write .*out\.h5\.$"):
        extract_features(folder / "pictures", tmp_path / "out.tsv", tmp_path / "tiny", **SMALLEST)


# Boxes that are given


@pytest.mark.parametrize("kind", ["h5", "tsv", "json"])
def test_boxes_from_a_file(folder, whole, tmp_path, kind):
    """Features at the boxes that were found are those that were found."""
    file = whole.with_suffix(f".{kind}")
    if kind == "json":
        file = tmp_path / "boxes.json"
        boxes = {regions.img_id: regions.boxes.tolist() for regions in read_tsv(whole.with_suffix(".tsv"))}
        file.write_text(json.dumps(boxes))
    numbers = {name: SMALLEST[name] for name in ("min_size", "max_size")}
    out = tmp_path / "out.h5"
    extract_features(folder / "pictures", out, folder / "tiny", boxes_from=file, **numbers)
    given, found = (open_features(each) for each in (out, whole))
    for name, value in given.read(given.img_ids).items():
        np.testing.assert_allclose(value, found.read(given.img_ids)[name], rtol=1e-4, atol=1e-4)
    assert given.provenance["extraction"]["boxes_from"]["file"] == file.name


def test_boxes_of_pictures_of_another_size(folder, whole, tmp_path):
    picture = Image.open(folder / "pictures" / "image_00.png")
    picture.resize((100, 80)).save(tmp_path / "image_00.png")
    for kind in ("h5", "tsv"):
        file = whole.with_suffix(f".{kind}")
        with pytest.raises(ValueError, match=r"'image_00' for a picture of 50x40 pixels, but it has 100x80; give"):
            extract_features(tmp_path / "image_00.png", tmp_path / "out.h5", folder / "tiny", boxes_from=file)


def test_pictures_without_good_boxes_can_be_left_out(folder, tmp_path):
    inside, outside = [[1, 2, 30, 40]], [[1, 2, 30, 41]]
    boxes = {"image_00": inside, "image_01": outside, "image_02": [], "image_03": [[1, 2]], "image_04": inside}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    images, options = folder / "pictures" / "image_0[0-5].png", {"min_size": 32, "max_size": 64}
    report = extract_features(
        images, tmp_path / "a.h5", folder / "tiny", boxes_from=tmp_path / "boxes.json", skip_bad=True, **options
    )
    assert open_features(tmp_path / "a.h5").img_ids == ("image_00", "image_04")
    for message, number in zip(report.skipped, (1, 2, 3, 5), strict=True):
        assert "boxes.json" in message and f"'image_0{number}'" in message and message.endswith(".")


# Bad pictures


@pytest.mark.parametrize("suffix", ["h5", "tsv"])
def test_bad_pictures_are_left_out_and_listed(folder, tmp_path, capsys, suffix):
    paths = write_bad_images(tmp_path)
    (tmp_path / "list.txt").write_bytes(b"\n".join(os.fsencode(path) for path in paths))
    out = tmp_path / f"out.{suffix}"
    assert run(folder, tmp_path / "list.txt", "--skip-bad", out=out) == 0
    good = {path.stem: image for image, path in zip(BAD_IMAGES, paths, strict=True) if image.has_boxes}
    printed = capsys.readouterr()
    assert printed.out.endswith(f"; {len(paths) - len(good)} bad images skipped\n")
    if suffix == "tsv":
        found = {regions.img_id: (regions.img_h, regions.img_w) for regions in read_tsv(out)}
        assert found == {name: image.verdict.shape[:2] for name, image in good.items()}
    else:
        assert set(open_features(out).img_ids) == set(good)
        assert open_features(out).provenance["skipped"] == len(paths) - len(good)


def test_every_bad_picture_has_a_sentence(folder, tmp_path):
    paths = write_bad_images(tmp_path)
    (tmp_path / "list.txt").write_bytes(b"\n".join(os.fsencode(path) for path in paths))
    report = extract_features(tmp_path / "list.txt", tmp_path / "a.h5", folder / "tiny", skip_bad=True, **SMALLEST)
    for image, path in zip(BAD_IMAGES, paths, strict=True):
        if image.has_boxes:
            assert not [message for message in report.skipped if str(path) in message]
        else:
            (message,) = [message for message in report.skipped if str(path) in message]
            assert message.endswith(".") and "\n" not in message


def test_a_bad_picture_ends_it(folder, tmp_path, capsys):
    (tmp_path / "image_half.png").write_bytes((folder / "pictures" / "image_00.png").read_bytes()[:500])
    assert run(folder, folder / "pictures", tmp_path / "image_half.png", out=tmp_path / "out.h5") == 2
    error = capsys.readouterr().err
    assert "image_half.png is cut short or damaged" in error and error.count("\n") == 1
    assert run(folder, folder / "pictures", tmp_path / "image_half.png", "--skip-bad", out=tmp_path / "out.h5") == 0
    assert capsys.readouterr().out.startswith("resumed after 20 images\n")  # sorted by name, it is the last
