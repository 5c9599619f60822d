"""The synthetic set: answers are true of the pictures, splits share nothing, the question alone tells little."""

import json
import re
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.data import synthetic
from lxmert_tf.data.annotations import read_annotations, read_answers
from lxmert_tf.data.region_features import normalize_boxes, read_tsv
from lxmert_tf.data.synthetic import COLORS, SHAPES, write_vqa

Image = pytest.importorskip("PIL.Image")

NUM_IMAGES = 200
SPLITS = ("train", "valid", "test")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_vqa(tmp_path_factory.mktemp("synthetic") / "vqa", num_images=NUM_IMAGES, boxes=10, feat_dim=32, seed=3)


@pytest.fixture(scope="module")
def regions(directory):
    return {entry.img_id: entry for entry in read_tsv(directory / "features.tsv")}


@pytest.fixture(scope="module")
def annotations(directory):
    return {split: read_annotations(directory / f"{split}.json") for split in SPLITS}


def things_of(entry):
    """(shape, color, box) of each shape, as the detector's certain finds tell."""
    certain = np.flatnonzero(entry.objects_conf == 1)
    names = list(COLORS)
    return [(SHAPES[entry.objects_id[n]], names[entry.attrs_id[n]], entry.boxes[n]) for n in certain]


def find(things, name):
    """The one thing of that name, "circle" or "red circle"."""
    (found,) = [thing for thing in things if name in (thing[0], f"{thing[1]} {thing[0]}")]
    return found


def middle(thing):
    return (thing[2][0] + thing[2][2]) / 2


def true_answer(entry, question_type, sent):
    """The answer to a question, worked out from the boxes alone."""
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>.+)", synthetic.SENTENCES[question_type].replace("?", r"\?"))
    slots = re.fullmatch(pattern, sent).groupdict()
    things = things_of(entry)
    if question_type == "color":
        return find(things, slots["shape"])[1]
    if question_type == "shape":
        (found,) = [thing for thing in things if thing[1] == slots["color"]]
        return found[0]
    if question_type == "count":
        kinds = (slots["things"].removesuffix("s"), slots["things"].removesuffix(" objects"))
        return str(sum(slots["things"] == "objects" or thing[0] in kinds or thing[1] in kinds for thing in things))
    if question_type == "existence":
        there = any(thing[:2] == (slots["shape"], slots["color"]) for thing in things)
        return "yes" if there else "no"
    named = find(things, slots["name"])
    if question_type == "position":
        return "left" if middle(named) < entry.img_w / 2 else "right"
    if question_type == "order":
        return "yes" if middle(named) < middle(find(things, slots["other"])) else "no"
    assert question_type == "neighbor"
    on_the_left = slots["side"] == "left"
    beside = [thing for thing in things if thing is not named and (middle(thing) < middle(named)) == on_the_left]
    (found,) = beside
    return found[0]


def test_every_answer_is_true(regions, annotations):
    asked = Counter()
    for annotation in annotations["train"] + annotations["valid"]:
        answer = true_answer(regions[annotation.img_id], annotation.question_type, annotation.sent)
        assert annotation.label == {answer: 1.0}, annotation
        asked[annotation.question_type] += 1
    assert asked.keys() == synthetic.SENTENCES.keys()
    assert min(asked.values()) >= 30


def test_pictures_show_what_the_regions_say(directory, regions):
    for entry in list(regions.values())[:30]:
        with Image.open(directory / "images" / f"{entry.img_id}.png") as image:
            pixels = np.asarray(image)
        assert pixels.shape == (entry.img_h, entry.img_w, 3)
        shown = np.ones(pixels.shape[:2], bool)
        for shape, color, box in things_of(entry):
            x1, y1, x2, y2 = box.astype(int)
            inside = pixels[y1:y2, x1:x2].astype(int)
            center = inside[inside.shape[0] // 2, inside.shape[1] // 2]
            distances = {name: np.abs(center - value).sum() for name, value in COLORS.items()}
            assert min(distances, key=distances.get) == color
            dark = inside.min(axis=2) < 190
            # A shape touches all four sides of its box, and fills a share of it that tells its kind.
            assert dark[0].any()
            assert dark[-1].any()
            assert dark[:, 0].any()
            assert dark[:, -1].any()
            low, high = {"circle": (0.7, 0.85), "square": (1, 1), "triangle": (0.45, 0.6), "star": (0.25, 0.45)}[shape]
            assert low <= dark.mean() <= high, shape
            shown[y1:y2, x1:x2] = False
        assert pixels[shown].min() > 200  # nothing else is there


def test_shapes_do_not_touch_and_distractors_are_less_certain(regions):
    for entry in regions.values():
        assert entry.boxes.shape == (10, 4)
        assert entry.features.shape == (10, 32)
        things = things_of(entry)
        assert synthetic.MIN_SHAPES <= len(things) <= synthetic.MAX_SHAPES
        for n, (_, _, one) in enumerate(things):
            for _, _, other in things[n + 1 :]:
                assert (one[:2] >= other[2:]).any() or (other[:2] >= one[2:]).any()
        assert (np.diff(entry.objects_conf) <= 0).all()
        assert (entry.objects_conf[len(things) :] < 0.6).all()
        normalize_boxes(entry.boxes, entry.img_w, entry.img_h)


def test_region_features_are_those_of_the_pixels(directory, regions):
    entry = next(iter(regions.values()))
    with Image.open(directory / "images" / f"{entry.img_id}.png") as image:
        pixels = np.asarray(image)
    boxes = [tuple(box) for box in entry.boxes.astype(int).tolist()]
    np.testing.assert_array_equal(synthetic.box_features(pixels, boxes, 32), entry.features)


def test_splits_share_no_picture_and_no_question(regions, annotations):
    pictures = {split: {annotation.img_id for annotation in annotations[split]} for split in SPLITS}
    assert {split: len(pictures[split]) for split in SPLITS} == {"train": 160, "valid": 20, "test": 20}
    assert set.union(*pictures.values()) == regions.keys()
    assert len(regions) == NUM_IMAGES
    ids = [annotation.question_id for split in SPLITS for annotation in annotations[split]]
    assert len(set(ids)) == len(ids)
    assert len({entry.features.tobytes() for entry in regions.values()}) == NUM_IMAGES


def test_test_set_has_no_labels(annotations):
    assert all(annotation.label is None for annotation in annotations["test"])
    assert all(annotation.label for split in ("train", "valid") for annotation in annotations[split])


def test_answers_are_balanced(annotations):
    counts = defaultdict(Counter)
    by_sentence = defaultdict(Counter)
    for annotation in annotations["train"]:
        (answer,) = annotation.label
        counts[annotation.question_type][answer] += 1
        by_sentence[annotation.sent][answer] += 1
    for question_type, answers in counts.items():
        share = max(answers.values()) / answers.total()
        assert share <= 1 / len(answers) + 0.12, (question_type, answers)
    assert set(counts["existence"]) == {"yes", "no"}
    assert len(counts["color"]) == len(COLORS)
    # Who sees the question alone, and knows the training set by heart, still fails.
    blind = sum(max(answers.values()) for answers in by_sentence.values())
    assert blind / len(annotations["train"]) < 0.7


def test_answer_types(annotations):
    types = {(annotation.question_type, annotation.answer_type) for annotation in annotations["train"]}
    assert types == {
        ("color", "other"),
        ("shape", "other"),
        ("count", "number"),
        ("existence", "yes/no"),
        ("position", "other"),
        ("order", "yes/no"),
        ("neighbor", "other"),
    }


def test_vocabulary_holds_every_word_whole(directory, annotations):
    vocab = (directory / "vocab.txt").read_text("utf-8").splitlines()
    assert vocab[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(set(vocab)) == len(vocab)
    words = {word for split in SPLITS for entry in annotations[split] for word in re.findall(r"\w+|\?", entry.sent)}
    assert words <= set(vocab)
    assert set(synthetic.ANSWERS) <= set(vocab)
    assert {*"az09", "##a", "##z", "##0"} <= set(vocab)


def test_config_and_answers_fit_the_set(directory, annotations):
    table = read_answers(directory / "label2ans.json", directory / "ans2label.json")
    read_annotations(directory / "train.json", table)
    values = json.loads((directory / "config.json").read_text("utf-8"))
    config = LxmertConfig.from_dict(values)
    assert config.vocab_size == len((directory / "vocab.txt").read_text("utf-8").splitlines())
    assert config.num_qa_labels == len(table)
    assert config.visual_feat_dim == 32
    assert [values["id2label"][str(row)] for row in range(len(table))] == list(table.answers)
    longest = max(len(entry.sent.replace("?", " ?").split()) for entry in annotations["train"])
    assert longest + 2 <= config.max_position_embeddings


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_same_set(tmp_path):
    write_vqa(tmp_path / "one", num_images=12, seed=5)
    (tmp_path / "two").mkdir()  # an empty directory may be there
    write_vqa(tmp_path / "two", num_images=12, seed=5)
    write_vqa(tmp_path / "other", num_images=12, seed=6)
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert len(one) == 8 + 12
    fixed = {"vocab.txt", "config.json", "label2ans.json", "ans2label.json"}
    assert {str(path) for path in one if one[path] == other[path]} == fixed


def test_a_larger_set_begins_with_the_same_pictures(tmp_path):
    write_vqa(tmp_path / "small", num_images=10)
    write_vqa(tmp_path / "large", num_images=20)
    small, large = ((tmp_path / name / "features.tsv").read_bytes() for name in ("small", "large"))
    assert large.startswith(small)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"num_images": 9}, "num_images must be at least 10, got 9"),
        ({"boxes": 4}, "boxes must be at least 5, got 4"),
        ({"feat_dim": 0}, "feat_dim must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
    ],
)
def test_bad_arguments(tmp_path, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        write_vqa(tmp_path / "vqa", **{"num_images": 10, **arguments})
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_kept(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="name a new or an empty directory"):
        write_vqa(tmp_path, num_images=10)
    with pytest.raises(FileExistsError):
        write_vqa(tmp_path / "mine.txt", num_images=10)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_nothing_is_left_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "write_answers", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_vqa(tmp_path / "vqa", num_images=10)
    assert not list(tmp_path.iterdir())


def test_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"pip install 'lxmert-tf\[viz\]'"):
        write_vqa(tmp_path / "vqa", num_images=10)
    assert not list(tmp_path.iterdir())
