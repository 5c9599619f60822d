"""Python programs in forks of one process, which has imported TensorFlow and computed nothing.

They start without the seconds that the import takes, and else are processes of their own, to be killed like any other.
"""

import gc
import json
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT), str(ROOT / "tests")]


class Fork:
    """A program that runs; what of `subprocess.Popen` the tests use."""

    def __init__(self, forks: "Forks", pid: int, folder: Path):
        self._forks, self.pid, self._folder = forks, pid, folder
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._forks.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float = 900) -> int:
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout)
            time.sleep(0.01)
        return self.returncode

    def communicate(self, timeout: float = 900) -> tuple[str, str]:
        """What it has printed, and said on standard error."""
        self.wait(timeout)
        return tuple((self._folder / name).read_text(encoding="utf-8") for name in ("out", "err"))

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


class Forks:
    """Starts programs; a context manager."""

    def __enter__(self) -> "Forks":
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(PATHS), "TF_CPP_MIN_LOG_LEVEL": "2"}
        self._folder = tempfile.TemporaryDirectory()
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "support.forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        return self

    def __exit__(self, *_) -> None:
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait()
        self._folder.cleanup()

    def ask(self, request: dict) -> int | None:
        print(json.dumps(request), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())

    def __call__(self, *arguments: object, cwd=ROOT, file_limit: int | None = None, **env: str) -> Fork:
        """Starts `python ARGUMENTS`: -m MODULE, -c CODE or a file, and the program's arguments.

        Args:
            file_limit: the largest file that it may write, in bytes.
            env: environment variables beside those of the tests.
        """
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        request = {"arguments": list(map(str, arguments)), "cwd": str(cwd), "env": env, "folder": str(folder)}
        return Fork(self, self.ask({**request, "file_limit": file_limit}), folder)

    def run(self, *arguments: object, **options) -> str:
        """What a program prints that must succeed."""
        fork = self(*arguments, **options)
        printed, said = fork.communicate()
        assert fork.returncode == 0, f"{arguments}\n{(printed + said)[-3000:]}"
        return printed


def serve() -> None:
    import lxmert_tf.cli
    import lxmert_tf.demo.run
    import lxmert_tf.serving.check
    import lxmert_tf.training.run  # noqa: F401

    gc.collect()
    gc.freeze()  # what every collection of every fork would visit
    answers, running = os.fdopen(os.dup(1), "w"), set()
    for line in sys.stdin:
        request = json.loads(line)
        if "poll" in request:
            pid, status = os.waitpid(request["poll"], os.WNOHANG)
            running.discard(pid)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        else:
            answer = os.fork() or become(**request)
            running.add(answer)
        print(json.dumps(answer), file=answers, flush=True)
    for pid in running:  # the tests have ended before them
        os.kill(pid, signal.SIGKILL)


def become(arguments: list[str], cwd: str, env: dict, folder: str, file_limit: int | None) -> None:
    """Runs a program to its end, in a fork."""
    for descriptor, name in enumerate(("/dev/null", f"{folder}/out", f"{folder}/err")):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT), descriptor)
    os.chdir(cwd)
    os.environ.update(env)
    if file_limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    code = 0
    try:
        execute(*arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)


def execute(program: str, *arguments: str) -> None:
    if program == "-c":
        sys.argv = ["-c", *arguments[1:]]
        exec(arguments[0], {"__name__": "__main__"})
    elif program == "-m":
        sys.argv = list(arguments)
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = [program, *arguments]
        runpy.run_path(program, run_name="__main__")


if __name__ == "__main__":
    serve()
