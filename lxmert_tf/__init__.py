"""LXMERT, the vision-and-language Transformer (Tan & Bansal, EMNLP 2019), in Keras 3."""

import importlib

from lxmert_tf.registration import register_with_keras

__version__ = "0.1.0"

_EXPORTS = {
    "LxmertConfig": "configuration",
    "LxmertTokenizer": "tokenization",
    "LxmertTokenizerFast": "tokenization",
    "TFLxmertModelOutput": "outputs",
    "TFLxmertForPreTrainingOutput": "outputs",
    "TFLxmertForQuestionAnsweringOutput": "outputs",
    "TFLxmertForVisualReasoningOutput": "outputs",
    "TFLxmertModel": "modeling",
    "TFLxmertForPreTraining": "modeling",
    "TFLxmertForQuestionAnswering": "modeling",
    "TFLxmertForVisualReasoning": "modeling",
    "AdamW": "optimizers",
    "BertAdam": "optimizers",
    "LinearWarmup": "optimizers",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str):
    """Imports what is asked for when it is asked for, so that `import lxmert_tf` needs no framework."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_EXPORTS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)


register_with_keras()
