"""LXMERT checkpoints of any format: opened, read as a state dict, loaded into a model.

Functions with modules of their own names stay there: `conversion.convert.convert`, and so `inspect`, `diff`, `verify`;
`conversion.answers` has `convert_answers`.
"""

import importlib
from typing import TYPE_CHECKING, Any

import lxmert_tf  # noqa: F401  # registers the models where Keras is there, which needs modules of this package whole

if TYPE_CHECKING:
    from conversion.load import load_into, load_state_dict
    from conversion.source import open_source as open_checkpoint

# Each with its module and its name there: what opens a checkpoint here takes a Hub id or a model, too.
_EXPORTS = {
    "open_checkpoint": ("source", "open_source"),
    "load_state_dict": ("load", "load_state_dict"),
    "load_into": ("load", "load_into"),
}

__all__ = ["load_into", "load_state_dict", "open_checkpoint"]


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for, so that `lxmert-convert --help` answers at once."""
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, function = _EXPORTS[name]
    return getattr(importlib.import_module(f"{__name__}.{module}"), function)


def __dir__() -> list[str]:
    return sorted(__all__)
