"""The base of the datasets of all tasks: batches by step, text, images, soft scores.

Batch number s is a pure function of the seed and s, whatever step a run begins at and however many threads read.

Shapes: M examples, B examples of a batch, T tokens, N boxes of the image with the most.
"""

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from conversion.report import counted
from lxmert_tf.answers import AnswerTable
from lxmert_tf.data.annotations import Annotation, Label, NLVR2Annotation
from lxmert_tf.data.features.store import FeatureStore, UnknownImageError
from lxmert_tf.data.sampling import Sampler
from lxmert_tf.input_table import IMAGE_INPUTS, TEXT_INPUTS

if TYPE_CHECKING:
    import tensorflow as tf

    from lxmert_tf.tokenization import LxmertTokenizer

logger = logging.getLogger(__name__)

MISSING = ("error", "skip")  # what to do about images without region features
LISTED = 20  # of them that are named
READERS = 2  # batches that are read at once; more would take more memory
Batch = tuple[dict[str, np.ndarray], dict[str, Any]]


class TaskDataset:
    """Batches of one task.

    Attributes:
        annotations: the examples' annotations, within `limit`.
        unknown_answers: how many labels name each answer that is not in the table.
        labelled: whether there are labels to train on.
        missing_images: those without region features, whose examples are left out.
    """

    def __init__(
        self,
        annotations: Sequence,
        images: np.ndarray,
        features: FeatureStore,
        tokenizer: "LxmertTokenizer",
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
        self.missing_images: tuple[str, ...] = ()
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

    def batches(self, first_step: int = 0, last_step: int | None = None) -> "tf.data.Dataset":
        """A tf.data.Dataset of the batches `first_step` to `last_step` - 1; endless if the latter is None.

        Steps are counted through all epochs. Elements are (x, y), or x alone where there are no labels.
        """
        import tensorflow as tf

        spec = self._spec()
        flat = tf.nest.flatten(spec)

        def read(step: "tf.Tensor") -> Any:
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
        return [self.annotations[index] for index in self._shard_of(step)[0]]

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

    def _flat_batch(self, step: np.ndarray) -> list[np.ndarray]:
        import tensorflow as tf

        return tf.nest.flatten(self.batch(int(step)))

    def _epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray | None]:
        """The order of an epoch, and the example whose sentence each has; cached for two epochs."""
        with self._lock:
            if epoch not in self._epochs:
                whose = self._sources_of_sentences(epoch)
                lengths = None
                if self.bucket is not None and self._sampler.seed is not None:
                    lengths = self._lengths if whose is None else self._lengths[whose]
                self._epochs[epoch] = self._sampler.order(epoch, lengths), whose
                for old in sorted(self._epochs, key=lambda each: abs(each - epoch))[2:]:
                    del self._epochs[old]
            return self._epochs[epoch]

    def _sources_of_sentences(self, epoch: int) -> np.ndarray | None:
        return None

    @property
    def _lengths(self) -> np.ndarray:
        """The approximate length of each sentence: its spaces, which are much cheaper to count than word pieces."""
        if not hasattr(self, "_spaces"):
            spaces = (min(sentence.count(" "), self.max_length) for sentence in self._sentences())
            self._spaces = np.fromiter(spaces, np.int16, len(self._images))
        return self._spaces

    def _sentences(self) -> Iterable[str]:
        return (annotation.sent for annotation in self.annotations)

    def _shard_of(self, step: int) -> tuple[np.ndarray, np.ndarray | None, slice, int]:
        """The examples of a step, the examples with their sentences, and the part of a global batch of what size."""
        epoch, position = divmod(step, len(self))
        order, whose = self._epoch(epoch)
        whole = self._sampler.batch(position, order)
        part = self._sampler.shard_of(whole)
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
    """The soft scores of all examples, of answers in the table; [example] gives (rows, scores)."""

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


@dataclass(frozen=True)
class Selection:
    """The examples of a data set.

    Attributes:
        annotations: of M examples.
        images: `int64[M, names]`, the rows of their images in the feature file.
        missing: the images without region features, whose annotations are left out.
    """

    annotations: Sequence
    images: np.ndarray
    missing: tuple[str, ...]


def select_images(
    annotations: Sequence, features: FeatureStore, limit: int | None, missing: str, names: tuple[str, ...]
) -> Selection:
    """The examples that there are region features for, if there is a limit those of the first images.

    The first images are the first `limit` of the feature file that the annotations name. The original has a feature
    file for each set, and reads the first so many of its images; here one file may hold the images of several sets.

    Raises:
        UnknownImageError: an image has no region features, and `missing` is "error".
        ValueError: there are no examples, or an option is out of its range.
    """
    if missing not in MISSING:
        raise ValueError(f"missing must be {' or '.join(MISSING)}, got {missing!r}")
    if limit is not None:
        annotations = _of_first_images(annotations, features, limit, names)
    if not annotations:
        raise ValueError(f"no examples{'' if limit is None else f' of images in {features.path}'}")
    wanted = {getattr(each, name): None for each in annotations for name in names}
    absent = {img_id: None for img_id in wanted if img_id not in features}
    if absent:
        what = f"{len(absent):,} of {len(wanted):,} images have no region features in {features.path}"
        if missing == "error":
            first = next(iter(absent))
            advice = "missing='skip' (--missing skip) leaves their examples out"
            raise UnknownImageError(f"{what}, the first is {first!r}; {advice}")
        kept = [each for each in annotations if all(getattr(each, name) not in absent for name in names)]
        if not kept:
            raise ValueError(f"{what}: no examples are left")
        left_out = counted(len(annotations) - len(kept), "example")
        more = ", ..." if len(absent) > LISTED else ""
        logger.warning("%s: %s left out (%s%s).", what, left_out, ", ".join(islice(absent, LISTED)), more)
        annotations = kept
    columns = [features.rows([getattr(each, name) for each in annotations]) for name in names]
    return Selection(annotations, np.stack(columns, axis=1), tuple(absent))


def _of_first_images(annotations: Sequence, features: FeatureStore, limit: int, names: tuple[str, ...]) -> list:
    if limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    named = {getattr(each, name) for each in annotations for name in names}
    first = set(islice((img_id for img_id in features.img_ids if img_id in named), limit))
    return [each for each in annotations if all(getattr(each, name) in first for name in names)]


def has_labels(annotations: Sequence[Annotation | NLVR2Annotation]) -> bool:
    with_label = sum(annotation.label is not None for annotation in annotations)
    if 0 < with_label < len(annotations):
        raise ValueError(
            f"{len(annotations) - with_label:,} of {len(annotations):,} examples have no label; all or none must"
        )
    return with_label > 0


def log_unknown_answers(unknown: Counter[str], answers: AnswerTable) -> None:
    if unknown:
        logger.warning(
            "%s for %s that are not in the answer table of %d, most often %r: ignored.",
            counted(unknown.total(), "label"),
            counted(len(unknown), "answer"),
            len(answers),
            unknown.most_common(1)[0][0],
        )
