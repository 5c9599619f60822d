"""The relevance of each token and each box for an answer, by any of several methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import keras
import numpy as np
from keras import ops

from lxmert_tf.answers import config_answers
from lxmert_tf.explain import attributions, rules
from lxmert_tf.explain.maps import as_array, attention_gradients, observed
from lxmert_tf.explain.names import METHODS, SIGNED, SPELLINGS
from lxmert_tf.outputs import ModelOutput


@dataclass(frozen=True, eq=False)
class Relevance:
    """How much each token and each box counts for an answer. B examples, T tokens, N boxes, A answers.

    Args:
        tokens: float[B, T], 0 for padding; of either sign with the methods in `SIGNED`, else from 0 up.
        boxes: float[B, N], likewise; [B, 2, N] for pairs of images.
        answers: int[B], the answers explained.
        scores: float[B, A], the logits of all answers.
        method: one of `METHODS`.
    """

    tokens: np.ndarray
    boxes: np.ndarray
    answers: np.ndarray
    scores: np.ndarray
    method: str


def relevance(
    model: keras.Model,
    inputs: Mapping[str, Any],
    answer: int | str | Sequence[int | str] | None = None,
    method: str = "chefer",
    steps: int = 50,
) -> Relevance:
    """How relevant each token and each box is for an answer.

    Args:
        model: a model that answers: for question answering, for visual reasoning, or of pretraining with `task_qa`.
        inputs: of its call, by name, with padding and masks as they come.
        answer: an answer's id or, where the config has `id2label`, its name; or one for each example. Default: the
            answer that the model gives.
        method: one of `METHODS`; "raw_attention" and "rollout" do not depend on the answer.
        steps: of "integrated_gradients" only, see there.

    Returns:
        `Relevance`, as arrays. Examples of a batch get what they get alone.

    Raises:
        ValueError: an unknown method or answer, a model without answers, or an error of the model's call.
        NotImplementedError: the method needs gradients, and Keras' backend has none.

    Source: see the functions in `lxmert_tf.explain.rules` and `lxmert_tf.explain.attributions`.
    """
    method = SPELLINGS.get(method, method)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    name = answers_of(model)
    output, maps = observed(model, inputs)
    scores = as_array(output[name])
    ids = scores.argmax(axis=-1) if answer is None else answer_ids(model, answer, *scores.shape)
    chosen = np.eye(scores.shape[-1])[ids]

    def objective(output: ModelOutput) -> Any:
        return ops.sum(output[name] * ops.cast(chosen, output[name].dtype))

    tokens, boxes = _real(model, inputs)
    if method in SIGNED:
        more = {"steps": steps} if method == "integrated_gradients" else {}
        of_tokens, of_boxes = getattr(attributions, method)(model, inputs, objective, **more)
    else:
        gradients = attention_gradients(model, inputs, objective) if method in ("chefer", "gradcam") else None
        matrices = rules.relevance_matrices(method, maps, gradients, tokens, boxes)
        of_tokens, of_boxes = matrices.tt[:, 0], matrices.ti[:, 0]  # the answer is read off the first token
    shape = np.shape(inputs["visual_feats"])[:-1]
    # A sentence is encoded with each of several images: it counts in all of them.
    of_tokens = of_tokens.reshape(len(scores), -1, tokens.shape[1]).sum(axis=1)
    real = tokens.reshape(len(scores), -1, tokens.shape[1])[:, 0]
    of_tokens, of_boxes = np.where(real, of_tokens, 0), np.where(boxes.reshape(shape), of_boxes.reshape(shape), 0)
    return Relevance(of_tokens, of_boxes, ids, scores, method)


def answers_of(model: keras.Model) -> str:
    """The output of a model that holds the scores of its answers.

    Raises:
        ValueError: it has none.
    """
    if name := model.answers:
        return name
    if hasattr(model, "answer_head"):
        return "question_answering_score"
    raise ValueError(f"{type(model).__name__} has no answers to explain; give a model that answers questions.")


def answer_ids(model: keras.Model, answer: Any, examples: int, number: int) -> np.ndarray:
    """int64[B], the id of each example's answer.

    Args:
        model: whose config may name its answers.
        answer: an id or a name, or one for each example.
        examples: B.
        number: of answers.

    Raises:
        ValueError: there is no such answer, or not one for each example.
    """
    single = isinstance(answer, str) or np.ndim(answer) == 0
    given = [answer] * examples if single else list(np.asarray(answer, object))
    if len(given) != examples:
        raise ValueError(f"answer must be one for all or one for each of {examples} examples, got {len(given)}.")
    table = config_answers(model.config, number) if any(isinstance(each, str) for each in given) else None
    ids = []
    for each in given:
        if isinstance(each, str):
            if table is None or each not in table:
                known = "the config names no answers (id2label)" if table is None else "the config's id2label lacks it"
                raise ValueError(f"answer {each!r} is unknown: {known}; give an id in 0..{number - 1}.")
            each = table.row(each)
        if not isinstance(each, Integral) or not 0 <= int(each) < number:
            raise ValueError(f"answer must be an id in 0..{number - 1} or a name, got {each!r}.")
        ids.append(int(each))
    return np.array(ids, np.int64)


def _real(model: keras.Model, inputs: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """bool[R, T] and bool[R, N], which tokens and boxes of each row of the maps are no padding."""
    *rows, boxes, _ = np.shape(inputs["visual_feats"])
    text = inputs.get("input_ids")
    tokens = np.shape(inputs["inputs_embeds"] if text is None else text)[1]
    masks = [inputs.get("attention_mask"), inputs.get("visual_attention_mask")]
    shapes = (rows[0], tokens), (*rows, boxes)
    words, regions = (
        np.ones(shape, bool) if mask is None else as_array(ops.convert_to_tensor(mask)) > 0
        for mask, shape in zip(masks, shapes, strict=True)
    )
    return words.repeat(model.num_images, axis=0), regions.reshape(-1, boxes)
