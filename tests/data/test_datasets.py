"""The datasets of all tasks: what a batch holds, and that it is a function of the seed and the step alone."""

from collections import Counter

import numpy as np
import pytest
from support.data import make_captions, make_pairs, make_questions, make_store, make_tokenizer

from lxmert_tf.answers import AnswerTable
from lxmert_tf.data.annotations import Annotation, NLVR2Annotation, PretrainingAnnotation
from lxmert_tf.data.datasets import gqa_dataset, nlvr2_dataset, pretraining_dataset, vqa_dataset

TABLE = AnswerTable(["maybe", "yes", "no"])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return make_tokenizer(tmp_path_factory.mktemp("vocab"))


@pytest.fixture
def make(store, tokenizer):
    """Makes a dataset of a task from few annotations."""

    def of(task, number=50, batch_size=8, **options):
        if task == "pretrain":
            return pretraining_dataset(make_captions(), store, tokenizer, TABLE, batch_size, **options)
        if task == "nlvr2":
            return nlvr2_dataset(make_pairs(number), store, tokenizer, batch_size, **options)
        return vqa_dataset(make_questions(number), store, tokenizer, TABLE, batch_size, **options)

    return of


TASKS = ("vqa", "nlvr2", "pretrain")


def flat(value):
    if isinstance(value, dict):
        return [each for key in sorted(value) for each in flat(value[key])]
    if isinstance(value, tuple):
        return [each for part in value for each in flat(part)]
    return [np.asarray(value)]


def assert_same(one, other):
    for first, second in zip(flat(one), flat(other), strict=True):
        np.testing.assert_array_equal(first, second, strict=True)


def shown(dataset, steps):
    return [str(example) for step in steps for example in dataset.examples(step)]


def test_a_question_with_its_image_and_scores(make, store, tokenizer):
    dataset = make("vqa")
    x, y = dataset.batch(0)
    questions = make_questions(8)
    assert dataset.examples(0) == questions
    encoded = tokenizer([question.sent for question in questions], padding=True, return_tensors="np")
    tokens = encoded["input_ids"].shape[1]
    assert x["input_ids"].shape[1] == -(-tokens // 4) * 4
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        np.testing.assert_array_equal(x[name][:, :tokens], encoded[name])
        assert not x[name][:, tokens:].any()
        assert x[name].dtype == np.int32
    visual = store.read([question.img_id for question in questions], labels=False)
    for name, value in visual.items():
        np.testing.assert_array_equal(x[name], value, strict=True)
    np.testing.assert_array_equal(y["labels"], np.tile(np.float32([0, 1, 0.3]), (8, 1)), strict=True)


def test_a_pair_has_both_images_side_by_side(make, store):
    dataset = make("nlvr2")
    x, y = dataset.batch(1)
    pairs = dataset.examples(1)
    assert pairs == make_pairs(16)[8:]
    for side, name in enumerate(("img0", "img1")):
        visual = store.read([getattr(pair, name) for pair in pairs])
        boxes = visual["visual_feats"].shape[1]
        np.testing.assert_array_equal(x["visual_feats"][:, side, :boxes], visual["visual_feats"])
        np.testing.assert_array_equal(x["visual_attention_mask"][:, side, :boxes], visual["visual_attention_mask"])
    np.testing.assert_array_equal(y["labels"], np.int32([n % 3 == 0 for n in range(8, 16)]), strict=True)


def test_without_labels_there_is_no_y(make, store, tokenizer):
    test = make_questions(5, labels=False)
    for dataset in (vqa_dataset(test, store, tokenizer, TABLE, 5), vqa_dataset(test, store, tokenizer, None, 5)):
        assert not dataset.labelled
        assert dataset.batch(0)[1] == {}
    assert vqa_dataset(make_questions(5), store, tokenizer, None, 5).batch(0)[1] == {}
    half = [*test[:2], *make_questions(5)[2:]]
    with pytest.raises(ValueError, match="2 of 5 examples have no label"):
        vqa_dataset(half, store, tokenizer, TABLE, 5)


@pytest.mark.parametrize("task", TASKS)
def test_every_epoch_shows_every_example_once_in_another_order(make, task):
    dataset = make(task, seed=3)
    steps = len(dataset)
    epochs = [shown(dataset, range(epoch * steps, (epoch + 1) * steps)) for epoch in range(3)]
    if task != "pretrain":
        assert all(sorted(epoch) == sorted(shown(make(task), range(steps))) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) == 3
    assert [len(epoch) for epoch in epochs] == [dataset.num_examples] * 3


@pytest.mark.parametrize("task", TASKS)
def test_a_step_is_the_same_whatever_was_read_before(make, task):
    one, other, third = make(task, seed=3), make(task, seed=3), make(task, seed=4)
    wanted = {step: one.batch(step) for step in (0, 5, 13, 40)}
    for step in (40, 0, 13, 5):
        assert_same(other.batch(step), wanted[step])
    with pytest.raises(AssertionError):
        assert_same(third.batch(5), wanted[5])


@pytest.mark.parametrize("task", TASKS)
def test_without_a_seed_the_order_stays(make, task):
    dataset = make(task)
    steps = len(dataset)
    assert_same(dataset.batch(1), dataset.batch(1 + 2 * steps))
    if task == "vqa":
        assert dataset.examples(1) == make_questions(16)[8:]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("drop_remainder", [True, False])
def test_workers_together_see_what_one_sees(make, task, drop_remainder):
    number = 51
    whole = make(task, number, batch_size=6, seed=1, drop_remainder=drop_remainder)
    parts = [make(task, number, 2, seed=1, drop_remainder=drop_remainder, shard=(n, 3)) for n in range(3)]
    assert {len(part) for part in parts} == {len(whole)}
    for step in (0, len(whole) - 1, len(whole)):
        together = [flat(part.batch(step)) for part in parts]
        for number_of, expected in enumerate(flat(whole.batch(step))):
            got = [part[number_of] for part in together]
            sizes = [max(array.shape[axis] for array in (*got, expected)) for axis in range(1, expected.ndim)]
            fill = -100 if expected.dtype == np.int32 and (expected == -100).any() else 0
            got = np.concatenate([pad(array, sizes, fill) for array in got])
            np.testing.assert_array_equal(got, pad(expected, sizes, fill))


def pad(array, sizes, fill):
    widths = [(0, 0), *((0, size - have) for size, have in zip(sizes, array.shape[1:], strict=True))]
    return np.pad(array, widths, constant_values=fill)


def test_texts_of_a_batch_are_of_similar_length_and_cut_to_the_longest(make):
    def padding(bucket, seed):
        dataset = make("vqa", 400, seed=seed, bucket=bucket, max_length=16)
        masks = [dataset.batch(step)[0]["attention_mask"] for step in range(len(dataset))]
        assert all(mask.shape[1] % 4 == 0 and mask.shape[1] <= 16 for mask in masks)
        return 1 - sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks)

    assert padding(4, seed=1) < padding(4, seed=None) < padding(None, seed=1)
    assert make("vqa", bucket=None, max_length=9).batch(0)[0]["input_ids"].shape == (8, 9)
    assert make("vqa", bucket=5, max_length=9).batch(0)[0]["input_ids"].shape == (8, 9)


def test_last_batch(make):
    assert len(make("vqa", 20)) == 3
    assert make("vqa", 20).batch(2)[0]["input_ids"].shape[0] == 4
    assert len(make("vqa", 20, drop_remainder=True)) == 2
    assert len(make("vqa", 16)) == 2
    kept = {
        tuple(sorted(shown(make("vqa", 20, drop_remainder=True, seed=1), range(2 * n, 2 * n + 2)))) for n in range(5)
    }
    assert len(kept) > 1  # other examples are left out in every epoch


def test_limit_keeps_the_first_images(make, store):
    dataset = make("vqa", 36, limit=5)
    assert {example.img_id for example in dataset.annotations} == set(store.img_ids[:5])
    assert dataset.num_examples == 15
    pairs = make("nlvr2", 36, limit=5)
    assert {(pair.img0, pair.img1) for pair in pairs.annotations} == {
        (f"image_{n}", f"image_{n + 1}") for n in range(4)
    }
    assert make("pretrain", limit=2).num_examples == 16


def test_the_first_images_are_those_of_the_set_in_the_order_of_the_feature_file(store, tokenizer):
    """One file holds the images of several sets, and the annotations' order does not matter."""
    names = [name for name in reversed(store.img_ids) if name not in store.img_ids[:3]]
    questions = [Annotation(n, name, "word1") for n, name in enumerate([*names, "not in the file"])]
    dataset = vqa_dataset(questions, store, tokenizer, TABLE, 1, limit=2)
    assert [each.img_id for each in dataset.annotations] == [store.img_ids[4], store.img_ids[3]]
    with pytest.raises(ValueError, match=r"no examples of images in .*\.h5"):
        vqa_dataset(questions[-1:], store, tokenizer, TABLE, 1, limit=2)


def test_answers_outside_the_table_are_counted_and_told(store, tokenizer, caplog):
    labels = [{"yes": 0.9, "perhaps": 1}, {"perhaps": 0.3}, {}, {"si": 1, "no": 0.6}]
    questions = [Annotation(n, "image_0", "word1", label) for n, label in enumerate(labels)]
    dataset = gqa_dataset(questions, store, tokenizer, TABLE, 4)
    assert dataset.unknown_answers == Counter(perhaps=2, si=1)
    assert "3 labels for 2 answers that are not in the answer table of 3, most often 'perhaps'" in caplog.text
    expected = np.float32([[0, 0.9, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0.6]])
    np.testing.assert_array_equal(dataset.batch(0)[1]["labels"], expected)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"max_length": 2}, "max_length must be at least 3"),
        ({"bucket": 0}, "bucket must be at least 1"),
        ({"shard": (2, 2)}, "shard must be"),
        ({"missing": "ignore"}, "missing must be error or skip, got 'ignore'"),
        ({"limit": 0}, "limit must be at least 1, got 0"),
        ({"batch_size": 51, "drop_remainder": True}, "too few for a batch of 51"),
        ({"batch_size": 7, "shard": (0, 7)}, "the last batch has 1 examples for 7 workers"),
    ],
)
def test_bad_options(make, options, complaint):
    with pytest.raises(ValueError, match=complaint):
        make("vqa", **options)


def test_an_image_without_features_is_named(store, tokenizer):
    questions = [*make_questions(2), *[Annotation(n, f"other_{n}", "word1") for n in (7, 8)]]
    complaint = r"^2 of 4 images have no region features in .*, the first is 'other_7'; missing='skip'"
    with pytest.raises(KeyError, match=complaint):
        vqa_dataset(questions, store, tokenizer, TABLE, 2)


def test_examples_of_images_without_features_are_left_out_counted_and_listed(store, tokenizer, caplog):
    questions = make_questions(24)
    others = [Annotation(100 + n, f"other_{n % 30}", "word1", {"yes": 1}) for n in range(40)]
    mixed = [question for pair in zip(questions, others, strict=False) for question in pair] + others[24:]
    dataset = vqa_dataset(mixed, store, tokenizer, TABLE, 8, seed=1, missing="skip")
    names = [f"other_{n}" for n in range(30)]
    assert dataset.missing_images == tuple(names)
    where = f"30 of 42 images have no region features in {store.path}"
    assert caplog.messages == [f"{where}: 40 examples left out ({', '.join(names[:20])}, ...)."]
    alone = vqa_dataset(questions, store, tokenizer, TABLE, 8, seed=1)
    assert alone.missing_images == ()
    for step in range(len(alone)):
        assert_same(dataset.batch(step), alone.batch(step))
    pairs = [*make_pairs(9), NLVR2Annotation("one", "dev-1-0-0", "image_0", "other_1", "word1", 1)]
    assert nlvr2_dataset(pairs, store, tokenizer, 3, missing="skip").annotations == pairs[:9]
    captions = [*make_captions(), PretrainingAnnotation("other_1", {"mscoco": ["word1"]})]
    assert pretraining_dataset(captions, store, tokenizer, TABLE, 4, missing="skip").num_examples == 96
    with pytest.raises(ValueError, match=r"30 of 30 images have no region features in .*: no examples are left"):
        vqa_dataset(others, store, tokenizer, TABLE, 8, missing="skip")


@pytest.mark.parametrize("task", TASKS)
def test_tf_data_gives_the_same_batches_from_any_step(make, task):
    tf = pytest.importorskip("tensorflow")
    dataset = make(task, seed=2)
    steps = len(dataset)
    assert dataset.batches(1, steps + 2).cardinality() == steps + 1
    assert dataset.batches().cardinality() == tf.data.INFINITE_CARDINALITY
    for step, element in enumerate(dataset.batches(steps - 1, steps + 2), steps - 1):
        assert_same(tf.nest.map_structure(lambda tensor: tensor.numpy(), element), dataset.batch(step))
    visual = dataset.batches().element_spec[0]["visual_feats"].shape
    assert visual.as_list()[-2:] == [None, 4]  # the number of boxes varies
    fixed = make(task, seed=2, drop_remainder=True, bucket=None).batches().element_spec
    assert fixed[0]["input_ids"].shape == (8, 20)
