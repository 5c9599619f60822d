"""The functions that a SavedModel offers: one per signature, over one copy of the weights.

| signature | takes | gives |
|---|---|---|
| serving_default | text and visual inputs with masks | the task's outputs |
| answer_text | questions (strings) and visual inputs | answers; needs a tokenizer |
| encode_image | visual inputs | vision_states, visual_attention_mask |
| answer_encoded | text inputs, and what encode_image gives | answers |
| answer_text_encoded | questions, and what encode_image gives | answers; needs a tokenizer |
| detect | images (bytes of JPEG or PNG files) | the visual inputs; needs a detector |
| answer_image | images and questions | answers; needs a detector and a tokenizer |

Each with masks exists a second time as NAME_unmasked, without masks and token types: TF Serving knows no optional
inputs.
Shapes: B examples, T tokens, N boxes, A answers, k answers shown, L layers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from lxmert_tf.answers import AnswerTable
from lxmert_tf.backend import asserted, require
from lxmert_tf.exported import stack_layers
from lxmert_tf.input_table import ENCODED_IMAGE_INPUTS, IMAGE_INPUTS, OPTIONAL_INPUTS
from lxmert_tf.outputs import ENCODER_FIELDS
from lxmert_tf.serving.detection import Detection
from lxmert_tf.serving.fused_projection import fuse_projections
from lxmert_tf.serving.graph_inputs import (
    TEXT,
    SpecialIds,
    checked,
    completed,
    of_rank,
    real_rows,
    real_tokens,
    specs,
    without_empty_rows,
    without_padding,
)
from lxmert_tf.serving.question_tokenizer import QuestionTokenizer
from lxmert_tf.tokenization.tokenizer import LxmertTokenizer

UNMASKED = "_unmasked"
EXTRAS: dict[str, dict[str, bool | str]] = {  # what `outputs` may name -> the switches of the call
    "hidden_states": {"output_hidden_states": True},
    "attentions": {"output_attentions": True},
    "all_attentions": {"output_attentions": "all"},
}


@dataclass(frozen=True)
class Options:
    """How a model is offered.

    Args:
        tokenizer: for signatures that take questions as strings; needs tensorflow-text.
        labels: the answers in the order of the answer head, for answers as strings.
        outputs: of "hidden_states", "attentions" (upstream's three) and "all_attentions", those that serving_default
            gives too, stacked to [B, L, ...].
        top_k: answers given per question.
        probabilities: "sigmoid" for heads trained on soft scores, "softmax" for those trained on one answer.
        special: the ids of [CLS], [SEP] and [PAD], if they are known.
        detection: for signatures that take pictures; needs a tokenizer.
        checks: whether the graph refuses bad inputs, which not every runtime can.
    """

    tokenizer: LxmertTokenizer | None = None
    labels: AnswerTable | Sequence[str] | None = None
    outputs: Sequence[str] = ()
    top_k: int = 5
    probabilities: str = "sigmoid"
    special: SpecialIds | None = None
    detection: Detection | None = None
    checks: bool = True


class Servable:
    """A model as TF Serving sees it: its weights, and concrete functions by signature.

    Args:
        model: one of the TFLxmert models; its attention is fused, and it can only compute from here on.
        options: how it is offered.

    Attributes:
        root: what `tf.saved_model.save` saves; it holds the weights and nothing of Keras.
        signatures: the functions to save with it.
    """

    def __init__(self, model: keras.Model, options: Options):
        self.root = tf.Module(name="lxmert")
        self.root.weights = fuse_projections(model)
        self._model, self._options = model, options
        self._labels = None if options.labels is None else tf.constant(list(options.labels))
        self._tokenizer: QuestionTokenizer | None = None
        if options.tokenizer is not None:
            self._tokenizer = QuestionTokenizer(options.tokenizer, model.config.max_position_embeddings)
        self._specs = specs(model.config, model.num_images)
        self._respond = self._function(self._model_outputs, TEXT + IMAGE_INPUTS)
        self.signatures: dict[str, Any] = {}
        self._add("serving_default", TEXT + IMAGE_INPUTS, self._respond)
        if hasattr(model, "answer_encoded"):
            self._respond_encoded = self._function(self._encoded_outputs, TEXT + ENCODED_IMAGE_INPUTS)
            self._encode = self._function(self._image_outputs, IMAGE_INPUTS)
            self._add("encode_image", IMAGE_INPUTS, self._encode)
            self._add("answer_encoded", TEXT + ENCODED_IMAGE_INPUTS, self._respond_encoded)
        if self._tokenizer is not None:
            self._add("answer_text", ("questions", *IMAGE_INPUTS), self._from_questions(self._tokenizer, self._respond))
            if hasattr(model, "answer_encoded"):
                respond = self._from_questions(self._tokenizer, self._respond_encoded)
                self._add("answer_text_encoded", ("questions", *ENCODED_IMAGE_INPUTS), respond)
            if options.detection is not None:
                self._add_pictures(options.detection, self._tokenizer)

    # Signatures

    def _add(self, signature: str, names: tuple[str, ...], respond: Callable) -> None:
        fewer = tuple(name for name in names if name not in OPTIONAL_INPUTS)
        for suffix, given in (("", names), *([(UNMASKED, fewer)] if fewer != names else [])):

            def serve(**inputs: Any) -> dict[str, tf.Tensor]:
                return respond(completed(inputs, names))

            self.signatures[signature + suffix] = tf.function(serve, autograph=False).get_concrete_function(
                **{name: self._specs[name] for name in given}
            )

    def _function(self, compute: Callable, names: tuple[str, ...]) -> tf.function:
        """One traced function of a dict of inputs, which all signatures that need it share."""
        signature = [{name: self._specs[name] for name in names}]
        return tf.function(compute, input_signature=signature, autograph=False)

    def _from_questions(self, tokenizer: QuestionTokenizer, respond: Callable) -> Callable:
        def answer(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            text = tokenizer(inputs["questions"])
            rest = {name: value for name, value in inputs.items() if name != "questions"}
            return {name: value for name, value in respond({**text, **rest}).items() if name not in ENCODER_FIELDS}

        return answer

    def _add_pictures(self, detection: Detection, tokenizer: QuestionTokenizer) -> None:
        """The signatures that take pictures."""
        self.root.detector_weights = detection.weights
        self._specs["images"] = detection.spec
        axes = "batch" if self._model.num_images == 1 else f"batch, {self._model.num_images}"

        def detect(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            images = of_rank(inputs["images"], "images", axes)
            images = asserted(images, tf.size(images) > 0, "images must not be empty, got shape", tf.shape(images))
            return detection.find(images)

        def answer(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            images, questions = inputs["images"], inputs["questions"]
            rows, texts = tf.shape(images)[0], tf.size(questions)
            message = "questions must be as many as images, or a multiple of it, got"
            image = detect({"images": asserted(images, texts % tf.maximum(rows, 1) == 0, message, texts, rows)})
            if hasattr(self._model, "answer_encoded"):
                image, respond = self._encode(image), self._respond_encoded
            else:
                image = {name: tf.repeat(value, texts // rows, axis=0) for name, value in image.items()}
                respond = self._respond
            return self._from_questions(tokenizer, respond)({"questions": questions, **image})

        self._add("detect", ("images",), detect)
        self._add("answer_image", ("images", "questions"), answer)

    # What they compute

    def _model_outputs(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        inputs = self._prepared(inputs)
        if self._model.answers and not self._options.outputs:
            inputs = without_padding(inputs)
        wanted: dict[str, Any] = {"output_hidden_states": False, "output_attentions": False}
        for name, switches in EXTRAS.items():
            wanted |= switches if name in self._options.outputs else {}
        output = self._model(inputs, training=False, return_dict=True, **wanted)
        return self._named(output)

    def _image_outputs(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        inputs = self._prepared(inputs)
        encoded = self._model.encode_image(**inputs, training=False)
        return {
            "vision_states": self._float32(encoded["vision_states"], "vision_states"),
            "visual_attention_mask": tf.cast(encoded["visual_attention_mask"], tf.int32),
        }

    def _encoded_outputs(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        inputs = without_padding(self._prepared(inputs))
        inputs["vision_states"] = tf.cast(inputs["vision_states"], self._model.compute_dtype)
        return self._named(self._model.answer_encoded(**inputs, training=False, return_dict=True))

    def _prepared(self, inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """Checked inputs whose masks leave out what a server has added."""
        inputs = dict(inputs)
        if self._options.checks:
            inputs = checked(inputs, self._model.config, self._model.compute_dtype)
        if "input_ids" in inputs:
            inputs["attention_mask"] = real_tokens(inputs, self._options.special)
        values = [inputs[name] for name in ("visual_feats", "visual_pos", "vision_states") if name in inputs]
        inputs["visual_attention_mask"] = real_rows(inputs["visual_attention_mask"], *values)
        return without_empty_rows(inputs)

    # What they give

    def _named(self, output: Mapping[str, Any]) -> dict[str, tf.Tensor]:
        """Outputs by upstream's names and in float32; answers of models that answer."""
        tensors = {}
        for name, value in output.items():
            if isinstance(value, tuple):
                tensors.update(self._stacked(name, value))
            else:
                tensors[name] = self._float32(value, name)
        if self._model.task == "qa":
            tensors |= self._answers(tensors.pop(self._model.answers))
        elif self._model.task == "visual-reasoning":
            tensors["probabilities"] = tf.nn.softmax(tensors["logits"])
        return tensors

    def _float32(self, value: tf.Tensor, name: str) -> tf.Tensor:
        """The output in float32; in float16, sums over large features overflow, and that is an error."""
        if self._model.compute_dtype != "float16":
            return tf.cast(value, tf.float32)
        message = f"visual_feats must be smaller for float16, whose largest number is 65504: {name} overflows"
        with tf.control_dependencies([require(tf.reduce_all(tf.math.is_finite(value)), message)]):
            return tf.cast(value, tf.float32)

    def _stacked(self, name: str, layers: tuple) -> dict[str, tf.Tensor]:
        """The outputs of layers as one."""
        if not layers:
            return {}
        return {name: self._float32(stack_layers(layers, self._model.num_images), name)}

    def _answers(self, logits: tf.Tensor) -> dict[str, tf.Tensor]:
        activation = tf.nn.sigmoid if self._options.probabilities == "sigmoid" else tf.nn.softmax
        probabilities = activation(logits)
        k = min(self._options.top_k, logits.shape[-1])
        top_ids = tf.math.top_k(logits, k).indices  # by logits: probabilities near 1 are equal in float32
        answers = {
            "logits": logits,
            "probabilities": probabilities,
            "top_ids": top_ids,
            "top_scores": tf.gather(probabilities, top_ids, batch_dims=1),
        }
        if self._labels is not None:
            answers["top_answers"] = tf.gather(self._labels, top_ids)
        return answers
