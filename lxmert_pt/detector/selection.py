"""Which boxes a pipeline keeps: proposals of the region proposal network, and of those what it returns."""

from typing import Any

import torch

from lxmert_pt.detector.boxes import box_dtype, clip, decode, grid_of_anchors, overlaps
from lxmert_pt.detector.nms import suppress
from lxmert_tf.detector.anchors import cell_anchors
from lxmert_tf.detector.configuration import DetectorConfig
from lxmert_tf.detector.pipelines import Pipeline
from lxmert_tf.detector.thresholds import exceeded

Tensors = dict[str, torch.Tensor]


def propose(
    logits: torch.Tensor,
    deltas: torch.Tensor,
    size: tuple[int, int],
    scales: tuple[float, float],
    config: DetectorConfig,
    pipeline: Pipeline,
) -> Tensors:
    """The proposals of a picture, best first.

    Args:
        logits, deltas: float[A, H, W] and float[4A, H, W], of `RpnHead`.
        size: height and width of the resized picture.
        scales: from the resized picture to the picture itself: down and across.
        config, pipeline: the detector's.

    Returns:
        `proposals` float[N, 4] in pixels of the resized picture, and their `proposal_logits` float[N].
    """
    is_caffe, dtype = pipeline.is_caffe, box_dtype(logits)
    cells = torch.from_numpy(cell_anchors(config, is_caffe)).to(logits.device, dtype)
    height, width = logits.shape[1:]
    anchors = grid_of_anchors(cells, height, width, config.anchor_offset)
    scores = logits.permute(1, 2, 0).reshape(-1).to(dtype)
    deltas = deltas.permute(1, 2, 0).reshape(-1, 4).to(dtype)
    boxes = clip(decode(anchors, deltas, config.rpn_box_weights, is_caffe), size, is_caffe)
    if is_caffe:
        scores = scores.where(_are_large(boxes, pipeline, scales), -torch.inf)
    order = scores.argsort(descending=True, stable=True)[: pipeline.pre_nms]
    boxes, scores = boxes[order], scores[order]
    if not is_caffe:
        scores = scores.where(_are_large(boxes, pipeline, scales), -torch.inf)
    bound = _exceeded(pipeline.rpn_nms, dtype, is_caffe)
    kept = suppress(scores, lambda place: overlaps(boxes[place][None], boxes, is_caffe)[0] > bound, pipeline.post_nms)
    return {"proposals": boxes[kept], "proposal_logits": scores[kept]}


def _are_large(boxes: torch.Tensor, pipeline: Pipeline, scales: tuple[float, float]) -> torch.Tensor:
    sides = boxes[:, 2:] - boxes[:, :2]
    if pipeline.is_caffe:
        return (sides + 1 >= pipeline.rpn_min_size / sides.new_tensor(scales[0])).all(dim=1)
    return (sides > pipeline.rpn_min_size).all(dim=1)


def select(
    regions: Tensors,
    size: tuple[int, int],
    picture_size: tuple[int, int],
    scales: tuple[float, float],
    config: DetectorConfig,
    pipeline: Pipeline,
) -> dict[str, Any]:
    """What a pipeline returns of the proposals of a picture.

    Args:
        regions: `proposals` float[N, 4] and, of `RoiHeads`, `features`, `class_logits` and the others.
        size, picture_size: height and width of the resized picture and of the picture itself.
        scales: from the resized picture to the picture itself: down and across.
        config, pipeline: the detector's.

    Returns:
        `keep`, which proposals; `boxes` float[n, 4] in pixels of the picture; `nms_threshold`; and of each box what
        `describe` gives.
    """
    if pipeline.is_caffe:
        output = _select_proposals(regions, scales, pipeline)
    else:
        output = _select_regressed(regions, size, picture_size, scales, config, pipeline)
    classes = output.pop("classes", None)
    return {**output, **describe({name: each[output["keep"]] for name, each in regions.items()}, pipeline, classes)}


def describe(regions: Tensors, pipeline: Pipeline, classes: torch.Tensor | None = None) -> Tensors:
    """Features, objects and attributes of regions.

    Args:
        regions: `features`, `class_logits` and perhaps `attribute_logits`, of `RoiHeads`.
        pipeline: the detector's.
        classes: int[n], the objects where they are chosen already. Default: the likeliest ones.

    Returns:
        `features` float[n, F]; `object_ids` and `attribute_ids` int32[n], `object_scores` and `attribute_scores`
        float[n], the ids without background.
    """
    scores = class_scores(regions["class_logits"])
    classes = scores.argmax(dim=1) if classes is None else classes
    chosen = scores.gather(1, classes[:, None])[:, 0]
    output = {"features": regions["features"], "object_ids": classes.int(), "object_scores": chosen}
    if "attribute_logits" in regions:
        logits = regions["attribute_logits"].to(box_dtype(scores))
        best = (class_scores(logits) if pipeline.is_caffe else logits[:, :-1].softmax(dim=-1)).max(dim=1)
        output |= {"attribute_ids": best.indices.int(), "attribute_scores": best.values}
    return output


def _select_proposals(regions: Tensors, scales: tuple[float, float], pipeline: Pipeline) -> dict[str, Any]:
    """Proposals that are likely of any class for which they are not suppressed, in their own order.

    Where they are too few or too many, the best ones in falling order; of equal ones the later first.
    """
    proposals = regions["proposals"]
    boxes = proposals * to_corners(scales, proposals)
    suppressing = overlaps(boxes, boxes, True) > _exceeded(pipeline.nms[0], boxes.dtype, True)
    scores = class_scores(regions["class_logits"])
    best = torch.zeros_like(scores[:, 0])
    for each in scores.T:
        kept = suppress(each, suppressing.__getitem__)
        best[kept] = torch.maximum(best[kept], each[kept])
    likely = best > _exceeded(pipeline.conf, best.dtype, True)
    number = int(likely.sum())
    if pipeline.min_boxes <= number <= pipeline.max_boxes:
        keep = likely.nonzero()[:, 0]
    else:
        falling = len(best) - 1 - best.flip(0).argsort(descending=True, stable=True)
        keep = falling[: pipeline.min_boxes if number < pipeline.min_boxes else pipeline.max_boxes]
    return {"keep": keep, "boxes": boxes[keep], "nms_threshold": torch.tensor(pipeline.nms[0])}


def _select_regressed(
    regions: Tensors,
    size: tuple[int, int],
    picture_size: tuple[int, int],
    scales: tuple[float, float],
    config: DetectorConfig,
    pipeline: Pipeline,
) -> dict[str, Any]:
    """Regressed boxes by falling class score, after a suppression with the first threshold that leaves enough.

    Each proposal has one box, of its likeliest class; in the demo one for every class that is likely enough, and only
    boxes of a class suppress each other.
    """
    scores, dtype = class_scores(regions["class_logits"]), box_dtype(regions["proposals"])
    if by_class := pipeline.name == "detectron2-demo":
        owners, classes = (scores > _exceeded(pipeline.conf, scores.dtype, False)).nonzero(as_tuple=True)
    else:
        owners, classes = torch.arange(len(scores), device=scores.device), scores.argmax(dim=1)
    scores = scores[owners, classes]
    deltas = regions["box_deltas"].to(dtype).reshape(-1, config.num_box_classes, 4)
    deltas = deltas[owners, torch.zeros_like(classes) if config.class_agnostic_boxes else classes]
    boxes = clip(decode(regions["proposals"][owners], deltas, config.box_weights, False), size, False)
    shared = overlaps(boxes, boxes, False)
    if by_class:
        shared = shared.where(classes[:, None] == classes, 0.0)
    kept: list[int] = []
    for threshold in pipeline.nms:
        kept = suppress(scores, (shared > _exceeded(threshold, dtype, False)).__getitem__)
        if len(kept) >= pipeline.min_boxes:
            break
    order = torch.tensor(kept[: pipeline.max_boxes], dtype=torch.long, device=scores.device)
    boxes = boxes[order] * to_corners(scales, boxes)
    if pipeline.name != "huggingface":
        boxes = clip(boxes, picture_size, False)
        solid = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        boxes, order = boxes[solid], order[solid]
    found = {"keep": owners[order], "boxes": boxes, "classes": classes[order]}
    return {**found, "nms_threshold": torch.tensor(threshold, dtype=dtype)}


# Steps


def class_scores(logits: torch.Tensor) -> torch.Tensor:
    """float[N, C], the probabilities of classes without the background, the last one of logits float[N, C + 1]."""
    return logits.to(box_dtype(logits)).softmax(dim=-1)[:, :-1]


def to_corners(scales: tuple[float, float], like: torch.Tensor) -> torch.Tensor:
    """float[4], scales down and across as factors of x1, y1, x2, y2."""
    return torch.tensor([scales[1], scales[0]] * 2, dtype=torch.float32, device=like.device).to(like.dtype)


def normalized(boxes: torch.Tensor, picture_size: tuple[int, int]) -> torch.Tensor:
    """float[N, 4], boxes in pixels in 0..1 of the picture's width and height."""
    return boxes / boxes.new_tensor([picture_size[1], picture_size[0]] * 2)


def _exceeded(threshold: float, dtype: torch.dtype, inclusive: bool) -> float:
    return exceeded(threshold, str(dtype).removeprefix("torch."), inclusive)
