"""Shorter ways than a whole call: an image encoded once for several texts, and the pooled output alone.

They compute what `call` computes, and less of it.
Shapes: B examples, T tokens, N boxes, H hidden_size, D visual_feat_dim.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras import ops

from lxmert_tf.input_table import ENCODED_INPUTS, INPUTS
from lxmert_tf.inputs import as_tensors, check_encoded_inputs, check_image_inputs, check_inputs, gather_inputs
from lxmert_tf.outputs import (
    TFLxmertForPreTrainingOutput,
    TFLxmertForQuestionAnsweringOutput,
    TFLxmertModelOutput,
)

# To a type checker, a mixin is what it stands before.
if TYPE_CHECKING:
    from keras import Model as _Model
else:
    _Model = object


class BackboneShortcuts(_Model):
    """Mixin of the backbone."""

    def encode_image(
        self, visual_feats, visual_pos, visual_attention_mask=None, training: bool = False
    ) -> dict[str, Any]:
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
        states = self.encoder.encode_image(*self.regions(inputs), self.bias(mask), training)
        if mask is None:
            mask = ops.ones_like(states[..., 0], "int32")
        else:
            mask = ops.cast(ops.cast(mask, "float32") > 0, "int32")
        return {"vision_states": states, "visual_attention_mask": mask}

    def encode_text(
        self,
        input_ids=None,
        vision_states=None,
        visual_attention_mask=None,
        attention_mask=None,
        token_type_ids=None,
        inputs_embeds=None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> TFLxmertModelOutput | tuple:
        """Encodes text together with image regions that `encode_image` has encoded; the rest of `call`.

        Several texts may share an image, or several images a text: where one batch is k times the other, each row of
        the smaller one goes with k adjacent rows of the larger one.

        Args:
            input_ids: int[B, T]; or a dict of all inputs, or a list of them in this order.
            vision_states: float[B / k, N, H], from `encode_image`.
            visual_attention_mask: int[B / k, N], from `encode_image`. Default: all 1.
            attention_mask, token_type_ids, inputs_embeds, return_dict, training: as in `call`.

        Returns:
            `TFLxmertModelOutput` as from `call`, or a tuple of its present entries.

        Raises:
            ValueError: as `call`, or neither batch is a multiple of the other.
        """
        inputs = gather_inputs(
            ENCODED_INPUTS,
            input_ids,
            vision_states,
            visual_attention_mask,
            attention_mask,
            token_type_ids,
            inputs_embeds,
        )
        language, vision = self.encoder.cross(*self._meeting(inputs, training), training)
        return self.format_output(self.make_output(language, vision), return_dict)

    def pool(self, inputs: Mapping[str, Any], training: bool = False) -> TFLxmertModelOutput:
        """`pooled_output` alone, for all inputs of `call` by name."""
        inputs = as_tensors({name: inputs[name] for name in INPUTS})
        check_inputs(inputs, self.config, self.compute_dtype)
        language_bias, vision_bias = self.biases(inputs)
        language = self.encoder.encode_text(self.embed(inputs, training), language_bias, training)
        vision = self.encoder.encode_image(*self.regions(inputs), vision_bias, training)
        return self._pooled(language, vision, language_bias, vision_bias, training)

    def pool_encoded(self, inputs: Mapping[str, Any], training: bool = False) -> TFLxmertModelOutput:
        """`pooled_output` alone, for all inputs of `encode_text` by name."""
        return self._pooled(*self._meeting({name: inputs[name] for name in ENCODED_INPUTS}, training), training)

    def _meeting(self, inputs: Mapping[str, Any], training: bool) -> tuple[Any, Any, Any, Any]:
        """Both streams before the cross layers, and their biases, with as many rows in each."""
        inputs = as_tensors(dict(inputs))
        check_encoded_inputs(inputs, self.config)
        language_bias, vision_bias = self.biases(inputs)
        language = self.encoder.encode_text(self.embed(inputs, training), language_bias, training)
        vision = ops.cast(inputs["vision_states"], self.compute_dtype)
        texts, images = ops.shape(language)[0], ops.shape(vision)[0]
        return (
            repeat_rows(language, images),
            repeat_rows(vision, texts),
            repeat_rows(language_bias, images),
            repeat_rows(vision_bias, texts),
        )

    def _pooled(self, language, vision, language_bias, vision_bias, training: bool) -> TFLxmertModelOutput:
        first = self.encoder.cross_first_token(language, vision, language_bias, vision_bias, training)
        return TFLxmertModelOutput(pooled_output=self.pooler(first))


class ImageShortcuts(_Model):
    """Mixin of models with a backbone."""

    def encode_image(
        self, visual_feats, visual_pos, visual_attention_mask=None, training: bool = False
    ) -> dict[str, Any]:
        """Encodes images for `answer_encoded` or `match_encoded`, once each, however many texts they have.

        Args:
            visual_feats, visual_pos, visual_attention_mask, training: as in `call`.

        Returns:
            {"vision_states": float[B, N, H], "visual_attention_mask": int32[B, N]}

        Raises:
            ValueError: an input is of a wrong shape.
        """
        return self.lxmert.encode_image(visual_feats, visual_pos, visual_attention_mask, training=training)


class MatchShortcuts(ImageShortcuts):
    """Mixin of the model that tells whether a sentence matches an image."""

    def match_encoded(
        self,
        input_ids=None,
        vision_states=None,
        visual_attention_mask=None,
        attention_mask=None,
        token_type_ids=None,
        inputs_embeds=None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> TFLxmertForPreTrainingOutput | tuple:
        """Scores sentences against images that `encode_image` has encoded, as `call` does from the images themselves.

        Args:
            input_ids: int[B, T]; or a dict of all inputs, or a list of them in this order.
            vision_states: float[B / k, N, H], from `encode_image`: of one image, of every sentence's image, or of
                images with k sentences each, those of an image adjacent; or float[B * k, N, H], k for each sentence.
            visual_attention_mask: int[B / k, N], from `encode_image`. Default: all 1.
            attention_mask, token_type_ids, inputs_embeds, return_dict, training: as in `call`.

        Returns:
            `TFLxmertForPreTrainingOutput` with `cross_relationship_score` alone, float[B, 2] or [B * k, 2]: the logits
            of "does not match" and "matches"; or a tuple of it.

        Raises:
            ValueError: as `call`, or neither the number of sentences nor that of images is a multiple of the other.

        Examples:
            >>> encoded = model.encode_image(features, boxes)  # of one image
            >>> output = model.match_encoded(ids, **encoded, attention_mask=mask)  # all captions
            >>> output.cross_relationship_score
        """
        inputs = gather_inputs(
            ENCODED_INPUTS,
            input_ids,
            vision_states,
            visual_attention_mask,
            attention_mask,
            token_type_ids,
            inputs_embeds,
        )
        pooled = self.lxmert.pool_encoded(inputs, training).pooled_output
        output = TFLxmertForPreTrainingOutput(cross_relationship_score=self.cls.seq_relationship(pooled))
        return self.format_output(output, return_dict)


class AnswerShortcuts(ImageShortcuts):
    """Mixin of the model that answers questions."""

    def answer_encoded(
        self,
        input_ids=None,
        vision_states=None,
        visual_attention_mask=None,
        attention_mask=None,
        token_type_ids=None,
        inputs_embeds=None,
        labels=None,
        return_dict: bool | None = None,
        training: bool = False,
    ) -> TFLxmertForQuestionAnsweringOutput | tuple:
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

        Examples:
            >>> encoded = model.encode_image(features, boxes)  # of one image
            >>> output = model.answer_encoded(ids, **encoded, attention_mask=mask)  # all its questions
        """
        inputs = gather_inputs(
            ENCODED_INPUTS + self.call_labels,
            input_ids,
            vision_states,
            visual_attention_mask,
            attention_mask,
            token_type_ids,
            inputs_embeds,
            labels,
        )
        encoded = self.lxmert.pool_encoded(inputs, training)
        return self.format_output(self.answer(encoded, inputs["labels"]), return_dict)


def repeat_rows(x, rows):
    """x[B, ...] with each row repeated rows / B times, copies adjacent; as it is if None or of more rows."""
    if x is None:
        return None
    batch, *rest = ops.shape(x)
    if not (ops.is_tensor(batch) or ops.is_tensor(rows)):  # numbers, or JAX' symbols of them
        if batch >= rows:
            return x
        copies = rows // max(batch, 1)
    else:
        copies = ops.maximum(rows // ops.maximum(batch, 1), 1)
    return ops.reshape(ops.broadcast_to(x[:, None], (batch, copies, *rest)), (batch * copies, *rest))
