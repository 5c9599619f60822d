"""The relevance of each token and each box for an answer, by any of several methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import keras
import numpy as np
from keras import ops

from lxmert_tf.answers import TRUTHS, answer_row, config_answers
from lxmert_tf.explain import attributions, rules
from lxmert_tf.explain.maps import as_array, attention_gradients, named_inputs, observed
from lxmert_tf.explain.names import METHODS, spelled
from lxmert_tf.outputs import ModelOutput


@dataclass(frozen=True, eq=False)
class Relevance:
    """How much each token and each box counts for an answer. B examples, T tokens, N boxes, A answers.

    All floats are float32, or float64 of a float64 model.

    Args:
        tokens: float[B, T], 0 for padding; from 0 up, or of either sign by the two methods of inputs.
        boxes: float[B, N], likewise; [B, 2, N] for pairs of images.
        answers: int[B], the answers explained.
        scores: float[B, A], the logits of all answers.
        method: one of `METHODS`.
        convergence_delta: float[B], of "integrated_gradients" only: by how much tokens and boxes sum up to more than
            what the score gains over that of zeros, the error of the quadrature.
    """

    tokens: np.ndarray
    boxes: np.ndarray
    answers: np.ndarray
    scores: np.ndarray
    method: str
    convergence_delta: np.ndarray | None = None


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
        answer: an answer's name, where the config has `id2label`, or else its id, also in digits; or one for each
            example. Those of visual reasoning are "True" and "False", or True and False. Default: the answer that the
            model gives.
        method: one of `METHODS`; "raw_attention" and "rollout" do not depend on the answer.
        steps: of "integrated_gradients" only: points of its quadrature, from 1 up.

    Returns:
        `Relevance`, as arrays. Examples of a batch get what they get alone.

    Raises:
        TypeError: inputs are not by name, or the answer is True or False, which only visual reasoning has.
        ValueError: an unknown method, answer or input, a model without answers, or an error of the model's call.
        NotImplementedError: the method needs gradients, and Keras' backend has none.

    Source: see the functions in `lxmert_tf.explain.rules` and `lxmert_tf.explain.attributions`.
    """
    method = spelled(method)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    if isinstance(steps, bool) or not isinstance(steps, Integral) or steps < 1:
        raise ValueError(f"steps must be a whole number from 1 up, got {steps!r}.")
    name, inputs = answers_of(model), named_inputs(model, inputs)
    output, maps = observed(model, inputs)
    scores = as_array(output[name])
    ids = scores.argmax(axis=-1) if answer is None else answer_ids(model, answer, *scores.shape)
    chosen = np.eye(scores.shape[-1])[ids]

    def objective(output: ModelOutput) -> Any:
        scores = ops.reshape(output[name], (-1, *chosen.shape))  # of all examples, or several times all of them
        return ops.sum(scores * ops.cast(chosen, scores.dtype), axis=-1)

    tokens, boxes = _real(model, inputs)
    delta = None
    if method == "integrated_gradients":
        of_tokens, of_boxes, delta = attributions.integrated_gradients(model, inputs, objective, int(steps))
        delta = delta.astype(scores.dtype)
    elif method == "gradient_times_input":
        of_tokens, of_boxes = attributions.gradient_times_input(model, inputs, objective)
    else:
        gradients = attention_gradients(model, inputs, objective) if method in ("chefer", "gradcam") else None
        matrices = rules.relevance_matrices(method, maps, gradients, tokens, boxes)
        of_tokens, of_boxes = matrices.tt[:, 0], matrices.ti[:, 0]  # the answer is read off the first token
    shape = np.shape(inputs["visual_feats"])[:-1]
    # A sentence is encoded with each of several images: it counts in all of them.
    of_tokens = of_tokens.reshape(len(scores), -1, tokens.shape[1]).sum(axis=1)
    real = tokens.reshape(len(scores), -1, tokens.shape[1])[:, 0]
    of_tokens, of_boxes = np.where(real, of_tokens, 0), np.where(boxes.reshape(shape), of_boxes.reshape(shape), 0)
    return Relevance(of_tokens.astype(scores.dtype), of_boxes.astype(scores.dtype), ids, scores, method, delta)


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
        answer: as of `answer_row`, or one for each example.
        examples: B.
        number: of answers.

    Raises:
        TypeError: as `answer_row`.
        ValueError: there is no such answer, or not one for each example.
    """
    single = isinstance(answer, str) or np.ndim(answer) == 0
    given = [answer] * examples if single else list(np.asarray(answer, object))
    if len(given) != examples:
        raise ValueError(f"answer must be one for all or one for each of {examples} examples, got {len(given)}.")
    names: Any = None
    if model.num_images > 1:
        names = TRUTHS
    elif any(isinstance(each, str) for each in given):
        names = config_answers(model.config, number)
    return np.array([answer_row(each, names, number) for each in given], np.int64)


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
