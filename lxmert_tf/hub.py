"""Checkpoints by Hub id: a local path stays what it is, anything else is fetched through huggingface_hub."""

import os
from pathlib import Path

from lxmert_tf.files import absent

# What lies beside the weights and belongs to them.
TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

WEIGHT_SUFFIXES = (".safetensors", ".h5", ".keras", ".pth", ".pt", ".ckpt", ".bin", ".json")

HUB_OPTIONS = ("revision", "cache_dir", "local_files_only", "token")


def fetch(
    source: str | os.PathLike,
    patterns: list[str],
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
) -> Path:
    """The local path of `source`: itself if it exists, else a snapshot of the Hub repository of that id.

    Args:
        source: a file, a directory, or a Hub id "owner/name".
        patterns: the files to fetch from the Hub, as glob patterns.
        revision: branch, tag or commit; "main" by default.
        cache_dir: where fetched files are kept; Hugging Face's own cache by default.
        local_files_only: look in the cache only, never on the network.
        token: access token, or True for the one saved by `huggingface-cli login`.

    Raises:
        FileNotFoundError: neither a local path nor a repository that can be reached; the message says which was tried.
    """
    name = os.fspath(source)
    if not name:
        raise FileNotFoundError("The name of the source is empty; give a file, a directory or a Hub id.")
    if os.path.exists(name):
        return Path(source)
    if is_path(name):
        raise FileNotFoundError(absent(name))

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=None if cache_dir is None else os.fspath(cache_dir),
                local_files_only=local_files_only,
                token=token,
                allow_patterns=patterns,
            )
        )
    except HFValidationError as error:
        raise FileNotFoundError(f"{name!r} is neither a local path nor a Hub id of the form owner/name.") from error
    except (HfHubHTTPError, OSError) as error:
        where = "the local cache" if local_files_only else "the Hub"
        at = f" at revision {revision!r}" if revision else ""
        why = "it is not there" if local_files_only else _why_not_given(error)
        raise FileNotFoundError(f"No local path {name!r}, and {where} did not give it{at}: {why}.") from error


def is_path(name: str) -> bool:
    """Whether a name that does not exist is meant as a path: an id of the Hub is "owner/name"."""
    first, *rest = name.split("/")
    if name.startswith((".", "/", "~")) or name.endswith(("/", *WEIGHT_SUFFIXES)) or "\\" in name or len(rest) > 1:
        return True
    return os.path.islink(name) or (bool(rest) and os.path.lexists(first))  # of a folder that is here


def _why_not_given(error: Exception) -> str:
    """What huggingface_hub says in paragraphs, in a few words."""
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return "its owner must first allow you to read it"
    if isinstance(error, RepositoryNotFoundError):
        return "it has no such repository, or does not show it to you"
    if isinstance(error, RevisionNotFoundError):
        return "its repository has no such revision"
    if isinstance(error, LocalEntryNotFoundError):
        return "it cannot be reached, and the local cache does not hold it"
    return (str(error).splitlines() or [type(error).__name__])[0].removesuffix(".")
