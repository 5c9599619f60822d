"""One question about one picture, answered and explained."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lxmert_tf import LxmertTokenizer, TFLxmertForQuestionAnswering
from lxmert_tf.answers import AnswerTable, answer_row, best_answers, model_answers
from lxmert_tf.configuration import SINGLE_LABEL
from lxmert_tf.explain.maps import attention_maps
from lxmert_tf.explain.methods import relevance
from lxmert_tf.explain.scene import Scene
from lxmert_tf.files import replacing, write_text
from lxmert_tf.tokenization.questions import encode_questions
from lxmert_tf.training.evaluation import trained_model
from lxmert_tf.training.inputs import read_tokenizer

SHOWN = 5  # answers
TURNING = (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # bidirectional controls of Unicode


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where an answer comes from. T tokens, N boxes, A heads.

    Args:
        question: the question.
        answer: the answer explained.
        answers: the best answers and their probabilities in 0..1, the explained one among them.
        exclusive: the probabilities of all answers add up to 1; else each stands on its own.
        tokens: T word pieces, [CLS] and [SEP] among them.
        token_relevance: float[T].
        scene: what was asked about.
        box_relevance: float[N].
        method: one of `METHODS`.
        maps: every attention map by name, float[A, Q, K].
    """

    question: str
    answer: str
    answers: Sequence[tuple[str, float]]
    exclusive: bool
    tokens: Sequence[str]
    token_relevance: np.ndarray
    scene: Scene
    box_relevance: np.ndarray
    method: str
    maps: dict[str, np.ndarray]

    def save(self, path: str | os.PathLike) -> None:
        """Writes it as a picture (.png) or as a page with the attention maps (.html), whole or not at all.

        Raises:
            ImportError: Pillow is not installed.
            ValueError: the path ends in something else.
        """
        if str(path).endswith(".html"):
            from lxmert_tf.explain.page import make_page

            write_text(path, make_page(self))
        elif str(path).endswith(".png"):
            from lxmert_tf.explain.drawing import draw

            picture = draw(self)
            with replacing(path) as temporary:
                picture.save(temporary, format="png")
        else:
            raise ValueError(f"An explanation is written to a .png or .html file, got {os.fspath(path)!r}.")


def shown(text: str) -> str:
    """A text on one line, without the characters that turn the direction of what follows."""
    return " ".join(text.translate(dict.fromkeys(TURNING)).split())


class Explainer:
    """A model that answers questions, with its tokenizer and the names of its answers.

    Args:
        model: a model, or a model directory, checkpoint or Hub id.
        vocab: a tokenizer, or vocab.txt or directory, where the model directory has none.
        answers: the answers, or a file of them. Default: the model's own; ids where it names none.

    Raises:
        FileNotFoundError, ValueError: a file does not exist, or does not fit.
    """

    def __init__(
        self,
        model: TFLxmertForQuestionAnswering | str,
        vocab: LxmertTokenizer | str | None = None,
        answers: AnswerTable | str | None = None,
    ):
        source = model if isinstance(model, str) else None
        self.model = trained_model("vqa", model) if isinstance(model, str) else model
        self.tokenizer = vocab if isinstance(vocab, LxmertTokenizer) else read_tokenizer(vocab, source)
        config = self.model.config
        named = answers if isinstance(answers, AnswerTable) else model_answers(source or "", config, answers)
        self.names = list(named) if named is not None else [str(row) for row in range(config.num_qa_labels)]

    def explain(
        self, question: str, scene: Scene, answer: str | int | None = None, method: str = "chefer"
    ) -> Explanation:
        """Answers and explains.

        Args:
            question: text.
            scene: what it is about.
            answer: by name, or its id, also in digits. Default: the best.
            method: one of `METHODS`.

        Raises:
            ValueError: an empty question, or one of more tokens than the model reads, an unknown answer, or features
                of another size than the model's.
        """
        config = self.model.config
        question = shown(question)
        text = encode_questions(self.tokenizer, [question], config.max_position_embeddings)
        inputs = {**text, "visual_feats": scene.features[None], "visual_pos": scene.boxes[None]}
        asked = None if answer is None else answer_row(answer, self.names, len(self.names))
        why = relevance(self.model, inputs, asked, method)
        row, exclusive = int(why.answers[0]), config.problem_type == SINGLE_LABEL
        [best] = best_answers(why.scores, self.names, exclusive)
        return Explanation(
            question,
            self.names[row],
            [
                (self.names[each.id], each.score)
                for each in best[:SHOWN] + [each for each in best[SHOWN:] if each.id == row]
            ],
            exclusive,
            self.tokenizer.convert_ids_to_tokens(text["input_ids"][0].tolist()),
            why.tokens[0],
            scene,
            why.boxes[0],
            why.method,
            {name: each[0] for name, each in attention_maps(self.model, inputs).items()},
        )
