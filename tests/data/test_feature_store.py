"""Files of region features: built from TSV, read at random, and refused when they are not what they seem."""

import multiprocessing
import threading

import h5py
import numpy as np
import pytest
from data_helpers import make_regions, make_store

from lxmert_tf.data import stored_rows
from lxmert_tf.data.feature_store import FeatureStore, build_features, open_features
from lxmert_tf.data.region_features import normalize_boxes, read_tsv, write_tsv


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
    with pytest.raises(ValueError, match=r"b\.tsv, line 1, image 'image_60': this img_id is in the file already"):
        build_features(tmp_path / "b.tsv", tmp_path / "out.h5", append=True)
    assert (tmp_path / "out.h5").read_bytes() == before
    assert not list(tmp_path.glob("*.partial*"))


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
