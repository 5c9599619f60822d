"""What the models return: dicts of the entries that are present, in a fixed order."""

from typing import Any

from torch.utils import _pytree as pytree  # torch.export takes no dict but those that it is told of

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


def _register(output_class: type[ModelOutput]) -> None:
    def rebuild(values: Any, names: Any) -> ModelOutput:
        return output_class(zip(names, values, strict=True))

    name = f"{output_class.__module__}.{output_class.__name__}"
    pytree.register_pytree_node(
        output_class, lambda output: (list(output.values()), list(output)), rebuild, serialized_type_name=name
    )


for each in ModelOutput.__subclasses__():
    if each.__module__ == __name__:
        _register(each)
