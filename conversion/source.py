"""The door to checkpoints: opened from a file, a directory, a Hub id or memory."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from conversion.copies import canonically_named
from conversion.formats import Checkpoint, checkpoint_of, config_file, find_weights, is_safetensors, open_checkpoint
from conversion.models import state_dict
from conversion.tensors import Tensors
from lxmert_tf.configuration import CONFIG_NAME, LxmertConfig
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
    config: LxmertConfig | str | os.PathLike | None = None,
    use_safetensors: bool | None = None,
    **hub_options: Any,
) -> Checkpoint:
    """Opens a checkpoint from a file, a directory, a Hub id or memory.

    Args:
        source: a path or a Hub id; a model of `lxmert_tf`, `lxmert_pt` or upstream; a state dict, by PyTorch names
            and in PyTorch layout; or an opened checkpoint. Of a repository on the Hub only the files of the preferred
            format are fetched.
        config: a config, ours or upstream's, or its JSON file or directory, in place of the checkpoint's own, which is
            not read then.
        use_safetensors: read no files but model.safetensors (True), or none of those (False).
        **hub_options: `revision`, `cache_dir` and others, as `lxmert_tf.hub.fetch` takes them.

    Raises:
        FileNotFoundError: there is no such path or repository, or it holds no weights.
        ValueError: the checkpoint is damaged or of another model.
        TypeError: the source is none of these.
    """
    if isinstance(source, str | os.PathLike):
        return open_checkpoint(_locate(source, use_safetensors, hub_options), config, use_safetensors)
    file = None
    if isinstance(config, str | os.PathLike):
        file = config_file(config)
        config = LxmertConfig.from_json_file(file)
    elif config is not None:
        config = LxmertConfig.of(config)
    if not isinstance(source, Checkpoint):
        source = _open_memory(source, config)
    return source if config is None else replace(source, config=config, config_file=file, inferred="")


def _locate(source: str | os.PathLike, use_safetensors: bool | None, hub_options: Mapping[str, Any]) -> Path:
    """The local path of a path or Hub id."""
    if "/" not in (name := os.fspath(source)) and name and not os.path.lexists(name):
        raise FileNotFoundError(f"{absent(name).removesuffix('.')}, and a Hub id has the form owner/name.")
    for files in HUB_FILES:
        if use_safetensors not in (None, is_safetensors(files[0])):
            continue
        path = fetch(source, [CONFIG_NAME, *TOKENIZER_FILES, *files], **hub_options)
        try:
            find_weights(path, use_safetensors)
        except FileNotFoundError:
            continue
        break
    return path


def _open_memory(source: Any, config: LxmertConfig | None) -> Checkpoint:
    own_config = getattr(source, "config", None)
    if config is None and own_config is not None:
        config = LxmertConfig.of(own_config).replace()
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
