"""What every benchmark needs: the machine, processes measured from outside, medians, a section of a document.

A benchmark is a module here with a `main()`, run as `python -m benchmarks.NAME`, or all of them by `make bench`. A peer
runs in a virtual environment of its own, `.venv-PEER`, which `make` installs from `requirements-PEER.txt`.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "benchmarks" / "README.md"
RESULTS = ROOT / "benchmarks" / "results"
SAMPLING = 0.005  # seconds between two looks at a process's memory

Result = TypeVar("Result")


# The circumstances


def machine() -> dict[str, Any]:
    """CPU model, cores, memory in GB, system and Python; nothing that names the machine."""
    return {
        "cpu": _field("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(int(_field("/proc/meminfo", "MemTotal").split()[0]) / 1e6),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions(packages: Iterable[str], python: str = sys.executable) -> dict[str, str]:
    """Versions of packages, as an interpreter has them installed."""
    if python == sys.executable:
        return {package: version(package) for package in packages}
    code = "import sys, json, importlib.metadata as m; print(json.dumps({p: m.version(p) for p in sys.argv[1:]}))"
    done = subprocess.run([python, "-c", code, *packages], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def peer(name: str) -> str:
    """The interpreter of the virtual environment `.venv-NAME`.

    Raises:
        SystemExit: it is not installed.
    """
    python = ROOT / f".venv-{name}" / "bin" / "python"
    if not python.exists():
        raise SystemExit(f"The peer {name} is not installed; run `make .venv-{name}/.installed`.")
    return str(python)


# Measuring


@dataclass(frozen=True)
class Measured:
    """A finished process: seconds from start to end, and the peaks of its memory in MB (10^6 bytes).

    Args:
        seconds: wall-clock time of the whole process.
        rss: the most memory it held, mapped files included.
        anonymous: the most memory it held beside mapped files, sampled.
        output: what it printed on stdout.
    """

    seconds: float
    rss: float
    anonymous: float
    output: str


def measure(command: Sequence[str | os.PathLike], timeout: float = 600, **environment: str) -> Measured:
    """Runs a command to its end; this project can be imported by it if it runs under this interpreter.

    Args:
        command: program and arguments.
        timeout: seconds after which it is killed.
        **environment: variables to add.

    Raises:
        SystemExit: it failed or took too long; with what it wrote to stderr.
    """
    ours = {"PYTHONPATH": str(ROOT)} if str(command[0]) == sys.executable else {}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    peaks = {"VmHWM": 0, "RssAnon": 0}
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        start = time.perf_counter()
        process = subprocess.Popen(
            [os.fspath(part) for part in command], stdout=out, stderr=err, env={**inherited, **ours, **environment}
        )
        killer = threading.Timer(timeout, process.kill)
        killer.start()
        sampler = threading.Thread(target=_sample, args=(process, peaks))
        sampler.start()
        code = process.wait()
        seconds = time.perf_counter() - start
        killer.cancel()
        sampler.join()
        out.seek(0)
        err.seek(0)
        if code:
            message = err.read().decode(errors="replace")
            raise SystemExit(f"{' '.join(map(str, command))} ended with {code}:\n{message[-2000:]}")
        return Measured(seconds, peaks["VmHWM"] / 1e6, peaks["RssAnon"] / 1e6, out.read().decode(errors="replace"))


def in_turn(runs: Mapping[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Every run once, then every run again and so on, so that a slower minute hits all of them."""
    results: dict[str, list[Result]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            results[name].append(run())
    return results


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> float:
    """The median of the ratios of two series that were measured in turn."""
    return median(a / b for a, b in zip(numerators, denominators, strict=True))


def _sample(process: subprocess.Popen, peaks: dict[str, int]) -> None:
    """Keeps the largest values, in bytes, of a running process's memory."""
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            return
        for line in status.splitlines():
            name, _, value = line.partition(":")
            if name in peaks:
                peaks[name] = max(peaks[name], int(value.split()[0]) * 1024)
        time.sleep(SAMPLING)


def _field(path: str, name: str) -> str:
    """The value of the first line `name: value` of a file; empty if there is none."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


# Telling


def save(name: str, results: Mapping[str, Any], text: str) -> None:
    """Writes results/NAME.json, and `text` into the section of the README that is called NAME."""
    RESULTS.mkdir(exist_ok=True)
    content = json.dumps({"machine": machine(), **results}, indent=2)
    (RESULTS / f"{name}.json").write_text(f"{content}\n", encoding="utf-8")
    write_section(README, name, text)


def circumstances(*package_versions: Mapping[str, str]) -> str:
    """The machine and the versions in one sentence."""
    m = machine()
    packages = "; ".join(
        ", ".join(f"{name} {number}" for name, number in versions.items()) for versions in package_versions
    )
    return f"{m['cpu']}, {m['cores']} cores, {m['memory_gb']} GB, {m['system']}, Python {m['python']}; {packages}."


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def write_section(document: Path, name: str, text: str) -> None:
    """Replaces what is between `<!-- NAME -->` and `<!-- /NAME -->` in a document.

    Raises:
        SystemExit: the document lacks these marks.
    """
    before, start, rest = document.read_text(encoding="utf-8").partition(f"<!-- {name} -->")
    _, end, after = rest.partition(f"<!-- /{name} -->")
    if not end:
        raise SystemExit(f"{document} must hold <!-- {name} --> and <!-- /{name} -->.")
    document.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}", encoding="utf-8")
