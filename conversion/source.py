"""The door to checkpoints: opened from a file, a directory, a Hub id or memory."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from conversion.adapters import with_adapter
from conversion.detector.formats import DetectorCheckpoint, detector_of, given_config, is_detector, open_detector
from conversion.formats import (
    Checkpoint,
    checkpoint_of,
    config_file,
    find_weights,
    is_safetensors,
    open_checkpoint,
    read_content,
)
from conversion.models import state_dict
from conversion.modules import config_at, torch_state_dict, unwrapped_module
from conversion.naming import UnknownPrefix, named
from conversion.readers import Unreadable, flattened, reading
from conversion.tensors import Tensors
from lxmert_tf.configuration import CONFIG_NAME, LxmertConfig
from lxmert_tf.detector.configuration import VOCABULARIES, YAML_NAME, DetectorConfig
from lxmert_tf.files import absent
from lxmert_tf.hub import TOKENIZER_FILES, fetch

# What is fetched from the Hub, one group after the other until there are weights.
HUB_FILES = (
    ("model*.safetensors", "model.safetensors.index.json"),
    ("model.weights.h5",),
    ("pytorch_model*.bin", "pytorch_model.bin.index.json"),
    ("tf_model.h5",),
)


def open_source(
    source: Any,
    config: LxmertConfig | DetectorConfig | str | os.PathLike | None = None,
    prefix: str | None = None,
    adapter: str | os.PathLike | None = None,
    use_safetensors: bool | None = None,
    **hub_options: Any,
) -> Checkpoint:
    """Opens a checkpoint from a file, a directory, a Hub id or memory; that of a detector is a `DetectorCheckpoint`.

    Args:
        source: a path or a Hub id; a model of `lxmert_tf`, `lxmert_pt` or upstream, compiled or wrapped or not; a
            state dict, by PyTorch names and in PyTorch layout, or dicts around one; or an opened checkpoint. Of a
            repository on the Hub only the files of the preferred format are fetched.
        config: a config, ours or upstream's, or its file or directory, in place of the checkpoint's own, which is not
            read then.
        prefix: what the names of the model's tensors begin with, in a checkpoint of more; by default it is found. "" is
            the model that is not inside another.
        adapter: directory of a LoRA adapter of PEFT, which is merged into the weights.
        use_safetensors: read no files but model.safetensors (True), or none of those (False).
        **hub_options: `revision`, `cache_dir` and others, as `lxmert_tf.hub.fetch` takes them.

    Raises:
        FileNotFoundError: there is no such path or repository, or it holds no weights.
        ValueError: the checkpoint is damaged or of another model.
        TypeError: the source is none of these.
    """
    if isinstance(source, str | os.PathLike):
        checkpoint = _open_path(locate(source, use_safetensors, **hub_options), config, prefix, use_safetensors)
    elif isinstance(source, Checkpoint):
        checkpoint = source if config is None else _with_config(source, config)
    else:
        checkpoint = _open_memory(source, config, prefix)
    return checkpoint if adapter is None else with_adapter(checkpoint, adapter)


def open_pair(a: Any, b: Any, config: Any = None, prefix: str | None = None) -> tuple[Checkpoint, Checkpoint]:
    """Opens two checkpoints to compare, each as `open_source`; `prefix` is for those of them that have such names.

    Raises:
        ValueError: as `open_source`; or neither has names that begin with `prefix`.
    """
    opened: list[Checkpoint | Unreadable] = []
    for source in (a, b):
        try:
            opened.append(open_source(source, config, prefix))
        except Unreadable as error:
            if not isinstance(error.__cause__, UnknownPrefix):
                raise
            opened.append(error)
    first, second = opened
    if isinstance(first, Unreadable) and isinstance(second, Unreadable):
        raise first
    return (
        open_source(a, config) if isinstance(first, Unreadable) else first,
        open_source(b, config) if isinstance(second, Unreadable) else second,
    )


def open_detector_source(source: Any, config: Any = None, **hub_options: Any) -> DetectorCheckpoint:
    """Opens a detector's checkpoint as `open_source`.

    Raises:
        ValueError: it is damaged, or an LXMERT model's.
    """
    checkpoint = open_source(source, config, **hub_options)
    if not isinstance(checkpoint, DetectorCheckpoint):
        raise ValueError(f"{checkpoint.path} holds an LXMERT model, not a detector; give a detector's checkpoint.")
    return checkpoint


def locate(source: str | os.PathLike, use_safetensors: bool | None = None, **hub_options: Any) -> Path:
    """The local path of a path or Hub id, of which the files of the preferred format are fetched.

    Args:
        source, use_safetensors, **hub_options: as of `open_source`.

    Raises:
        FileNotFoundError: there is no such path or repository.
    """
    if "/" not in (name := os.fspath(source)) and name and not os.path.lexists(name):
        raise FileNotFoundError(f"{absent(name).removesuffix('.')}, and a Hub id has the form owner/name.")
    beside = (CONFIG_NAME, YAML_NAME, *VOCABULARIES.values(), *TOKENIZER_FILES)
    for files in HUB_FILES:
        if use_safetensors not in (None, is_safetensors(files[0])):
            continue
        path = fetch(source, [*beside, *files], **hub_options)
        try:
            find_weights(path, use_safetensors)
        except FileNotFoundError:
            continue
        break
    return path


def _open_path(path: Path, config: Any, prefix: str | None, use_safetensors: bool | None) -> Checkpoint:
    weights = find_weights(path, use_safetensors)
    with reading(weights):
        content = read_content(weights, index_allowed=True)
    if is_detector(content.stored, prefix):
        return open_detector(weights, content, config, prefix)
    if content.format == "caffe":
        raise Unreadable(f"{weights} is a Caffe model, but not of the detector: it has no layer res2a_branch1.")
    return open_checkpoint(path, config, prefix, use_safetensors, content)


def _with_config(checkpoint: Checkpoint, config: Any) -> Checkpoint:
    """A checkpoint with another config than its own."""
    if isinstance(checkpoint, DetectorCheckpoint):
        config, file = given_config(checkpoint.path, config)
    else:
        config, file = _lxmert_config(config)
    return replace(checkpoint, config=config, config_file=file, inferred="")


def _lxmert_config(config: Any) -> tuple[LxmertConfig, Path | None]:
    """A config that is given, and the file that it is read from."""
    if isinstance(config, str | os.PathLike):
        return LxmertConfig.from_json_file(file := config_file(config)), file
    return LxmertConfig.of(config), None


def _open_memory(source: Any, config: Any, prefix: str | None) -> Checkpoint:
    model = _arrays(source) if isinstance(source, Mapping) else unwrapped_module(source)
    own_config = getattr(model, "config", None)
    if isinstance(own_config, DetectorConfig) or (isinstance(model, Mapping) and is_detector(model, prefix)):
        return detector_of(model, config, prefix)
    arrays: Mapping[str, Any]
    if hasattr(model, "variables"):
        arrays = state_dict(model)
    elif hasattr(model, "state_dict"):
        arrays = torch_state_dict(model)
    elif isinstance(model, Mapping):
        arrays = model
    else:
        raise TypeError(f"A source must be a path, a Hub id, a model or a state dict, got {type(source).__name__}.")
    path = Path(type(model).__name__)
    with reading(path):
        found = named(Tensors.of(arrays).stored, "torch", prefix)
    file = None
    if config is not None:
        config, file = _lxmert_config(config)
    elif (own_config := config_at(model, found.prefix)) is not None:
        config = LxmertConfig.of(own_config).replace()
    return checkpoint_of(path, "memory", found, config, file, reason="no config is given", notes=found.notes)


def _arrays(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """A state dict, or what is in the dicts around it."""
    if isinstance(source, Tensors):
        return source
    if not all(isinstance(name, str) for name in source):
        raise TypeError("A state dict must map names to arrays or tensors; one of its names is not text.")
    if not any(isinstance(value, dict) for value in source.values()):
        return source
    return dict(flattened(source, lambda value: hasattr(value, "shape")))
