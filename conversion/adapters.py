"""LoRA adapters of PEFT, merged into the weights that they were trained beside."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from conversion.formats import Checkpoint, read_content
from conversion.matching import nearest
from conversion.names import SKIPPED, canonical, fit_prefix, unwrapped
from conversion.readers import reading
from conversion.report import counted, some
from conversion.tensors import Stored, Tensors
from lxmert_tf.files import absent, read_json

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
ROOT = "base_model.model."  # of the names of whatever PEFT has wrapped
# What follows a module's name, the part of LoRA that it is, and the tensor of the module that the part changes.
PARTS = {
    ".lora_A.weight": ("A", ".weight"),
    ".lora_B.weight": ("B", ".weight"),
    ".lora_B.bias": ("bias", ".bias"),
    ".lora_embedding_A": ("embedding_A", ".weight"),
    ".lora_embedding_B": ("embedding_B", ".weight"),
    ".lora_magnitude_vector": ("magnitude", ".weight"),
    ".lora_magnitude_vector.weight": ("magnitude", ".weight"),
}
# Options with which the weights are computed in another way, or not from those of the base model as it was.
REFUSED = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
)
CHANGING_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")  # of init_lora_weights
INSTEAD = "use PEFT's merge_and_unload() and save the model"


@dataclass
class Change:
    """What an adapter does to one tensor: `parts` of LoRA by their names, and a value in its place, if it has one."""

    parts: dict[str, Stored] = field(default_factory=dict)
    value: Stored | None = None
    scale: float = 1.0

    def apply(self, base: Stored) -> np.ndarray:
        """The merged tensor, computed in float64."""
        whole = (self.value or base).read()
        if not self.parts:
            return whole.astype(base.dtype, copy=False)
        parts = {name: item.read().astype("float64") for name, item in self.parts.items()}
        merged = whole.astype("float64")
        if "bias" in parts:
            merged += self.scale * parts["bias"]
        if "A" in parts:
            merged += self.scale * (parts["B"] @ parts["A"])
        if "embedding_A" in parts:
            merged += self.scale * (parts["embedding_B"] @ parts["embedding_A"]).T
        if "magnitude" in parts:
            with np.errstate(all="ignore"):
                merged *= (parts["magnitude"].reshape(-1) / np.linalg.norm(merged, axis=1))[:, None]
        return merged.astype(base.dtype)

    def fits(self, base: Stored) -> bool:
        """Whether all shapes belong together."""
        shapes = {name: item.shape for name, item in self.parts.items()}
        if self.value is not None and self.value.shape != base.shape:
            return False
        magnitude = shapes.pop("magnitude", None)
        if magnitude is not None and (len(base.shape) != 2 or math.prod(magnitude) != base.shape[0]):
            return False
        match shapes:
            case {"A": (rank, inputs), "B": (outputs, ranks), **rest} if not rest:
                return rank == ranks and base.shape == (outputs, inputs)
            case {"embedding_A": (rank, rows), "embedding_B": (width, ranks), **rest} if not rest:
                return rank == ranks and base.shape == (rows, width) and magnitude is None
            case {"bias": shape, **rest} if not rest:
                return base.shape == shape and magnitude is None
        return not shapes and magnitude is None


def with_adapter(checkpoint: Checkpoint, directory: str | os.PathLike) -> Checkpoint:
    """A checkpoint with an adapter merged into it, tensor by tensor as they are read.

    Args:
        checkpoint: of the model that the adapter was trained beside.
        directory: as PEFT saves one: adapter_config.json and adapter_model.safetensors or .bin. What the config says
            of the base model is not followed.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: one is damaged, the adapter is of another kind than LoRA, or it does not fit the checkpoint.
    """
    directory = Path(directory)
    config = _read_config(directory)
    path = next((directory / name for name in WEIGHTS if (directory / name).is_file()), directory / WEIGHTS[0])
    if not path.exists():
        raise FileNotFoundError(absent(path))
    with reading(path, "a LoRA adapter"):
        stored = read_content(path).stored
        changes = _changes(stored, config)
        targets, left_out = _targets(changes, checkpoint.tensors)
        merged = dict(checkpoint.tensors.stored)
        for target, change in targets.items():
            base = merged[target]
            if not change.fits(base):
                parts = {"its value": change.value, **change.parts}
                shapes = ", ".join(f"{name} {list(item.shape)}" for name, item in parts.items() if item is not None)
                raise ValueError(f"{target} is {list(base.shape)}, which does not fit {shapes}")
            merged[target] = replace(base, read=partial(change.apply, base))
    note = f"the adapter {directory} is merged into {counted(targets, 'tensor')}"
    note += f"; {some(left_out)}, of which the checkpoint has nothing, left out" if left_out else ""
    return replace(checkpoint, tensors=Tensors(merged), notes=(*checkpoint.notes, note))


def _read_config(directory: Path) -> dict[str, Any]:
    """The config of a LoRA that can be merged."""
    path = directory / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{directory} is not an adapter that PEFT saved: there is no {CONFIG} in it.")
    with reading(path, "a LoRA adapter"):
        config = read_json(path)
        if not isinstance(config, dict):
            raise ValueError("it must be an object of an adapter's options")
        if config.get("peft_type") != "LORA":
            raise ValueError(f"only adapters of the peft_type LORA are merged, got {config.get('peft_type')!r}")
        if given := [name for name in REFUSED if config.get(name)]:
            raise ValueError(
                f"an adapter with {given[0]} is not merged; use PEFT's merge_and_unload() and save the model"
            )
        start = str(config.get("init_lora_weights", "")).lower()
        if start.startswith(CHANGING_BASE):
            raise ValueError(
                f"init_lora_weights={start!r} has changed the base weights, so the adapter does not fit the original "
                f"ones; {INSTEAD}"
            )
        alphas = {"lora_alpha": config.get("lora_alpha"), **_pattern(config)}
        for name, alpha in alphas.items():
            if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not math.isfinite(alpha):
                raise ValueError(f"{name} must be a number, got {alpha!r}")
    return config


def _pattern(config: Mapping[str, Any]) -> dict[str, Any]:
    """The alphas of modules: PEFT takes their names for regular expressions, here they are names."""
    pattern = config.get("alpha_pattern") or {}
    if not isinstance(pattern, dict) or not all(re.fullmatch(r"[\w.]+", name) for name in pattern):
        raise ValueError("alpha_pattern must map names of modules to numbers; regular expressions are not followed")
    return pattern


def _changes(stored: Mapping[str, Stored], config: Mapping[str, Any]) -> dict[str, Change]:
    """The changes by the names of the tensors that they are for."""
    changes: dict[str, Change] = {}
    for name, item in stored.items():
        if not item.dtype.kind == "f" and item.dtype.name != "bfloat16":
            raise ValueError(f"{name} must hold floating-point numbers, got {item.dtype}")
        plain = unwrapped(name.removeprefix(ROOT)).replace(".base_layer.", ".")
        suffix = next((suffix for suffix in PARTS if plain.endswith(suffix)), None)
        if suffix is None:
            if "lora_" in plain:
                raise ValueError(f"{name} is a part of LoRA that is not merged; {INSTEAD}")
            changes.setdefault(canonical(plain), Change()).value = item
            continue
        part, tensor = PARTS[suffix]
        module = plain.removesuffix(suffix)
        change = changes.setdefault(canonical(module + tensor), Change())
        change.parts[part] = item
        if part in ("A", "embedding_A"):
            change.scale = _scale(module, max(item.shape[0] if item.shape else 0, 1), config)
    for name, change in changes.items():
        if "bias" in change.parts and (of_weight := changes.get(name.removesuffix("bias") + "weight")):
            change.scale = of_weight.scale
    return changes


def _scale(module: str, rank: int, config: Mapping[str, Any]) -> float:
    pattern = _pattern(config)
    alpha = next((pattern[key] for key in pattern if f".{module}".endswith(f".{key}")), config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _targets(changes: Mapping[str, Change], tensors: Tensors) -> tuple[dict[str, Change], list[str]]:
    """The changes by the checkpoint's names, and those of whole tensors that it does not have.

    The adapter may be of a larger model, so that its names begin with more.
    """
    full = {fit_prefix(name, "qa"): name for name in tensors}
    factors = [name for name, change in changes.items() if change.parts] or list(changes)
    if not factors:
        raise ValueError("it holds no tensors")
    parts = factors[0].split(".")
    starts = ["".join(f"{part}." for part in parts[:depth]) for depth in range(len(parts))]

    def target(name: str, start: str) -> str:
        return fit_prefix(canonical(name.removeprefix(start)), "qa")

    start = next((s for s in starts if all(n.startswith(s) and target(n, s) in full for n in factors)), None)
    if start is None:
        lost = next((name for name in factors if target(name, "") not in full), factors[0])
        near = nearest(target(lost, ""), full)
        raise ValueError(
            f"the checkpoint has no {lost} to merge it into{'; nearest are ' if near else ''}{', '.join(near)}"
        )
    if tied := [name for name in factors if target(name, start) in SKIPPED]:
        raise ValueError(f"{tied[0]} is {SKIPPED[target(tied[0], start)]}, so it is not merged")
    found = {name: full.get(target(name, start)) for name in changes}
    return (
        {place: changes[name] for name, place in found.items() if place is not None},
        [name for name, place in found.items() if place is None],
    )
