"""The activations that `hidden_act` may name."""

from collections.abc import Callable
from functools import partial

import torch
from torch.nn import functional as F

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,  # exact, with erf
    "relu": F.relu,
    "silu": F.silu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
}


def get_activation(name: str | Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function a config's `hidden_act` stands for; a callable stands for itself.

    Raises:
        ValueError: no activation has this name.
    """
    if callable(name):
        return name
    if name not in ACTIVATIONS:
        raise ValueError(f"hidden_act must be one of {', '.join(ACTIVATIONS)} or a callable, got {name!r}.")
    return ACTIVATIONS[name]
