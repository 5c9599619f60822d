"""What `lxmert_tf.explain` computes, written independently of it: example by example, without padding, on autograd.

Shapes: B examples, T tokens, N boxes, A heads, Q queries, K keys.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

from lxmert_pt.pretrained import LxmertPreTrainedModel

FIELDS = {  # of the output, by the names of the maps
    "language/{}": "language_attentions",
    "vision/{}": "vision_attentions",
    "cross/{}/language_to_vision": "cross_encoder_attentions",
    "cross/{}/vision_to_language": "cross_vision_to_language_attentions",
    "cross/{}/language_self": "cross_language_self_attentions",
    "cross/{}/vision_self": "cross_vision_self_attentions",
}
METHODS = ("chefer", "rollout", "raw_attention", "gradcam", "gradient_times_input", "integrated_gradients")
ANSWERS = "question_answering_score"
GROWTH = 1e6  # of the distance between points of the quadrature, from the first to the last
LAST = ("language_self", "language_to_vision")  # of the last cross layer, what the first token sees

Maps = dict[str, torch.Tensor]


class Relevance(NamedTuple):
    """How much each token and each box counts for an answer.

    Args:
        tokens: float[B, T], 0 for padding.
        boxes: float[B, N], 0 for padding.
    """

    tokens: torch.Tensor
    boxes: torch.Tensor


def attention_maps(model: LxmertPreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> Maps:
    """Every attention map of a call: name -> float[B, A, Q, K]. The model must be in eval mode."""
    return _maps(model(**inputs, output_attentions="all", return_dict=True))


def relevance(
    model: LxmertPreTrainedModel,
    inputs: Mapping[str, torch.Tensor],
    answer: int | torch.Tensor | None = None,
    method: str = "chefer",
    steps: int = 50,
) -> Relevance:
    """How relevant each token and each box is for an answer.

    Args:
        model: a model that answers questions, in eval mode.
        inputs: of its call, by name.
        answer: an answer's id, or int[B], one for each example. Default: the answer that the model gives.
        method: one of `METHODS`.
        steps: of "integrated_gradients".
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}.")
    rows, tokens = inputs["input_ids"].shape
    boxes = inputs["visual_feats"].shape[1]
    found = Relevance(torch.zeros(rows, tokens, dtype=model.dtype), torch.zeros(rows, boxes, dtype=model.dtype))
    for row in range(rows):
        words, regions = (
            torch.ones(length, dtype=torch.bool) if inputs.get(name) is None else inputs[name][row] > 0
            for name, length in (("attention_mask", tokens), ("visual_attention_mask", boxes))
        )
        kept = {"input_ids": words, "token_type_ids": words, "visual_feats": regions, "visual_pos": regions}
        alone = {name: inputs[name][row, keep][None] for name, keep in kept.items() if name in inputs}
        chosen = answer if answer is None or isinstance(answer, int) else int(answer[row])
        found.tokens[row, words], found.boxes[row, regions] = _explain(model, alone, chosen, method, steps)
    return found


def _explain(
    model: LxmertPreTrainedModel, inputs: dict[str, torch.Tensor], answer: int | None, method: str, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """float[T] and float[N] of one example without padding."""
    output = model(**inputs, output_attentions="all", return_dict=True)
    answer = int(output[ANSWERS].argmax()) if answer is None else answer
    if method.startswith(("gradient", "integrated")):
        return _attribute(model, inputs, answer, steps if method == "integrated_gradients" else 0)
    maps = _maps(output)
    slopes = torch.autograd.grad(output[ANSWERS][0, answer], list(maps.values()), materialize_grads=True)
    gradients = {name: slope[0] for name, slope in zip(maps, slopes, strict=True)}
    maps = {name: each[0].detach() for name, each in maps.items()}
    rule = {"chefer": _chefer, "rollout": _rollout, "raw_attention": _raw_attention, "gradcam": _gradcam}[method]
    tokens, boxes = rule(maps, gradients, model.config)
    tokens = tokens.clone()
    tokens[0, 0] = 0
    return tokens[0], boxes[0]


def _maps(output: Any) -> Maps:
    """The maps in the order of computation: the kinds of a cross layer together."""
    streams = {name: output[FIELDS[name]] for name in list(FIELDS)[:2]}
    maps = {name.format(i): each for name, layers in streams.items() for i, each in enumerate(layers)}
    crossings = zip(*(output[FIELDS[name]] for name in list(FIELDS)[2:]), strict=True)
    for i, kinds in enumerate(crossings):
        maps |= {name.format(i): each for name, each in zip(list(FIELDS)[2:], kinds, strict=True)}
    return maps


# The rules, for maps float[A, Q, K] of one example: tokens to tokens float[T, T], boxes to tokens float[T, N]


def _chefer(maps: Maps, gradients: Maps, config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Joint form of Chefer et al.'s updates: one matrix over tokens and boxes, whose blocks are theirs."""
    cams = {name: (maps[name] * gradients[name]).clamp(min=0).mean(0) for name in maps}
    tokens, boxes = _lengths(maps)
    relevance = torch.eye(tokens + boxes, dtype=next(iter(maps.values())).dtype)
    text, image = slice(0, tokens), slice(tokens, None)

    def attend(stream: slice, cam: torch.Tensor) -> None:
        relevance[stream] = relevance[stream] + cam @ relevance[stream]

    def scaled(stream: slice) -> torch.Tensor:
        block = relevance[stream, stream]
        added = block - torch.eye(len(block), dtype=block.dtype)
        return torch.nan_to_num(added / added.sum(1, keepdim=True)) + torch.eye(len(block), dtype=block.dtype)

    for i in range(config.l_layers):
        attend(text, cams[f"language/{i}"])
    for i in range(config.r_layers):
        attend(image, cams[f"vision/{i}"])
    for i in range(config.x_layers):
        to_image, to_text = cams[f"cross/{i}/language_to_vision"], cams[f"cross/{i}/vision_to_language"]
        update = torch.zeros_like(relevance)
        update[text, image] = scaled(text).T @ to_image @ scaled(image)
        update[text, text] = to_image @ relevance[image, text]
        if i + 1 < config.x_layers:
            update[image, text] = scaled(image).T @ to_text @ scaled(text)
            update[image, image] = to_text @ relevance[text, image]
        relevance += update
        attend(text, cams[f"cross/{i}/language_self"])
        if i + 1 < config.x_layers:
            attend(image, cams[f"cross/{i}/vision_self"])
    return relevance[text, text], relevance[text, image]


def _rollout(maps: Maps, gradients: Maps, config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    last = config.x_layers - 1
    streams = []
    for stack, kind, size in zip(("language", "vision"), ("language_self", "vision_self"), _lengths(maps), strict=True):
        own = [each for name, each in maps.items() if name.startswith(stack)]
        joint = torch.eye(size, dtype=next(iter(maps.values())).dtype)
        for each in own + [maps[f"cross/{i}/{kind}"] for i in range(last)]:
            joint = _with_residual(each) @ joint
        streams.append(joint)
    text, image = streams
    boxes = text.T @ maps[f"cross/{last}/language_to_vision"].mean(0) @ image
    return _with_residual(maps[f"cross/{last}/language_self"]) @ text, boxes


def _with_residual(attention: torch.Tensor) -> torch.Tensor:
    matrix = attention.mean(0) + torch.eye(attention.shape[-1], dtype=attention.dtype)
    return matrix / matrix.sum(1, keepdim=True)


def _raw_attention(maps: Maps, gradients: Maps, config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, boxes = (maps[f"cross/{config.x_layers - 1}/{kind}"].mean(0) for kind in LAST)
    return tokens, boxes


def _gradcam(maps: Maps, gradients: Maps, config: Any) -> tuple[torch.Tensor, torch.Tensor]:
    names = [f"cross/{config.x_layers - 1}/{kind}" for kind in LAST]
    tokens, boxes = (
        torch.einsum("hqk,h->qk", maps[name], gradients[name].mean((1, 2))).div(len(maps[name])).relu()
        for name in names
    )
    return tokens, boxes


def _lengths(maps: Maps) -> tuple[int, int]:
    _, tokens, boxes = maps["cross/0/language_to_vision"].shape
    return tokens, boxes


# Attribution to what is read


def _attribute(
    model: LxmertPreTrainedModel, inputs: dict[str, torch.Tensor], answer: int, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradient times input, or integrated gradients by the Gauss-Legendre rule of so many steps."""
    ends = [model.get_input_embeddings()(inputs["input_ids"]).detach(), inputs["visual_feats"].to(model.dtype)]
    rest = {name: value for name, value in inputs.items() if name not in ("input_ids", "visual_feats")}
    points, weights = _quadrature(steps) if steps else (torch.ones(1), torch.ones(1))
    found = [torch.zeros_like(end[0, :, 0]) for end in ends]
    for point, weight in zip(points.tolist(), weights.tolist(), strict=True):
        words, features = at = [(end * point).requires_grad_() for end in ends]
        output = model(**rest, inputs_embeds=words, visual_feats=features, return_dict=True)
        for total, end, slope in zip(found, ends, torch.autograd.grad(output[ANSWERS][0, answer], at), strict=True):
            total += weight * (end * slope).sum(-1)[0]
    return found[0], found[1]


def _quadrature(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points and weights on 0..1, by the eigenvalues of the Legendre polynomials' recurrence (Golub & Welsch 1969).

    A point t of theirs becomes (G**t - 1) / (G - 1): what is read is normalised, so that most happens near 0.
    """
    k = torch.arange(1, steps, dtype=torch.float64)
    off_diagonal = k / (4 * k**2 - 1).sqrt()
    points, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    grown = GROWTH ** ((points + 1) / 2)
    return (grown - 1) / (GROWTH - 1), vectors[0] ** 2 * math.log(GROWTH) * grown / (GROWTH - 1)
