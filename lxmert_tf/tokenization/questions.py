"""Questions as a model reads them: whole, or not at all."""

import reprlib
from collections.abc import Sequence
from typing import Any

import numpy as np


def encode_questions(tokenizer: Any, questions: Sequence[str], longest: int) -> dict[str, np.ndarray]:
    """A model's inputs of B questions, padded to T tokens.

    Args:
        tokenizer: an `LxmertTokenizer`.
        questions: texts.
        longest: the most tokens that the model reads, its config's `max_position_embeddings`.

    Returns:
        What the tokenizer gives, int[B, T].

    Raises:
        ValueError: a question is empty, or has more tokens than the model reads.
    """
    if not all(question.strip() for question in questions):
        raise ValueError("The question is empty.")
    text = dict(tokenizer(list(questions), padding=True, return_tensors="np", verbose=False))
    lengths = text["attention_mask"].sum(axis=1)
    if (most := int(lengths.max())) > longest:
        question = reprlib.repr(questions[int(lengths.argmax())])
        raise ValueError(f"The question {question} has {most} tokens, the model reads {longest}: ask a shorter one.")
    return text
