"""PyTorch modules in memory: what is in a wrapper, and weights as they are computed with."""

from typing import Any

from conversion.names import WRAPPERS


def unwrapped_module(module: Any) -> Any:
    """The model that torch.compile, DataParallel, FSDP or others have wrapped; anything else as it is."""
    while (inner := _inner(module)) is not None:
        module = inner
    return module


def config_at(module: Any, prefix: str) -> Any:
    """The config of the LXMERT in a module whose tensors' names begin with `prefix`, or None."""
    for name in filter(None, prefix.split(".")):
        module = unwrapped_module(getattr(module, "_modules", {}).get(name))
    for place in (module, unwrapped_module(getattr(module, "_modules", {}).get("lxmert"))):
        config = getattr(place, "config", None)
        if hasattr(type(config), "model_type"):
            return config
    return None


def _inner(module: Any) -> Any:
    children = getattr(module, "_modules", None)  # of an nn.Module; no attribute is asked for
    return next(iter(children.values())) if children and len(children) == 1 and set(children) <= set(WRAPPERS) else None


def torch_state_dict(module: Any) -> dict[str, Any]:
    """A module's state dict, with the tensors of `torch.nn.utils.parametrize` as they are computed with."""
    from torch.nn.utils import parametrize

    state = dict(module.state_dict())
    for name, part in module.named_modules():
        if not parametrize.is_parametrized(part):
            continue
        prefix = f"{name}." if name else ""
        for tensor, parametrization in part.parametrizations.items():
            stored = f"{prefix}parametrizations.{tensor}."
            state = {key: value for key, value in state.items() if not key.startswith(stored)}
            state[f"{prefix}{tensor}"] = _computed(part, tensor, parametrization)
    return state


def _computed(module: Any, tensor: str, parametrization: Any) -> Any:
    """The tensor as in evaluation: in training, spectral normalisation changes what it computes with."""
    was_training = {part: part.training for part in parametrization.modules()}
    parametrization.eval()
    try:
        return getattr(module, tensor).detach()
    finally:
        for part, training in was_training.items():
            part.training = training
