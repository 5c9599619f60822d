"""What the models return: dicts of the entries that are present, in a fixed order."""

from lxmert_tf.outputs import ENCODER_FIELDS, ModelOutput


class LxmertModelOutput(ModelOutput):
    """What LxmertModel returns; the shapes are in `lxmert_pt.modeling`. Source: upstream `LxmertModelOutput`."""

    fields = ("language_output", "vision_output", "pooled_output", *ENCODER_FIELDS)


class LxmertForPreTrainingOutput(ModelOutput):
    """What LxmertForPreTraining returns. Source: upstream `LxmertForPreTrainingOutput`."""

    fields = (
        "loss",
        "prediction_logits",
        "cross_relationship_score",
        "question_answering_score",
        *ENCODER_FIELDS,
    )


class LxmertForQuestionAnsweringOutput(ModelOutput):
    """What LxmertForQuestionAnswering returns. Source: upstream `LxmertForQuestionAnsweringOutput`."""

    fields = ("loss", "question_answering_score", *ENCODER_FIELDS)


class LxmertForVisualReasoningOutput(ModelOutput):
    """What LxmertForVisualReasoning returns; upstream has no such model."""

    fields = ("loss", "logits", *ENCODER_FIELDS)
