"""The thin PyTorch reference of lxmert_tf: the same files and classes, without the TF prefix."""

import importlib

_EXPORTS = {
    "LxmertConfig": "lxmert_tf.configuration",
    "LxmertModelOutput": "lxmert_pt.outputs",
    "LxmertForPreTrainingOutput": "lxmert_pt.outputs",
    "LxmertForQuestionAnsweringOutput": "lxmert_pt.outputs",
    "LxmertForVisualReasoningOutput": "lxmert_pt.outputs",
    "LxmertModel": "lxmert_pt.modeling",
    "LxmertForPreTraining": "lxmert_pt.modeling",
    "LxmertForQuestionAnswering": "lxmert_pt.modeling",
    "LxmertForVisualReasoning": "lxmert_pt.modeling",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str):
    """Imports what is asked for when it is asked for, so that `import lxmert_pt` needs no framework."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
