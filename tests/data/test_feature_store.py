"""Files of region features: built from TSV, read at random, and refused when they are not what they seem."""

import dataclasses
import itertools
import json
import multiprocessing
import re
import subprocess
import sys
import threading
import time
import tracemalloc

import h5py
import numpy as np
import pytest
from support.data import make_regions, make_store, write_hdf5

from lxmert_tf.data import FeatureStore, build_features, open_features
from lxmert_tf.data.features import build as feature_build
from lxmert_tf.data.features import rows as stored_rows
from lxmert_tf.data.features.check import check_features
from lxmert_tf.data.features.regions import normalize_boxes
from lxmert_tf.data.features.tsv import read_tsv, write_tsv
from lxmert_tf.data.features.writers import Hdf5Writer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    make_store(folder, images=150, boxes=range(1, 20))  # 1,4xx boxes: several blocks
    return folder


@pytest.fixture(scope="module")
def regions(folder):
    return list(read_tsv(folder / "features.tsv"))


def check(store: FeatureStore, regions, tolerance=0.0):
    """The store gives exactly these images, in any order, padded with zeros."""
    wanted = [regions[n] for n in np.random.default_rng(0).integers(0, len(regions), 40)]
    got = store.read([entry.img_id for entry in wanted])
    most = max(len(entry.boxes) for entry in wanted)
    assert got["visual_feats"].shape == (40, most, regions[0].features.shape[1])
    for index, entry in enumerate(wanted):
        n = len(entry.boxes)
        expected = {
            "visual_feats": entry.features,
            "visual_pos": normalize_boxes(entry.boxes, entry.img_w, entry.img_h),
            "visual_attention_mask": np.ones(n),
            **{name: getattr(entry, name) for name in ("objects_id", "objects_conf", "attrs_id", "attrs_conf")},
        }
        for name, value in expected.items():
            if name in got:
                np.testing.assert_allclose(got[name][index, :n], value, rtol=tolerance, atol=0)
                assert not got[name][index, n:].any()
    return got


def test_a_built_file_gives_what_the_tsv_has(folder, regions):
    store = open_features(folder / "features.h5")
    got = check(store, regions)
    assert {name: str(value.dtype) for name, value in got.items()} == {
        "visual_feats": "float32",
        "visual_pos": "float32",
        "visual_attention_mask": "int32",
        "objects_id": "int32",
        "objects_conf": "float32",
        "attrs_id": "int32",
        "attrs_conf": "float32",
    }
    assert store.img_ids == tuple(entry.img_id for entry in regions)
    assert (len(store), store.feat_dim, store.min_boxes, store.max_boxes) == (150, 4, 1, 19)
    assert "image_7" in store
    assert "image_150" not in store
    assert store.has_labels
    assert isinstance(store._layout.features, stored_rows.FileRows)
    assert not list(folder.glob("*.partial*"))


def test_single_boxes(folder, regions):
    store = open_features(folder / "features.h5")
    rows, places = np.array([3, 149, 3]), np.array([0.0, 0.999999, 0.5])
    expected = [regions[3].features[0], regions[149].features[-1], regions[3].features[2]]
    np.testing.assert_array_equal(store.read_boxes(rows, places), expected)


def test_one_name_is_no_list_of_names(folder):
    with pytest.raises(TypeError, match=r"^img_ids must be a list of names, got the text 'image_0'; give \['"):
        open_features(folder / "features.h5").read("image_0")


def test_unknown_image(folder):
    with pytest.raises(
        KeyError, match=r"^image 'nobody' has no region features in .*features\.h5, which has 150 images$"
    ):
        open_features(folder / "features.h5").read(["image_0", "nobody"])


def test_a_tsv_is_refused_with_what_to_do(folder):
    with pytest.raises(ValueError, match=r"lxmert-tf features build .*features.tsv .*features.h5"):
        open_features(folder / "features.tsv")


def test_threads_and_processes_read_at_once(folder, regions):
    store = open_features(folder / "features.h5")
    errors = []

    def read():
        try:
            for _ in range(5):
                check(store, regions)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    with multiprocessing.get_context("spawn").Pool(2) as pool:  # the store is pickled
        pool.starmap(check, [(store, regions)] * 4)


def test_systems_without_reads_and_writes_at_an_offset(folder, regions, tmp_path, monkeypatch):
    """Windows has none, and macOS no fdatasync."""
    for name in ("preadv", "pread", "pwrite", "pwritev", "fdatasync"):
        monkeypatch.delattr(f"os.{name}")
    assert build_features(folder / "features.tsv", tmp_path / "out.h5").images == 150
    check(open_features(tmp_path / "out.h5"), regions)
    np.savez(tmp_path / "a.npz", **arrays_of(regions) | SIZES)
    check(open_features(tmp_path / "a.npz"), regions)


def test_half_precision(folder, regions, tmp_path):
    build_features(folder / "features.tsv", tmp_path / "half.h5", dtype="float16")
    store = open_features(tmp_path / "half.h5")
    assert store.dtype == np.float16
    got = store.read(["image_18"])
    np.testing.assert_array_equal(got["visual_feats"][0], regions[18].features.astype(np.float16).astype(np.float32))


def test_images_are_appended(folder, regions, tmp_path):
    for name, part in (("a.tsv", regions[:60]), ("b.tsv", regions[60:61]), ("c.tsv", regions[61:])):
        write_tsv(tmp_path / name, part)
    build_features(tmp_path / "a.tsv", tmp_path / "out.h5", extractor="frcnn")
    first = open_features(tmp_path / "out.h5")
    report = build_features([tmp_path / "b.tsv", tmp_path / "c.tsv"], tmp_path / "out.h5", append=True)
    assert (report.images, report.added, report.boxes) == (150, 90, sum(len(entry.boxes) for entry in regions))
    check(first, regions[:60])  # who has the old file open still reads it
    store = open_features(tmp_path / "out.h5")
    check(store, regions)
    assert store.provenance["extractor"] == "frcnn"
    assert [source["name"] for source in store.provenance["sources"]] == ["a.tsv", "b.tsv", "c.tsv"]
    before = (tmp_path / "out.h5").read_bytes()
    with pytest.raises(ValueError, match=r"b\.tsv, line 1, image 'image_60': this img_id is already in the file"):
        build_features(tmp_path / "b.tsv", tmp_path / "out.h5", append=True)
    assert (tmp_path / "out.h5").read_bytes() == before
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: (file.pop("img_w"), file.pop("img_h")), "was not written by lxmert-tf features build"),
        (lambda file: repack(file, chunks=True, compression="gzip"), "is compressed or laid out otherwise"),
        (lambda file: repack(file), "is compressed or laid out otherwise"),
    ],
    ids=["no sizes", "compressed", "contiguous"],
)
def test_a_changed_file_is_not_appended_to(regions, tmp_path, change, message):
    write_tsv(tmp_path / "a.tsv", regions[:3])
    write_tsv(tmp_path / "b.tsv", regions[3:5])
    build_features(tmp_path / "a.tsv", tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5", "r+") as file:
        change(file)
    before = (tmp_path / "out.h5").read_bytes()
    with pytest.raises(ValueError, match=message):
        build_features(tmp_path / "b.tsv", tmp_path / "out.h5", append=True)
    assert (tmp_path / "out.h5").read_bytes() == before
    assert not list(tmp_path.glob("*.partial*"))


def repack(file, **options):
    """Stores the array of features anew, as HDF5's tools can."""
    features = file["image_features"][()]
    del file["image_features"]
    limits = {"maxshape": (None, features.shape[1])} if options else {}
    file.create_dataset("image_features", data=features, **limits, **options)


def test_bad_lines_are_skipped_and_told(tmp_path):
    good = [make_regions(f"image_{n}", seed=n) for n in range(4)]
    write_tsv(tmp_path / "a.tsv", good)
    lines = (tmp_path / "a.tsv").read_bytes().splitlines(keepends=True)
    bad = [lines[0][:-40] + b"\n", lines[1], b"nonsense\n", lines[2], lines[1], lines[3][:-9]]
    (tmp_path / "bad.tsv").write_bytes(b"".join(bad))
    with pytest.raises(ValueError, match=r"bad\.tsv, line 1, image 'image_0': features"):
        build_features(tmp_path / "bad.tsv", tmp_path / "out.h5")
    assert {path.name for path in tmp_path.iterdir()} == {"a.tsv", "bad.tsv"}
    report = build_features(tmp_path / "bad.tsv", tmp_path / "out.h5", skip_bad=True)
    assert report.images == 2
    assert [line.split(": ")[0].partition("bad.tsv, ")[2] for line in report.skipped] == [
        "line 1, image 'image_0'",
        "line 3, image 'nonsense'",
        "line 5, image 'image_1'",
        "line 6, image 'image_3'",
    ]
    store = open_features(tmp_path / "out.h5")
    assert store.provenance["skipped"] == 4
    check(store, good[1:3])


def test_other_programs_can_read_the_file(folder, regions):
    with h5py.File(folder / "features.h5") as file:
        assert list(file["image_ids"].asstr()[:2]) == ["image_0", "image_1"]
        start, end = file["pos_boxes"][10]
        np.testing.assert_array_equal(file["image_features"][start:end], regions[10].features)
        np.testing.assert_array_equal(file["image_bb"][start:end], regions[10].boxes)
        assert len(file["image_features"]) == sum(len(entry.boxes) for entry in regions)


def test_space_that_is_not_needed_is_given_back(tmp_path):
    """A file of 10 to 100 boxes has space for 100 of each image at first."""
    regions = make_regions("a", feat_dim=256)
    writer = Hdf5Writer.create(tmp_path / "a.h5", 5000, 256, "float32", labels=True)
    writer.write(regions)
    assert (tmp_path / "a.h5").stat().st_size > 5_000_000
    writer.finish(tmp_path / "a.h5", [("a", 480, 640, 3)], {})
    assert (tmp_path / "a.h5").stat().st_size < 1_000_000
    np.testing.assert_array_equal(open_features(tmp_path / "a.h5").read(["a"])["visual_feats"][0], regions.features)


def test_a_killed_build_goes_on_and_gives_the_same_file(folder, regions, tmp_path, monkeypatch):
    tsv, out = folder / "features.tsv", tmp_path / "out.h5"
    monkeypatch.setattr(feature_build, "CHECKPOINT", 10_000)
    take, begun = feature_build.Build._add, []

    class Killed(BaseException):
        pass

    def take_some(self, record):
        if not begun or begun[-1][0] is not self:
            begun.append((self, record.number))
        if record.number >= begun[-1][1] + 40:
            raise Killed
        take(self, record)

    monkeypatch.setattr(feature_build.Build, "keep_progress", lambda self: None)  # a kill runs no code
    monkeypatch.setattr(feature_build.Build, "_add", take_some)
    for _ in range(3):
        with pytest.raises(Killed):
            build_features(tsv, out)
        with (tmp_path / "out.h5.partial.journal").open("a") as journal:
            journal.write('{"images": [["torn')
        with pytest.raises(FileNotFoundError, match="is not finished: run the same lxmert-tf features command again"):
            open_features(out)
    monkeypatch.undo()
    report = build_features(tsv, out)
    lines = [line for _, line in begun]
    assert lines[0] == 1
    assert all(30 < later - earlier <= 40 for earlier, later in itertools.pairwise(lines))
    assert lines[-1] + 30 <= report.resumed + 1 <= lines[-1] + 40
    assert (report.images, report.added) == (150, 150)
    store = open_features(out)
    check(store, regions)
    assert store.provenance == open_features(folder / "features.h5").provenance
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_what_another_source_or_a_torn_file_left_is_not_gone_on_from(folder, regions, tmp_path):
    tsv, out = tmp_path / "a.tsv", tmp_path / "out.h5"
    write_tsv(tsv, regions[:30])
    (tmp_path / "out.h5.partial").write_bytes(b"\x89HDF\r\n\x1a\n torn")
    plan = {"format": feature_build.FORMAT, "sources": [feature_build._fingerprint(tsv)], "base": None}
    journal = json.dumps({**plan, "dtype": "float32", "classes": [1600, 400], "labels": True}) + "\n"
    (tmp_path / "out.h5.partial.journal").write_text(journal)
    assert build_features(tsv, out).resumed == 0
    check(open_features(out), regions[:30])
    (tmp_path / "out.h5.partial").write_bytes(out.read_bytes())
    (tmp_path / "out.h5.partial.journal").write_text(journal)
    write_tsv(tsv, regions[30:70])
    assert build_features(tsv, out, overwrite=True).resumed == 0
    check(open_features(out), regions[30:70])


def test_two_builds_of_one_file_do_not_meet(folder, tmp_path):
    with (
        feature_build.locked_journal(tmp_path / "out.h5"),
        pytest.raises(BlockingIOError, match=r"another process is building out\.h5"),
    ):
        build_features(folder / "features.tsv", tmp_path / "out.h5")


def arrays_of(regions, padded=False):
    """The arrays of a feature file, in the layout of others: concatenated, or padded to the most boxes."""
    counts = np.array([len(entry.boxes) for entry in regions])
    ends = np.cumsum(counts)
    columns = {"features": "features", "boxes": "boxes", "objects_id": "objects_id", "objects_conf": "objects_conf"}
    arrays = {"img_ids": np.array([entry.img_id for entry in regions]).astype("S")}
    for name, field in columns.items():
        parts = [getattr(entry, field) for entry in regions]
        if padded:
            parts = [np.pad(part, ((0, counts.max() - len(part)), *[(0, 0)] * (part.ndim - 1))) for part in parts]
        arrays[name] = np.stack(parts) if padded else np.concatenate(parts)
    if padded:
        arrays = {name: value for name, value in arrays.items() if not name.startswith("objects")}
        return arrays | {"num_boxes": counts}
    return arrays | {"pos_boxes": np.stack([ends - counts, ends], axis=1)}


SIZES = {"img_w": np.full(150, 640), "img_h": np.full(150, 480)}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("how", ["hdf5", "chunked", "compressed", "npz", "compressed npz", "big endian"])
def test_files_of_other_programs(regions, tmp_path, how, padded):
    arrays = arrays_of(regions, padded) | SIZES
    if "npz" in how:
        path = tmp_path / "a.npz"
        (np.savez_compressed if "compressed" in how else np.savez)(path, **arrays)
    else:
        if how == "big endian":
            arrays["features"] = arrays["features"].astype(">f4")
        options = {
            "chunked": {"chunks": (7, *arrays["features"].shape[1:])},
            "compressed": {"compression": "gzip"},
        }.get(how, {})
        path = write_hdf5(tmp_path / "a.h5", arrays, **options)
    store = open_features(path)
    check(store, regions)
    assert not store.has_labels
    plain = {"hdf5", "npz", "chunked"}
    assert isinstance(store._layout.features, stored_rows.FileRows) == (how in plain)
    check(open_features(path), regions)


def test_normalized_boxes_need_no_sizes(regions, tmp_path):
    arrays = arrays_of(regions)
    normalized = arrays.pop("boxes") / np.float32([640, 480, 640, 480])
    sides = normalized[:, 2:] - normalized[:, :2]
    spatial = np.concatenate([normalized, sides], axis=1)
    check(open_features(write_hdf5(tmp_path / "a.h5", arrays | {"spatial_features": spatial})), regions, 1e-6)
    store = open_features(write_hdf5(tmp_path / "b.h5", arrays | {"boxes": normalized}))
    assert store.box_format == "x1 y1 x2 y2 in 0..1"
    check(store, regions, 1e-6)


@pytest.mark.parametrize("sizes", [{}, {name: value // 2 for name, value in SIZES.items()}])
def test_boxes_in_pixels_are_not_taken_for_normalized_ones(regions, tmp_path, sizes):
    store = open_features(write_hdf5(tmp_path / "a.h5", arrays_of(regions) | sizes))
    complaint = "boxes must lie in 0..1, got .* must have img_w" if not sizes else "outside the image's width"
    with pytest.raises(ValueError, match=rf"a\.h5, image 'image_\d+': .*{complaint}"):
        store.read(store.img_ids)
    assert any(re.search(complaint, problem) for problem in check_features(store.path))


def broken(arrays, **changed):
    arrays = {**arrays, **SIZES, **changed}
    return {name: value for name, value in arrays.items() if value is not None}


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"features": None}, "has no features: expected an array named image_features or features"),
        ({"boxes": None}, "has no boxes"),
        ({"img_ids": None}, "has no names of images"),
        ({"pos_boxes": None}, r"needs pos_boxes \[M, 2\]"),
        ({"pos_boxes": np.zeros((150, 2), int)}, "every one of the 150 images must have at least one box"),
        ({"pos_boxes": np.zeros((3, 2), int)}, r"pos_boxes must have the shape \[150, 2\], got \[3, 2\]"),
        ({"pos_boxes": np.tile([0, 99_999], (150, 1))}, "boxes up to row 99999, but features has"),
        ({"img_ids": np.array([b"same"] * 150)}, "has the image .* twice"),
        ({"features": np.zeros((2000, 4), int)}, "features must be float32 or float16, got int64"),
        ({"boxes": np.zeros((3, 4), np.float32)}, "boxes has 3 rows, but features has"),
        ({"boxes": np.zeros((2000, 3), np.float32)}, "boxes must have 4 values x1 y1 x2 y2, got 3"),
        ({"img_w": np.zeros(150)}, "img_w and img_h must be above 0 for each of the 150 images"),
    ],
)
@pytest.mark.parametrize("suffix", ["h5", "npz"])
def test_other_layouts_are_refused(regions, tmp_path, changed, complaint, suffix):
    arrays = broken(arrays_of(regions), **changed)
    path = tmp_path / f"a.{suffix}"
    if suffix == "h5":
        write_hdf5(path, arrays)
    else:
        np.savez(path, **arrays)
    with pytest.raises(ValueError, match=complaint) as caught:
        open_features(path)
    assert str(path) in str(caught.value)


def test_pickled_arrays_are_refused(regions, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays_of(regions) | {"objects_conf": np.array([{}], object)})
    with pytest.raises(ValueError, match=r"cannot read .*a\.npz as npz"):
        open_features(tmp_path / "a.npz")


@pytest.mark.parametrize("name", ["features.h5", "a.npz"])
def test_files_that_are_cut_off(folder, regions, tmp_path, name):
    np.savez(tmp_path / "a.npz", **arrays_of(regions) | SIZES)
    whole = ((tmp_path if name == "a.npz" else folder) / name).read_bytes()
    for size in (3, 20, 400, len(whole) // 2, len(whole) - 10):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises((ValueError, OSError), match=name):
            open_features(tmp_path / name).read(["image_0", "image_149"])


def test_check_names_what_is_wrong(regions, tmp_path):
    arrays = arrays_of(regions) | SIZES
    start = arrays["pos_boxes"][:, 0]
    arrays["features"][start[3], 2] = np.nan
    arrays["boxes"][start[70] + 1] = [9, 0, 1, 1]
    arrays["objects_conf"][start[5]] = 1.5
    arrays["objects_id"][start[149]] = -1
    arrays["boxes"][start[100]] = [0, 0, 700, 1]
    path = write_hdf5(tmp_path / "a.h5", arrays)
    assert {problem.partition(f"{path}, image ")[2] for problem in check_features(path)} == {
        "'image_3': features must be finite",
        "'image_70': boxes must be x1 y1 x2 y2 with x1 <= x2 and y1 <= y2",
        "'image_5': objects_conf must lie in 0..1",
        "'image_149': objects_id must lie in 0..1599, as num_object_labels of the config says",
        "'image_100': a box is outside the image's width and height",
    }


def test_features_too_large_for_half_precision(tmp_path):
    large = dataclasses.replace(make_regions("large"), features=np.full((3, 4), 1e5, np.float32))
    write_tsv(tmp_path / "a.tsv", [large])
    with pytest.raises(ValueError, match=r"image 'large': features are too large for float16; use float32"):
        build_features(tmp_path / "a.tsv", tmp_path / "a.h5", dtype="float16")
    assert [path.name for path in tmp_path.iterdir()] == ["a.tsv"]


def test_memory_does_not_grow_with_the_features(tmp_path):
    write_tsv(tmp_path / "a.tsv", (make_regions(f"image_{n}", 36, 512, seed=n) for n in range(150)))
    tracemalloc.start()
    try:
        build_features(tmp_path / "a.tsv", tmp_path / "a.h5")
        store = open_features(tmp_path / "a.h5")
        for img_id in store.img_ids:
            store.read([img_id])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < (tmp_path / "a.h5").stat().st_size / 3


BUILD = """
import sys
from lxmert_tf.data.features import build as feature_build
feature_build.CHECKPOINT = 100_000
print("begun", flush=True)
feature_build.build_features(sys.argv[1], sys.argv[2])
"""


@pytest.mark.slow
def test_builds_killed_at_random_moments_end_in_the_same_file(tmp_path):
    regions = [make_regions(f"image_{n}", 36, 256, seed=n) for n in range(400)]
    write_tsv(tmp_path / "a.tsv", regions)
    build_features(tmp_path / "a.tsv", tmp_path / "whole.h5")
    command = [sys.executable, "-c", BUILD, tmp_path / "a.tsv", tmp_path / "out.h5"]
    rng, killed = np.random.default_rng(), 0
    for _ in range(10):
        with subprocess.Popen(command, stdout=subprocess.PIPE) as build:
            build.stdout.readline()
            time.sleep(rng.uniform(0, 0.15))
            build.kill()
        killed += not (tmp_path / "out.h5").exists()
        if (tmp_path / "out.h5").exists():
            break
    assert killed
    build_features(tmp_path / "a.tsv", tmp_path / "out.h5", overwrite=True)
    with h5py.File(tmp_path / "out.h5") as one, h5py.File(tmp_path / "whole.h5") as other:
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name][:], other[name][:])
        assert dict(one.attrs) == dict(other.attrs)
    check(open_features(tmp_path / "out.h5"), regions)
