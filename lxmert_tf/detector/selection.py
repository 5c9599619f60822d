"""Which boxes a pipeline keeps: proposals of the region proposal network, and of those what it returns."""

import math

import keras
import numpy as np
from keras import ops

from lxmert_tf.detector.anchors import cell_anchors
from lxmert_tf.detector.boxes import box_dtype, clip, decode, grid_of_anchors, overlaps
from lxmert_tf.detector.configuration import DetectorConfig
from lxmert_tf.detector.nms import suppress
from lxmert_tf.detector.pipelines import Pipeline
from lxmert_tf.detector.thresholds import exceeded


def propose(logits, deltas, size, scales, config: DetectorConfig, pipeline: Pipeline) -> dict:
    """The proposals of a picture, best first.

    Args:
        logits, deltas: float[H, W, A] and float[H, W, 4A], of `RpnHead`.
        size: int32[2], height and width of the resized picture.
        scales: float[2], from the resized picture to the picture itself: down and across.
        config, pipeline: the detector's.

    Returns:
        `proposals` float[N, 4] in pixels of the resized picture, and their `proposal_logits` float[N].
    """
    dtype, is_caffe = box_dtype(logits), pipeline.is_caffe
    height, width = ops.shape(logits)[:2]
    anchors = grid_of_anchors(cell_anchors(config, is_caffe), height, width, config.anchor_offset, dtype)
    scores = ops.cast(ops.reshape(logits, (-1,)), dtype)
    deltas = ops.cast(ops.reshape(deltas, (-1, 4)), dtype)
    boxes = clip(decode(anchors, deltas, config.rpn_box_weights, is_caffe), size, is_caffe)
    sides = boxes[:, 2:] - boxes[:, :2]
    if is_caffe:
        smallest = pipeline.rpn_min_size / ops.cast(scales[0], dtype)
        large = ops.all(sides + 1.0 >= smallest, axis=1)
        scores = ops.where(large, scores, ops.full_like(scores, -np.inf))
    else:
        large = ops.all(sides > pipeline.rpn_min_size, axis=1)
    order = ops.argsort(-scores)[: pipeline.pre_nms]
    boxes, scores, large = (ops.take(each, order, axis=0) for each in (boxes, scores, large))
    bound = exceeded(pipeline.rpn_nms, dtype, inclusive=is_caffe)
    kept = suppress(
        ops.expand_dims(scores, 0),
        ops.expand_dims(large, 0),
        lambda best: overlaps(ops.take(boxes, best, axis=0), boxes, is_caffe) > bound,
        pipeline.post_nms,
    )[0]
    order = first_of(kept, count(kept))
    return {"proposals": ops.take(boxes, order, axis=0), "proposal_logits": ops.take(scores, order, axis=0)}


def select(regions: dict, size, picture_size, scales, config: DetectorConfig, pipeline: Pipeline) -> dict:
    """What a pipeline returns of the proposals of a picture.

    Args:
        regions: `proposals` float[N, 4] and, of `RoiHeads`, `features`, `class_logits` and the others.
        size, picture_size: int32[2], height and width of the resized picture and of the picture itself.
        scales: float[2], from the resized picture to the picture itself: down and across.
        config, pipeline: the detector's.

    Returns:
        `keep` int32[n], which proposals; `boxes` float[n, 4] in pixels of the picture; `nms_threshold` float[]; and of
        each box what `describe` gives.
    """
    chosen = _select_proposals if pipeline.is_caffe else _select_regressed
    output = chosen(regions, size, picture_size, scales, config, pipeline)
    keep, classes = output["keep"], output.pop("classes", None)
    described = describe({name: ops.take(each, keep, axis=0) for name, each in regions.items()}, pipeline, classes)
    return {**output, **described}


def describe(regions: dict, pipeline: Pipeline, classes=None) -> dict:
    """Features, objects and attributes of regions.

    Args:
        regions: `features`, `class_logits` and perhaps `attribute_logits`, of `RoiHeads`.
        pipeline: the detector's.
        classes: int32[n], the objects where they are chosen already. Default: the likeliest ones.

    Returns:
        `features` float[n, F]; `object_ids` and `attribute_ids` int32[n], `object_scores` and `attribute_scores`
        float[n], the ids without background.
    """
    scores = class_scores(regions["class_logits"])
    if classes is None:
        classes = ops.cast(ops.argmax(scores, axis=1), "int32")
    output = {"features": regions["features"], "object_ids": classes, "object_scores": entries(scores, classes)}
    if "attribute_logits" in regions:
        logits = regions["attribute_logits"]
        logits = ops.cast(logits, box_dtype(logits))
        scores = class_scores(logits) if pipeline.is_caffe else ops.softmax(logits[:, :-1], axis=-1)
        ids = ops.cast(ops.argmax(scores, axis=1), "int32")
        output |= {"attribute_ids": ids, "attribute_scores": entries(scores, ids)}
    return output


def _select_proposals(regions: dict, size, picture_size, scales, config: DetectorConfig, pipeline: Pipeline) -> dict:
    """Proposals that are likely of any class for which they are not suppressed, in their own order.

    Where they are too few or too many, the best ones in falling order; of equal ones the later first.
    """
    proposals = regions["proposals"]
    dtype = box_dtype(proposals)
    boxes = proposals * to_corners(scales, dtype)
    scores = ops.transpose(class_scores(regions["class_logits"]))  # [classes, N]
    suppressing = overlaps(boxes, boxes, True) > exceeded(pipeline.nms[0], dtype, inclusive=True)
    kept = suppress(scores, ops.ones_like(scores, "bool"), lambda best: ops.take(suppressing, best, axis=0))
    best = ops.max(ops.where(kept, scores, ops.zeros_like(scores)), axis=0)
    likely = best > exceeded(pipeline.conf, keras.backend.standardize_dtype(best.dtype), inclusive=True)
    number = count(likely)
    wanted = ops.clip(number, pipeline.min_boxes, pipeline.max_boxes)
    falling = ops.shape(best)[0] - 1 - ops.cast(ops.argsort(-ops.flip(best, axis=0)), "int32")
    order = ops.where(number == wanted, ops.cast(ops.argsort(ops.cast(~likely, "int32")), "int32"), falling)
    keep = order[:wanted]
    return {"keep": keep, "boxes": ops.take(boxes, keep, axis=0), "nms_threshold": pipeline.nms[0]}


def _select_regressed(regions: dict, size, picture_size, scales, config: DetectorConfig, pipeline: Pipeline) -> dict:
    """Regressed boxes by falling class score, after a suppression with the first threshold that leaves enough.

    Each proposal has one box, of its likeliest class; in the demo one for every class that is likely enough, and only
    boxes of a class suppress each other.
    """
    proposals = regions["proposals"]
    dtype, by_class = box_dtype(proposals), pipeline.name == "detectron2-demo"
    candidates = max(1, math.ceil(1 / pipeline.conf) - 1) if by_class else 1  # scores add up to at most 1
    scores, classes = ops.top_k(class_scores(regions["class_logits"]), min(candidates, config.num_classes))
    candidates = ops.shape(scores)[1]
    classes = ops.cast(ops.reshape(classes, (-1,)), "int32")
    scores = ops.reshape(scores, (-1,))
    owners = ops.repeat(ops.arange(ops.shape(proposals)[0], dtype="int32"), candidates)
    places = owners * config.num_box_classes + (0 if config.class_agnostic_boxes else classes)
    deltas = ops.cast(ops.take(ops.reshape(regions["box_deltas"], (-1, 4)), places, axis=0), dtype)
    boxes = decode(ops.take(proposals, owners, axis=0), deltas, config.box_weights, False)
    boxes = clip(boxes, size, False)
    shared = overlaps(boxes, boxes, False)
    likely = scores > (exceeded(pipeline.conf, dtype, inclusive=False) if by_class else -1.0)
    if by_class:
        alike = ops.expand_dims(classes, 0) == ops.expand_dims(classes, 1)
        shared = ops.where(alike, shared, ops.zeros_like(shared))
    bounds = ops.convert_to_tensor([[exceeded(each, dtype, inclusive=False)] for each in pipeline.nms], dtype)
    rows = (len(pipeline.nms), 1)
    kept = suppress(
        ops.tile(ops.expand_dims(scores, 0), rows),
        ops.tile(ops.expand_dims(likely, 0), rows),
        lambda best: ops.take(shared, best, axis=0) > bounds,
    )
    enough = ops.sum(ops.cast(kept, "int32"), axis=1) >= pipeline.min_boxes
    first = ops.where(ops.any(enough), ops.argmax(enough), len(pipeline.nms) - 1)
    kept = ops.take(kept, first, axis=0)
    order = ops.argsort(ops.where(kept, -scores, ops.full_like(scores, np.inf)))
    order = ops.cast(order[: ops.minimum(count(kept), pipeline.max_boxes)], "int32")
    boxes = ops.take(boxes, order, axis=0) * to_corners(scales, dtype)
    if pipeline.name != "huggingface":
        boxes = clip(boxes, picture_size, False)
        solid = ops.all(boxes[:, 2:] > boxes[:, :2], axis=1)
        solid = first_of(solid, count(solid))
        boxes, order = ops.take(boxes, solid, axis=0), ops.take(order, solid, axis=0)
    return {
        "keep": ops.take(owners, order, axis=0),
        "boxes": boxes,
        "classes": ops.take(classes, order, axis=0),
        "nms_threshold": ops.take(ops.convert_to_tensor(pipeline.nms, dtype), first, axis=0),
    }


# Steps


def class_scores(logits):
    """float[N, C], the probabilities of classes without the background, the last one of logits float[N, C + 1]."""
    return ops.softmax(ops.cast(logits, box_dtype(logits)), axis=-1)[:, :-1]


def entries(scores, classes):
    """float[N], of each row of scores: float[N, C] the entry of its class, int32[N]."""
    number, width = ops.shape(scores)
    return ops.take(ops.reshape(scores, (-1,)), ops.arange(number, dtype="int32") * width + classes, axis=0)


def count(mask):
    """int32[], how many entries of bool[N] are true."""
    return ops.sum(ops.cast(mask, "int32"))


def first_of(mask, number):
    """int32[number], the places of the first true entries of bool[N]."""
    return ops.cast(ops.argsort(ops.cast(ops.logical_not(mask), "int32"))[:number], "int32")


def to_corners(scales, dtype: str):
    """float[4], scales down and across as factors of x1, y1, x2, y2."""
    return ops.cast(ops.stack([scales[1], scales[0], scales[1], scales[0]]), dtype)


def normalized(boxes, picture_size):
    """float[N, 4], boxes in pixels in 0..1 of the picture's width and height."""
    height, width = picture_size[0], picture_size[1]
    return boxes / ops.cast(ops.stack([width, height, width, height]), boxes.dtype)
