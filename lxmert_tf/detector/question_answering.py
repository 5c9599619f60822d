"""From pictures and questions to answers: the detector finds the regions, and LXMERT reads them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

from lxmert_tf.answers import TRUTHS, Answer, AnswerTable, best_answers, config_answers
from lxmert_tf.configuration import SINGLE_LABEL
from lxmert_tf.detector.image_processor import MAX_PIXELS, BadImage, is_url, name_of
from lxmert_tf.detector.modeling import FasterRCNN
from lxmert_tf.detector.pipelines import DEFAULT, make_pipeline
from lxmert_tf.detector.regions import Regions, check_found
from lxmert_tf.tokenization.questions import encode_questions

CHUNK = 64  # questions that are answered at once


@dataclass(frozen=True)
class PictureAnswers:
    """The answers to a question about a picture, or about a pair of pictures.

    Args:
        pictures: their names: one, or two for visual reasoning.
        question: the question, or the statement.
        answers: the best first.
        regions: what the detector found in each picture.
        box_weights: float32[n] of each picture, as of `box_weights`; None where they were not asked for.
    """

    pictures: tuple[str, ...]
    question: str
    answers: list[Answer]
    regions: tuple[Regions, ...]
    box_weights: tuple[np.ndarray, ...] | None = None


class VisualQuestionAnsweringPipeline:
    """Answers questions about pictures.

    Args:
        model: `TFLxmertForQuestionAnswering`, or `TFLxmertForVisualReasoning`, which judges statements about pairs.
        detector: a `FasterRCNN`.
        tokenizer: an `LxmertTokenizer`.
        answers: what the rows of the answer head mean. Default: what the model's config says.
        opener: url -> the picture's bytes, a file that has them, or a PIL image; such as `urllib.request.urlopen`.
            Without it, no URL is opened.
        pipeline, min_boxes, max_boxes, max_pixels, **settings: as of `FasterRCNN.detect`.

    Raises:
        ValueError: the parts do not fit each other, or a number of the pipeline is none.

    Examples:
        >>> ask = VisualQuestionAnsweringPipeline(model, FasterRCNN.from_pretrained("frcnn"), tokenizer)
        >>> ask("cat.jpg", ["what animal is this?", "is it asleep?"])[0].answers[0]
        Answer(text='cat', score=0.98, id=1279)
    """

    def __init__(
        self,
        model: Any,
        detector: FasterRCNN,
        tokenizer: Any,
        answers: AnswerTable | Sequence[str] | None = None,
        opener: Callable[[str], Any] | None = None,
        pipeline: str = DEFAULT,
        min_boxes: int | None = None,
        max_boxes: int | None = None,
        max_pixels: int = MAX_PIXELS,
        **settings: Any,
    ):
        if getattr(model, "task", None) not in ("qa", "visual-reasoning"):
            raise ValueError(f"{type(model).__name__} does not answer: give a model for questions or visual reasoning.")
        config, width = model.config, detector.config.feature_size
        if width != config.visual_feat_dim:
            raise ValueError(
                f"The detector's features are {width} wide, but visual_feat_dim of the model is "
                f"{config.visual_feat_dim}: give the detector that it was trained with."
            )
        if len(tokenizer) > config.vocab_size:
            raise ValueError(f"The tokenizer has {len(tokenizer)} tokens, but the model only {config.vocab_size}.")
        if answers is not None and model.task == "qa" and len(answers) != config.num_qa_labels:
            raise ValueError(f"There must be {config.num_qa_labels} answers, one for each row, got {len(answers)}.")
        self.model, self.detector, self.tokenizer = model, detector, tokenizer
        self.is_pairwise = model.task == "visual-reasoning"
        self.answers = TRUTHS if self.is_pairwise else answers or config_answers(config)
        self.opener, self.max_pixels = opener, max_pixels
        self.pipeline = make_pipeline(pipeline, detector.config, min_boxes, max_boxes, **settings)

    def __call__(
        self, pictures: Any, questions: str | Sequence[str], top_k: int = 5, output_weights: bool = False
    ) -> list[PictureAnswers]:
        """Asks every question about every picture; each picture is detected and encoded once.

        Args:
            pictures: one or a list of what `ImageProcessor` takes, or URLs; for visual reasoning, two pictures, or a
                list of pairs.
            questions: one or a list; for visual reasoning, statements.
            top_k: answers to each question, at most.
            output_weights: with `box_weights`, for which the model runs once more.

        Returns:
            The answers to all questions about the first picture, then those about the next.

        Raises:
            FileNotFoundError, BadImage, TypeError: as `ImageProcessor`.
            BadImage: the detector finds no regions in a picture.
            ValueError: there is no picture or question, or a question is too long.
        """
        questions = [questions] if isinstance(questions, str) else list(questions)
        if not questions or not all(isinstance(question, str) and question.strip() for question in questions):
            raise ValueError("questions must be a text, or a list of at least one; none may be empty.")
        if top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {top_k}.")
        return [
            answered
            for group in self._groups(pictures)
            for answered in self._answer(group, questions, top_k, output_weights)
        ]

    def _groups(self, pictures: Any) -> list[tuple[Any, ...]]:
        """The pictures that each question is asked about: one, or two for visual reasoning."""
        each = list(pictures) if isinstance(pictures, list | tuple) else [pictures]
        if not each:
            raise ValueError("There must be at least one picture.")
        if not self.is_pairwise:
            return [(picture,) for picture in each]
        pairs = each if all(isinstance(pair, list | tuple) for pair in each) else [each]
        if wrong := next((pair for pair in pairs if len(pair) != 2), None):
            raise ValueError(f"Visual reasoning is about pairs of pictures, got {len(wrong)}.")
        return [tuple(pair) for pair in pairs]

    def _answer(self, group: tuple, questions: list[str], top_k: int, weighted: bool) -> Iterator[PictureAnswers]:
        regions = tuple(map(self._detect, group))
        names = tuple(picture if is_url(picture) else name_of(picture) for picture in group)
        image = model_inputs(regions, self.is_pairwise)
        encoded = None if self.is_pairwise else self.model.encode_image(**image)
        for start in range(0, len(questions), CHUNK):
            some = questions[start : start + CHUNK]
            text = encode_questions(self.tokenizer, some, self.model.config.max_position_embeddings)
            if encoded is None:
                logits = self.model(**text, **repeated(image, len(some)), return_dict=True).logits
            else:
                logits = self.model.answer_encoded(**text, **encoded, return_dict=True).question_answering_score
            scores = ops.convert_to_numpy(ops.cast(logits, "float32"))
            exclusive = self.is_pairwise or self.model.config.problem_type == SINGLE_LABEL
            rows = best_answers(scores, self.answers, exclusive, top_k)
            weights = box_weights(self.model, text, image) if weighted else [None] * len(some)
            for question, answers, of_boxes in zip(some, rows, weights, strict=True):
                kept = None if of_boxes is None else tuple(w[: len(r)] for w, r in zip(of_boxes, regions, strict=True))
                yield PictureAnswers(names, question, answers, regions, kept)

    def _detect(self, picture: Any) -> Regions:
        if not is_url(picture):
            return self._regions(picture, name_of(picture))
        if self.opener is None:
            raise ValueError(f"{picture} is a URL: pass an opener, such as opener=urllib.request.urlopen.")
        content = self.opener(picture)
        if hasattr(content, "read"):
            with closing(content) as file:
                content = file.read()
        try:
            return self._regions(content, name_of(content))
        except BadImage as error:
            raise BadImage(f"{picture}: {error}") from error
        except TypeError as error:
            raise TypeError(f"{picture}, as the opener gives it: {error}") from error

    def _regions(self, picture: Any, name: str) -> Regions:
        (regions,) = self.detector.detect([picture], self.pipeline, max_pixels=self.max_pixels)
        check_found(regions, name)
        return regions


def model_inputs(regions: Sequence[Regions], is_pairwise: bool = False) -> dict[str, np.ndarray]:
    """Regions of pictures as a model takes them.

    Args:
        regions: of each picture.
        is_pairwise: the pictures are one example.

    Returns:
        `visual_feats` float32[B, N, F], `visual_pos` float32[B, N, 4] and `visual_attention_mask` int32[B, N] of B
        pictures, where N is the largest number of boxes, at least 1; or [1, B, N, ...] of them.
    """
    most = max(1, *map(len, regions))
    arrays = {
        "visual_feats": np.stack([_filled_up(each.features, most) for each in regions]),
        "visual_pos": np.stack([_filled_up(each.normalized_boxes, most) for each in regions]),
        "visual_attention_mask": np.stack([np.arange(most) < max(1, len(each)) for each in regions]).astype("int32"),
    }
    return {name: array[None] for name, array in arrays.items()} if is_pairwise else arrays


def repeated(image: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """The inputs of one example as those of so many."""
    return {name: np.repeat(array, rows, axis=0) for name, array in image.items()}


def box_weights(model: Any, text: dict[str, np.ndarray], image: dict[str, np.ndarray]) -> np.ndarray:
    """Where the model looked: the attention of [CLS] over boxes in the last cross layer, its heads' mean.

    Args:
        model: one that answers.
        text: inputs of B questions, [B, T].
        image: inputs of one example, of one picture or two.

    Returns:
        float32[B, pictures, N], which add up to 1 over the boxes of a picture.
    """
    inputs = {**text, **repeated(image, len(text["input_ids"]))}
    attentions = model(**inputs, output_attentions=True, return_dict=True).cross_encoder_attentions
    first = ops.cast(ops.mean(attentions[-1][:, :, 0], axis=1), "float32")
    return ops.convert_to_numpy(ops.reshape(first, (len(text["input_ids"]), -1, first.shape[-1])))


def _filled_up(rows: np.ndarray, number: int) -> np.ndarray:
    return np.pad(rows, [(0, number - len(rows)), (0, 0)])
