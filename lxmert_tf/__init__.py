"""LXMERT, the vision-and-language Transformer (Tan & Bansal, EMNLP 2019), in Keras 3."""

from typing import TYPE_CHECKING

from lxmert_tf.lazy import face
from lxmert_tf.registration import register_with_keras

__version__ = "0.2.0"

if TYPE_CHECKING:
    from lxmert_tf.configuration import LxmertConfig as LxmertConfig
    from lxmert_tf.modeling import TFLxmertForPreTraining as TFLxmertForPreTraining
    from lxmert_tf.modeling import TFLxmertForQuestionAnswering as TFLxmertForQuestionAnswering
    from lxmert_tf.modeling import TFLxmertForVisualReasoning as TFLxmertForVisualReasoning
    from lxmert_tf.modeling import TFLxmertModel as TFLxmertModel
    from lxmert_tf.optimizers import AdamW as AdamW
    from lxmert_tf.optimizers import BertAdam as BertAdam
    from lxmert_tf.optimizers import LinearWarmup as LinearWarmup
    from lxmert_tf.outputs import TFLxmertForPreTrainingOutput as TFLxmertForPreTrainingOutput
    from lxmert_tf.outputs import TFLxmertForQuestionAnsweringOutput as TFLxmertForQuestionAnsweringOutput
    from lxmert_tf.outputs import TFLxmertForVisualReasoningOutput as TFLxmertForVisualReasoningOutput
    from lxmert_tf.outputs import TFLxmertModelOutput as TFLxmertModelOutput
    from lxmert_tf.tokenization import LxmertTokenizer as LxmertTokenizer
    from lxmert_tf.tokenization import LxmertTokenizerFast as LxmertTokenizerFast
else:
    __all__, __getattr__, __dir__ = face(
        __name__,
        {
            "lxmert_tf.configuration": ("LxmertConfig",),
            "lxmert_tf.tokenization": ("LxmertTokenizer", "LxmertTokenizerFast"),
            "lxmert_tf.outputs": (
                "TFLxmertModelOutput",
                "TFLxmertForPreTrainingOutput",
                "TFLxmertForQuestionAnsweringOutput",
                "TFLxmertForVisualReasoningOutput",
            ),
            "lxmert_tf.modeling": (
                "TFLxmertModel",
                "TFLxmertForPreTraining",
                "TFLxmertForQuestionAnswering",
                "TFLxmertForVisualReasoning",
            ),
            "lxmert_tf.optimizers": ("AdamW", "BertAdam", "LinearWarmup"),
        },
    )
    __all__.append("__version__")

register_with_keras()
