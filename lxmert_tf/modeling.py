"""The LXMERT models: backbone, pretraining, question answering, visual reasoning.

Shapes: B examples, T tokens, N boxes, H hidden_size, A attention heads, V vocab_size, D visual_feat_dim.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
from keras import ops

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.input_table import INPUTS, image_inputs, text_inputs
from lxmert_tf.inputs import check_inputs, check_labels, check_scores, gather_inputs, head_masks
from lxmert_tf.layers.attention import attention_bias, recorded_attention, score_dtype
from lxmert_tf.layers.embeddings import LxmertEmbeddings
from lxmert_tf.layers.heads import (
    LxmertPooler,
    LxmertPreTrainingHeads,
    LxmertVisualAnswerHead,
    LxmertVisualObjHead,
)
from lxmert_tf.layers.transformer import LxmertEncoder
from lxmert_tf.losses import (
    Loss,
    answer_loss,
    cross_entropy,
    is_soft,
    visual_class_loss,
    visual_feature_loss,
    weight_of,
)
from lxmert_tf.outputs import (
    ATTENTION_FIELDS,
    ModelOutput,
    TFLxmertForPreTrainingOutput,
    TFLxmertForQuestionAnsweringOutput,
    TFLxmertForVisualReasoningOutput,
    TFLxmertModelOutput,
    attention_fields,
)
from lxmert_tf.pretrained import TFLxmertPreTrainedModel
from lxmert_tf.shortcuts import AnswerShortcuts, BackboneShortcuts, MatchShortcuts
from lxmert_tf.train_step import OwnMetrics, TrainsOnOwnLosses


@keras.saving.register_keras_serializable("lxmert_tf")
class TFLxmertModel(BackboneShortcuts, TFLxmertPreTrainedModel):
    """The LXMERT backbone: language, vision and cross encoders, and the pooler.

    Args:
        config: sizes and rates.
        dtype: a Keras dtype ("float64") or dtype policy ("mixed_bfloat16").

    Examples:
        >>> model = TFLxmertModel(LxmertConfig())
        >>> output = model(input_ids=ids, visual_feats=features, visual_pos=boxes)
        >>> output.pooled_output  # float32[B, H]

    Source: Tan & Bansal 2019, section 2; upstream `TFLxmertModel`.
    """

    task = "model"

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.embeddings = LxmertEmbeddings(self.config, name="embeddings", **self.options())
        self.encoder = LxmertEncoder(self.config, name="encoder", **self.options())
        self.pooler = LxmertPooler(self.config, name="pooler", **self.options())
        self.build_root()

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
        output_attentions: bool | str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
        *,
        head_mask=None,
    ) -> TFLxmertModelOutput | tuple:
        """Encodes text and image regions together.

        Args:
            input_ids: int[B, T], token ids; or a dict of all inputs, or a list of them in this order.
            visual_feats: float[B, N, D], region features.
            visual_pos: float[B, N, 4], boxes (x1, y1, x2, y2) in 0..1.
            attention_mask: int or float[B, T], 1 for tokens, 0 for padding. Default: all 1.
            visual_attention_mask: int or float[B, N], 1 for boxes, 0 for padding. Default: all 1.
            token_type_ids: int[B, T]. Default: all 0.
            inputs_embeds: float[B, T, H], word embeddings in place of `input_ids`.
            output_attentions, output_hidden_states: whether to return them; "all" for the attentions that upstream does
                not return, too. Default: the config's.
            return_dict: False for a plain tuple. Default: the config's.
            training: whether dropout is on.
            head_mask: float[A] or [l_layers, A], multiplies the attention probabilities of the language layers' heads:
                1 for heads that stay, 0 for those that are switched off. Those of other attentions are in a dict:
                "language"; "vision", [A] or [r_layers, A]; "cross", both ways, "cross_language" and "cross_vision", the
                self-attention in cross layers, [A] or [x_layers, A]. Default: all 1.

        Returns:
            `TFLxmertModelOutput`, or a tuple of its present entries.

        Raises:
            ValueError: an input is missing, of a wrong shape, or (eager mode) out of the vocabulary.
        """
        inputs = gather_inputs(
            INPUTS,
            input_ids,
            visual_feats,
            visual_pos,
            attention_mask,
            visual_attention_mask,
            token_type_ids,
            inputs_embeds,
        )
        check_inputs(inputs, self.config, self.compute_dtype)
        output_attentions = self.switch("output_attentions", output_attentions)
        if output_attentions not in (True, False, "all"):
            raise ValueError(f'output_attentions must be True, False or "all", got {output_attentions!r}.')
        every = output_attentions == "all"
        recording: AbstractContextManager[list] = recorded_attention() if every else nullcontext([])
        with recording as maps:
            language_states, vision_states, *attentions = self.encoder(
                self.embed(inputs, training),
                *self.regions(inputs),
                *self.biases(inputs),
                head_masks(head_mask, self.config, self.compute_dtype),
                training=training,
                output_attentions=bool(output_attentions),
            )
        output = self.make_output(language_states[-1], vision_states[-1])
        if self.switch("output_hidden_states", output_hidden_states):
            output["language_hidden_states"] = tuple(language_states[1:])
            output["vision_hidden_states"] = tuple(vision_states[1:])
        if every:
            output.update(attention_fields(maps, self.config.l_layers, self.config.r_layers))
        elif output_attentions:
            output.update(zip(ATTENTION_FIELDS, map(tuple, attentions), strict=False))
        return self.format_output(output, return_dict)

    # The parts of a call

    def embed(self, inputs: dict, training: bool):
        """The text's hidden states before the first layer, float[B, T, H]."""
        ids, types, embeds = (inputs[name] for name in ("input_ids", "token_type_ids", "inputs_embeds"))
        return self.embeddings(ids, types, embeds, training=training)

    def regions(self, inputs: dict) -> tuple:
        """Region features float[B, N, D] and boxes float[B, N, 4] in the dtype of the computation."""
        return tuple(ops.cast(inputs[name], self.compute_dtype) for name in ("visual_feats", "visual_pos"))

    def biases(self, inputs: dict) -> tuple:
        """What is added to the scores of tokens and of boxes, float[B, 1, 1, T] and float[B, 1, 1, N], or None."""
        return self.bias(inputs["attention_mask"]), self.bias(inputs["visual_attention_mask"])

    def bias(self, mask):
        """As `attention_bias`, in the dtype of the scores."""
        return attention_bias(mask, score_dtype(self.compute_dtype))

    def make_output(self, language, vision) -> TFLxmertModelOutput:
        """Both streams after the last layer, and what the pooler makes of them."""
        return TFLxmertModelOutput(language_output=language, vision_output=vision, pooled_output=self.pooler(language))


class _TaskModel(TrainsOnOwnLosses, TFLxmertPreTrainedModel):
    """A backbone `lxmert` with heads on it."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.own_metrics = OwnMetrics(self.loss_names, score_dtype(self.compute_dtype))
        self.lxmert = TFLxmertModel(self.config, name="lxmert", nested=True, **self.options())

    def get_backbone(self) -> TFLxmertModel:
        return self.lxmert

    def encode(
        self,
        inputs: dict,
        output_attentions: bool | str | None,
        output_hidden_states: bool | None,
        training: bool,
        head_mask,
    ) -> TFLxmertModelOutput:
        """The backbone's output for gathered inputs."""
        return self.lxmert(
            {name: inputs[name] for name in INPUTS},
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            training=training,
            head_mask=head_mask,
        )

    def encode_pooled(
        self,
        inputs: dict,
        output_attentions: bool | str | None,
        output_hidden_states: bool | None,
        training: bool,
        head_mask,
    ) -> TFLxmertModelOutput:
        """As `encode`; nothing but the pooled output where nothing else is asked for."""
        if head_mask is not None or self.returns_states(output_attentions, output_hidden_states):
            return self.encode(inputs, output_attentions, output_hidden_states, training, head_mask)
        return self.lxmert.pool(inputs, training)

    def returns_states(self, output_attentions: bool | str | None, output_hidden_states: bool | None) -> bool:
        """Whether a call asks for hidden states or attentions."""
        return self.switch("output_attentions", output_attentions) or self.switch(
            "output_hidden_states", output_hidden_states
        )

    def compute_losses(
        self, output: ModelOutput, labels: dict, sample_weight=None, training: bool = False
    ) -> dict[str, Loss]:
        """The loss of the answer head by name, if there are labels: see `answer_loss`."""
        given = labels.get("labels")
        if given is None or self.answers is None:
            return {}
        logits = output[self.answers]
        given = check_scores(given) if is_soft(given, logits) else check_labels("labels", given, logits.shape[-1])
        weight = weight_of(sample_weight, "labels")
        return {"answer_loss": answer_loss(logits, given, self.config.problem_type, weight)}


@keras.saving.register_keras_serializable("lxmert_tf")
class TFLxmertForPreTraining(MatchShortcuts, _TaskModel):
    """LXMERT with its pretraining heads: masked words, matching, masked objects, and answers.

    Args:
        config: sizes, rates, and which tasks have a loss (`task_*`, `visual_*_loss`).
        dtype: a Keras dtype or dtype policy.

    Source: Tan & Bansal 2019, section 3; upstream `TFLxmertForPreTraining`.
    """

    task = "pretraining"
    call_labels = ("masked_lm_labels", "obj_labels", "matched_label", "ans", "labels")
    loss_names = ("masked_lm_loss", "matched_loss", "obj_loss", "attr_loss", "feat_loss", "ans_loss")
    class_outputs = {  # noqa: RUF012
        "masked_lm_labels": ("masked_lm", "prediction_logits"),
        "matched_label": ("matched", "cross_relationship_score"),
        "ans": ("ans", "question_answering_score"),
    }

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        config = self.config
        self.cls = LxmertPreTrainingHeads(config, name="cls", **self.options())
        if config.task_obj_predict:
            self.obj_predict_head = LxmertVisualObjHead(config, name="obj_predict_head", **self.options())
        if config.task_qa:
            self.answer_head = LxmertVisualAnswerHead(
                config, config.num_qa_labels, name="answer_head", **self.options()
            )
        self.build_root()

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
        output_attentions: bool | str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
        labels=None,
        *,
        head_mask=None,
    ) -> TFLxmertForPreTrainingOutput | tuple:
        """Encodes, predicts, and sums the losses whose labels are given.

        Args:
            input_ids ... inputs_embeds: as in `TFLxmertModel.call`.
            masked_lm_labels: int[B, T], the hidden word's id, -100 elsewhere.
            obj_labels: dict with any of "obj": (int[B, N], float[B, N]), object ids and the detector's confidence;
                "attr": the same for attributes; "feat": (float[B, N, D], float[B, N]), features and mask.
            matched_label: int[B], 1 if the sentence matches the image, else 0; -100 is ignored.
            ans: int[B], answer ids, -100 for none.
            output_attentions, output_hidden_states, return_dict, training, head_mask: as in `TFLxmertModel.call`.
            labels: PyTorch's name for `masked_lm_labels`.

        Returns:
            `TFLxmertForPreTrainingOutput`, or a tuple of its present entries.

        Raises:
            ValueError: as `TFLxmertModel.call`, or `masked_lm_labels` and `labels` are both given.
        """
        inputs = gather_inputs(
            INPUTS + self.call_labels,
            input_ids,
            visual_feats,
            visual_pos,
            attention_mask,
            visual_attention_mask,
            token_type_ids,
            inputs_embeds,
            masked_lm_labels,
            obj_labels,
            matched_label,
            ans,
            labels,
        )
        encoded = self.encode(inputs, output_attentions, output_hidden_states, training, head_mask)
        word_embeddings = self.lxmert.embeddings.word_embeddings.weight
        prediction_logits, cross_relationship_score = self.cls(
            encoded.language_output, encoded.pooled_output, word_embeddings
        )
        output = TFLxmertForPreTrainingOutput(
            prediction_logits=prediction_logits,
            cross_relationship_score=cross_relationship_score,
            question_answering_score=self.answer_head(encoded.pooled_output) if self.config.task_qa else None,
            encoded={**encoded, "visual_attention_mask": inputs["visual_attention_mask"]},
        )
        losses = self.compute_losses(output, inputs, training=training)
        return self.format_output(self.assemble_output(output, encoded, losses), return_dict)

    def compute_losses(
        self, output: ModelOutput, labels: dict, sample_weight=None, training: bool = False
    ) -> dict[str, Loss]:
        """Each loss by name, of the tasks that the config switches on and that have labels; weights are per example."""
        config, losses = self.config, {}
        given = {name: labels.get(name) for name in self.call_labels}
        words, weight = given["masked_lm_labels"], weight_of(sample_weight, "masked_lm_labels")
        if given["labels"] is not None:
            if words is not None:
                raise ValueError("labels is another name for masked_lm_labels; give one of them, not both.")
            words, weight = given["labels"], weight_of(sample_weight, "labels")
        if config.task_mask_lm and words is not None:
            words = check_labels("masked_lm_labels", words, config.vocab_size)
            losses["masked_lm_loss"] = self.word_loss(output, words, weight, training)
        if config.task_matched and given["matched_label"] is not None:
            matched = check_labels("matched_label", given["matched_label"], 2)
            weight = weight_of(sample_weight, "matched_label")
            losses["matched_loss"] = cross_entropy(output.cross_relationship_score, matched, weight)
        if config.task_obj_predict and given["obj_labels"] is not None:
            losses.update(self.visual_losses(output, given["obj_labels"], weight_of(sample_weight, "obj_labels")))
        if config.task_qa and given["ans"] is not None:
            answers = check_labels("ans", given["ans"], config.num_qa_labels)
            weight = weight_of(sample_weight, "ans")
            losses["ans_loss"] = cross_entropy(output.question_answering_score, answers, weight)
        return losses

    def word_loss(self, output: ModelOutput, labels, sample_weight, training: bool) -> Loss:
        """The loss of the hidden words; where nothing else in a training step asks for logits, none are computed."""
        if not training or not output.encoded or keras.backend.backend() != "tensorflow":
            return cross_entropy(output.prediction_logits, labels, sample_weight)
        table = self.lxmert.embeddings.word_embeddings.weight
        return self.cls.predictions.loss(output.encoded["language_output"], table, labels, sample_weight)

    def visual_losses(self, output: ModelOutput, obj_labels: dict, sample_weight) -> dict[str, Loss]:
        """Losses of the masked boxes, for each entry of `obj_labels` that the config switches on."""
        unknown = sorted(set(obj_labels) - {"obj", "attr", "feat"})
        if unknown:
            raise ValueError(f"obj_labels holds {unknown[0]!r}, which is none of obj, attr, feat.")
        if not output.encoded:
            raise ValueError("obj_labels needs an output that a call of TFLxmertForPreTraining has made itself.")
        losses, normalizer = {}, self.config.visual_loss_normalizer
        mask = output.encoded["visual_attention_mask"]
        for name, predictions in self.obj_predict_head(output.encoded["vision_output"]).items():
            if name in obj_labels:
                targets, weights = obj_labels[name]
                loss = visual_feature_loss if name == "feat" else visual_class_loss
                if name != "feat":
                    targets = check_labels(f"obj_labels[{name!r}]", targets, predictions.shape[-1])
                weight = weight_of(sample_weight, name)
                losses[f"{name}_loss"] = loss(predictions, targets, weights, normalizer, mask, weight)
        return losses


@keras.saving.register_keras_serializable("lxmert_tf")
class TFLxmertForQuestionAnswering(AnswerShortcuts, _TaskModel):
    """LXMERT with an answer head, for VQA and GQA.

    Args:
        config: sizes and rates; `num_qa_labels` answers.
        dtype: a Keras dtype or dtype policy.

    Source: Tan & Bansal 2019, section 4; upstream PyTorch `LxmertForQuestionAnswering`.
    """

    task, answers = "qa", "question_answering_score"
    call_labels = ("labels",)

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.answer_head = LxmertVisualAnswerHead(
            self.config, self.config.num_qa_labels, name="answer_head", **self.options()
        )
        self.build_root()

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
        output_attentions: bool | str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
        *,
        head_mask=None,
    ) -> TFLxmertForQuestionAnsweringOutput | tuple:
        """Encodes and answers.

        Args:
            input_ids ... inputs_embeds: as in `TFLxmertModel.call`.
            labels: int[B], answer ids, -100 for none (cross entropy); or float[B, num_qa_labels], soft scores in
                0..1 (binary cross entropy, the paper's fine-tuning loss).
            output_attentions, output_hidden_states, return_dict, training, head_mask: as in `TFLxmertModel.call`.

        Returns:
            `TFLxmertForQuestionAnsweringOutput`, or a tuple of its present entries.

        Raises:
            ValueError: as `TFLxmertModel.call`.
        """
        inputs = gather_inputs(
            INPUTS + self.call_labels,
            input_ids,
            visual_feats,
            visual_pos,
            attention_mask,
            visual_attention_mask,
            token_type_ids,
            inputs_embeds,
            labels,
        )
        encoded = self.encode_pooled(inputs, output_attentions, output_hidden_states, training, head_mask)
        return self.format_output(self.answer(encoded, inputs["labels"]), return_dict)

    def answer(self, encoded: TFLxmertModelOutput, labels) -> TFLxmertForQuestionAnsweringOutput:
        """What the answer head makes of the pooled output, and its loss if there are labels."""
        score = self.answer_head(encoded.pooled_output)
        output = TFLxmertForQuestionAnsweringOutput(question_answering_score=score)
        return self.assemble_output(output, encoded, self.compute_losses(output, {"labels": labels}))


@keras.saving.register_keras_serializable("lxmert_tf")
class TFLxmertForVisualReasoning(_TaskModel):
    """LXMERT over pairs of images, for NLVR2: is the sentence true of both?

    The sentence is encoded with each image; both pooled outputs, joined, are classified into false and true.

    Args:
        config: sizes and rates.
        dtype: a Keras dtype or dtype policy.

    Source: Tan & Bansal 2019, section 4; the original code's `NLVR2Model`.
    """

    task, answers, num_images = "visual-reasoning", "logits", 2
    call_labels = ("labels",)

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.answer_head = LxmertVisualAnswerHead(
            self.config, 2, num_images=self.num_images, name="answer_head", **self.options()
        )
        self.build_root()

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
        output_attentions: bool | str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        training: bool = False,
        *,
        head_mask=None,
    ) -> TFLxmertForVisualReasoningOutput | tuple:
        """Encodes each sentence with both of its images and classifies.

        Args:
            input_ids: int[B, T], attention_mask, token_type_ids, inputs_embeds: as in `TFLxmertModel.call`.
            visual_feats: float[B, 2, N, D], region features of both images.
            visual_pos: float[B, 2, N, 4], their boxes in 0..1.
            visual_attention_mask: int or float[B, 2, N]. Default: all 1.
            labels: int[B], 1 if the sentence is true, else 0; -100 is ignored.
            output_attentions, output_hidden_states, return_dict, training, head_mask: as in `TFLxmertModel.call`.

        Returns:
            `TFLxmertForVisualReasoningOutput`, or a tuple of its present entries.

        Raises:
            ValueError: as `TFLxmertModel.call`.
        """
        inputs = gather_inputs(
            INPUTS + self.call_labels,
            input_ids,
            visual_feats,
            visual_pos,
            attention_mask,
            visual_attention_mask,
            token_type_ids,
            inputs_embeds,
            labels,
        )
        check_inputs(inputs, self.config, self.compute_dtype, num_images=self.num_images)
        encoded = self._encode_pairs(inputs, output_attentions, output_hidden_states, training, head_mask)
        pairs = ops.reshape(encoded.pooled_output, (-1, self.num_images * self.config.hidden_size))
        logits = self.answer_head(pairs)
        output = TFLxmertForVisualReasoningOutput(logits=logits)
        losses = self.compute_losses(output, inputs)
        return self.format_output(self.assemble_output(output, encoded, losses), return_dict)

    def _encode_pairs(
        self,
        inputs: dict,
        output_attentions: bool | str | None,
        output_hidden_states: bool | None,
        training: bool,
        head_mask,
    ) -> TFLxmertModelOutput:
        """The backbone's output for each image, [2B, ...], the images of an example adjacent.

        Where nothing but the pooled output is asked for, a sentence is encoded once.
        """
        images: dict[str, Any] = {
            name: None if value is None else ops.reshape(value, (-1, *ops.shape(value)[2:]))
            for name, value in image_inputs(inputs).items()
        }
        if not (training or head_mask is not None or self.returns_states(output_attentions, output_hidden_states)):
            encoded = self.lxmert.encode_image(**images)
            return self.lxmert.pool_encoded({**text_inputs(inputs), **encoded})
        texts = {  # dropout differs between the copies of a sentence
            name: None if value is None else ops.repeat(value, self.num_images, axis=0)
            for name, value in text_inputs(inputs).items()
        }
        return self.encode_pooled({**texts, **images}, output_attentions, output_hidden_states, training, head_mask)

    def get_qa_logit_layer(self) -> None:
        """None: true and false are not answers of a table that could change."""
