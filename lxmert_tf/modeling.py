"""The LXMERT models: backbone, pretraining, question answering, visual reasoning.

Shapes: B examples, T tokens, N boxes, H hidden_size, A attention heads, V vocab_size, D visual_feat_dim.
"""

import keras
from keras import ops

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.inputs import (
    as_tensors,
    check_encoded_inputs,
    check_image_inputs,
    check_inputs,
    check_labels,
    check_scores,
    gather_inputs,
)
from lxmert_tf.layers.attention import attention_bias, score_dtype
from lxmert_tf.layers.embeddings import LxmertEmbeddings
from lxmert_tf.layers.heads import (
    LxmertPooler,
    LxmertPreTrainingHeads,
    LxmertVisualAnswerHead,
    LxmertVisualObjHead,
)
from lxmert_tf.layers.transformer import LxmertEncoder
from lxmert_tf.losses import Loss, answer_loss, cross_entropy, is_soft, visual_class_loss, visual_feature_loss
from lxmert_tf.outputs import (
    TFLxmertForPreTrainingOutput,
    TFLxmertForQuestionAnsweringOutput,
    TFLxmertForVisualReasoningOutput,
    TFLxmertModelOutput,
)
from lxmert_tf.pretrained import TFLxmertPreTrainedModel
from lxmert_tf.train_step import LossTrackers, TrainsOnOwnLosses

INPUTS = (
    "input_ids",
    "visual_feats",
    "visual_pos",
    "attention_mask",
    "visual_attention_mask",
    "token_type_ids",
    "inputs_embeds",
)
ENCODED_INPUTS = (
    "input_ids",
    "vision_states",
    "visual_attention_mask",
    "attention_mask",
    "token_type_ids",
    "inputs_embeds",
)


@keras.saving.register_keras_serializable("lxmert_tf")
class TFLxmertModel(TFLxmertPreTrainedModel):
    """The LXMERT backbone: language, vision and cross encoders, and the pooler.

    Args:
        config: sizes and rates.
        dtype: a Keras dtype ("float64") or dtype policy ("mixed_bfloat16").

    Example:
        model = TFLxmertModel(LxmertConfig())
        output = model(input_ids=ids, visual_feats=features, visual_pos=boxes)
        output.pooled_output  # float32[B, H]

    Source: Tan & Bansal 2019, section 2; upstream `TFLxmertModel`.
    """

    call_inputs = INPUTS
    call_labels = ()

    def __init__(self, config: LxmertConfig, **kwargs):
        super().__init__(config, **kwargs)
        config, dtype = self.config, self.dtype_policy
        self.embeddings = LxmertEmbeddings(config, name="embeddings", dtype=dtype)
        self.encoder = LxmertEncoder(config, name="encoder", dtype=dtype)
        self.pooler = LxmertPooler(config, name="pooler", dtype=dtype)
        self.build_unless_nested()

    def build_layers(self) -> None:
        self.embeddings.build()
        self.encoder.build()
        self.pooler.build()

    def call(
        self,
        input_ids=None,
        visual_feats=None,
        visual_pos=None,
        attention_mask=None,
        visual_attention_mask=None,
        token_type_ids=None,
        inputs_embeds=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        training=False,
        pooled_only=False,
    ):
        """Encodes text and image regions together.

        Args:
            input_ids: int[B, T], token ids; or a dict of all inputs, or a list of them in this order.
            visual_feats: float[B, N, D], region features.
            visual_pos: float[B, N, 4], boxes (x1, y1, x2, y2) in 0..1.
            attention_mask: int or float[B, T], 1 for tokens, 0 for padding. Default: all 1.
            visual_attention_mask: int or float[B, N], 1 for boxes, 0 for padding. Default: all 1.
            token_type_ids: int[B, T]. Default: all 0.
            inputs_embeds: float[B, T, H], word embeddings in place of `input_ids`.
            output_attentions, output_hidden_states: whether to return them. Default: the config's.
            return_dict: False for a plain tuple. Default: the config's.
            training: whether dropout is on.
            pooled_only: compute and return `pooled_output` alone, unless hidden states or attentions are asked for.

        Returns:
            `TFLxmertModelOutput`, or a tuple of its present entries.

        Raises:
            ValueError: an input is missing, of a wrong shape, or (eager mode) out of the vocabulary.
        """
        inputs = gather_inputs(
            input_ids,
            INPUTS,
            visual_feats=visual_feats,
            visual_pos=visual_pos,
            attention_mask=attention_mask,
            visual_attention_mask=visual_attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
        )
        check_inputs(inputs, self.config, self.compute_dtype)
        wants_states = self.default("output_hidden_states", output_hidden_states)
        wants_attentions = self.default("output_attentions", output_attentions)
        language = self._embed(inputs, training)
        vision = self._regions(inputs)
        biases = self._bias(inputs["attention_mask"]), self._bias(inputs["visual_attention_mask"])
        if pooled_only and not (wants_states or wants_attentions):
            language_states, _ = self.encoder.encode_language(language, biases[0], training)
            vision_states, _ = self.encoder.encode_vision(*vision, biases[1], training)
            return self._pooled(language_states[-1], vision_states[-1], *biases, return_dict, training)
        language_states, vision_states, *attentions = self.encoder(language, *vision, *biases, training=training)
        output = self._output(language_states[-1], vision_states[-1])
        if wants_states:
            output["language_hidden_states"] = tuple(language_states[1:])
            output["vision_hidden_states"] = tuple(vision_states[1:])
        if wants_attentions:
            for name, probabilities in zip(
                ("language_attentions", "vision_attentions", "cross_encoder_attentions"), attentions, strict=True
            ):
                output[name] = tuple(probabilities)
        return self.as_asked(output, return_dict)

    def encode_image(self, visual_feats, visual_pos, visual_attention_mask=None, training=False) -> dict:
        """Encodes image regions up to where they meet the text: once per image, however many texts it has.

        Args:
            visual_feats, visual_pos, visual_attention_mask, training: as in `call`.

        Returns:
            What `encode_text` takes: {"vision_states": float[B, N, H], "visual_attention_mask": int32[B, N]}.

        Raises:
            ValueError: an input is of a wrong shape.
        """
        inputs = as_tensors(
            {"visual_feats": visual_feats, "visual_pos": visual_pos, "visual_attention_mask": visual_attention_mask}
        )
        check_image_inputs(inputs, self.config, self.compute_dtype)
        mask = inputs["visual_attention_mask"]
        states, _ = self.encoder.encode_vision(*self._regions(inputs), self._bias(mask), training)
        mask = (
            ops.ones_like(states[-1][..., 0], "int32")
            if mask is None
            else ops.cast(ops.cast(mask, "float32") > 0, "int32")
        )
        return {"vision_states": states[-1], "visual_attention_mask": mask}

    def encode_text(
        self,
        input_ids=None,
        vision_states=None,
        visual_attention_mask=None,
        attention_mask=None,
        token_type_ids=None,
        inputs_embeds=None,
        return_dict=None,
        training=False,
        pooled_only=False,
    ):
        """Encodes text together with image regions that `encode_image` has encoded; the rest of `call`.

        Several texts may share an image, or several images a text: where one batch is k times the other, each row of
        the smaller one goes with k adjacent rows of the larger one.

        Args:
            input_ids: int[B, T]; or a dict of all inputs, or a list of them in this order.
            vision_states: float[B / k, N, H], from `encode_image`.
            visual_attention_mask: int[B / k, N], from `encode_image`. Default: all 1.
            attention_mask, token_type_ids, inputs_embeds, return_dict, training, pooled_only: as in `call`.

        Returns:
            `TFLxmertModelOutput` as from `call`, or a tuple of its present entries.

        Raises:
            ValueError: as `call`, or neither batch is a multiple of the other.
        """
        packed = gather_inputs(
            input_ids,
            ENCODED_INPUTS,
            vision_states=vision_states,
            visual_attention_mask=visual_attention_mask,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
        )
        inputs = as_tensors(packed)
        check_encoded_inputs(inputs, self.config)
        language_bias, vision_bias = self._bias(inputs["attention_mask"]), self._bias(inputs["visual_attention_mask"])
        language_states, _ = self.encoder.encode_language(self._embed(inputs, training), language_bias, training)
        language, vision = language_states[-1], ops.cast(inputs["vision_states"], self.compute_dtype)
        texts, images = ops.shape(language)[0], ops.shape(vision)[0]
        language, language_bias = repeat_rows(language, images), repeat_rows(language_bias, images)
        vision, vision_bias = repeat_rows(vision, texts), repeat_rows(vision_bias, texts)
        if pooled_only:
            return self._pooled(language, vision, language_bias, vision_bias, return_dict, training)
        language_states, vision_states, _ = self.encoder.encode_cross(
            language, vision, language_bias, vision_bias, training
        )
        return self.as_asked(self._output([language, *language_states][-1], [vision, *vision_states][-1]), return_dict)

    # The parts of a call

    def _embed(self, inputs: dict, training):
        return self.embeddings(
            inputs["input_ids"], inputs["token_type_ids"], inputs["inputs_embeds"], training=training
        )

    def _regions(self, inputs: dict) -> tuple:
        return tuple(ops.cast(inputs[name], self.compute_dtype) for name in ("visual_feats", "visual_pos"))

    def _bias(self, mask):
        return attention_bias(mask, score_dtype(self.compute_dtype))

    def _output(self, language, vision) -> TFLxmertModelOutput:
        return TFLxmertModelOutput(language_output=language, vision_output=vision, pooled_output=self.pooler(language))

    def _pooled(self, language, vision, language_bias, vision_bias, return_dict, training):
        first = self.encoder.encode_first_token(language, vision, language_bias, vision_bias, training)
        return self.as_asked(TFLxmertModelOutput(pooled_output=self.pooler(first)), return_dict)


def repeat_rows(x, rows):
    """x[B, ...] with each row repeated rows / B times, copies adjacent; as it is if None or of more rows."""
    if x is None:
        return None
    batch, *rest = ops.shape(x)
    if isinstance(batch, int) and isinstance(rows, int):
        if batch >= rows:
            return x
        copies = rows // max(batch, 1)
    else:
        copies = ops.maximum(rows // ops.maximum(batch, 1), 1)
    return ops.reshape(ops.broadcast_to(x[:, None], (batch, copies, *rest)), (batch * copies, *rest))


class _TaskModel(TrainsOnOwnLosses, TFLxmertPreTrainedModel):
    """A backbone `lxmert` with heads on it."""

    def __init__(self, config: LxmertConfig, **kwargs):
        super().__init__(config, **kwargs)
        self.loss_trackers = LossTrackers(self.loss_names, score_dtype(self.compute_dtype))
        self.lxmert = TFLxmertModel(self.config, name="lxmert", dtype=self.dtype_policy, nested=True)

    def encode(
        self, inputs: dict, output_attentions, output_hidden_states, training, pooled_only=False
    ) -> TFLxmertModelOutput:
        """The backbone's output for gathered inputs."""
        return self.lxmert(
            {name: inputs[name] for name in INPUTS},
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
            pooled_only=pooled_only,
        )

    def answer_losses(self, logits, labels) -> dict[str, Loss]:
        """The loss of the answer head by name, if there are labels: see `answer_loss`."""
        if labels is None:
            return {}
        soft = is_soft(labels, logits)
        labels = check_scores(labels) if soft else check_labels("labels", labels, logits.shape[-1])
        return {"answer_loss": answer_loss(logits, labels, self.config.problem_type)}


@keras.saving.register_keras_serializable("lxmert_tf")
class TFLxmertForPreTraining(_TaskModel):
    """LXMERT with its pretraining heads: masked words, matching, masked objects, and answers.

    Args:
        config: sizes, rates, and which tasks have a loss (`task_*`, `visual_*_loss`).
        dtype: a Keras dtype or dtype policy.

    Source: Tan & Bansal 2019, section 3; upstream `TFLxmertForPreTraining`.
    """

    call_labels = ("masked_lm_labels", "obj_labels", "matched_label", "ans", "labels")
    call_inputs = INPUTS
    loss_names = ("masked_lm_loss", "matched_loss", "obj_loss", "attr_loss", "feat_loss", "ans_loss")
    class_outputs = {  # noqa: RUF012
        "masked_lm_labels": ("masked_lm", "prediction_logits"),
        "matched_label": ("matched", "cross_relationship_score"),
        "ans": ("ans", "question_answering_score"),
    }

    def __init__(self, config: LxmertConfig, **kwargs):
        super().__init__(config, **kwargs)
        config, dtype = self.config, self.dtype_policy
        self.cls = LxmertPreTrainingHeads(config, name="cls", dtype=dtype)
        if config.task_obj_predict:
            self.obj_predict_head = LxmertVisualObjHead(config, name="obj_predict_head", dtype=dtype)
        if config.task_qa:
            self.answer_head = LxmertVisualAnswerHead(config, config.num_qa_labels, name="answer_head", dtype=dtype)
        self.build_unless_nested()

    def build_layers(self) -> None:
        self.lxmert.build()
        self.cls.build()
        if self.config.task_obj_predict:
            self.obj_predict_head.build()
        if self.config.task_qa:
            self.answer_head.build()

    def call(
        self,
        input_ids=None,
        visual_feats=None,
        visual_pos=None,
        attention_mask=None,
        visual_attention_mask=None,
        token_type_ids=None,
        inputs_embeds=None,
        masked_lm_labels=None,
        obj_labels=None,
        matched_label=None,
        ans=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        training=False,
        labels=None,
    ):
        """Encodes, predicts, and sums the losses whose labels are given.

        Args:
            input_ids ... inputs_embeds: as in `TFLxmertModel.call`.
            masked_lm_labels: int[B, T], the hidden word's id, -100 elsewhere.
            obj_labels: dict with any of "obj": (int[B, N], float[B, N]), object ids and the detector's confidence;
                "attr": the same for attributes; "feat": (float[B, N, D], float[B, N]), features and mask.
            matched_label: int[B], 1 if the sentence matches the image, else 0; -100 is ignored.
            ans: int[B], answer ids, -100 for none.
            output_attentions, output_hidden_states, return_dict, training: as in `TFLxmertModel.call`.
            labels: PyTorch's name for `masked_lm_labels`.

        Returns:
            `TFLxmertForPreTrainingOutput`, or a tuple of its present entries.

        Raises:
            ValueError: as `TFLxmertModel.call`, or `masked_lm_labels` and `labels` are both given.
        """
        inputs = gather_inputs(
            input_ids,
            INPUTS + self.call_labels,
            visual_feats=visual_feats,
            visual_pos=visual_pos,
            attention_mask=attention_mask,
            visual_attention_mask=visual_attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            masked_lm_labels=masked_lm_labels,
            obj_labels=obj_labels,
            matched_label=matched_label,
            ans=ans,
            labels=labels,
        )
        encoded = self.encode(inputs, output_attentions, output_hidden_states, training)
        word_embeddings = self.lxmert.embeddings.word_embeddings.weight
        prediction_logits, cross_relationship_score = self.cls(
            encoded.language_output, encoded.pooled_output, word_embeddings
        )
        output = TFLxmertForPreTrainingOutput(
            prediction_logits=prediction_logits,
            cross_relationship_score=cross_relationship_score,
            question_answering_score=self.answer_head(encoded.pooled_output) if self.config.task_qa else None,
        )
        losses = self.pretraining_losses(output, encoded, inputs, training)
        return self.as_asked(self.finish(output, encoded, losses), return_dict)

    def pretraining_losses(
        self, output: TFLxmertForPreTrainingOutput, encoded: TFLxmertModelOutput, labels: dict, training
    ) -> dict[str, Loss]:
        """Each loss by name, of the tasks that the config switches on and that have labels among the inputs."""
        config, losses = self.config, {}
        masked_lm_labels = labels["masked_lm_labels"]
        if labels["labels"] is not None:
            if masked_lm_labels is not None:
                raise ValueError("labels is another name for masked_lm_labels; give one of them, not both.")
            masked_lm_labels = labels["labels"]
        if config.task_mask_lm and masked_lm_labels is not None:
            words = check_labels("masked_lm_labels", masked_lm_labels, config.vocab_size)
            losses["masked_lm_loss"] = self.word_loss(output, encoded, words, training)
        if config.task_matched and labels["matched_label"] is not None:
            matched = check_labels("matched_label", labels["matched_label"], 2)
            losses["matched_loss"] = cross_entropy(output.cross_relationship_score, matched)
        if config.task_obj_predict and labels["obj_labels"] is not None:
            mask = labels["visual_attention_mask"]
            losses.update(self.visual_losses(encoded.vision_output, labels["obj_labels"], mask))
        if config.task_qa and labels["ans"] is not None:
            answers = check_labels("ans", labels["ans"], config.num_qa_labels)
            losses["ans_loss"] = cross_entropy(output.question_answering_score, answers)
        return losses

    def word_loss(self, output: TFLxmertForPreTrainingOutput, encoded: TFLxmertModelOutput, labels, training) -> Loss:
        """The loss of the hidden words; where nothing else in a training step asks for logits, none are computed."""
        if not training or keras.backend.backend() != "tensorflow":
            return cross_entropy(output.prediction_logits, labels)
        table = self.lxmert.embeddings.word_embeddings.weight
        return self.cls.predictions.loss(encoded.language_output, table, labels)

    def visual_losses(self, vision_output, obj_labels: dict, mask=None) -> dict[str, Loss]:
        """Losses of the masked boxes, for each entry of `obj_labels` that the config switches on."""
        unknown = sorted(set(obj_labels) - {"obj", "attr", "feat"})
        if unknown:
            raise ValueError(f"obj_labels holds {unknown[0]!r}, which is none of obj, attr, feat.")
        losses = {}
        for name, predictions in self.obj_predict_head(vision_output).items():
            if name in obj_labels:
                targets, weights = obj_labels[name]
                loss = visual_feature_loss if name == "feat" else visual_class_loss
                if name != "feat":
                    targets = check_labels(f"obj_labels[{name!r}]", targets, predictions.shape[-1])
                losses[f"{name}_loss"] = loss(predictions, targets, weights, self.config.visual_loss_normalizer, mask)
        return losses


@keras.saving.register_keras_serializable("lxmert_tf")
class TFLxmertForQuestionAnswering(_TaskModel):
    """LXMERT with an answer head, for VQA and GQA.

    Args:
        config: sizes and rates; `num_qa_labels` answers.
        dtype: a Keras dtype or dtype policy.

    Source: Tan & Bansal 2019, section 4; upstream PyTorch `LxmertForQuestionAnswering`.
    """

    call_labels = ("labels",)
    call_inputs = INPUTS

    def __init__(self, config: LxmertConfig, **kwargs):
        super().__init__(config, **kwargs)
        config = self.config
        self.answer_head = LxmertVisualAnswerHead(
            config, config.num_qa_labels, name="answer_head", dtype=self.dtype_policy
        )
        self.build_unless_nested()

    def build_layers(self) -> None:
        self.lxmert.build()
        self.answer_head.build()

    def call(
        self,
        input_ids=None,
        visual_feats=None,
        visual_pos=None,
        attention_mask=None,
        visual_attention_mask=None,
        token_type_ids=None,
        inputs_embeds=None,
        labels=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        training=False,
    ):
        """Encodes and answers.

        Args:
            input_ids ... inputs_embeds: as in `TFLxmertModel.call`.
            labels: int[B], answer ids, -100 for none (cross entropy); or float[B, num_qa_labels], soft scores in
                0..1 (binary cross entropy, the paper's fine-tuning loss).
            output_attentions, output_hidden_states, return_dict, training: as in `TFLxmertModel.call`.

        Returns:
            `TFLxmertForQuestionAnsweringOutput`, or a tuple of its present entries.

        Raises:
            ValueError: as `TFLxmertModel.call`.
        """
        inputs = gather_inputs(
            input_ids,
            INPUTS + self.call_labels,
            visual_feats=visual_feats,
            visual_pos=visual_pos,
            attention_mask=attention_mask,
            visual_attention_mask=visual_attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
        )
        encoded = self.encode(inputs, output_attentions, output_hidden_states, training, pooled_only=True)
        return self.as_asked(self._answer(encoded, inputs["labels"]), return_dict)

    def encode_image(self, visual_feats, visual_pos, visual_attention_mask=None, training=False) -> dict:
        """Encodes images for `answer_encoded`, once each, however many questions they have.

        Args:
            visual_feats, visual_pos, visual_attention_mask, training: as in `call`.

        Returns:
            {"vision_states": float[B, N, H], "visual_attention_mask": int32[B, N]}

        Raises:
            ValueError: an input is of a wrong shape.
        """
        return self.lxmert.encode_image(visual_feats, visual_pos, visual_attention_mask, training=training)

    def answer_encoded(
        self,
        input_ids=None,
        vision_states=None,
        visual_attention_mask=None,
        attention_mask=None,
        token_type_ids=None,
        inputs_embeds=None,
        labels=None,
        return_dict=None,
        training=False,
    ):
        """Answers questions about images that `encode_image` has encoded, as `call` does from the images themselves.

        Args:
            input_ids: int[B, T]; or a dict of all inputs, or a list of them in this order.
            vision_states: float[B / k, N, H], from `encode_image`: of one image, of every question's image, or of
                images with k questions each, those of an image adjacent.
            visual_attention_mask: int[B / k, N], from `encode_image`. Default: all 1.
            attention_mask, token_type_ids, inputs_embeds, labels, return_dict, training: as in `call`.

        Returns:
            `TFLxmertForQuestionAnsweringOutput`, or a tuple of its present entries.

        Raises:
            ValueError: as `call`, or neither the number of questions nor that of images is a multiple of the other.

        Example:
            encoded = model.encode_image(features, boxes)  # of one image
            output = model.answer_encoded(ids, **encoded, attention_mask=mask)  # all its questions
        """
        inputs = gather_inputs(
            input_ids,
            ENCODED_INPUTS + self.call_labels,
            vision_states=vision_states,
            visual_attention_mask=visual_attention_mask,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
        )
        text = {name: inputs[name] for name in ENCODED_INPUTS}
        encoded = self.lxmert.encode_text(text, return_dict=True, training=training, pooled_only=True)
        return self.as_asked(self._answer(encoded, inputs["labels"]), return_dict)

    def _answer(self, encoded: TFLxmertModelOutput, labels) -> TFLxmertForQuestionAnsweringOutput:
        score = self.answer_head(encoded.pooled_output)
        output = TFLxmertForQuestionAnsweringOutput(question_answering_score=score)
        return self.finish(output, encoded, self.answer_losses(score, labels))


@keras.saving.register_keras_serializable("lxmert_tf")
class TFLxmertForVisualReasoning(_TaskModel):
    """LXMERT over pairs of images, for NLVR2: is the sentence true of both?

    The sentence is encoded with each image; both pooled outputs, joined, are classified into false and true.

    Args:
        config: sizes and rates.
        dtype: a Keras dtype or dtype policy.

    Source: Tan & Bansal 2019, section 4; the original code's `NLVR2Model`.
    """

    call_labels = ("labels",)
    call_inputs = INPUTS
    images = 2

    def __init__(self, config: LxmertConfig, **kwargs):
        super().__init__(config, **kwargs)
        self.answer_head = LxmertVisualAnswerHead(
            self.config, 2, images=self.images, name="answer_head", dtype=self.dtype_policy
        )
        self.build_unless_nested()

    def build_layers(self) -> None:
        self.lxmert.build()
        self.answer_head.build()

    def call(
        self,
        input_ids=None,
        visual_feats=None,
        visual_pos=None,
        attention_mask=None,
        visual_attention_mask=None,
        token_type_ids=None,
        inputs_embeds=None,
        labels=None,
        output_attentions=None,
        output_hidden_states=None,
        return_dict=None,
        training=False,
    ):
        """Encodes each sentence with both of its images and classifies.

        Args:
            input_ids: int[B, T], attention_mask, token_type_ids, inputs_embeds: as in `TFLxmertModel.call`.
            visual_feats: float[B, 2, N, D], region features of both images.
            visual_pos: float[B, 2, N, 4], their boxes in 0..1.
            visual_attention_mask: int or float[B, 2, N]. Default: all 1.
            labels: int[B], 1 if the sentence is true, else 0; -100 is ignored.
            output_attentions, output_hidden_states, return_dict, training: as in `TFLxmertModel.call`.

        Returns:
            `TFLxmertForVisualReasoningOutput`, or a tuple of its present entries.

        Raises:
            ValueError: as `TFLxmertModel.call`.
        """
        inputs = gather_inputs(
            input_ids,
            INPUTS + self.call_labels,
            visual_feats=visual_feats,
            visual_pos=visual_pos,
            attention_mask=attention_mask,
            visual_attention_mask=visual_attention_mask,
            token_type_ids=token_type_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
        )
        check_inputs(inputs, self.config, self.compute_dtype, images=self.images)
        encoded = self._encode_pairs(inputs, output_attentions, output_hidden_states, training)
        pairs = ops.reshape(encoded.pooled_output, (-1, self.images * self.config.hidden_size))
        logits = self.answer_head(pairs)
        losses = self.answer_losses(logits, inputs["labels"])
        output = self.finish(TFLxmertForVisualReasoningOutput(logits=logits), encoded, losses)
        return self.as_asked(output, return_dict)

    def _encode_pairs(self, inputs: dict, output_attentions, output_hidden_states, training) -> TFLxmertModelOutput:
        """The backbone's output for each image. Where nothing but that is asked for, a sentence is encoded once."""
        flat = {name: self._row_per_image(name, value) for name, value in inputs.items() if name in INPUTS}
        wants_more = self.default("output_attentions", output_attentions) or self.default(
            "output_hidden_states", output_hidden_states
        )
        if training or wants_more:  # dropout differs between the copies of a sentence
            return self.encode(flat, output_attentions, output_hidden_states, training, pooled_only=True)
        encoded = self.lxmert.encode_image(*(flat[name] for name in INPUTS if name.startswith("visual")))
        text = {name: inputs[name] for name in INPUTS if not name.startswith("visual")}
        return self.lxmert.encode_text(text, **encoded, return_dict=True, pooled_only=True)

    def get_qa_logit_layer(self) -> None:
        """None: true and false are not answers of a table that could change."""

    def _row_per_image(self, name: str, value):
        """[B, ...] text, repeated, or [B, 2, ...] vision, flattened -> [2B, ...], the images of an example adjacent."""
        if value is None:
            return None
        if name.startswith("visual"):
            return ops.reshape(value, (-1, *ops.shape(value)[2:]))
        return ops.repeat(value, self.images, axis=0)
