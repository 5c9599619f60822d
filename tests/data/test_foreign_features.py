"""Region features of other extractors: each layout gives what the original's gives; hostile files are refused."""

import base64
import io
import pickle
import struct
import zipfile

import h5py
import numpy as np
import pytest
from support.data import make_regions
from support.pickles import CODE, HOSTILE

from lxmert_tf.cli import main
from lxmert_tf.data import build_features, open_features
from lxmert_tf.data.features import build as feature_build
from lxmert_tf.data.features import npz as npz_module
from lxmert_tf.data.features.check import check_features
from lxmert_tf.data.features.image import image_name, parse_image
from lxmert_tf.data.features.lmdb import Lmdb
from lxmert_tf.data.features.npz import parse_npy, parse_npz
from lxmert_tf.data.features.sources import SAMPLES
from lxmert_tf.data.features.tsv import write_tsv

LABELS = ("objects_id", "objects_conf", "attrs_id", "attrs_conf")


@pytest.fixture(scope="module")
def regions():
    return [make_regions(f"COCO_val2014_{n:012}", 3 + n % 4, feat_dim=8, seed=n) for n in range(9)]


def encode(array):
    return base64.b64encode(np.ascontiguousarray(array).tobytes())


def bottom_up_line(entry, wrap=lambda field: field):
    """A line of the six columns of bottom-up attention, whose width comes before the height."""
    fields = [entry.img_id, entry.img_w, entry.img_h, len(entry.boxes)]
    arrays = [encode(entry.boxes), encode(entry.features)]
    return b"\t".join([*(str(field).encode() for field in fields), *map(wrap, arrays)]) + b"\n"


def milvlg(entry, labels=True):
    """The arrays of an npz file of bottom-up-attention.pytorch."""
    info = {"image_id": entry.img_id, "image_h": entry.img_h, "image_w": entry.img_w, "num_boxes": len(entry.boxes)}
    if labels:
        info |= {name: getattr(entry, name) for name in LABELS}
    sizes = {"image_h": entry.img_h, "image_w": entry.img_w, "num_bbox": len(entry.boxes)}
    return {"x": entry.features, "bbox": entry.boxes, **sizes, "info": info}


def detectron(entry):
    """The dict beside an npy file of features."""
    sizes = {"image_height": entry.img_h, "image_width": entry.img_w, "num_boxes": len(entry.boxes)}
    return {"bbox": entry.boxes, "objects": entry.objects_id, "cls_prob": np.zeros((len(entry.boxes), 5)), **sizes}


def vilbert(entry):
    """A value of an LMDB of ViLBERT's: arrays in base64."""
    return {
        "image_id": entry.img_id.encode(),
        "image_h": entry.img_h,
        "image_w": entry.img_w,
        "num_boxes": len(entry.boxes),
        "boxes": encode(entry.boxes),
        "features": encode(entry.features),
    }


def write_lmdb(path, values, **options):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path), map_size=1 << 24, **options) as environment, environment.begin(write=True) as transaction:
        for key, value in values.items():
            transaction.put(key.encode(), value)
    return path


def six_columns(folder, regions, **_):
    (folder / "a.tsv").write_bytes(b"".join(map(bottom_up_line, regions)))
    return folder / "a.tsv"


def six_columns_as_printed(folder, regions):
    lines = (bottom_up_line(entry, lambda field: repr(field).encode()) for entry in regions)
    (folder / "a.tsv").write_bytes(b"".join(lines))
    return folder / "a.tsv"


def ten_columns_as_printed(folder, regions):
    write_tsv(folder / "plain.tsv", regions)
    lines = [line.split(b"\t") for line in (folder / "plain.tsv").read_bytes().splitlines()]
    places = {3, 4, 5, 6, 8, 9}
    lines = [[repr(field).encode() if n in places else field for n, field in enumerate(line)] for line in lines]
    (folder / "a.tsv").write_bytes(b"\n".join(map(b"\t".join, lines)))
    return folder / "a.tsv"


def npz_files(folder, regions):
    for entry in regions:
        np.savez_compressed(folder / f"{entry.img_id}.jpg.npz", **milvlg(entry))
    return folder


def npz_files_without_classes(folder, regions):
    for n, entry in enumerate(regions):
        (folder / str(n % 2)).mkdir(exist_ok=True)
        np.savez(folder / str(n % 2) / f"{entry.img_id}.npz", **milvlg(entry, labels=False))
    return folder


def openvqa_files(folder, regions):
    for entry in regions:
        arrays = milvlg(entry, labels=False) | {"x": entry.features.T}
        del arrays["info"]
        np.savez(folder / f"{entry.img_id}.jpg.npz", **arrays)
    return folder


def npy_files(folder, regions):
    for entry in regions:
        np.save(folder / f"{entry.img_id}.npy", np.pad(entry.features, ((0, 2), (0, 0))))  # up to a fixed number
        np.save(folder / f"{entry.img_id}_info.npy", detectron(entry))
    return folder


def lmdb_of_pickles(folder, regions):
    keys = {"keys": pickle.dumps([entry.img_id.encode() for entry in regions])}
    return write_lmdb(folder / "db", {entry.img_id: pickle.dumps(vilbert(entry)) for entry in regions} | keys)


def lmdb_of_arrays(folder, regions):
    values = {entry.img_id: detectron(entry) | {"features": entry.features} for entry in regions}
    dumped = {name: pickle.dumps(value, protocol=n % 6) for n, (name, value) in enumerate(values.items())}
    return write_lmdb(folder / "db.mdb", dumped, subdir=False)


def lmdb_of_npz(folder, regions):
    values = {}
    for entry in regions:
        np.savez(file := io.BytesIO(), **milvlg(entry))
        values[f"val2014/{entry.img_id}.npz"] = file.getvalue()
    return write_lmdb(folder / "db", values)


WITH_CLASSES = [ten_columns_as_printed, npz_files, lmdb_of_npz]
LAYOUTS = [
    *WITH_CLASSES,
    six_columns,
    six_columns_as_printed,
    npz_files_without_classes,
    openvqa_files,
    npy_files,
    lmdb_of_pickles,
    lmdb_of_arrays,
]


def same(path, other, classes):
    """Holds a built file to that of the original's TSV, in any order; without classes where `classes` is false."""
    store, expected = open_features(path), open_features(other)
    assert set(store.img_ids) == set(expected.img_ids)
    assert store.has_labels == classes
    got = store.read(expected.img_ids)
    for name, value in expected.read(expected.img_ids, labels=classes).items():
        np.testing.assert_array_equal(got[name], value, strict=True)


@pytest.fixture(scope="module")
def original(tmp_path_factory, regions):
    folder = tmp_path_factory.mktemp("original")
    write_tsv(folder / "a.tsv", regions)
    build_features(folder / "a.tsv", folder / "a.h5")
    return folder


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_gives_what_the_originals_tsv_gives(layout, regions, original, tmp_path):
    (tmp_path / "in").mkdir()
    source = layout(tmp_path / "in", regions)
    report = build_features(source, tmp_path / "out.h5")
    assert (report.images, report.skipped) == (9, [])
    same(tmp_path / "out.h5", original / "a.h5", layout in WITH_CLASSES)
    assert not list(check_features(source))


def test_any_mixture_and_what_was_found(regions, original, tmp_path, capsys):
    (tmp_path / "npz").mkdir()
    write_tsv(tmp_path / "ten.tsv", regions[:2])
    npz_files(tmp_path / "npz", regions[2:4])
    loose = []
    for entry in regions[4:6]:
        np.savez(tmp_path / f"{entry.img_id}.npz", **milvlg(entry))
        loose.append(tmp_path / f"{entry.img_id}.npz")
    sources = [tmp_path / "ten.tsv", tmp_path / "npz", *loose]
    assert main(["features", "build", *map(str, sources), str(tmp_path / "a.h5")]) == 0
    printed = capsys.readouterr()
    assert printed.err.splitlines() == [
        f"note: {tmp_path / 'ten.tsv'}: TSV of 10 columns, as the original LXMERT has, 8 features for each box, "
        "with classes",
        f"note: {tmp_path / 'npz'}: 2 files .npz of one image each, 8 features for each box, with classes",
        f"note: {tmp_path}: 2 files .npz of one image each, 8 features for each box, with classes",
    ]
    assert open_features(tmp_path / "a.h5").has_labels
    (tmp_path / "rest").mkdir()
    six_columns_as_printed(tmp_path / "rest", regions[6:])
    sources.append(tmp_path / "rest" / "a.tsv")
    assert main(["features", "build", *map(str, sources), str(tmp_path / "b.h5")]) == 0
    assert capsys.readouterr().err.splitlines()[-2:] == [
        f"note: {sources[-1]}: TSV of 6 columns written as b'...', as bottom-up attention has, 8 features for each "
        "box, without classes",
        "note: classes are left out, since not all sources have them",
    ]
    same(tmp_path / "b.h5", original / "a.h5", classes=False)


def test_appending_keeps_classes_or_says_why_not(regions, tmp_path):
    (tmp_path / "npz").mkdir()
    write_tsv(tmp_path / "ten.tsv", regions[:4])
    (tmp_path / "six.tsv").write_bytes(b"".join(map(bottom_up_line, regions[4:])))
    build_features(tmp_path / "ten.tsv", tmp_path / "with.h5")
    before = (tmp_path / "with.h5").read_bytes()
    with pytest.raises(ValueError, match="has object and attribute classes, which not all of the sources have"):
        build_features(tmp_path / "six.tsv", tmp_path / "with.h5", append=True)
    assert (tmp_path / "with.h5").read_bytes() == before
    build_features(npz_files(tmp_path / "npz", regions[4:]), tmp_path / "with.h5", append=True)
    assert open_features(tmp_path / "with.h5").has_labels
    build_features(tmp_path / "six.tsv", tmp_path / "without.h5")
    build_features(tmp_path / "ten.tsv", tmp_path / "without.h5", append=True)
    store = open_features(tmp_path / "without.h5")
    assert (len(store), store.has_labels) == (9, False)


def test_bad_images_are_named_and_skipped(regions, tmp_path):
    npz_files(tmp_path, regions)
    bad = sorted(tmp_path.iterdir())[3]
    np.savez(bad, **milvlg(regions[3]) | {"bbox": regions[3].boxes * 100})
    (tmp_path / "z.npz").write_bytes(bad.read_bytes()[:200])
    np.savez(tmp_path / "other.npz", **milvlg(make_regions("other", feat_dim=8), labels=False))
    with pytest.raises(ValueError, match=rf"{bad}, image '{regions[3].img_id}': box 0 must be x1 y1 x2 y2"):
        build_features(tmp_path, tmp_path / "out.h5")
    report = build_features(tmp_path, tmp_path / "out.h5", skip_bad=True)
    assert report.images == 8
    assert [line.partition(", image ")[0] for line in report.skipped] == [
        str(tmp_path / name) for name in (bad.name, "other.npz", "z.npz")
    ]
    assert [line.partition(": ")[2][:25] for line in report.skipped] == [
        "box 0 must be x1 y1 x2 y2",
        "it has no object and attr",
        "it is no npz file, or dam",
    ]
    assert len(list(check_features(tmp_path))) == 2


@pytest.mark.parametrize("layout", [npz_files, npy_files, lmdb_of_pickles])
def test_a_killed_build_resumes(layout, regions, tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    source = layout(tmp_path / "in", regions)
    build_features(source, tmp_path / "whole.h5")
    monkeypatch.setattr(feature_build, "CHECKPOINT", 1)
    add = feature_build.Build._add

    def interrupted(self, record):
        if record.number == 6:
            raise KeyboardInterrupt
        add(self, record)

    with monkeypatch.context() as context:
        context.setattr(feature_build.Build, "_add", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build_features(source, tmp_path / "out.h5")
    assert build_features(source, tmp_path / "out.h5").resumed == 5
    with h5py.File(tmp_path / "out.h5") as one, h5py.File(tmp_path / "whole.h5") as other:
        assert set(one) == set(other)
        for name in one:
            np.testing.assert_array_equal(one[name][:], other[name][:])
        assert one.attrs["provenance"] == other.attrs["provenance"]


def test_compressed_files_larger_than_they_look(tmp_path):
    """Of each image the features are one number over and over: the file on disk says little of their size."""
    (tmp_path / "in").mkdir()
    for n in range(40):
        entry = make_regions(f"image_{n}", 30, 4, seed=n)
        arrays = milvlg(entry) | {"x": np.full((30, 512), n, np.float32)}
        np.savez_compressed(tmp_path / "in" / f"image_{n:02}.npz", **arrays)
    build_features(tmp_path / "in", tmp_path / "out.h5")
    store = open_features(tmp_path / "out.h5")
    assert store.num_boxes == 1200
    for n, features in enumerate(store.read([f"image_{n:02}" for n in range(40)])["visual_feats"]):
        assert (features == n).all()


def test_a_build_killed_while_the_file_grew_begins_anew(tmp_path, monkeypatch):
    for n in range(8):
        arrays = milvlg(make_regions(f"image_{n}", 30, 4, seed=n)) | {"x": np.full((30, 512), n, np.float32)}
        np.savez_compressed(tmp_path / f"image_{n}.npz", **arrays)
    monkeypatch.setattr(feature_build, "CHECKPOINT", 1)
    monkeypatch.setattr(feature_build.Build, "keep_progress", lambda self: None)  # a kill runs no code
    with monkeypatch.context() as context:
        context.setattr(feature_build.Hdf5Writer, "grow", lambda *_: 1 / 0)
        context.setattr(feature_build.Build, "discard", lambda self: None)
        with pytest.raises(ZeroDivisionError):
            build_features(tmp_path, tmp_path / "out.h5")
    assert (tmp_path / "out.h5.partial").exists()
    report = build_features(tmp_path, tmp_path / "out.h5")
    assert (report.images, report.resumed) == (8, 0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.npz", "a"), ("x/b.jpg.npz", "b"), ("dev-0-1-img0.npy", "dev-0-1-img0"), ("v1.5", "v1.5"), ("C.JPG", "C")],
)
def test_the_name_of_an_image(name, expected):
    assert image_name(name) == expected


# What is missing, or hostile


def npz(**arrays):
    np.savez(file := io.BytesIO(), **arrays)
    return file.getvalue()


def npy(array):
    np.save(file := io.BytesIO(), array)
    return file.getvalue()


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"x": None}, "there is no x or features or image_features; it has attrs_conf, "),
        ({"bbox": None}, "there is no bbox or boxes or image_bb"),
        ({"image_w": None, "info": {}}, "there is no image_w or img_w"),
        ({"image_h": "480"}, "image_h must be a whole number above 0"),
        ({"image_h": 480.5}, "image_h must be a whole number above 0, got 480.5"),
        ({"num_bbox": 9}, "it says that it has 9 boxes, but there are 3"),
        ({"bbox": np.ones((2, 4))}, "it says that it has 3 boxes, but there are 2"),
        ({"bbox": np.float32(1)}, "bbox must be an array of numbers"),
        ({"x": np.zeros((3, 4), complex)}, "its arrays must hold numbers or text, got complex128"),
        ({"x": np.full((3, 4), 1e300)}, "features must be finite"),
        ({"bbox": "not base64"}, "bbox must be an array of numbers|bbox is not base64"),
    ],
)
def test_what_an_image_lacks(changed, complaint):
    values = {**milvlg(make_regions(num_boxes=3)), **changed}
    data = npz(**{name: value for name, value in values.items() if value is not None})
    with pytest.raises(ValueError, match=complaint):
        parse_image("a", data)


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_pickles_are_refused(case, capsys):
    data, complaint = HOSTILE[case]
    with pytest.raises(ValueError, match=complaint):
        parse_image("a", data)
    assert not capsys.readouterr().out


def test_hostile_archives_are_refused(monkeypatch, capsys):
    monkeypatch.setattr(npz_module, "LARGEST", 100_000)
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(10_000_000))
    bomb = file.getvalue()
    assert len(bomb) < 20_000
    with pytest.raises(ValueError, match="it holds 10,000,000 bytes, but one image has at most 100,000"):
        parse_npz(bomb)
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x.npy", "y.npy"):
            archive.writestr(name, bytes(60_000))
    with pytest.raises(ValueError, match="it holds 120,000 bytes, but one image has at most 100,000"):
        parse_npz(file.getvalue())
    lie = bomb.replace(struct.pack("<I", 10_000_000), struct.pack("<I", 1000))
    with pytest.raises(ValueError, match=r"no npz file, or damaged|npy"):
        parse_npz(lie)
    with zipfile.ZipFile(file := io.BytesIO(), "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", npy(np.zeros(3)))
    with pytest.raises(ValueError, match=r"'x\.npy' is compressed in a way that NumPy does not write"):
        parse_npz(file.getvalue())
    with pytest.raises(ValueError, match=r"an array of shape \[9{12}\] and float64 does not have 24 bytes"):
        parse_npy(npy(np.zeros(3)).replace(b"(3,), }" + b" " * 11, b"(999999999999,), }"))
    with pytest.raises(ValueError, match="its pickle runs code"):
        parse_npz(npz(x=np.zeros(3), info=np.array({"a": CODE}, object)))
    with pytest.raises(ValueError, match="it is no npz or npy file, and it is no pickle, or damaged"):
        parse_image("a", bomb[1:])
    with pytest.raises(ValueError, match="it holds 100,001 bytes"):
        parse_image("a", bytes(100_001))
    assert not capsys.readouterr().out


# LMDB


@pytest.fixture
def database(tmp_path):
    values = {f"image_{n:03}": bytes([n % 256]) * (n * 37 % 9000) for n in range(300)}
    return write_lmdb(tmp_path / "db", values) / "data.mdb", values


def test_an_lmdb_reads_as_the_library_wrote_it(database):
    path, values = database
    assert len(Lmdb(path)) == 300
    assert [(key.decode(), value) for key, value in Lmdb(path).items()] == sorted(values.items())


def test_an_lmdb_after_changes(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    write_lmdb(tmp_path / "db", {f"{n:04}": b"a" * n for n in range(1000)})
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 24, sync=False) as environment:
        for n in range(0, 1000, 3):
            with environment.begin(write=True) as transaction:
                transaction.delete(f"{n:04}".encode())
                transaction.put(f"{n + 1:04}".encode(), b"b" * 5000)
        with environment.begin() as transaction:
            expected = list(transaction.cursor())
    assert list(Lmdb(tmp_path / "db" / "data.mdb").items()) == expected
    write_lmdb(tmp_path / "empty", {})
    assert not list(Lmdb(tmp_path / "empty" / "data.mdb").items())


def test_damaged_lmdbs_are_refused_and_end(database):
    """Any page numbers, offsets and sizes: a sentence, or other bytes of the file, but no crash and no endless loop."""
    path, _ = database
    whole, refused = path.read_bytes(), 0
    rng = np.random.default_rng(0)
    for trial in range(150):
        data = bytearray(whole)
        if trial % 3 == 0:
            data = data[: rng.integers(0, len(data))]
        else:
            for place in rng.integers(0, len(data), 1 if trial % 3 == 1 else 400):
                place = place // 4096 * 4096 + place % 64  # where pages have their headers
                data[place] = rng.choice([0, 1, 2, 255, rng.integers(256)])
        path.write_bytes(data)
        try:
            total = sum(len(key) + len(value) for key, value in Lmdb(path).items())
        except ValueError as error:
            message = str(error)
        else:
            message = ""
            assert total <= len(whole)
        assert message.startswith(f"cannot read {path} as LMDB: ") or not message
        refused += bool(message)
    assert refused > 50


def test_an_lmdb_that_repeats_itself(database):
    path, _ = database
    data = bytearray(path.read_bytes())
    root = max(struct.unpack_from("<QQQ", data, start + 128)[::-1] for start in (0, 4096))[2] * 4096
    lower = struct.unpack_from("<H", data, root + 12)[0]
    pointers = [root + struct.unpack_from("<H", data, root + at)[0] for at in range(16, lower, 2)]
    for node in pointers[1:]:
        data[node : node + 6] = data[pointers[0] : pointers[0] + 6]
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"page [0-9]+ is there twice"):
        list(Lmdb(path).items())


def test_other_kinds_of_lmdb_are_refused(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path / "db"), max_dbs=2) as environment:
        database = environment.open_db(b"inner", dupsort=True)
        with environment.begin(write=True, db=database) as transaction:
            transaction.put(b"a", b"b")
    with pytest.raises(ValueError, match="named databases or several values"):
        build_features(tmp_path / "db", tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()


def test_a_directory_of_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(ValueError, match=r"has no region features: expected \.npz or \.npy files of one image"):
        build_features(tmp_path, tmp_path / "out.h5")
    np.save(tmp_path / "a.npy", np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"a\.npy, image 'a': it has features alone; expected a_info\.npy beside it"):
        build_features(tmp_path, tmp_path / "out.h5")
    assert SAMPLES > 1
