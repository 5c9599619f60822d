"""What the models return: dicts of the entries that are present, in a fixed order."""

from lxmert_tf.outputs import ModelOutput

_STATES = ("language_hidden_states", "vision_hidden_states")
_ATTENTIONS = ("language_attentions", "vision_attentions", "cross_encoder_attentions")


class LxmertModelOutput(ModelOutput):
    """What LxmertModel returns; the shapes are in `lxmert_pt.modeling`. Source: upstream `LxmertModelOutput`."""

    fields = ("language_output", "vision_output", "pooled_output", *_STATES, *_ATTENTIONS)


class LxmertForPreTrainingOutput(ModelOutput):
    """What LxmertForPreTraining returns. Source: upstream `LxmertForPreTrainingOutput`."""

    fields = (
        "loss",
        "prediction_logits",
        "cross_relationship_score",
        "question_answering_score",
        *_STATES,
        *_ATTENTIONS,
    )


class LxmertForQuestionAnsweringOutput(ModelOutput):
    """What LxmertForQuestionAnswering returns. Source: upstream `LxmertForQuestionAnsweringOutput`."""

    fields = ("loss", "question_answering_score", *_STATES, *_ATTENTIONS)


class LxmertForVisualReasoningOutput(ModelOutput):
    """What LxmertForVisualReasoning returns; upstream has no such model."""

    fields = ("loss", "logits", *_STATES, *_ATTENTIONS)
