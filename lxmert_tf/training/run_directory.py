"""A run directory: options and inputs of a run, its progress, and its results.

run.json               options, command, versions, seeds, checksums of the input files; the result once finished
config.json            the model's configuration
log.csv                a row for each epoch
tensorboard/           event files
backup.safetensors     from which training is resumed
best/, last/           self-contained model directories
"""

import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from lxmert_tf.files import LOCK, sha256, write_text
from lxmert_tf.locks import locked
from lxmert_tf.versions import installed

RUN, BACKUP = "run.json", "backup.safetensors"
TRAINING = "training.json"  # in a model directory: the task and the length of its texts
PACKAGES = ("tensorflow", "keras", "numpy", "tokenizers", "h5py", "safetensors")
HASHED = 2**30  # bytes; of larger files, the region features, only the size is kept


class RunDirectory:
    """One run on disk.

    Args:
        path: the directory.
        options: the run's options, JSON values.
        record: the content of run.json.

    Attributes:
        started: whether run.json is written; until then the directory may become another run's.
    """

    def __init__(self, path: Path, record: dict[str, Any], started: bool = False):
        self.path, self.record, self.started = path, record, started

    @classmethod
    def open(
        cls,
        path: str | os.PathLike,
        options: dict[str, Any],
        command: Sequence[str],
        files: Iterable[str],
    ) -> "RunDirectory":
        """The run in `path`, or a new one that `start` writes there.

        One that ended before its first backup does not count: there is nothing to resume.

        Args:
            path: the directory; it need not be there.
            options: JSON values; those of a run that is there must be the same.
            command: the command line, recorded so that the run can be repeated.
            files: input files, whose checksums are recorded.

        Raises:
            FileExistsError: `path` holds something else.
            ValueError: `path` holds a run with other options, or its input files have changed.
        """
        path = Path(path)
        prints = {str(file): fingerprint(file) for file in files}
        if (path / RUN).exists():
            run = cls(path, _read(path / RUN), started=True)
            if run.result is not None or (path / BACKUP).exists():
                run._check_same("options", options, "give the same options or another directory")
                run._check_same("files", prints, "a run is resumed only with the files that it started with")
                return run
        elif path.exists() and (not path.is_dir() or any(file.name != LOCK for file in path.iterdir())):
            raise FileExistsError(f"{path} is not empty and holds no run; choose a new directory.")
        record = {
            "options": options,
            "command": list(command),
            "directory": os.getcwd(),
            "versions": installed(PACKAGES),
            "files": prints,
            "result": None,
        }
        return cls(path, record)

    def start(self) -> None:
        """Writes run.json, unless the run is being resumed."""
        if not self.started:
            self.write()
            self.started = True

    def write(self) -> None:
        write_text(self.path / RUN, json.dumps(self.record, indent=2, ensure_ascii=False) + "\n")

    def finish(self, result: dict[str, Any]) -> None:
        """Records the result."""
        self.record["result"] = result
        self.write()

    @property
    def result(self) -> dict[str, Any] | None:
        """The result of a finished run, else None."""
        return self.record["result"]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes out of the directory. A run that fails before it starts leaves no trace.

        Raises:
            FileExistsError: another process is using the directory.
        """
        created = not self.path.exists()
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            with ExitStack() as stack:
                try:
                    stack.enter_context(locked(self.path / LOCK, wait=False))
                except BlockingIOError:
                    raise FileExistsError(f"Another process is using {self.path}.") from None
                yield
        finally:
            if created and not self.started:
                with suppress(OSError):  # not empty: something else has been put there meanwhile
                    self.path.rmdir()

    def _check_same(self, what: str, given: dict[str, Any], advice: str) -> None:
        before = self.record[what]
        differing = [name for name in {**before, **given} if before.get(name) != given.get(name)]
        if differing:
            name = differing[0]
            more = f" ({len(differing)} differ: {', '.join(differing)})" if len(differing) > 1 else ""
            raise ValueError(
                f"{self.path} holds another run, with {name} {before.get(name)!r} instead of {given.get(name)!r}"
                f"{more}; {advice}."
            )


def fingerprint(path: str | os.PathLike) -> dict[str, Any]:
    """The size of a file and, unless it is very large, its SHA-256."""
    size = os.path.getsize(path)
    if os.path.isdir(path) or size > HASHED:
        return {"size": size}
    return {"size": size, "sha256": sha256(path)}


def command_line() -> list[str]:
    """The command that this process was started with."""
    return ["lxmert-tf", *sys.argv[1:]]


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not {"options", "files", "result"} <= record.keys():
            raise ValueError("it is not a run of lxmert-tf")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"Cannot read {path}: {error}.") from error
    return record
