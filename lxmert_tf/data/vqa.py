"""Questions and region features as arrays and as a tf.data pipeline."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lxmert_tf.data.annotations import Annotation, AnswerTable
from lxmert_tf.data.region_features import normalize_boxes, read_tsv


@dataclass
class ImageFeatures:
    """The region features of all images in memory, padded to the most boxes. M images, N boxes, D features.

    Attributes:
        row: img_id -> row.
        visual_feats: float32[M, N, D].
        visual_pos: float32[M, N, 4], boxes in 0..1.
        visual_attention_mask: int32[M, N], 1 for boxes, 0 for padding.
    """

    row: dict[str, int]
    visual_feats: np.ndarray
    visual_pos: np.ndarray
    visual_attention_mask: np.ndarray

    @classmethod
    def from_tsv(cls, path: str | os.PathLike) -> "ImageFeatures":
        """Reads a whole TSV of region features; meant for sets that fit in memory."""
        row, features, positions = {}, [], []
        for regions in read_tsv(path):
            row[regions.img_id] = len(row)
            features.append(regions.features)
            positions.append(normalize_boxes(regions.boxes, regions.img_w, regions.img_h))
        most = max(map(len, features), default=0)
        mask = [np.arange(most) < len(boxes) for boxes in features]
        return cls(row, _padded(features, most), _padded(positions, most), np.array(mask, "int32"))

    def of(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """The visual inputs of a model, for these rows."""
        return {
            "visual_feats": self.visual_feats[rows],
            "visual_pos": self.visual_pos[rows],
            "visual_attention_mask": self.visual_attention_mask[rows],
        }


def encode_questions(
    annotations: Sequence[Annotation], features: ImageFeatures, tokenizer, answers: AnswerTable | None = None
) -> dict[str, np.ndarray]:
    """Questions as model inputs, with the row of their image, and the row of their best answer where they have one.

    Returns:
        input_ids int32[Q, T], attention_mask int32[Q, T], image int32[Q], and, with `answers`, labels int32[Q]
        (-100 where no answer is in the table).

    Raises:
        KeyError: an image has no region features.
    """
    encoded = tokenizer([annotation.sent for annotation in annotations], padding=True, return_tensors="np")
    for annotation in annotations:
        if annotation.img_id not in features.row:
            raise KeyError(f"Image {annotation.img_id!r} of question {annotation.question_id} has no region features.")
    arrays = {
        "input_ids": encoded["input_ids"].astype("int32"),
        "attention_mask": encoded["attention_mask"].astype("int32"),
        "image": np.array([features.row[annotation.img_id] for annotation in annotations], "int32"),
    }
    if answers is not None:
        arrays["labels"] = np.array([_best(annotation, answers) for annotation in annotations], "int32")
    return arrays


def vqa_dataset(questions: dict[str, np.ndarray], features: ImageFeatures, batch_size: int, seed: int | None = None):
    """A tf.data.Dataset of (inputs, labels) batches, or of inputs alone where there are no labels.

    The features stay where they are; a batch looks its images up.

    Args:
        questions: as from `encode_questions`.
        features: the images' region features.
        batch_size: questions per batch; the last one may be smaller.
        seed: shuffle anew every epoch, from this seed. None: keep the order.
    """
    import tensorflow as tf

    images = {name: tf.constant(value) for name, value in features.of(np.arange(len(features.row))).items()}
    dataset = tf.data.Dataset.from_tensor_slices(questions)
    if seed is not None:
        dataset = dataset.shuffle(len(questions["image"]), seed=seed, reshuffle_each_iteration=True)

    def look_up(batch):
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        inputs |= {name: tf.gather(value, batch["image"]) for name, value in images.items()}
        return (inputs, batch["labels"]) if "labels" in batch else inputs

    return dataset.batch(batch_size).map(look_up, num_parallel_calls=tf.data.AUTOTUNE).prefetch(2)


def _best(annotation: Annotation, answers: AnswerTable) -> int:
    known = {answer: score for answer, score in (annotation.label or {}).items() if answer in answers}
    return answers.row(max(known, key=known.get)) if known else -100


def _padded(arrays: list[np.ndarray], rows: int) -> np.ndarray:
    return np.stack([np.pad(array, ((0, rows - len(array)), (0, 0))) for array in arrays]).astype("float32")
