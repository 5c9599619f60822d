"""The thin PyTorch reference of lxmert_tf: the same files and classes, without the TF prefix."""

from typing import TYPE_CHECKING

from lxmert_tf.lazy import face

if TYPE_CHECKING:
    from lxmert_pt.modeling import LxmertForPreTraining as LxmertForPreTraining
    from lxmert_pt.modeling import LxmertForQuestionAnswering as LxmertForQuestionAnswering
    from lxmert_pt.modeling import LxmertForVisualReasoning as LxmertForVisualReasoning
    from lxmert_pt.modeling import LxmertModel as LxmertModel
    from lxmert_pt.outputs import LxmertForPreTrainingOutput as LxmertForPreTrainingOutput
    from lxmert_pt.outputs import LxmertForQuestionAnsweringOutput as LxmertForQuestionAnsweringOutput
    from lxmert_pt.outputs import LxmertForVisualReasoningOutput as LxmertForVisualReasoningOutput
    from lxmert_pt.outputs import LxmertModelOutput as LxmertModelOutput
    from lxmert_tf.configuration import LxmertConfig as LxmertConfig
else:
    __all__, __getattr__, __dir__ = face(
        __name__,
        {
            "lxmert_tf.configuration": ("LxmertConfig",),
            "lxmert_pt.outputs": (
                "LxmertModelOutput",
                "LxmertForPreTrainingOutput",
                "LxmertForQuestionAnsweringOutput",
                "LxmertForVisualReasoningOutput",
            ),
            "lxmert_pt.modeling": (
                "LxmertModel",
                "LxmertForPreTraining",
                "LxmertForQuestionAnswering",
                "LxmertForVisualReasoning",
            ),
        },
    )
