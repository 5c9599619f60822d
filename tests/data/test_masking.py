"""What pretraining hides: the shares, within bounds that chance breaks once in a million, and exact targets."""

import math

import numpy as np
import pytest
from support.data import make_captions, make_store, make_tokenizer
from test_datasets import assert_same

from lxmert_tf.answers import AnswerTable
from lxmert_tf.data import masking
from lxmert_tf.data.annotations import PretrainingAnnotation
from lxmert_tf.data.datasets import pretraining_dataset

TABLE = AnswerTable(["maybe", "yes", "no"])


def assert_share(hits, of, share):
    """A count of independent draws is within 4.9 standard deviations of its mean: two-sided, one in a million."""
    assert abs(hits - of * share) <= 4.9 * math.sqrt(of * share * (1 - share)), f"{hits} of {of}, expected {share}"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretraining")
    return make_store(folder, images=12, boxes=range(30, 37)), make_tokenizer(folder)


@pytest.fixture
def make(parts):
    store, tokenizer = parts

    def of(annotations=None, batch_size=32, seed=1, **options):
        return pretraining_dataset(
            annotations or make_captions(), store, tokenizer, TABLE, batch_size, seed=seed, **options
        )

    return of


def test_words(parts):
    _, tokenizer = parts
    draws = masking.draw(np.random.default_rng(0), 4000, 20, 1, len(tokenizer), 9)
    ids = np.random.default_rng(1).integers(5, 46, (4000, 20), np.int32)
    maskable = np.random.default_rng(2).random((4000, 20)) < 0.7
    masked, labels = masking.mask_words(ids, maskable, draws, tokenizer.mask_token_id)
    chosen = labels != -100
    assert not (chosen & ~maskable).any()
    np.testing.assert_array_equal(labels[chosen], ids[chosen])
    np.testing.assert_array_equal(masked[~chosen], ids[~chosen])
    number = int(chosen.sum())
    assert_share(number, int(maskable.sum()), 0.15)
    hidden, same = masked == 4, masked == ids
    chance = 1 / len(tokenizer)  # that a random piece is [MASK], or the piece itself
    assert_share(int((chosen & hidden).sum()), number, 0.8 + 0.1 * chance)
    assert_share(int((chosen & same).sum()), number, 0.1 + 0.1 * chance)
    others = masked[chosen & ~hidden & ~same]
    assert np.unique(others).size == len(tokenizer) - 1  # any piece but [MASK]


def test_boxes():
    draws = masking.draw(np.random.default_rng(0), 2000, 1, 36, 9, 9)
    present = np.arange(36) < np.random.default_rng(1).integers(10, 37, (2000, 1))
    chosen, zeroed, replaced = masking.choose_boxes(present, draws)
    assert not (chosen & ~present).any()
    assert not (zeroed & replaced).any()
    assert ((zeroed | replaced) <= chosen).all()
    number = int(chosen.sum())
    assert_share(number, int(present.sum()), 0.15)
    assert_share(int(zeroed.sum()), number, 0.8)
    assert_share(int(replaced.sum()), number, 0.1)


def test_sentences_of_another_image():
    images = np.random.default_rng(0).integers(0, 5, 20_000)
    whose = masking.mismatch(np.random.default_rng(1), images)
    own = whose == np.arange(20_000)
    assert_share(int(own.sum()), 20_000, 0.5)
    assert (images[whose[~own]] != images[~own]).all()
    counts = np.bincount(whose[~own], minlength=20_000)
    assert counts.max() < 12  # all are taken, none much more than others
    with pytest.raises(ValueError, match="at least two images"):
        masking.mismatch(np.random.default_rng(1), np.zeros(3, int))


def test_answers_are_drawn_in_proportion_to_their_scores():
    rows, scores = np.array([7, 1, 2]), np.array([0.3, 0.9, 0.0])
    drawn = [masking.draw_answer(rows, scores, share) for share in np.random.default_rng(0).random(20_000)]
    assert_share(drawn.count(7), 20_000, 0.25)
    assert_share(drawn.count(1), 20_000, 0.75)
    assert masking.draw_answer(rows, scores, np.nextafter(1, 0)) == 1
    assert masking.draw_answer(rows[:0], scores[:0], 0.5) == -100
    assert masking.draw_answer(rows, scores * 0, 0.5) == -100


def test_targets_of_a_batch(make, parts):
    store, tokenizer = parts
    dataset = make(predict_all_boxes=False)
    answers = []
    for step in range(40):
        examples = dataset.examples(step)
        x, y = dataset.batch(step)
        plain = tokenizer([example.sent for example in examples], padding=True, return_tensors="np")["input_ids"]
        found = store.read([example.img_id for example in examples])
        words, width = y["masked_lm_labels"], plain.shape[1]
        chosen = words != -100
        np.testing.assert_array_equal(np.where(chosen, words, x["input_ids"])[:, :width], plain)
        assert not chosen[:, 0].any()
        assert (words[chosen] > 4).all()  # no special token, no padding
        features, mask = y["obj_labels"]["feat"]
        np.testing.assert_array_equal(features, found["visual_feats"], strict=True)
        hidden = mask == 1
        np.testing.assert_array_equal(x["visual_feats"][~hidden], features[~hidden])
        for name, key in (("obj", "objects"), ("attr", "attrs")):
            classes, confidence = y["obj_labels"][name]
            np.testing.assert_array_equal(classes, found[f"{key}_id"], strict=True)
            np.testing.assert_array_equal(confidence, found[f"{key}_conf"] * mask, strict=True)
        np.testing.assert_array_equal(y["matched_label"], [example.matched for example in examples])
        own = [example.sent.startswith(f"word{example.img_id.removeprefix('image_')} ") for example in examples]
        np.testing.assert_array_equal(y["matched_label"] == 1, own)
        has_answer = np.array([example.matched and example.source == "vqa" for example in examples])
        assert ((y["ans"] == -100) == ~has_answer).all()
        answers += y["ans"][has_answer].tolist()
    assert_share(answers.count(2), len(answers), 0.75)  # "No." is looked up as "no"
    assert set(answers) == {1, 2}


def test_replaced_boxes_have_features_of_the_set(make, parts):
    store, _ = parts
    everything = store.read(store.img_ids)
    known = {row.tobytes() for row in everything["visual_feats"][everything["visual_attention_mask"] == 1]}
    replaced = 0
    dataset = make(box_mask_rate=0.5)
    for step in range(5):
        x, y = dataset.batch(step)
        features, mask = y["obj_labels"]["feat"]
        changed = (mask == 1) & (x["visual_feats"] != features).any(axis=2) & x["visual_feats"].any(axis=2)
        assert {row.tobytes() for row in x["visual_feats"][changed]} <= known
        replaced += int(changed.sum())
    assert replaced > 100


def test_rates_of_zero_hide_nothing(make):
    dataset = make(word_mask_rate=0, box_mask_rate=0, mismatch_rate=0)
    x, y = dataset.batch(0)
    assert (y["masked_lm_labels"] == -100).all()
    assert y["matched_label"].all()
    features, mask = y["obj_labels"]["feat"]
    assert not mask.any()
    np.testing.assert_array_equal(x["visual_feats"], features)


def test_all_boxes_are_predicted_as_in_the_originals_code(make, parts):
    store, _ = parts
    dataset = make()
    _, y = dataset.batch(0)
    found = store.read([example.img_id for example in dataset.examples(0)])
    np.testing.assert_array_equal(y["obj_labels"]["obj"][1], found["objects_conf"])
    assert y["obj_labels"]["feat"][1].mean() < 0.3


def test_validation_hides_the_same_parts_in_every_epoch_and_training_others(make):
    fixed, training = make(seed=None), make(seed=3)
    steps = len(fixed)
    assert_same(fixed.batch(0), fixed.batch(steps))
    ours = {tuple(training.examples(0)), tuple(training.examples(steps))}
    assert len(ours) == 2


def test_sources(make):
    assert {example.source for example in make(sources=["vqa"]).examples(0)} == {"vqa"}
    with pytest.raises(ValueError, match="no sentence has the source 'gqa'; the sources are mscoco, vqa"):
        make(sources=["gqa"])


def test_unknown_answers_are_counted_and_dropped(make):
    images = [
        PretrainingAnnotation(f"image_{n}", {"vqa": ["word1"]}, {"vqa": [{"Perhaps": 1.0, "The yes.": 0.3}]})
        for n in range(4)
    ]
    dataset = make(images, batch_size=4, mismatch_rate=0)
    assert dataset.unknown_answers == {"Perhaps": 4}
    assert dataset.batch(0)[1]["ans"].tolist() == [1] * 4
