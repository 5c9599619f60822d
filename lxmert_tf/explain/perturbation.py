"""The perturbation test: how fast a model fails when what is relevant is taken away, first or last.

Boxes or words are removed in the order of their relevance, and what is left is answered anew. In the negative test the
least relevant go first, and a good explanation keeps the accuracy up; in the positive test the most relevant go first,
and it falls at once.

Source: Chefer, Gur, Wolf 2021, https://arxiv.org/abs/2103.15679, section 4; steps and rules are those of their code.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from lxmert_tf.backend import compiled
from lxmert_tf.explain.maps import as_array
from lxmert_tf.explain.methods import answers_of, relevance
from lxmert_tf.explain.names import METHODS, spelled
from lxmert_tf.input_table import IMAGE_INPUTS, TABLE, TEXT_INPUTS

STEPS = (0.0, 0.25, 0.5, 0.75, 0.8, 0.85, 0.9, 0.95, 1.0)  # the share that is removed
PARTS = ("image", "text")
DIRECTIONS = ("negative", "positive")
RANDOM = "random"
READ = ("input_ids", "visual_feats", "visual_pos", "attention_mask", "visual_attention_mask", "token_type_ids")

Curves = dict[str, dict[str, dict[str, list[float]]]]  # method -> part -> direction -> accuracy at each step


def perturbation_test(
    model: keras.Model,
    batches: Iterable[tuple[Mapping[str, np.ndarray], np.ndarray]],
    methods: Sequence[str] = ("chefer", "raw_attention", "rollout", RANDOM),
    seed: int = 1234,
) -> Curves:
    """The accuracy at each of `STEPS` of what is removed, by method, part and direction.

    Relevance is that for the answer which the model gives to the whole input, and is computed once.

    Args:
        model: a model that answers questions.
        batches: inputs by name, and soft scores float[B, A] in 0..1.
        methods: of `METHODS`, and "random", each once.
        seed: of the random order.

    Raises:
        ValueError: an unknown method, one given twice, none, or no examples.
    """
    methods = [spelled(method) for method in methods]
    unknown = [repr(method) for method in methods if method not in (*METHODS, RANDOM)]
    if unknown or not methods:
        raise ValueError(
            f"methods must be of {', '.join((*METHODS, RANDOM))}, got {unknown[0] if unknown else 'none'}."
        )
    if twice := [method for number, method in enumerate(methods) if method in methods[:number]]:
        raise ValueError(f"methods has {twice[0]!r} twice.")
    answer, rng = make_answer_function(model), np.random.default_rng(seed)
    sums = {
        method: {part: {direction: np.zeros(len(STEPS)) for direction in DIRECTIONS} for part in PARTS}
        for method in methods
    }
    examples = 0
    for x, labels in batches:
        inputs = completed(x)
        known: dict[tuple, float] = {}
        examples += len(labels)
        for method, curves in sums.items():
            if method == RANDOM:
                scores = {part: rng.random(inputs[_mask(part)].shape) for part in PARTS}
            else:
                why = relevance(model, inputs, method=method)
                scores = {"image": why.boxes, "text": why.tokens}
            for part in PARTS:
                for direction, curve in curves[part].items():
                    for number, step in enumerate(STEPS):
                        kept = kept_positions(scores[part], inputs[_mask(part)], part, direction, step)
                        key = part, tuple(tuple(sorted(positions)) for positions in kept)
                        if key not in known:  # all and nothing are left several times
                            best = answer(select(inputs, part, kept)).argmax(axis=-1)
                            known[key] = float(np.take_along_axis(np.asarray(labels), best[:, None], axis=1).sum())
                        curve[number] += known[key]
    if not examples:
        raise ValueError("There are no examples to test on.")
    return {
        method: {
            part: {name: (sum_ / examples).tolist() for name, sum_ in sums_.items()} for part, sums_ in parts.items()
        }
        for method, parts in sums.items()
    }


def area(curve: Sequence[float]) -> float:
    """The area under a curve of accuracies at `STEPS`, by trapezoids, in 0..1."""
    heights, widths = np.asarray(curve), np.diff(STEPS)
    return float(((heights[1:] + heights[:-1]) / 2 * widths).sum())


def kept_positions(scores: np.ndarray, mask: np.ndarray, part: str, direction: str, step: float) -> list[np.ndarray]:
    """What is left of each example: boxes, the most relevant first, or tokens in their order.

    The first and the last token, [CLS] and [SEP], always stay.

    Args:
        scores: float[B, L], relevance.
        mask: int[B, L], 0 for padding.
        part: "image" or "text".
        direction: "negative" keeps the most relevant, "positive" the least relevant.
        step: the share that is removed.
    """
    kept = []
    for row, real in zip(scores if direction == "negative" else -scores, mask > 0, strict=True):
        positions = np.flatnonzero(real)
        candidates = positions if part == "image" else positions[1:-1]
        number = int((1 - step) * len(candidates))
        best = candidates[np.argsort(-row[candidates], kind="stable")[:number]]
        kept.append(best if part == "image" else np.unique([positions[0], *best, positions[-1]]))
    return kept


def select(inputs: Mapping[str, np.ndarray], part: str, kept: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs with these positions only, taken out and not masked: later words move up.

    Args:
        inputs: as of `completed`.
        part: "image" or "text".
        kept: int[k] for each example.
    """
    length = max(map(len, kept))
    index = np.zeros((len(kept), length), int)
    for row, positions in zip(index, kept, strict=True):
        row[: len(positions)] = positions
    names = [name for name in READ if name in (IMAGE_INPUTS if part == "image" else TEXT_INPUTS)]
    selected = {
        name: np.take_along_axis(inputs[name], index[..., None] if inputs[name].ndim == 3 else index, axis=1)
        for name in names
    }
    mask = np.arange(length) < np.array([len(positions) for positions in kept])[:, None]
    return {**inputs, **selected, _mask(part): mask.astype("int32")}


def completed(inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """All of `READ` in their dtypes, the optional ones by their defaults."""
    found = {name: np.asarray(inputs[name], TABLE[name].dtype) for name in READ if inputs.get(name) is not None}
    for name in READ:
        if name not in found:
            like = found["input_ids" if name in TEXT_INPUTS else "visual_feats"].shape[:2]
            found[name] = np.full(like, TABLE[name].default, TABLE[name].dtype)
    return found


def make_answer_function(model: keras.Model) -> Callable[[Mapping[str, np.ndarray]], np.ndarray]:
    """A function of inputs as of `completed` that gives the scores float[B, A]."""
    name = answers_of(model)

    def scores_of(*arrays: Any) -> Any:
        return model(dict(zip(READ, arrays, strict=True)), return_dict=True, training=False)[name]

    # Any number of examples, tokens and boxes, so that it is traced once
    shapes = [TABLE[name].shape(model.config) for name in READ]
    free = [tuple(size if isinstance(size, int) else None for size in shape) for shape in shapes]
    call = compiled(scores_of, tuple((shape, TABLE[name].dtype) for shape, name in zip(free, READ, strict=True)))

    def answer(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        # Images without a box are asked about apart: a mask of zeros, beside others, means attention to all alike.
        bare = np.asarray((inputs["visual_attention_mask"] <= 0).all(axis=1))
        scores = np.zeros((len(bare), 0))
        for rows, boxes in ((np.flatnonzero(~bare), slice(None)), (np.flatnonzero(bare), slice(0))):
            if len(rows):
                chosen = {key: value[rows] for key, value in inputs.items()}
                chosen |= {key: chosen[key][:, boxes] for key in READ if key in IMAGE_INPUTS}
                found = as_array(call(*(chosen[key] for key in READ)))
                if not scores.shape[1]:
                    scores = np.zeros((len(bare), found.shape[1]), found.dtype)
                scores[rows] = found
        return scores

    return answer


def _mask(part: str) -> str:
    return "visual_attention_mask" if part == "image" else "attention_mask"
