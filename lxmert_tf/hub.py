"""Checkpoints by Hub id: a local path stays what it is, anything else is fetched through huggingface_hub."""

import os
from pathlib import Path

# What lies beside the weights and belongs to them.
TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

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
    path = Path(source)
    if path.exists():
        return path
    name = os.fspath(source)
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or path.suffix in (".h5", ".keras", ".pth", ".bin"):
        raise FileNotFoundError(f"There is no file or directory {name!r}.")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=patterns,
            )
        )
    except HFValidationError as error:
        raise FileNotFoundError(f"{name!r} is neither a local path nor a Hub id of the form owner/name.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        where = "the local cache" if local_files_only else "the Hub"
        at = f" at revision {revision!r}" if revision else ""
        raise FileNotFoundError(f"No local path {name!r}, and {where} did not give it{at}: {error}") from error
