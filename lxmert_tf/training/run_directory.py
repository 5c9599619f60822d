"""A run directory: what was trained, how, with what, how far it is, and what came out.

run.json               options, command, versions, seeds, checksums of the input files; the result once finished
config.json            the model's configuration
log.csv                a row for each epoch
tensorboard/           event files
backup.safetensors     from which training goes on
best/, last/           self-contained model directories
"""

import fcntl
import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lxmert_tf.files import sha256, write_text
from lxmert_tf.versions import installed

RUN, BACKUP, LOCK = "run.json", "backup.safetensors", ".lock"
PACKAGES = ("tensorflow", "keras", "numpy", "tokenizers", "h5py", "safetensors")
HASHED = 2**30  # bytes; of larger files, the region features, only the size is kept


class RunDirectory:
    """One run on disk.

    Args:
        path: the directory.
        options: the run's options, JSON values.
        record: the content of run.json.

    Attributes:
        begun: whether run.json is written; until then the directory may become another run's.
    """

    def __init__(self, path: Path, record: dict[str, Any], begun: bool = False):
        self.path, self.record, self.begun = path, record, begun
        self._made = not path.exists()

    @classmethod
    def open(
        cls,
        path: str | os.PathLike,
        options: dict[str, Any],
        command: Sequence[str],
        files: Iterable[str],
    ) -> "RunDirectory":
        """The run in `path`, or one that `begin` writes there.

        One that ended before its first backup is none: nothing of it is worth going on from.

        Args:
            path: the directory; it need not be there.
            options: JSON values; those of a run that is there must be the same.
            command: the command line, kept for whoever wants to repeat the run.
            files: input files, of which checksums are kept.

        Raises:
            FileExistsError: `path` holds something else, or a process is at work on it.
            ValueError: `path` holds a run with other options, or its input files have changed.
        """
        path = Path(path)
        prints = {str(file): fingerprint(file) for file in files}
        if (path / RUN).exists():
            run = cls(path, _read(path / RUN), begun=True)
            if run.result is not None or (path / BACKUP).exists():
                run._check_same("options", options, "give the same options, or another directory")
                run._check_same("files", prints, "a run goes on only with the files that it began with")
                return run
        elif path.exists() and (not path.is_dir() or any(file.name != LOCK for file in path.iterdir())):
            raise FileExistsError(f"{path} is not empty and holds no run; name a new directory.")
        record = {
            "options": options,
            "command": list(command),
            "directory": os.getcwd(),
            "versions": installed(PACKAGES),
            "files": prints,
            "result": None,
        }
        return cls(path, record)

    def begin(self) -> None:
        """Writes run.json, unless the run goes on."""
        if not self.begun:
            self.write()
            self.begun = True

    def write(self) -> None:
        write_text(self.path / RUN, json.dumps(self.record, indent=2, ensure_ascii=False) + "\n")

    def finish(self, result: dict[str, Any]) -> None:
        """Notes that the run is over."""
        self.record["result"] = result
        self.write()

    def forget_unless_begun(self) -> None:
        """Leaves no trace of a run that failed before it began."""
        if self.begun:
            return
        (self.path / LOCK).unlink(missing_ok=True)
        if self._made:
            with suppress(OSError):  # something else has come in meanwhile
                self.path.rmdir()

    @property
    def result(self) -> dict[str, Any] | None:
        """What came out, once the run is finished."""
        return self.record["result"]

    def lock(self):
        """Keeps other processes out of this directory while the returned file is open; a killed process lets go.

        Raises:
            FileExistsError: another process has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = open(self.path / LOCK, "a")  # noqa: SIM115 (held as long as the run lasts)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise FileExistsError(f"Another process is at work on {self.path}.") from None
        return file

    def _check_same(self, what: str, given: dict[str, Any], advice: str) -> None:
        before = self.record[what]
        differing = [name for name in {**before, **given} if before.get(name) != given.get(name)]
        if differing:
            name = differing[0]
            more = f" ({len(differing)} differ in all: {', '.join(differing)})" if len(differing) > 1 else ""
            raise ValueError(
                f"{self.path} holds another run: {name} was {before.get(name)!r} there and is {given.get(name)!r} "
                f"now{more}; {advice}."
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
            raise ValueError("it is no run of lxmert-tf")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read: {error}.") from error
    return record
