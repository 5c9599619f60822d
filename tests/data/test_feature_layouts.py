"""Feature files of other programs: every array is read as an independent reading of it is, or refused by name."""

import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from support.data import write_hdf5

from lxmert_tf.data.features.store import open_features

LABELS = ("objects_id", "objects_conf", "attrs_id", "attrs_conf")


class Made:
    """A feature file's arrays, and what each image has of them.

    Attributes:
        arrays: name -> array, as the file has it.
        rows: of each image, slices of the arrays, once these have the shape [R, ...].
    """

    def __init__(
        self,
        seed: int = 0,
        even: bool = True,
        images: int = 3,
        places: int = 2,
        pixels: bool = False,
        counted: bool = False,
        single: bool = False,
        flat: bool = False,
    ):
        rng = np.random.default_rng(seed)
        self.even, self.images, self.places = even, images, places
        counts = rng.integers(1, places + 1, images) if counted or not even else np.full(images, places)
        if even:
            starts = np.arange(images) * places
        else:  # in any order, with a gap before each
            order, gaps = rng.permutation(images), rng.integers(0, 2, images)
            ends = np.cumsum((counts + gaps)[order])
            starts = np.empty(images, int)
            starts[order] = ends - counts[order]
        self.rows = [slice(start, start + count) for start, count in zip(starts, counts, strict=True)]
        axes = (images, places) if even else (int((starts + counts).max()) + int(rng.integers(0, 2)),)
        self.axes = axes
        sizes = rng.integers(20, 90, (images, 2))
        boxes = np.sort(rng.uniform(1.5, 19, (*axes, 2, 2)), axis=-2).reshape(*axes, 4)
        if not pixels:
            boxes = np.concatenate([boxes / 20, rng.random((*axes, 2))], axis=-1)
        self.arrays = {
            "image_ids": np.array([f"image {n}" for n in range(images)], "S"),
            "features": rng.standard_normal((*axes, 3)).astype(rng.choice(["f2", "f4", ">f4"])),
            "boxes" if pixels else "spatial_features": boxes.astype("f4"),
        }
        for name in LABELS:
            values = rng.permutation(1000)[: np.prod(axes)].reshape(axes + (1,) * single)
            self.arrays[name] = values.astype(rng.choice(["i8", ">u2", "f8"] if name.endswith("id") else ["f4", ">f4"]))
        if flat:  # R rows, whatever the axes of the features
            for name in (self.boxes, *LABELS):
                self.arrays[name] = self.arrays[name].reshape(np.prod(axes), *self.arrays[name].shape[len(axes) :])
        if not even:
            self.arrays["pos_boxes"] = np.stack([starts, starts + counts], axis=1)
        if counted:
            self.arrays["num_boxes"] = counts.astype(rng.choice(["i8", "u1"])).reshape((images,) + (1,) * single)
        if pixels:
            self.arrays |= {"img_w": sizes[:, 0], "img_h": sizes[:, 1].astype("f4")}

    @property
    def boxes(self) -> str:
        return "boxes" if "boxes" in self.arrays else "spatial_features"

    def expected(self, image: int) -> dict[str, np.ndarray]:
        """What `read` must give of one image, without padding."""
        flat = {name: self.arrays[name].reshape(np.prod(self.axes), -1) for name in ("features", self.boxes, *LABELS)}
        part = {name: value[self.rows[image]] for name, value in flat.items()}
        boxes = part[self.boxes][:, :4]
        if "img_w" in self.arrays:
            width, height = self.arrays["img_w"][image], self.arrays["img_h"][image]
            boxes = boxes.astype("f4") / np.array([width, height, width, height], "f4")
        labels = {name: part[name][:, 0] for name in LABELS}
        return {"visual_feats": part["features"], "visual_pos": boxes, **labels}


def write(folder, arrays, how) -> Path:
    if how == "npz":
        np.savez(folder / "a.npz", **arrays)
    elif how == "compressed npz":
        np.savez_compressed(folder / "a.npz", **arrays)
    else:
        options = {"chunked": {"chunks": True}, "compressed": {"compression": "gzip"}}.get(how, {})
        return write_hdf5(folder / "a.h5", arrays, **options)
    return folder / "a.npz"


def read(arrays, how):
    """What `read` gives of all images in reverse, or the sentence with which the file is refused."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), arrays, how)
        try:
            store = open_features(path)
            return store.read(store.img_ids[::-1])
        except ValueError as error:
            refusal = str(error)
        assert str(path) in refusal
        return refusal


def made(even=None):
    return st.builds(
        Made,
        seed=st.integers(0, 2**32 - 1),
        even=st.booleans() if even is None else st.just(even),
        images=st.integers(1, 4),
        places=st.integers(1, 4),
        pixels=st.booleans(),
        counted=st.booleans(),
        single=st.booleans(),
        flat=st.booleans(),
    )


how = st.sampled_from(["hdf5", "chunked", "compressed", "npz", "compressed npz"])


@settings(max_examples=150, deadline=None, derandomize=True)
@given(made(), how)
def test_each_image_has_its_own_rows(file, how):
    got = read(file.arrays, how)
    assert not isinstance(got, str), got
    for place, image in enumerate(reversed(range(file.images))):
        boxes = file.rows[image].stop - file.rows[image].start
        assert got["visual_attention_mask"][place].sum() == boxes
        for name, value in file.expected(image).items():
            np.testing.assert_allclose(got[name][place, :boxes], value, rtol=1e-6, atol=0, err_msg=name)
            assert not got[name][place, boxes:].any()


def wider(array, axis, by=1):
    """`by` more along an axis, or less where it is negative."""
    if by < 0:
        return np.take(array, range(array.shape[axis] + by), axis)
    return np.concatenate([array, np.take(array, range(by), axis, mode="wrap")], axis)


def changed(array, value):
    """The first entry, or the first row, as `value`."""
    array = np.array(array, np.promote_types(array.dtype, np.asarray(value).dtype))
    array[0] = value
    return array


def other_places(file, array, by):
    """The array of another number of places for each image."""
    wrong = wider(array.reshape(*file.axes, -1), 1, by)
    return wrong[..., 0] if wrong.shape[-1] == 1 < array.shape[-1] else wrong


def spoiled(array: str, spoil, name: str):
    return pytest.param(array, spoil, id=name)


# Which array is wrong, and how: from the file and its array to the wrong one, or None where it would not be wrong.
EVEN = [
    *(
        spoiled(array, lambda file, old, by=by: other_places(file, old, by), f"{array} {by:+d} places")
        for array in ("features", "boxes", *LABELS)
        for by in (1, -1, 2)
    ),
    spoiled(
        "boxes",
        lambda file, old: old.reshape(*file.axes, -1).swapaxes(1, 2) if file.places != 4 else None,
        "boxes on their side",
    ),
    spoiled("features", lambda file, old: old[:, None], "features of four axes"),
    *(
        spoiled("num_boxes", lambda file, old, value=value: changed(old, value), f"num_boxes {value}")
        for value in (0, -1, 5, 1.0, np.nan, 2**63)
    ),
    spoiled("num_boxes", lambda file, old: wider(old, 0), "num_boxes of more images"),
    spoiled("num_boxes", lambda file, old: old[:1] if file.images > 1 else None, "num_boxes of one image"),
    spoiled("num_boxes", lambda file, old: 5, "num_boxes 5 for all"),
    spoiled("num_boxes", lambda file, old: np.stack([old, old], axis=1), "two columns of num_boxes"),
    spoiled("pos_boxes", lambda file, old: [[rows.start, rows.stop] for rows in file.rows], "pos_boxes, too"),
]
SPANS = [
    *(
        spoiled("pos_boxes", lambda file, old, value=value: changed(old, value), f"pos_boxes {value}")
        for value in ([-1, 1], [0, 0], [2, 1], [0, 99], [0.0, 1.0], [0, np.nan], [0, 2**63])
    ),
    spoiled("pos_boxes", lambda file, old: changed(old, old[-1]) if file.images > 1 else None, "pos_boxes that meet"),
    spoiled("pos_boxes", lambda file, old: wider(old, 0), "pos_boxes of more images"),
    spoiled("pos_boxes", lambda file, old: old.T if file.images != 2 else None, "pos_boxes on its side"),
    spoiled("num_boxes", lambda file, old: old + 1, "other num_boxes"),
    *(spoiled(array, lambda file, old: old[None], f"{array} with an axis more") for array in ("features", "boxes")),
]
BOTH = [
    *(spoiled(array, lambda file, old: wider(old, 0), f"{array} +1") for array in ("features", "boxes", *LABELS)),
    *(spoiled(array, lambda file, old: wider(old, 0, -1), f"{array} -1") for array in ("features", "boxes", *LABELS)),
    spoiled("features", lambda file, old: old.reshape(-1), "features of one axis"),
    spoiled("features", lambda file, old: old[..., :0], "features of no value"),
    spoiled("features", lambda file, old: old.astype(int), "features of integers"),
    spoiled("boxes", lambda file, old: old[..., :3], "boxes of three values"),
    *(spoiled(array, lambda file, old: old.astype("S"), f"{array} as text") for array in ("boxes", "img_w", *LABELS)),
    *(
        spoiled(array, lambda file, old: np.repeat(old.reshape(*file.axes, 1), 2, axis=-1), f"two {array} of a box")
        for array in LABELS
    ),
    *(
        spoiled("attrs_id", lambda file, old, value=value: np.full(old.shape, value), f"attrs_id {value}")
        for value in (2.5, np.nan, 2**31, -(2**31) - 1, 2**63)
    ),
    *(
        spoiled("img_w", lambda file, old, value=value: changed(old, value), f"img_w {value}")
        for value in (0, -1, np.nan, np.inf)
    ),
    spoiled("img_w", lambda file, old: wider(old, 0), "img_w of more images"),
    spoiled("img_h", lambda file, old: old[:-1], "img_h of fewer images"),
    spoiled("boxes", lambda file, old: old / 100 if "img_w" in file.arrays else None, "boxes divided already"),
    spoiled("boxes", lambda file, old: old * 100 if "img_w" not in file.arrays else None, "boxes in pixels"),
    spoiled("image_ids", lambda file, old: old[[0] * len(old)] if file.images > 1 else None, "image_ids twice"),
    spoiled("image_ids", lambda file, old: np.append(old, [b"more"]), "image_ids of more images"),
    spoiled("image_ids", lambda file, old: old[:, None], "image_ids in a column"),
    spoiled("image_ids", lambda file, old: np.arange(len(old)) / 2, "image_ids in floats"),
    spoiled("image_ids", lambda file, old: np.array([b"\xff", *old[1:]]), "image_ids in another encoding"),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("even", "array", "spoil"),
    [
        pytest.param(even, *case.values, id=case.id)
        for even, cases in ((True, EVEN), (False, SPANS), (None, BOTH))
        for case in cases
    ],
)
@settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_does_not_fit_is_refused_by_name(even, array, spoil, data):
    file = data.draw(made(even))
    name = file.boxes if array == "boxes" else array
    assume(name in file.arrays or name == "pos_boxes")
    assume((wrong := spoil(file, file.arrays.get(name))) is not None)
    got = read(file.arrays | {name: np.asarray(wrong)}, data.draw(how))
    assert isinstance(got, str), f"{name} is read as if it were right"
    assert name in got or array in got or array == "image_ids"


@settings(max_examples=20, deadline=None, derandomize=True)
@given(made(), st.sampled_from(["img_w", "img_h"]), how)
def test_one_side_of_an_image_is_none(file, absent, how):
    assume(absent in file.arrays)
    arrays = {name: array for name, array in file.arrays.items() if name != absent}
    assert "only one of img_w and img_h" in read(arrays, how)


@pytest.mark.parametrize("names", ["a b", "a b c d"])
def test_names_of_another_number_of_images(names):
    arrays = Made().arrays | {"image_ids": np.array(names.split(), "S")}
    images = len(names.split())
    assert f"features must have the shape [{images}, N, D], one for each image, got [3, 2, 3]" in read(arrays, "npz")


@pytest.mark.parametrize("how", ["hdf5", "npz"])
def test_one_number_for_all_images(how):
    file = Made(pixels=True)
    one = file.arrays | {"num_boxes": 1, "img_w": 80, "img_h": 70.5}
    each = {name: np.full(3, value) if np.ndim(value) == 0 else value for name, value in one.items()}
    got, expected = read(one, how), read(each, how)
    assert got["visual_attention_mask"].tolist() == [[1]] * 3
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, strict=True)


def test_an_array_behind_a_link_to_another_file(tmp_path):
    file = Made()
    features = file.arrays["features"].astype("f4")  # native, so that it can be read past the library
    write_hdf5(tmp_path / "other.h5", {"a": np.zeros(500), "features": features})
    path = write_hdf5(tmp_path / "a.h5", {name: value for name, value in file.arrays.items() if name != "features"})
    with h5py.File(path, "r+") as linked:
        linked["features"] = h5py.ExternalLink("other.h5", "/features")
        linked["boxes"] = h5py.SoftLink("/nothing")  # is no array, and not needed
        linked["more"] = np.zeros(2000)
    np.testing.assert_array_equal(open_features(path).read(["image 1"])["visual_feats"][0], features[1])


def test_an_array_of_an_npz_file_ends_with_its_member(tmp_path):
    file = Made(even=False)
    np.savez(tmp_path / "a.npz", **file.arrays)
    with zipfile.ZipFile(tmp_path / "a.npz") as whole, zipfile.ZipFile(tmp_path / "cut.npz", "w") as cut:
        for name in whole.namelist():
            content = whole.read(name)
            cut.writestr(name, content[:-4] if name == "features.npy" else content)
    with pytest.raises(ValueError, match=r"cannot read .*cut\.npz as npz: the array features .* is cut short"):
        open_features(tmp_path / "cut.npz")


def test_pickled_objects_are_never_read(tmp_path):
    file = Made()
    for shape in ((3, 2), (3, 2, 1)):
        np.savez(tmp_path / "a.npz", **file.arrays | {"objects_conf": np.full(shape, {}, object)})
        with pytest.raises(ValueError, match=r"a\.npz: objects_conf must hold numbers, got object"):
            open_features(tmp_path / "a.npz")
