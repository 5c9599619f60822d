"""tf.data pipelines of every task: annotations and region features in, batches for `fit` out.

Shapes: B examples, T tokens, N boxes of the image with the most, D feature dimension, A answers.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lxmert_tf.answers import AnswerTable
from lxmert_tf.data import masking
from lxmert_tf.data.annotations import (
    Annotation,
    NLVR2Annotation,
    PretrainingAnnotation,
    unknown_answers,
)
from lxmert_tf.data.batches import Batch, Scores, TaskDataset, has_labels, log_unknown_answers, select_images
from lxmert_tf.data.features.store import FeatureStore
from lxmert_tf.data.pretraining import PretrainingDataset, Sentences

if TYPE_CHECKING:
    from lxmert_tf.tokenization import LxmertTokenizer


def vqa_dataset(
    annotations: Sequence[Annotation],
    features: FeatureStore,
    tokenizer: "LxmertTokenizer",
    answers: AnswerTable | None,
    batch_size: int,
    seed: int | None = None,
    max_length: int = 20,
    bucket: int | None = 4,
    drop_remainder: bool = False,
    shard: tuple[int, int] = (0, 1),
    limit: int | None = None,
    missing: str = "error",
) -> TaskDataset:
    """Questions about images, with soft scores: VQA and GQA.

    y is {"labels": `float32[B, A]`}; there is none if no question has a label, as in a test set. A question none of
    whose answers is in the table stays, with every answer wrong, as in the original.

    Args:
        annotations: as from `read_annotations`.
        features: of their images.
        tokenizer: a `LxmertTokenizer`.
        answers: the answers that the model can give; None leaves the labels out.
        batch_size: examples per batch of one worker.
        seed: shuffle all examples anew in every epoch; None keeps their order.
        max_length: tokens of a text at most, [CLS] and [SEP] among them; the rest is cut off.
        bucket: texts are padded to a multiple of this, and, with a seed, share a batch with those of similar length.
            None pads all to `max_length`.
        drop_remainder: leave out a last batch that is not full.
        shard: (index, count) of this worker: it gets its part of every global batch of `batch_size * count` examples,
            consecutive ones, so that all workers together see what one does with that batch size.
        limit: only examples of the first so many images that the annotations name, in the order of the feature file.
            512 is the original's --tiny, 5000 its --fast.
        missing: "error" if an image has no region features, or "skip": its examples are left out, counted and listed,
            and `missing_images` of the result has all names.

    Raises:
        UnknownImageError: an image has no region features, and `missing` is "error".
        ValueError: there are no examples, only some have labels, or an option is out of its range.
    """
    chosen = select_images(annotations, features, limit, missing, ("img_id",))
    options = (batch_size, seed, max_length, bucket, drop_remainder, shard)
    dataset = QuestionDataset(chosen.annotations, chosen.images[:, 0], features, tokenizer, *options, answers=answers)
    dataset.missing_images = chosen.missing
    return dataset


gqa_dataset = vqa_dataset  # the same files and targets


def nlvr2_dataset(
    annotations: Sequence[NLVR2Annotation],
    features: FeatureStore,
    tokenizer: "LxmertTokenizer",
    batch_size: int,
    seed: int | None = None,
    max_length: int = 20,
    bucket: int | None = 4,
    drop_remainder: bool = False,
    shard: tuple[int, int] = (0, 1),
    limit: int | None = None,
    missing: str = "error",
) -> TaskDataset:
    """Sentences about pairs of images: NLVR2.

    Visual inputs are `[B, 2, N, ...]`; y is {"labels": `int32[B]`}, 1 for true, or there is none in a test set.

    Args and errors: as `vqa_dataset`; annotations as from `read_nlvr2`.
    """
    chosen = select_images(annotations, features, limit, missing, ("img0", "img1"))
    options = (batch_size, seed, max_length, bucket, drop_remainder, shard)
    dataset = PairDataset(chosen.annotations, chosen.images, features, tokenizer, *options)
    dataset.missing_images = chosen.missing
    return dataset


def pretraining_dataset(
    annotations: Sequence[PretrainingAnnotation],
    features: FeatureStore,
    tokenizer: "LxmertTokenizer",
    answers: AnswerTable,
    batch_size: int,
    seed: int | None = None,
    max_length: int = 20,
    bucket: int | None = 4,
    drop_remainder: bool = False,
    shard: tuple[int, int] = (0, 1),
    limit: int | None = None,
    missing: str = "error",
    sources: Sequence[str] | None = None,
    word_mask_rate: float = masking.RATE,
    box_mask_rate: float = masking.RATE,
    mismatch_rate: float = 0.5,
    predict_all_boxes: bool = True,
) -> TaskDataset:
    """Sentences and images with parts of both hidden: the pretraining tasks of the paper, section 3.1.

    Every sentence is one example. y is
    - masked_lm_labels `int32[B, T]`, -100 where nothing is to be predicted;
    - obj_labels: "obj" and "attr": (classes `int32[B, N]`, confidence `float32[B, N]`), "feat": (features
      `float32[B, N, D]`, mask `float32[B, N]`);
    - matched_label `int32[B]`: 1, or 0 where the sentence is of another image;
    - ans `int32[B]`, drawn in proportion to the scores; -100 where the sentence has no answer of the table or does not
      match.

    With `seed=None` the same parts are hidden in every epoch, which suits validation.

    Args and errors: as `vqa_dataset`, and
        annotations: as from `read_pretraining`; of several files, joined.
        answers: the pretraining answers; labels are normalised before they are looked up.
        sources: only sentences of these ("mscoco", "vqa", ...); None takes all.
        word_mask_rate, box_mask_rate: share of the word pieces and of the boxes that are chosen.
        mismatch_rate: share of the examples with a sentence of another image.
        predict_all_boxes: whether the classes of all boxes are to be predicted, weighted by their confidence, as in the
            original's code. Else the confidence is 0 at boxes that were not chosen, as the paper has it.
    """
    if not features.has_labels:
        raise ValueError(
            f"pretraining predicts the detector's classes, but {features.path} has no objects_id, objects_conf, "
            "attrs_id and attrs_conf"
        )
    chosen = select_images(annotations, features, limit, missing, ("img_id",))
    examples = Sentences(chosen.annotations, chosen.images[:, 0], answers, sources)
    options = (batch_size, seed, max_length, bucket, drop_remainder, shard)
    rates = {"words": word_mask_rate, "boxes": box_mask_rate, "mismatch": mismatch_rate}
    dataset = PretrainingDataset(
        examples, features, tokenizer, *options, rates=rates, predict_all_boxes=predict_all_boxes
    )
    dataset.missing_images = chosen.missing
    return dataset


class QuestionDataset(TaskDataset):
    """See `vqa_dataset`."""

    def __init__(self, *arguments: Any, answers: AnswerTable | None):
        super().__init__(*arguments)
        self.labelled = False
        if answers is not None and has_labels(self.annotations):
            self.labelled, self.num_answers = True, len(answers)
            self.unknown_answers = unknown_answers(self.annotations, answers)
            log_unknown_answers(self.unknown_answers, answers)
            self._scores = Scores((annotation.label for annotation in self.annotations), answers)

    def batch(self, step: int) -> Batch:
        mine, *_ = self._shard_of(step)
        x = self._text([self.annotations[index].sent for index in mine])
        x |= self.features.read_rows(self._images[mine], labels=False)
        if not self.labelled:
            return x, {}
        labels = np.zeros((len(mine), self.num_answers), np.float32)
        for row, index in enumerate(mine):
            answers, scores = self._scores[index]
            labels[row, answers] = scores
        return x, {"labels": labels}


class PairDataset(TaskDataset):
    """See `nlvr2_dataset`."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.labelled = has_labels(self.annotations)

    def batch(self, step: int) -> Batch:
        mine, *_ = self._shard_of(step)
        annotations = [self.annotations[index] for index in mine]
        x = self._text([annotation.sent for annotation in annotations])
        visual = self.features.read_rows(self._images[mine].reshape(-1), labels=False)
        x |= {name: value.reshape(len(mine), 2, *value.shape[1:]) for name, value in visual.items()}
        if not self.labelled:
            return x, {}
        return x, {"labels": np.array([annotation.label for annotation in annotations], np.int32)}
