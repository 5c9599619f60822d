"""The door to checkpoints: opened from a file, a directory, a Hub id or memory."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from conversion.copies import canonically_named
from conversion.detector.formats import DetectorCheckpoint, detector_of, is_detector, open_detector
from conversion.formats import Checkpoint, checkpoint_of, find_weights, open_checkpoint, read_content
from conversion.models import state_dict
from conversion.readers import Unreadable
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
    source: Any, config: LxmertConfig | DetectorConfig | str | os.PathLike | None = None, **hub_options: Any
) -> Checkpoint:
    """Opens a checkpoint from a file, a directory, a Hub id or memory; that of a detector is a `DetectorCheckpoint`.

    Args:
        source: a path or a Hub id; a model of `lxmert_tf`, `lxmert_pt` or upstream; a state dict, by PyTorch names
            and in PyTorch layout; or an opened checkpoint. Of a repository on the Hub only the files of the preferred
            format are fetched.
        config: a config or its JSON file, in place of the checkpoint's own, which is not read then.
        **hub_options: `revision`, `cache_dir`, `local_files_only`, `token`, as `lxmert_tf.hub.fetch` takes them.

    Raises:
        FileNotFoundError: there is no such path or repository, or it holds no weights.
        ValueError: the checkpoint is damaged or of another model.
        TypeError: the source is none of these.
    """
    if isinstance(source, str | os.PathLike):
        return _open_path(_locate(source, hub_options), config)
    kind = DetectorConfig if _is_detector(source) else LxmertConfig
    file = None
    if isinstance(config, str | os.PathLike):
        file = Path(config)
        config = DetectorConfig.from_file(file) if kind is DetectorConfig else LxmertConfig.from_json_file(file)
    if not isinstance(source, Checkpoint):
        source = _open_memory(source, config)
    return source if config is None else replace(source, config=config, config_file=file, inferred="")


def open_detector_source(source: Any, config: Any = None, **hub_options: Any) -> DetectorCheckpoint:
    """Opens a detector's checkpoint as `open_source`.

    Raises:
        ValueError: it is damaged, or an LXMERT model's.
    """
    checkpoint = open_source(source, config, **hub_options)
    if not isinstance(checkpoint, DetectorCheckpoint):
        raise ValueError(f"{checkpoint.path} holds an LXMERT model, not a detector; give a detector's checkpoint.")
    return checkpoint


def _open_path(path: Path, config: Any) -> Checkpoint:
    weights = find_weights(path)
    content = read_content(weights)
    if is_detector(content.stored):
        return open_detector(weights, content, config)
    if content.format == "caffe":
        raise Unreadable(f"{weights} is a Caffe model, but not of the detector: it has no layer res2a_branch1.")
    return open_checkpoint(path, config, content)


def _is_detector(source: Any) -> bool:
    """Whether a model, a state dict or an opened checkpoint is a detector's."""
    if isinstance(source, Checkpoint):
        return isinstance(source, DetectorCheckpoint)
    if isinstance(source, Mapping):
        return is_detector({name: None for name in source if isinstance(name, str)})
    return isinstance(getattr(source, "config", None), DetectorConfig)


def _locate(source: str | os.PathLike, hub_options: Mapping[str, Any]) -> Path:
    """The local path of a path or Hub id."""
    if "/" not in (name := os.fspath(source)) and name and not os.path.lexists(name):
        raise FileNotFoundError(f"{absent(name).removesuffix('.')}, and a Hub id has the form owner/name.")
    for files in HUB_FILES:
        path = fetch(source, [CONFIG_NAME, YAML_NAME, *VOCABULARIES.values(), *TOKENIZER_FILES, *files], **hub_options)
        try:
            find_weights(path)
        except FileNotFoundError:
            continue
        break
    return path


def _open_memory(source: Any, config: Any) -> Checkpoint:
    if _is_detector(source):
        return detector_of(source, config)
    own_config = getattr(source, "config", None)
    if config is None and own_config is not None:
        config = LxmertConfig.from_dict(own_config.to_dict())
    arrays: Mapping[str, Any]
    if hasattr(source, "variables"):
        arrays = state_dict(source)
    elif hasattr(source, "state_dict"):
        arrays = source.state_dict()
    elif isinstance(source, Mapping):
        arrays = source
    else:
        raise TypeError(f"A source must be a path, a Hub id, a model or a state dict, got {type(source).__name__}.")
    if not all(isinstance(name, str) for name in arrays):
        raise TypeError("A state dict must map names to arrays or tensors; one of its names is not text.")
    tensors = canonically_named(Tensors.of(arrays).stored)
    return checkpoint_of(Path(type(source).__name__), "memory", tensors, config, reason="no config is given")
