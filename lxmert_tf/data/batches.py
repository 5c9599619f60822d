"""What the datasets of all tasks share: batches by step, text, images, soft scores.

Batch number s is a pure function of the seed and s, whichever step a run begins at and however many threads read.

Shapes: M examples, B examples of a batch, T tokens, N boxes of the image with the most.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from conversion.report import counted
from lxmert_tf.answers import AnswerTable
from lxmert_tf.data.annotations import Annotation, Label, NLVR2Annotation
from lxmert_tf.data.features.store import FeatureStore, UnknownImageError
from lxmert_tf.data.sampling import Sampler
from lxmert_tf.input_table import IMAGE_INPUTS, TEXT_INPUTS

logger = logging.getLogger(__name__)

READERS = 2  # batches that are read at once; each holds its features, so more would cost memory
Batch = tuple[dict[str, np.ndarray], dict[str, Any]]


class TaskDataset:
    """Batches of one task.

    Attributes:
        annotations: the examples' annotations, those of images beyond `limit` left out.
        unknown_answers: how many labels name each answer that is not in the table.
        labelled: whether there are labels to train on.
    """

    def __init__(
        self,
        annotations: Sequence,
        images: np.ndarray,
        features: FeatureStore,
        tokenizer,
        batch_size: int,
        seed: int | None = None,
        max_length: int = 20,
        bucket: int | None = 4,
        drop_remainder: bool = False,
        shard: tuple[int, int] = (0, 1),
    ):
        if max_length < 3:
            raise ValueError(f"max_length must be at least 3 ([CLS], a word, [SEP]), got {max_length}")
        if bucket is not None and bucket < 1:
            raise ValueError(f"bucket must be at least 1, or None, got {bucket}")
        self.annotations, self.features, self.tokenizer = annotations, features, tokenizer
        self.max_length, self.bucket = max_length, bucket
        self.unknown_answers: Counter[str] = Counter()
        self.labelled = True
        self._images = images  # int64[M] or int64[M, 2], rows of the feature file
        self._sampler = Sampler(len(images), batch_size, seed, drop_remainder, shard)
        self._batch_size = batch_size
        self._epochs: dict[int, tuple[np.ndarray, np.ndarray | None]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Steps per epoch."""
        return len(self._sampler)

    @property
    def num_examples(self) -> int:
        """How many examples there are, for all workers together."""
        return len(self._images)

    def batches(self, first_step: int = 0, last_step: int | None = None):
        """A tf.data.Dataset of the batches `first_step` to `last_step` - 1; endless if the latter is None.

        Steps are counted through all epochs. Elements are (x, y), or x alone where there are no labels.
        """
        import tensorflow as tf

        spec = self._spec()
        flat = tf.nest.flatten(spec)

        def read(step):
            parts = tf.numpy_function(self._flat_batch, [step], [part.dtype for part in flat], stateful=False)
            for tensor, part in zip(parts, flat, strict=True):
                tensor.set_shape(part.shape)
            return tf.nest.pack_sequence_as(spec, parts)

        if last_step is None:
            steps = tf.data.Dataset.counter(first_step)
        else:
            steps = tf.data.Dataset.range(first_step, last_step)
        return steps.map(read, num_parallel_calls=READERS, deterministic=True).prefetch(1)

    def batch(self, step: int) -> Batch:
        """(x, y) of one step as numpy arrays; y is empty where there are no labels."""
        raise NotImplementedError

    def examples(self, step: int) -> list:
        """The annotations in the batch of this step, in its order."""
        return [self.annotations[index] for index in self._mine(step)[0]]

    def _spec(self):
        """The tf.TensorSpecs of an element."""
        import tensorflow as tf

        x, y = self.batch(0)
        sampler = self._sampler
        batch = self._batch_size if sampler.full else None
        boxes = self.features.max_boxes if self.features.min_boxes == self.features.max_boxes else None
        tokens = self.max_length if self.bucket is None else None
        visual = [batch, 2, boxes] if self._images.ndim == 2 else [batch, boxes]

        def spec(name: str, value: np.ndarray):
            if name in (*IMAGE_INPUTS, "obj_labels"):
                shape = [*visual, *value.shape[len(visual) :]]
            elif name in (*TEXT_INPUTS, "masked_lm_labels"):
                shape = [batch, tokens]
            else:
                shape = [batch, *value.shape[1:]]
            return tf.TensorSpec(shape, value.dtype)

        x = {name: spec(name, value) for name, value in x.items()}
        y = {name: tf.nest.map_structure(lambda value, name=name: spec(name, value), y[name]) for name in y}
        return (x, y) if y else x

    def _flat_batch(self, step) -> list[np.ndarray]:
        import tensorflow as tf

        return tf.nest.flatten(self.batch(int(step)))

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The order of an epoch, and whose sentence each example has; the last two epochs asked for are kept."""
        with self._lock:
            if epoch not in self._epochs:
                whose = self._whose(epoch)
                lengths = None
                if self.bucket is not None and self._sampler.seed is not None:
                    lengths = self._lengths if whose is None else self._lengths[whose]
                self._epochs[epoch] = self._sampler.order(epoch, lengths), whose
                for old in sorted(self._epochs, key=lambda each: abs(each - epoch))[2:]:
                    del self._epochs[old]
            return self._epochs[epoch]

    def _whose(self, epoch: int) -> np.ndarray | None:
        return None

    @property
    def _lengths(self) -> np.ndarray:
        """About how long each sentence is: its spaces, which cost far less to count than word pieces."""
        if not hasattr(self, "_spaces"):
            spaces = (min(sentence.count(" "), self.max_length) for sentence in self._sentences())
            self._spaces = np.fromiter(spaces, np.int16, len(self._images))
        return self._spaces

    def _sentences(self) -> Iterable[str]:
        return (annotation.sent for annotation in self.annotations)

    def _mine(self, step: int) -> tuple[np.ndarray, np.ndarray | None, slice, int]:
        """The examples of a step, whose sentences they have, and which part they are of how large a global batch."""
        epoch, position = divmod(step, len(self))
        order, whose = self._epoch(epoch)
        whole = self._sampler.whole(position, order)
        part = self._sampler.mine(whole)
        mine = whole[part]
        return mine, None if whose is None else whose[mine], part, len(whole)

    def _text(self, sentences: list[str]) -> dict[str, np.ndarray]:
        """input_ids, attention_mask and token_type_ids, `int32[B, T]`, T a multiple of the bucket."""
        rows = self.tokenizer(sentences, truncation=True, max_length=self.max_length, verbose=False)["input_ids"]
        lengths = np.array([len(row) for row in rows])
        width = self.max_length
        if self.bucket is not None:
            width = min(width, -(-int(lengths.max()) // self.bucket) * self.bucket)
        mask = np.arange(width) < lengths[:, None]
        ids = np.full(mask.shape, self.tokenizer.pad_token_id, np.int32)
        ids[mask] = np.concatenate(rows)
        return {"input_ids": ids, "attention_mask": mask.astype(np.int32), "token_type_ids": np.zeros_like(ids)}


class Scores:
    """The soft scores of all examples, those of answers outside the table left out; [example] gives (rows, scores)."""

    def __init__(self, labels: Iterable[Label], answers: AnswerTable):
        rows, scores, ends = [], [], [0]
        for label in labels:
            for answer, score in label.items():
                if answer in answers:
                    rows.append(answers.row(answer))
                    scores.append(score)
            ends.append(len(rows))
        self._rows, self._scores, self._ends = np.array(rows, np.int32), np.array(scores), np.array(ends)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        part = slice(self._ends[index], self._ends[index + 1])
        return self._rows[part], self._scores[part]


def with_images(
    annotations: Sequence, features: FeatureStore, limit: int | None, names: tuple[str, ...]
) -> tuple[Sequence, np.ndarray]:
    """The annotations of the first `limit` images, and the rows `int64[M, names]` of their images."""
    if limit is not None:
        first = set(features.img_ids[:limit])
        annotations = [each for each in annotations if all(getattr(each, name) in first for name in names)]
    if not annotations:
        raise ValueError(f"there is no example to read{'' if limit is None else f' among the first {limit} images'}")
    wanted = {getattr(each, name): None for each in annotations for name in names}
    missing = [img_id for img_id in wanted if img_id not in features]
    if missing:
        raise UnknownImageError(
            f"{len(missing):,} of {len(wanted):,} images have no region features in {features.path}, "
            f"the first is {missing[0]!r}"
        )
    columns = [features.rows([getattr(each, name) for each in annotations]) for name in names]
    return annotations, np.stack(columns, axis=1)


def labelled(annotations: Sequence[Annotation | NLVR2Annotation]) -> bool:
    with_label = sum(annotation.label is not None for annotation in annotations)
    if 0 < with_label < len(annotations):
        raise ValueError(
            f"{len(annotations) - with_label:,} of {len(annotations):,} examples have no label; all or none must"
        )
    return with_label > 0


def report_unknown(unknown: Counter[str], answers: AnswerTable) -> None:
    if unknown:
        logger.warning(
            "%s for %s that the answer table of %d does not hold, most often %r: left out.",
            counted(unknown.total(), "label"),
            counted(len(unknown), "answer"),
            len(answers),
            unknown.most_common(1)[0][0],
        )
