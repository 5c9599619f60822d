"""The LXMERT models: backbone, pretraining, question answering, visual reasoning.

Shapes: B examples, T tokens, N boxes, H hidden_size, A attention heads, V vocab_size, D visual_feat_dim.
"""

from collections.abc import Mapping, Sequence
from itertools import chain, islice
from typing import Any

import torch

from lxmert_pt.inputs import check_inputs, check_labels, check_scores, gather_inputs, head_masks
from lxmert_pt.layers.attention import attention_bias, score_dtype
from lxmert_pt.layers.embeddings import LxmertEmbeddings
from lxmert_pt.layers.heads import (
    LxmertPooler,
    LxmertPreTrainingHeads,
    LxmertVisualAnswerHead,
    LxmertVisualObjHead,
)
from lxmert_pt.layers.transformer import LxmertEncoder
from lxmert_pt.losses import answer_loss, cross_entropy, is_soft, visual_class_loss, visual_feature_loss
from lxmert_pt.outputs import (
    LxmertForPreTrainingOutput,
    LxmertForQuestionAnsweringOutput,
    LxmertForVisualReasoningOutput,
    LxmertModelOutput,
)
from lxmert_pt.pretrained import LxmertPreTrainedModel
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.input_table import INPUTS, image_inputs, text_inputs
from lxmert_tf.outputs import attention_fields


class LxmertModel(LxmertPreTrainedModel):
    """The LXMERT backbone: language, vision and cross encoders, and the pooler.

    Args:
        config: sizes and rates.

    Source: Tan & Bansal 2019, section 2; upstream `LxmertModel`.
    """

    task = "model"

    def __init__(self, config: LxmertConfig):
        super().__init__(config)
        self.embeddings = LxmertEmbeddings(self.config)
        self.encoder = LxmertEncoder(self.config)
        self.pooler = LxmertPooler(self.config)
        self.init_weights(self.embeddings, self.encoder, self.pooler)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        visual_feats: torch.Tensor | None = None,
        visual_pos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        visual_attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_attentions: bool | str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        head_mask: torch.Tensor | Sequence[Any] | Mapping[str, Any] | None = None,
    ) -> LxmertModelOutput | tuple[Any, ...]:
        """Encodes text and image regions together.

        Args:
            input_ids: int[B, T], token ids.
            visual_feats: float[B, N, D], region features.
            visual_pos: float[B, N, 4], boxes (x1, y1, x2, y2) in 0..1.
            attention_mask: int or float[B, T], 1 for tokens, 0 for padding. Default: all 1.
            visual_attention_mask: int or float[B, N], 1 for boxes, 0 for padding. Default: all 1.
            token_type_ids: int[B, T]. Default: all 0.
            inputs_embeds: float[B, T, H], word embeddings in place of `input_ids`.
            output_attentions, output_hidden_states: whether to return them; "all" for the attentions that upstream does
                not return, too. Default: the config's.
            return_dict: False for a plain tuple. Default: the config's.
            head_mask: float[A] or [l_layers, A], multiplies the attention probabilities of the language layers' heads:
                1 for heads that stay, 0 for those that are switched off. Those of other attentions are in a dict:
                "language"; "vision", [A] or [r_layers, A]; "cross", both ways, "cross_language" and "cross_vision", the
                self-attention in cross layers, [A] or [x_layers, A]. Default: all 1.

        Returns:
            `LxmertModelOutput`, or a tuple of its present entries: language_output float[B, T, H],
            vision_output float[B, N, H], pooled_output float[B, H]; hidden states after each layer (l_layers +
            x_layers of language, r_layers + x_layers of vision); probabilities float[B, A, T, T],
            float[B, A, N, N] and, of the cross layers, language to vision, float[B, A, T, N]; with "all" also of
            vision to language, float[B, A, N, T], and of language and vision to themselves.

        Raises:
            ValueError: an input is missing, of a wrong shape, or out of the vocabulary.
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
        check_inputs(inputs, self.config)
        assert visual_feats is not None and visual_pos is not None  # `check_inputs` requires them
        scores = score_dtype(self.dtype)
        language_states, vision_states, *attentions = self.encoder(
            self.embeddings(input_ids, token_type_ids, inputs_embeds),
            visual_feats.to(self.dtype),
            visual_pos.to(self.dtype),
            attention_bias(attention_mask, scores),
            attention_bias(visual_attention_mask, scores),
            head_masks(head_mask, self.config, self.dtype, self.device),
        )
        extras: dict[str, Any] = {}
        if self.switch("output_hidden_states", output_hidden_states):
            extras["language_hidden_states"] = tuple(language_states[1:])
            extras["vision_hidden_states"] = tuple(vision_states[1:])
        output_attentions = self.switch("output_attentions", output_attentions)
        if output_attentions not in (True, False, "all"):
            raise ValueError(f'output_attentions must be True, False or "all", got {output_attentions!r}.')
        if output_attentions:
            maps = list(chain(*attentions))
            every = attention_fields(maps, self.config.l_layers, self.config.r_layers)
            extras.update(islice(every.items(), None if output_attentions == "all" else 3))  # upstream returns three
        output = LxmertModelOutput(
            language_output=language_states[-1],
            vision_output=vision_states[-1],
            pooled_output=self.pooler(language_states[-1]),
            **extras,
        )
        return self.format_output(output, return_dict)


class _TaskModel(LxmertPreTrainedModel):
    """A backbone `lxmert` with heads on it."""

    def __init__(self, config: LxmertConfig):
        super().__init__(config)
        self.lxmert = LxmertModel(self.config)
        self.lxmert.config = self.config  # which resizing changes

    def answer_losses(self, logits: torch.Tensor, labels: torch.Tensor | None) -> dict[str, torch.Tensor]:
        """The loss of the answer head by name, if there are labels: see `answer_loss`."""
        if labels is None:
            return {}
        soft = is_soft(labels, logits)
        labels = check_scores(labels) if soft else check_labels("labels", labels, logits.shape[-1])
        return {"answer_loss": answer_loss(logits, labels, self.config.problem_type)}


class LxmertForPreTraining(_TaskModel):
    """LXMERT with its pretraining heads: masked words, matching, masked objects, and answers.

    Args:
        config: sizes, rates, and which tasks have a loss (`task_*`, `visual_*_loss`).

    Source: Tan & Bansal 2019, section 3; upstream `LxmertForPreTraining`.
    """

    task = "pretraining"

    def __init__(self, config: LxmertConfig):
        super().__init__(config)
        config = self.config
        self.cls = LxmertPreTrainingHeads(config, self.lxmert.embeddings.word_embeddings)
        self.init_weights(self.cls.predictions.transform, self.cls.seq_relationship)  # the decoder is the embeddings
        if config.task_obj_predict:
            self.obj_predict_head = LxmertVisualObjHead(config)
            self.init_weights(self.obj_predict_head)
        if config.task_qa:
            self.answer_head = LxmertVisualAnswerHead(config, config.num_qa_labels)
            self.init_weights(self.answer_head)
        self.register_load_state_dict_pre_hook(_tie_decoder)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        visual_feats: torch.Tensor | None = None,
        visual_pos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        visual_attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        obj_labels: Mapping[str, tuple[torch.Tensor, torch.Tensor]] | None = None,
        matched_label: torch.Tensor | None = None,
        ans: torch.Tensor | None = None,
        output_attentions: bool | str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        masked_lm_labels: torch.Tensor | None = None,
        head_mask: torch.Tensor | Sequence[Any] | Mapping[str, Any] | None = None,
    ) -> LxmertForPreTrainingOutput | tuple[Any, ...]:
        """Encodes, predicts, and sums the losses whose labels are given.

        Args:
            input_ids ... inputs_embeds: as in `LxmertModel.forward`.
            labels: int[B, T], the hidden word's id, -100 elsewhere.
            obj_labels: dict with any of "obj": (int[B, N], float[B, N]), object ids and the detector's confidence;
                "attr": the same for attributes; "feat": (float[B, N, D], float[B, N]), features and mask.
            matched_label: int[B], 1 if the sentence matches the image, else 0; -100 is ignored.
            ans: int[B], answer ids, -100 for none.
            output_attentions, output_hidden_states, return_dict, head_mask: as in `LxmertModel.forward`.
            masked_lm_labels: TensorFlow's name for `labels`.

        Returns:
            `LxmertForPreTrainingOutput`, or a tuple of its present entries: loss (with labels), word logits
            float[B, T, V], match logits float[B, 2], answer logits float[B, num_qa_labels] (with `task_qa`).
            Its `losses` holds masked_lm_loss, matched_loss, obj_loss, attr_loss, feat_loss and ans_loss.

        Raises:
            ValueError: as `LxmertModel.forward`; `labels` and `masked_lm_labels` are both given; an unknown key
                in `obj_labels`.
        """
        if labels is not None and masked_lm_labels is not None:
            raise ValueError("labels and masked_lm_labels are two names of the same argument; give one, not both.")
        encoded = self.lxmert(
            input_ids,
            visual_feats,
            visual_pos,
            attention_mask,
            visual_attention_mask,
            token_type_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
            head_mask=head_mask,
        )
        prediction_logits, cross_relationship_score = self.cls(encoded.language_output, encoded.pooled_output)
        scores = {
            "prediction_logits": prediction_logits,
            "cross_relationship_score": cross_relationship_score,
            "question_answering_score": self.answer_head(encoded.pooled_output) if self.config.task_qa else None,
        }
        losses = {}
        labels = masked_lm_labels if labels is None else labels
        if self.config.task_mask_lm and labels is not None:
            words = check_labels("masked_lm_labels", labels, self.config.vocab_size)
            losses["masked_lm_loss"] = cross_entropy(prediction_logits, words)
        if self.config.task_matched and matched_label is not None:
            matched = check_labels("matched_label", matched_label, 2)
            losses["matched_loss"] = cross_entropy(cross_relationship_score, matched)
        if self.config.task_obj_predict and obj_labels is not None:
            losses |= self._visual_losses(encoded.vision_output, obj_labels, visual_attention_mask)
        if self.config.task_qa and ans is not None:
            answers = check_labels("ans", ans, self.config.num_qa_labels)
            losses["ans_loss"] = cross_entropy(scores["question_answering_score"], answers)
        return self.format_output(
            self.assemble_output(LxmertForPreTrainingOutput, encoded, losses, **scores), return_dict
        )

    def _visual_losses(
        self,
        vision_output: torch.Tensor,
        obj_labels: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
        mask: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """Losses of the masked boxes, for each entry of `obj_labels` that the config switches on."""
        if unknown := sorted(set(obj_labels) - {"obj", "attr", "feat"}):
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


class LxmertForQuestionAnswering(_TaskModel):
    """LXMERT with an answer head, for VQA and GQA.

    Args:
        config: sizes and rates; `num_qa_labels` answers.

    Source: Tan & Bansal 2019, section 4; upstream `LxmertForQuestionAnswering`.
    """

    task, answers = "qa", "question_answering_score"

    def __init__(self, config: LxmertConfig):
        super().__init__(config)
        self.answer_head = LxmertVisualAnswerHead(self.config, self.config.num_qa_labels)
        self.init_weights(self.answer_head)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        visual_feats: torch.Tensor | None = None,
        visual_pos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        visual_attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        head_mask: torch.Tensor | Sequence[Any] | Mapping[str, Any] | None = None,
    ) -> LxmertForQuestionAnsweringOutput | tuple[Any, ...]:
        """Encodes and answers.

        Args:
            input_ids ... inputs_embeds: as in `LxmertModel.forward`.
            labels: int[B], answer ids, -100 for none (cross entropy); or float[B, num_qa_labels], soft scores in
                0..1 (binary cross entropy, the paper's fine-tuning loss).
            output_attentions, output_hidden_states, return_dict, head_mask: as in `LxmertModel.forward`.

        Returns:
            `LxmertForQuestionAnsweringOutput`, or a tuple of its present entries: loss (with labels), answer logits
            float[B, num_qa_labels]. Its `losses` holds answer_loss.

        Raises:
            ValueError: as `LxmertModel.forward`, or `labels` has another shape.
        """
        encoded = self.lxmert(
            input_ids,
            visual_feats,
            visual_pos,
            attention_mask,
            visual_attention_mask,
            token_type_ids,
            inputs_embeds,
            output_attentions,
            output_hidden_states,
            return_dict=True,
            head_mask=head_mask,
        )
        score = self.answer_head(encoded.pooled_output)
        losses = self.answer_losses(score, labels)
        output = self.assemble_output(LxmertForQuestionAnsweringOutput, encoded, losses, question_answering_score=score)
        return self.format_output(output, return_dict)


class LxmertForVisualReasoning(_TaskModel):
    """LXMERT over pairs of images, for NLVR2: is the sentence true of both?

    The sentence is encoded with each image; both pooled outputs, joined, are classified into false and true.

    Args:
        config: sizes and rates.

    Source: Tan & Bansal 2019, section 4; the original code's `NLVR2Model`.
    """

    task, answers, num_images = "visual-reasoning", "logits", 2

    def __init__(self, config: LxmertConfig):
        super().__init__(config)
        self.answer_head = LxmertVisualAnswerHead(self.config, 2, num_images=self.num_images)
        self.init_weights(self.answer_head)

    def get_qa_logit_layer(self) -> None:
        """None: the two classes, false and true, are not answers and cannot be resized."""

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        visual_feats: torch.Tensor | None = None,
        visual_pos: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        visual_attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_attentions: bool | str | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        *,
        head_mask: torch.Tensor | Sequence[Any] | Mapping[str, Any] | None = None,
    ) -> LxmertForVisualReasoningOutput | tuple[Any, ...]:
        """Encodes each sentence with both of its images and classifies.

        Args:
            input_ids: int[B, T]; attention_mask, token_type_ids, inputs_embeds: as in `LxmertModel.forward`.
            visual_feats: float[B, 2, N, D], region features of both images.
            visual_pos: float[B, 2, N, 4], their boxes in 0..1.
            visual_attention_mask: int or float[B, 2, N]. Default: all 1.
            labels: int[B], 1 if the sentence is true, else 0; -100 is ignored.
            output_attentions, output_hidden_states, return_dict, head_mask: as in `LxmertModel.forward`.

        Returns:
            `LxmertForVisualReasoningOutput`, or a tuple of its present entries: loss (with labels), logits
            float[B, 2]; hidden states and attentions have 2B rows, the images of an example adjacent.
            Its `losses` holds answer_loss.

        Raises:
            ValueError: as `LxmertModel.forward`.
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
        check_inputs(inputs, self.config, self.num_images)
        texts = {
            name: None if value is None else value.repeat_interleave(self.num_images, dim=0)
            for name, value in text_inputs(inputs).items()
        }
        images = {
            name: None if value is None else value.flatten(0, 1) for name, value in image_inputs(inputs).items()
        }  # rows 2i and 2i+1 are the two images of example i
        encoded = self.lxmert(
            **texts,
            **images,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            head_mask=head_mask,
        )
        pairs = encoded.pooled_output.unflatten(0, (-1, self.num_images)).flatten(1)  # [2B, H] -> [B, 2H]
        logits = self.answer_head(pairs)
        losses = self.answer_losses(logits, labels)
        output = self.assemble_output(LxmertForVisualReasoningOutput, encoded, losses, logits=logits)
        return self.format_output(output, return_dict)


def _tie_decoder(
    model: LxmertForPreTraining,
    state_dict: dict[str, torch.Tensor],
    prefix: str,
    local_metadata: dict[str, Any],
    strict: bool,
    missing_keys: list[str],
    unexpected_keys: list[str],
    error_msgs: list[str],
) -> None:
    """Before a state dict is loaded: fills in the decoder, which is the word embeddings and may be left out."""
    decoder = f"{prefix}cls.predictions.decoder.weight"
    embeddings = f"{prefix}lxmert.embeddings.word_embeddings.weight"
    if embeddings not in state_dict:
        return
    if not torch.equal(state_dict.setdefault(decoder, state_dict[embeddings]), state_dict[embeddings]):
        error_msgs.append(f"{decoder} must equal {embeddings}, which it is tied to.")
