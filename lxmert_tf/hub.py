"""Checkpoints by Hub id: a local path stays what it is, anything else is fetched, or sent, through huggingface_hub."""

import inspect
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lxmert_tf.files import absent
from lxmert_tf.model_card import CARD, is_written_card

# What lies beside the weights and belongs to them.
TOKENIZER_FILES = (
    "vocab.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)

WEIGHT_SUFFIXES = (".safetensors", ".h5", ".keras", ".pth", ".pt", ".ckpt", ".bin", ".json")

HUB_OPTIONS = ("revision", "cache_dir", "local_files_only", "token", "force_download", "proxies", "subfolder")
UPLOAD_OPTIONS = ("repo_id", "private", "token", "commit_message", "commit_description", "revision", "create_pr")

logger = logging.getLogger("lxmert_tf")


def fetch(
    source: str | os.PathLike,
    patterns: list[str],
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    local_files_only: bool = False,
    token: str | bool | None = None,
    force_download: bool = False,
    proxies: Mapping[str, str] | None = None,
    subfolder: str = "",
) -> Path:
    """The local path of `source`: itself if it exists, else a snapshot of the Hub repository of that id.

    Args:
        source: a file, a directory, or a Hub id "owner/name".
        patterns: the files to fetch from the Hub, as glob patterns.
        revision: branch, tag or commit; "main" by default.
        cache_dir: where fetched files are kept; Hugging Face's own cache by default.
        local_files_only: look in the cache only, never on the network.
        token: access token, or True for the one saved by `hf auth login`.
        force_download: fetch anew what the cache holds.
        proxies: by protocol, for releases of huggingface_hub that take them; others read HTTP_PROXY and HTTPS_PROXY.
        subfolder: the folder of the directory or repository to look in.

    Raises:
        FileNotFoundError: neither a local path nor a repository that can be reached; the message says which was tried.
    """
    name = os.fspath(source)
    if not name:
        raise FileNotFoundError("The name of the source is empty; give a file, a directory or a Hub id.")
    if os.path.exists(name):
        return _inside(Path(source), subfolder)
    if is_path(name):
        raise FileNotFoundError(absent(name))

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    options: dict[str, Any] = {}
    if proxies and "proxies" in inspect.signature(snapshot_download).parameters:
        options["proxies"] = dict(proxies)
    elif proxies:
        logger.warning("proxies is left out: this huggingface_hub reads the environment, HTTP_PROXY and HTTPS_PROXY.")
    try:
        snapshot = snapshot_download(
            name,
            revision=revision,
            cache_dir=None if cache_dir is None else os.fspath(cache_dir),
            local_files_only=local_files_only,
            token=token,
            force_download=force_download,
            allow_patterns=[f"{subfolder}/{pattern}" if subfolder else pattern for pattern in patterns],
            **options,
        )
    except HFValidationError as error:
        raise FileNotFoundError(f"{name!r} is neither a local path nor a Hub id of the form owner/name.") from error
    except (HfHubHTTPError, OSError) as error:
        where = "the local cache" if local_files_only else "the Hub"
        at = f" at revision {revision!r}" if revision else ""
        why = "it is not there" if local_files_only else _why_not_given(error)
        raise FileNotFoundError(f"No local path {name!r}, and {where} did not give it{at}: {why}.") from error
    return _inside(Path(snapshot), subfolder)


def _inside(path: Path, subfolder: str) -> Path:
    """A folder of a directory; the directory itself for ""."""
    if not (path / subfolder).exists():
        raise FileNotFoundError(f"{path} has no folder {subfolder!r}.")
    return path / subfolder


def upload(
    directory: str | os.PathLike,
    files: list[str],
    repo_id: str | None = None,
    private: bool | None = None,
    token: str | bool | None = None,
    commit_message: str | None = None,
    commit_description: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Sends files of a directory to a repository on the Hub, which is made if missing, in one commit.

    A model card is not sent where the repository has one that `save_pretrained` did not write.

    Args:
        directory: a local directory.
        files: those to send, as glob patterns relative to it.
        repo_id: "owner/name", or "name" for one's own; by default the directory's name.
        private: whether a new repository is private.
        token: as of `fetch`.
        commit_message, commit_description: of the commit.
        revision: the branch, which is made if missing; "main" by default.
        create_pr: open a pull request instead of changing the branch.

    Returns:
        The URL of the commit.

    Raises:
        ValueError: the id is none.
        ConnectionError: the Hub cannot be reached or refuses; the directory stays as it is.
    """
    from huggingface_hub import create_branch, create_repo, upload_folder
    from huggingface_hub.errors import HFValidationError

    repo_id = repo_id or Path(directory).resolve().name
    try:
        repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
        if revision and not create_pr:
            create_branch(repo_id, branch=revision, token=token, exist_ok=True)
        if CARD in files and _has_own_card(repo_id, revision, token):
            logger.info("%s keeps its README.md.", repo_id)
            files = [file for file in files if file != CARD]
        commit = upload_folder(
            repo_id=repo_id,
            folder_path=os.fspath(directory),
            allow_patterns=files,
            commit_message=commit_message or "Upload model",
            commit_description=commit_description,
            token=token,
            revision=revision,
            create_pr=create_pr,
        )
    except HFValidationError as error:
        raise ValueError(f"repo_id must be a Hub id of the form owner/name, got {repo_id!r}.") from error
    except Exception as error:  # where it cannot connect, one of the HTTP library that its release stands on
        raise ConnectionError(f"The Hub did not take {repo_id!r}: {_why_not_given(error)}.") from error
    return commit.commit_url


def _has_own_card(repo_id: str, revision: str | None, token: str | bool | None) -> bool:
    """Whether a repository has a model card that `write_model_card` did not write."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    with tempfile.TemporaryDirectory() as folder:
        try:
            return not is_written_card(hf_hub_download(repo_id, CARD, revision=revision, token=token, local_dir=folder))
        except RemoteEntryNotFoundError:
            return False


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
