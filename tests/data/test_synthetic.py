"""The synthetic sets: sentences are true of the pictures, splits share nothing, no shortcut tells the answers."""

import itertools
import json
import re
import sys
from collections import Counter, defaultdict

import numpy as np
import pytest

from lxmert_tf.answers import read_answers
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.data.annotations import (
    read_annotations,
    read_nlvr2,
    read_pretraining,
    unknown_answers,
)
from lxmert_tf.data.features.regions import normalize_boxes
from lxmert_tf.data.features.tsv import read_tsv
from lxmert_tf.demo import dataset, gqa, nlvr2, pictures, pretraining, questions, scenes, vqa
from lxmert_tf.demo.dataset import write_dataset
from lxmert_tf.demo.scenes import COLORS, SHAPES, SPLITS
from lxmert_tf.tasks import TASKS

Image = pytest.importorskip("PIL.Image")

NUM_IMAGES = 200
READERS = {"vqa": read_annotations, "gqa": read_annotations, "nlvr2": read_nlvr2, "pretrain": read_pretraining}

SHAPE, COLOR = "|".join(SHAPES), "|".join(COLORS)
SLOTS = {  # what each slot of a sentence may hold
    "shape": SHAPE,
    "color": COLOR,
    "name": f"(?:(?:{COLOR}) )?(?:{SHAPE})",
    "things": f"objects|(?:{SHAPE})s|(?:{COLOR}) objects",
    "kind": f"{SHAPE}|(?:{COLOR}) object",
    "side": "left|right",
    "relation": "to the left of|to the right of|above|below",
    "number": "[2-5]",
    "one": f"a (?:{COLOR}) (?:{SHAPE})",
    "third": f"a (?:{COLOR}) (?:{SHAPE})",
}
SLOTS["other"] = f"{SLOTS['name']}|{SLOTS['color']}|{SLOTS['one']}"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("synthetic") / "all"
    return write_dataset(folder, "all", num_images=NUM_IMAGES, boxes=10, feat_dim=32, seed=3)


@pytest.fixture(scope="module")
def regions(directory):
    return {entry.img_id: entry for entry in read_tsv(directory / "features.tsv")}


@pytest.fixture(scope="module")
def sets(directory):
    """task -> split -> annotations."""
    return {
        task: {split: read(directory / task / f"{split}.json") for split in SPLITS} for task, read in READERS.items()
    }


@pytest.fixture(scope="module")
def annotations(sets):
    return sets["vqa"]


def things_of(entry):
    """(shape, color, box) of each shape, as the detector's certain finds tell."""
    certain = np.flatnonzero(entry.objects_conf == 1)
    names = list(COLORS)
    return [(SHAPES[entry.objects_id[n]], names[entry.attrs_id[n]], entry.boxes[n]) for n in certain]


def parse(templates, sent):
    """(which of the templates, {slot: what it holds})."""
    for number, template in enumerate(templates):
        pattern = re.sub(r"\\{(\w+)\\}", lambda slot: f"(?P<{slot[1]}>{SLOTS[slot[1]]})", re.escape(template))
        if match := re.fullmatch(pattern, sent):
            return number, match.groupdict()
    raise AssertionError(f"{sent!r} is of no known form")


def find(things, name):
    """The one thing of that name, "circle" or "red circle"."""
    (found,) = [thing for thing in things if name in (thing[0], f"{thing[1]} {thing[0]}")]
    return found


def count(things, kind):
    """How many things there are of a kind: "star", "red object", "red star" or "object"."""
    return sum(kind in ("object", thing[0], f"{thing[1]} object", f"{thing[1]} {thing[0]}") for thing in things)


def middle(thing, axis=0):
    return (thing[2][axis] + thing[2][axis + 2]) / 2


def stands(one, relation, other):
    """Whether the middle of one thing is, say, "to the left of" that of another."""
    axis = int(relation in ("above", "below"))
    before = middle(one, axis) < middle(other, axis)
    return before if relation in ("to the left of", "above") else not before


def yes(truth):
    return "yes" if truth else "no"


def vqa_answer(entry, sent):
    """The answer to a question of VQA, worked out from the boxes alone."""
    number, slots = parse(vqa.SENTENCES.values(), sent)
    question_type = list(vqa.SENTENCES)[number]
    things = things_of(entry)
    if question_type == "color":
        return find(things, slots["shape"])[1]
    if question_type == "shape":
        (found,) = [thing for thing in things if thing[1] == slots["color"]]
        return found[0]
    if question_type == "count":
        return str(count(things, slots["things"].removesuffix("s")))
    if question_type == "existence":
        return yes(count(things, f"{slots['color']} {slots['shape']}"))
    named = find(things, slots["name"])
    if question_type == "position":
        return "left" if middle(named) < entry.img_w / 2 else "right"
    if question_type == "order":
        return yes(stands(named, "to the left of", find(things, slots["other"])))
    return neighbor(things, f"to the {slots['side']} of", named)


def gqa_answer(entry, sent):
    """The answer to a question of GQA, worked out from the boxes alone."""
    number, slots = parse(gqa.SENTENCES.values(), sent)
    question_type = list(gqa.SENTENCES)[number]
    things = things_of(entry)
    if question_type in ("attribute", "choose"):
        color = find(things, slots["shape"])[1]
        assert question_type == "attribute" or (color in (slots["color"], slots["other"]) and color in sent)
        return color
    if question_type == "category":
        (found,) = [thing for thing in things if thing[1] == slots["color"]]
        return found[0]
    if question_type == "verify":
        return yes(find(things, slots["shape"])[1] == slots["color"])
    named = find(things, slots["name"])
    if question_type == "place":
        return "left" if middle(named) < entry.img_w / 2 else "right"
    if question_type == "relation":
        return "left" if stands(named, "to the left of", find(things, slots["other"])) else "right"
    return neighbor(things, slots["relation"], named)


def neighbor(things, relation, named):
    """The shape of the only thing that stands so to another."""
    (found,) = [thing for thing in things if thing is not named and stands(thing, relation, named)]
    return found[0]


def nlvr2_facts(things, pair):
    """(the statement's form, what it counts in the left and in the right picture)."""
    number, slots = parse([statement.sent for statement in nlvr2.STATEMENTS], pair.sent)
    return nlvr2.STATEMENTS[number].sent, *(count(things[img_id], slots["kind"]) for img_id in (pair.img0, pair.img1))


def question_types(style, annotations):
    return Counter(list(style.sentences)[parse(style.sentences.values(), entry.sent)[0]] for entry in annotations)


@pytest.mark.parametrize(("task", "style", "answer"), [("vqa", vqa.STYLE, vqa_answer), ("gqa", gqa.STYLE, gqa_answer)])
def test_every_answer_is_true(regions, sets, task, style, answer):
    labelled = sets[task]["train"] + sets[task]["valid"]
    for annotation in labelled:
        assert annotation.label == {answer(regions[annotation.img_id], annotation.sent): 1.0}, annotation
    asked = question_types(style, labelled)
    assert asked.keys() == style.sentences.keys()
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
        assert scenes.MIN_SHAPES <= len(things) <= scenes.MAX_SHAPES
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
    np.testing.assert_array_equal(pictures.box_features(pixels, boxes, 32), entry.features)


def test_features_tell_shape_and_color(regions):
    """The nearest mean of a class, of half of the boxes, finds both for the other half."""
    things, features = [], []
    for entry in regions.values():
        things += [thing[:2] for thing in things_of(entry)]
        features += list(entry.features[: len(things_of(entry))])
    features, half = np.array(features), len(features) // 2
    for names in zip(*things, strict=True):
        names = np.array(names)
        classes = np.unique(names)
        means = np.stack([features[:half][names[:half] == name].mean(axis=0) for name in classes])
        # Whitened, as the other attribute is far larger in some directions.
        spread = np.cov((features[:half] - means[np.searchsorted(classes, names[:half])]).T)
        whiten = np.linalg.cholesky(np.linalg.inv(spread + 1e-4 * np.eye(len(spread))))
        distances = np.linalg.norm((features[half:, None] - means) @ whiten, axis=2)
        assert (classes[distances.argmin(axis=1)] == names[half:]).mean() > 0.98


def images_of(task, annotation):
    return {annotation.img0, annotation.img1} if task == "nlvr2" else {annotation.img_id}


@pytest.mark.parametrize("task", TASKS)
def test_splits_share_no_picture_and_no_name(regions, sets, task):
    used = {split: set.union(*(images_of(task, annotation) for annotation in sets[task][split])) for split in SPLITS}
    assert sum(map(len, used.values())) == len(set.union(*used.values()))
    parts = scenes.splits(NUM_IMAGES)
    assert [len(parts[split]) for split in SPLITS] == [160, 20, 20]
    for split in SPLITS:
        assert used[split] <= {scenes.make_scene(3, index).img_id for index in parts[split]}
        assert len(used[split]) > 0.5 * len(parts[split])  # not every picture allows a question of every style
    name = {"nlvr2": "uid", "pretrain": "img_id"}.get(task, "question_id")
    names = [getattr(annotation, name) for split in SPLITS for annotation in sets[task][split]]
    assert len(set(names)) == len(names)
    assert len(regions) == NUM_IMAGES == len({entry.features.tobytes() for entry in regions.values()})


def test_test_sets_have_no_labels(sets):
    for task in TASKS:
        key = "labelf" if task == "pretrain" else "label"
        assert not any(getattr(annotation, key) for annotation in sets[task]["test"])
        for split in ("train", "valid"):
            labels = [getattr(annotation, key) for annotation in sets[task][split]]
            assert None not in labels and any(labels)


@pytest.mark.parametrize("style", [vqa.STYLE, gqa.STYLE], ids=["vqa", "gqa"])
def test_answers_are_balanced(sets, style):
    counts = defaultdict(Counter)
    by_sentence = defaultdict(Counter)
    train = sets[style.name]["train"]
    for annotation in train:
        (answer,) = annotation.label
        question_type = list(style.sentences)[parse(style.sentences.values(), annotation.sent)[0]]
        counts[question_type][answer] += 1
        by_sentence[annotation.sent][answer] += 1
    for question_type, answers in counts.items():
        share = max(answers.values()) / answers.total()
        slack = 0.12 if question_type == "neighbor" else 0.04  # few pictures allow that one
        assert share <= 1 / len(answers) + slack, (question_type, answers)
    # Who sees the question alone, and knows the training set by heart, still fails.
    blind = sum(max(answers.values()) for answers in by_sentence.values())
    assert blind / len(train) < 0.7


def test_gqa_has_neither_types_nor_numbers(sets):
    for annotation in sets["gqa"]["train"]:
        assert annotation.answer_type is None and annotation.question_type is None
        assert isinstance(annotation.question_id, str)
        assert annotation.label.keys() <= set(gqa.ANSWERS)


TRUTHS = {
    "both pictures have {kind}s.": lambda left, right: min(left, right) > 0,
    "exactly one picture has {kind}s.": lambda left, right: (left > 0) != (right > 0),
    "there are more {kind}s in the left picture.": lambda left, right: left > right,
}


def test_every_statement_is_as_true_as_its_label(regions, sets):
    things = {img_id: things_of(entry) for img_id, entry in regions.items()}
    for pair in sets["nlvr2"]["train"] + sets["nlvr2"]["valid"]:
        template, left, right = nlvr2_facts(things, pair)
        assert pair.label == TRUTHS[template](left, right), pair
        assert pair.img0 != pair.img1


def test_four_pairs_share_a_sentence_and_two_make_it_true(sets):
    for split, name in (("train", "train"), ("valid", "dev"), ("test", "test1")):
        pairs = sets["nlvr2"][split]
        assert len(pairs) == nlvr2.PER_PICTURE * 4 * len(scenes.splits(NUM_IMAGES)[split])
        shared = defaultdict(list)
        for number, pair in enumerate(pairs):
            assert pair.uid == f"nlvr2_{split}_{number}"
            prefix, group, place, sentence = pair.identifier.split("-")
            assert (prefix, place) == (name, str(number % 4))
            shared[group, sentence].append(pair)
        for group in shared.values():
            assert len(group) == 4 and len({pair.sent for pair in group}) == 1
            assert split == "test" or sum(pair.label for pair in group) == 2


def test_statements_have_their_shares_and_no_picture_gives_them_away():
    drawn = [scenes.make_scene(3, index) for index in range(1000)]
    things = {scene.img_id: scene.things for scene in drawn}
    pairs = list(nlvr2.annotate("train", range(1000), seed=3, labels=True))
    facts = [nlvr2_facts(things, pair) for pair in pairs]

    forms = Counter(form for form, *_ in facts)
    for statement in nlvr2.STATEMENTS:
        assert forms[statement.sent] / len(pairs) == pytest.approx(statement.share, abs=0.04)
    assert sum(statement.share for statement in nlvr2.STATEMENTS) == pytest.approx(1)
    assert len({pair.sent for pair in pairs}) == len(nlvr2.STATEMENTS) * (len(SHAPES) + len(COLORS))
    assert len({img_id for pair in pairs for img_id in (pair.img0, pair.img1)}) > 950

    for side in (1, 2):  # who knows what is counted, how many one picture has, and this very set by heart
        seen = defaultdict(Counter)
        for pair, fact in zip(pairs, facts, strict=True):
            seen[fact[0], fact[side]][pair.label] += 1
        assert sum(max(labels.values()) for labels in seen.values()) / len(pairs) < 0.62


def test_answer_types(sets):
    types = {(annotation.question_type, annotation.answer_type) for annotation in sets["vqa"]["train"]}
    assert types == {
        ("color", "other"),
        ("shape", "other"),
        ("count", "number"),
        ("existence", "yes/no"),
        ("position", "other"),
        ("order", "yes/no"),
        ("neighbor", "other"),
    }


def test_every_caption_is_true(regions, sets):
    kinds = Counter()
    for annotation in sets["pretrain"]["train"]:
        things = things_of(regions[annotation.img_id])
        assert len(set(annotation.sentf["mscoco"])) == len(annotation.sentf["mscoco"])
        for source, caption, label in annotation.sentences():
            if source != "mscoco":
                continue
            assert label is None
            number, slots = parse(pretraining.CAPTIONS.values(), caption)
            kinds[list(pretraining.CAPTIONS)[number]] += 1
            side = slots.pop("side", None)
            described = [
                [thing for thing in things if f"a {thing[1]} {thing[0]}" == phrase] for phrase in slots.values()
            ]
            assert any(
                len(set(map(id, chosen))) == len(chosen)
                and (side is None or stands(chosen[0], f"to the {side} of", chosen[1]))
                for chosen in itertools.product(*described)
            ), caption
    for kind, most in pretraining.PER_PICTURE.items():  # some pictures have few
        assert 0.5 * most < kinds[kind] / len(sets["pretrain"]["train"]) <= most


def test_pretraining_has_a_question_of_every_other_picture(sets):
    for split in SPLITS:
        asked = {
            (task, entry.img_id, entry.sent): entry.label for task in ("vqa", "gqa") for entry in sets[task][split]
        }
        sources = Counter()
        for annotation in sets["pretrain"][split]:
            for source, sentence, label in annotation.sentences():
                sources[source] += 1
                assert source == "mscoco" or asked[source, annotation.img_id, sentence] == label
        assert min(sources["vqa"], sources["gqa"]) > len(sets["pretrain"][split]) / 8
        assert sources["vqa"] + sources["gqa"] == len(sets["pretrain"][split]) / 2


def sentences_of(task, annotation):
    return [sent for _, sent, _ in annotation.sentences()] if task == "pretrain" else [annotation.sent]


def test_one_vocabulary_holds_every_word_of_every_task_whole(directory, sets):
    vocab = (directory / "vocab.txt").read_text("utf-8").splitlines()
    assert vocab[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert len(set(vocab)) == len(vocab)
    sentences = {
        sent
        for task in TASKS
        for split in SPLITS
        for annotation in sets[task][split]
        for sent in sentences_of(task, annotation)
    }
    tokens = [re.findall(r"\w+|[?.]", sent) for sent in sentences]
    words = {word for sent in tokens for word in sent}
    assert words <= set(vocab)
    assert set(questions.ANSWERS) <= set(vocab)
    assert {word for word in vocab if re.fullmatch(r"[a-z]{2,}", word)} <= words | {"yes", "no"}
    assert {*"az09", "##a", "##z", "##0"} <= set(vocab)
    assert max(map(len, tokens)) + 2 <= 20  # the original's text length


def test_config_and_answers_fit_the_set(directory, sets):
    table = read_answers(directory / "label2ans.json", directory / "ans2label.json")
    assert read_answers(directory / "all_ans.json").answers == table.answers
    for task in ("vqa", "gqa", "pretrain"):
        assert not unknown_answers(sets[task]["train"] + sets[task]["valid"], table)
    values = json.loads((directory / "config.json").read_text("utf-8"))
    config = LxmertConfig.from_dict(values)
    assert config.vocab_size == len((directory / "vocab.txt").read_text("utf-8").splitlines())
    assert config.num_qa_labels == len(table)
    assert config.visual_feat_dim == 32
    assert [values["id2label"][str(row)] for row in range(len(table))] == list(table.answers)
    assert config.max_position_embeddings >= 20


def test_objects_and_attributes_fit_the_config(directory, regions):
    config = LxmertConfig.from_dict(json.loads((directory / "config.json").read_text("utf-8")))
    assert {int(n) for entry in regions.values() for n in entry.objects_id} == set(range(config.num_object_labels))
    assert {int(n) for entry in regions.values() for n in entry.attrs_id} == set(range(config.num_attr_labels))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_same_seed_same_set(tmp_path):
    (tmp_path / "two").mkdir()  # an empty directory may be there
    for name, seed in (("one", 5), ("two", 5), ("other", 6)):
        write_dataset(tmp_path / name, "all", num_images=100, boxes=5, feat_dim=4, seed=seed)
    one, two, other = (contents(tmp_path / name) for name in ("one", "two", "other"))
    assert one == two
    assert len(one) == 7 + 4 * 3 + 100
    fixed = {"vocab.txt", "config.json", "label2ans.json", "ans2label.json", "all_ans.json", "detector.json"}
    assert {path for path in one if one[path] == other[path]} == fixed


@pytest.mark.parametrize("task", TASKS)
def test_one_task_alone_is_as_among_all(directory, tmp_path, task):
    write_dataset(tmp_path / "one", task, num_images=NUM_IMAGES, boxes=10, feat_dim=32, seed=3, pictures=False)
    among_all = contents(directory)
    for name, content in contents(tmp_path / "one").items():
        assert content == among_all[f"{task}/{name}" if name in dataset.SPLIT_FILES else name]
    assert len(contents(tmp_path / "one")) == 10


def test_a_larger_set_begins_with_the_same_pictures(tmp_path):
    write_dataset(tmp_path / "small", num_images=10)
    write_dataset(tmp_path / "large", num_images=20)
    small, large = ((tmp_path / name / "features.tsv").read_bytes() for name in ("small", "large"))
    assert large.startswith(small)


def test_size_of_real_features(tmp_path):
    write_dataset(tmp_path / "vqa", num_images=10, boxes=36, feat_dim=2048, pictures=False)
    entries = list(read_tsv(tmp_path / "vqa" / "features.tsv"))
    assert {entry.features.shape for entry in entries} == {(36, 2048)}
    assert not (tmp_path / "vqa" / "images").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"task": "coco"}, "task must be one of vqa, gqa, nlvr2, pretrain or all, got 'coco'"),
        ({"num_images": 9}, r"num_images \(--images\) must be at least 10, got 9"),
        ({"task": "nlvr2"}, r"num_images \(--images\) must be at least 100 for nlvr2, .* got 10"),
        ({"task": "nlvr2", "num_images": 9}, r"num_images \(--images\) must be at least 10, got 9"),
        ({"task": "all"}, r"num_images \(--images\) must be at least 100 for nlvr2, .* got 10"),
        ({"boxes": 4}, r"boxes \(--boxes\) must be at least 5, got 4"),
        ({"feat_dim": 0}, r"feat_dim \(--dim\) must be at least 1, got 0"),
        ({"seed": -1}, r"seed \(--seed\) must be at least 0, got -1"),
    ],
)
def test_bad_arguments(tmp_path, arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        write_dataset(tmp_path / "set", **{"num_images": 10, **arguments})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_there_is_kept(tmp_path, overwrite):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(
        FileExistsError, match="mine.txt does not belong to" if overwrite else "choose a new or an empty directory"
    ):
        write_dataset(tmp_path, num_images=10, overwrite=overwrite)
    with pytest.raises(FileExistsError):
        write_dataset(tmp_path / "mine.txt", num_images=10, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_earlier_set_is_overwritten(tmp_path):
    write_dataset(tmp_path / "set", "all", num_images=100, boxes=5, feat_dim=4)
    write_dataset(tmp_path / "set", "gqa", num_images=10, pictures=False, overwrite=True)
    write_dataset(tmp_path / "new", "gqa", num_images=10, pictures=False, overwrite=True)
    assert contents(tmp_path / "set") == contents(tmp_path / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"set", "new"}


@pytest.mark.parametrize("name", ["vqa/model.keras", "notes/valid.json", "images/mine.png", "images/synthetic_1.jpg"])
def test_a_set_with_something_else_in_it_is_not_overwritten(tmp_path, name):
    write_dataset(tmp_path / "set", num_images=10)
    (tmp_path / "set" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "set" / name).write_text("mine")
    before = contents(tmp_path / "set")
    with pytest.raises(FileExistsError, match="does not belong to a synthetic set"):
        write_dataset(tmp_path / "set", num_images=10, overwrite=True)
    assert contents(tmp_path / "set") == before


def test_nothing_is_left_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "write_annotations", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_dataset(tmp_path / "vqa", num_images=10)
    assert not list(tmp_path.iterdir())


def test_without_pillow_it_ends_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setattr(dataset, "write_annotations", lambda *_: 1 / 0)
    with pytest.raises(ImportError, match=r"pip install 'lxmert-tf\[viz\]'"):
        write_dataset(tmp_path / "vqa", num_images=10)
    assert not list(tmp_path.iterdir())
