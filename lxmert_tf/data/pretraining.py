"""The pretraining dataset: every sentence with its image or another, words and boxes hidden."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from lxmert_tf.answers import AnswerTable, normalize_answer
from lxmert_tf.data import masking
from lxmert_tf.data.annotations import Label, PretrainingAnnotation
from lxmert_tf.data.batches import Batch, Scores, TaskDataset, log_unknown_answers


class PretrainingExample(NamedTuple):
    """A sentence shown with an image, and whether it is about it."""

    img_id: str
    source: str
    sent: str
    matched: bool


class PretrainingDataset(TaskDataset):
    """See `pretraining_dataset`."""

    def __init__(self, sentences: "Sentences", *arguments: Any, rates: dict[str, float], predict_all_boxes: bool):
        super().__init__(sentences.annotations, sentences.images, *arguments)
        self._all, self._rates, self._predict_all = sentences, rates, predict_all_boxes
        self.unknown_answers = sentences.unknown
        if self.tokenizer.mask_token is None:
            raise ValueError("pretraining needs a tokenizer with a mask_token")
        log_unknown_answers(self.unknown_answers, sentences.answers)

    def examples(self, step: int) -> list[PretrainingExample]:
        mine, whose, *_ = self._shard_of(step)
        assert whose is not None  # `_sources_of_sentences` draws them
        return [
            PretrainingExample(
                img_id=self.features.img_ids[self._images[index]],
                source=self._all.sources[self._all.source[other]],
                sent=self._all.sent[other],
                matched=bool(index == other),
            )
            for index, other in zip(mine, whose, strict=True)
        ]

    def batch(self, step: int) -> Batch:
        mine, whose, part, size = self._shard_of(step)
        assert whose is not None
        draws = self._draws(step, size).select(part)
        matched = mine == whose
        x = self._text([self._all.sent[index] for index in whose])
        lengths = x["attention_mask"].sum(axis=1, keepdims=True)
        place = np.arange(x["input_ids"].shape[1])
        maskable = (place > 0) & (place < lengths - 1)
        x["input_ids"], words = masking.mask_words(
            x["input_ids"], maskable, draws, self.tokenizer.mask_token_id, self._rates["words"]
        )
        visual = self.features.read_rows(self._images[mine])
        found = {name: visual.pop(name) for name in ("objects_id", "objects_conf", "attrs_id", "attrs_conf")}
        features = visual["visual_feats"]
        chosen, zeroed, replaced = masking.choose_boxes(
            visual["visual_attention_mask"] == 1, draws, self._rates["boxes"]
        )
        hidden = features.copy()
        hidden[zeroed] = 0
        boxes = features.shape[1]
        hidden[replaced] = self.features.read_boxes(
            self._images[draws.box_examples[:, :boxes][replaced]], draws.box_places[:, :boxes][replaced]
        )
        weight = 1 if self._predict_all else chosen.astype(np.float32)
        ans = [
            masking.draw_answer(*self._all.scores[index], share) if same else masking.IGNORE_INDEX
            for index, same, share in zip(mine, matched, draws.answers, strict=True)
        ]
        y = {
            "masked_lm_labels": words,
            "obj_labels": {
                "obj": (found["objects_id"], found["objects_conf"] * weight),
                "attr": (found["attrs_id"], found["attrs_conf"] * weight),
                "feat": (features, chosen.astype(np.float32)),
            },
            "matched_label": matched.astype(np.int32),
            "ans": np.array(ans, np.int32),
        }
        return {**x, **visual, "visual_feats": hidden}, y

    def _draws(self, step: int, size: int) -> masking.Draws:
        """The random numbers of a global batch; with no seed the same in every epoch."""
        seed = self._sampler.seed
        where = [0, step % len(self), 1] if seed is None else [seed, step, 1]
        return masking.draw(
            np.random.default_rng(where),
            size,
            self.max_length,
            self.features.max_boxes,
            len(self.tokenizer),
            self.num_examples,
        )

    def _sources_of_sentences(self, epoch: int) -> np.ndarray:
        seed = self._sampler.seed
        rng = np.random.default_rng([0, 0, 2] if seed is None else [seed, epoch, 2])
        return masking.mismatch(rng, self._images, self._rates["mismatch"])

    def _sentences(self) -> Iterable[str]:
        return self._all.sent


class Sentences:
    """All sentences of pretraining annotations, in columns: there can be ten million.

    Attributes:
        images: `int64[M]`, rows of the feature file.
        sent: the sentences.
        source: `int16[M]`, rows of `sources`.
        scores: of their answers.
        unknown: answers outside the table.
    """

    def __init__(
        self,
        annotations: Sequence[PretrainingAnnotation],
        images: np.ndarray,
        answers: AnswerTable,
        only: Sequence[str] | None,
    ):
        self.annotations, self.answers = annotations, answers
        self.sources = sorted({source for annotation in annotations for source in annotation.sentf})
        if only is not None and (missing := sorted(set(only) - set(self.sources))):
            raise ValueError(f"no sentence has the source {missing[0]!r}; the sources are {', '.join(self.sources)}")
        number = {source: row for row, source in enumerate(self.sources)}
        self.sent: list[str] = []
        self.unknown: Counter[str] = Counter()
        labels, source_rows, image_rows = [], [], []
        for annotation, image in zip(annotations, images, strict=True):
            for source, sentence, label in annotation.sentences():
                if only is None or source in only:
                    self.sent.append(sentence)
                    labels.append(label)
                    source_rows.append(number[source])
                    image_rows.append(image)
        self.images, self.source = np.array(image_rows, np.int64), np.array(source_rows, np.int16)
        self.scores = Scores(map(self._known, labels), answers)

    def _known(self, label: Label | None) -> Label:
        """The answers of a label that the table holds, in its spelling."""
        known: Label = {}
        for answer, score in (label or {}).items():
            name = answer if answer in self.answers else normalize_answer(answer)
            if name in self.answers:
                known[name] = score
            else:
                self.unknown[answer] += 1
        return known
