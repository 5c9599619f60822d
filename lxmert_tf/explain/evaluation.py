"""The perturbation test of a model directory on files of questions and region features."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from lxmert_tf.explain.perturbation import RANDOM, STEPS, area, perturbation_test
from lxmert_tf.training.evaluation import Evaluator


def evaluate(
    model: str,
    data: Sequence[str],
    features: str,
    methods: Sequence[str] = ("chefer", "raw_attention", "rollout", RANDOM),
    vocab: str | None = None,
    answers: str | None = None,
    batch_size: int = 256,
    limit: int | None = None,
    verbose: bool = True,
) -> dict[str, Any]:
    """The perturbation test's curves and areas.

    Args:
        model: a model directory that answers questions, checkpoint or Hub id.
        data: files of annotations with labels.
        features: the file of region features.
        methods: of `METHODS`, and "random".
        vocab, answers, batch_size: as of `Evaluator`.
        limit: only the questions about the first so many images.
        verbose: show the progress.

    Returns:
        examples, accuracy of the whole input, steps, curves and areas by method, part ("image", "text") and direction
        ("negative", "positive"); all but the first in 0..1.

    Raises:
        FileNotFoundError, ValueError: a file does not exist, does not fit, or has no labels.
    """
    evaluator = Evaluator("vqa", model, features, vocab=vocab, answers=answers, batch_size=batch_size)
    dataset = evaluator.dataset(data, limit)
    if not dataset.labelled:
        raise ValueError(f"{', '.join(data)}: there are no labels to test on.")

    def batches() -> Iterator[tuple[dict[str, np.ndarray], np.ndarray]]:
        for step in tqdm(range(len(dataset)), "batches", disable=not verbose or None):
            x, y = dataset.batch(step)
            yield x, y["labels"]

    curves = perturbation_test(evaluator.model, batches(), methods)
    areas = {
        method: {part: {name: area(curve) for name, curve in of.items()} for part, of in parts.items()}
        for method, parts in curves.items()
    }
    accuracy = next(iter(curves.values()))["image"]["negative"][0]
    return {
        "examples": dataset.num_examples,
        "accuracy": accuracy,
        "steps": list(STEPS),
        "curves": curves,
        "areas": areas,
    }
