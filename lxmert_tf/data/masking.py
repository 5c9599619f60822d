"""Masking in pretraining: words, boxes, and exchanged sentences. Paper, section 3.1.

Random numbers are drawn for a whole batch of fixed shape at once, so that they depend neither on how long its texts are
nor on which workers share it.

Shapes: B examples, T tokens, N boxes, D feature dimension.
"""

from dataclasses import dataclass

import numpy as np

from lxmert_tf.losses import IGNORE_INDEX

RATE = 0.15
MASKED, RANDOM = 0.8, 0.9  # of what is chosen: below the first hidden, below the second replaced, else kept


@dataclass
class Draws:
    """The random numbers of a batch, all uniform in 0..1 unless said otherwise.

    Attributes:
        words: `float[B, T]`; below the rate the word is chosen, and the value decides what is done with it.
        word_ids: `int[B, T]`, random ids of the vocabulary.
        boxes: `float[B, N]`, as `words`.
        box_examples: `int[B, N]`, random examples of the set, of whose images a random box is taken.
        box_places: `float[B, N]`, which of that image's boxes.
        answers: `float[B]`.
    """

    words: np.ndarray
    word_ids: np.ndarray
    boxes: np.ndarray
    box_examples: np.ndarray
    box_places: np.ndarray
    answers: np.ndarray

    def select(self, rows: slice) -> "Draws":
        """The draws of some examples."""
        return Draws(*(value[rows] for value in vars(self).values()))


def draw(rng: np.random.Generator, batch: int, tokens: int, boxes: int, vocab_size: int, examples: int) -> Draws:
    """Draws for a batch of at most so many tokens and boxes."""
    return Draws(
        words=rng.random((batch, tokens)),
        word_ids=rng.integers(0, vocab_size, (batch, tokens), np.int32),
        boxes=rng.random((batch, boxes)),
        box_examples=rng.integers(0, examples, (batch, boxes)),
        box_places=rng.random((batch, boxes)),
        answers=rng.random(batch),
    )


def mask_words(
    input_ids: np.ndarray, maskable: np.ndarray, draws: Draws, mask_id: int, rate: float = RATE
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses word pieces, each by itself; 80% become [MASK], 10% a random one, 10% stay.

    Args:
        input_ids: `int32[B, T]`.
        maskable: `bool[B, T]`, neither special tokens nor padding.
        draws: for at least B and T.
        mask_id: of [MASK].
        rate: share of the pieces that are chosen.

    Returns:
        input_ids `int32[B, T]`; labels `int32[B, T]`, the true id where a piece was chosen, else -100.
    """
    tokens = input_ids.shape[1]
    share, chosen = _choose(draws.words[:, :tokens], maskable, rate)
    labels = np.where(chosen, input_ids, IGNORE_INDEX).astype(np.int32)
    hidden = np.where(chosen & (share < MASKED), mask_id, input_ids)
    replaced = chosen & (share >= MASKED) & (share < RANDOM)
    return np.where(replaced, draws.word_ids[:, :tokens], hidden).astype(np.int32), labels


def choose_boxes(present: np.ndarray, draws: Draws, rate: float = RATE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chooses boxes; the features of 80% become 0, of 10% those of a random box, 10% stay.

    Args:
        present: `bool[B, N]`, not padding.
        draws: for at least B and N.
        rate: share of the boxes that are chosen.

    Returns:
        chosen, zeroed, replaced: `bool[B, N]` each.
    """
    share, chosen = _choose(draws.boxes[:, : present.shape[1]], present, rate)
    return chosen, chosen & (share < MASKED), chosen & (share >= MASKED) & (share < RANDOM)


def mismatch(rng: np.random.Generator, images: np.ndarray, rate: float = 0.5) -> np.ndarray:
    """The example whose sentence each gets: itself, or a random example with another image.

    Args:
        rng: draws for all examples.
        images: `int[M]`, the image of each example; at least two kinds.
        rate: share of the examples that get another's.

    Returns:
        `int64[M]`, an example's own index where the sentence stays.

    Raises:
        ValueError: all examples are of one image.
    """
    if rate > 0 and (images == images[0]).all():
        raise ValueError("pretraining needs sentences of at least two images, because half of them are exchanged")
    size = len(images)
    whose = np.arange(size)
    wrong = np.flatnonzero(rng.random(size) < rate)
    while len(wrong):
        whose[wrong] = rng.integers(0, size, len(wrong))
        wrong = wrong[images[whose[wrong]] == images[wrong]]
    return whose


def draw_answer(rows: np.ndarray, scores: np.ndarray, share: float) -> int:
    """One of the answers, in proportion to their scores; -100 where there is none.

    Args:
        rows: `int[K]`, of the answer table.
        scores: `float[K]`, at least 0.
        share: a random number in 0..1.
    """
    total = scores.sum()
    if not total > 0:
        return IGNORE_INDEX
    return int(rows[np.searchsorted(np.cumsum(scores), share * total, side="right")])


def _choose(draws: np.ndarray, allowed: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Where among the chosen each draw lies, in 0..1, and which are chosen."""
    return draws / max(rate, np.finfo(float).tiny), (draws < rate) & allowed
