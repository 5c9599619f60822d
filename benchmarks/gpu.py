"""lxmert_tf on a GPU, under JAX and PyTorch, beside transformers in PyTorch: `python benchmarks/gpu.py [--size small]`.

It takes less than 8 minutes on a machine with one GPU, and needs no network. JAX, PyTorch and transformers are to be
there; `make gpu-wheels` gathers Keras and what it needs; TensorFlow is not used. What is not installed is left out.
Without a GPU the small size runs on the CPU, which tells that the script works, and nothing about speed.

Every contender is a process of its own. Once all have compiled, they are asked in turn. Results are written as they
come, a line of JSON each; `--report` makes the tables of the README from such a file.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
if not __package__:
    sys.path[0] = str(ROOT)  # as `python -m benchmarks.gpu` has it

from benchmarks.common import README, RESULTS, machine, table, write_section  # noqa: E402
from benchmarks.contenders.worker import products  # noqa: E402
from benchmarks.gpu_contenders.worker import SIZES, Size  # noqa: E402

HERE = ROOT / "benchmarks" / "gpu_contenders"
PACKAGES = ("keras", "jax", "torch", "transformers", "numpy")
YARDSTICK = "product of matrices"
# By name: script, variant, the Keras backend, and the packages that it needs.
CONTENDERS = {
    "lxmert-tf, JAX": ("ours.py", "compiled", "jax", ("keras", "jax")),
    "lxmert-tf, PyTorch eager": ("ours.py", "eager", "torch", ("keras", "torch")),
    "transformers, eager": ("transformers_torch.py", "eager", "torch", ("transformers", "torch")),
    "transformers, CUDA graphs": ("transformers_torch.py", "graphs", "torch", ("transformers", "torch")),
    "transformers, compiled": (
        "transformers_torch.py",
        "compiled",
        "torch",
        ("transformers", "torch"),
    ),
}
PARITY = {
    "lxmert_tf, JAX": ("keras", "jax", ("keras", "jax")),
    "lxmert_tf, PyTorch": ("keras", "torch", ("keras", "torch")),
    "lxmert_pt": ("pt", "torch", ("torch",)),
}
PREPARING = (0.6, 0.5, 0.75)  # of the time that is left at the beginning of each phase
QUIET = {"HF_HUB_OFFLINE": "1", "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_CPP_MIN_LOG_LEVEL": "3"}


def installed(packages: tuple[str, ...]) -> bool:
    return all(find_spec(package) for package in packages)


def start(script: str, backend: str, *arguments: str, log: Path) -> subprocess.Popen:
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("a") as errors:
        return subprocess.Popen(
            [sys.executable, str(HERE / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **QUIET, "KERAS_BACKEND": backend, "PYTHONPATH": path},
        )


class Contender:
    """A process that prepares its cases, and then runs whichever it is asked for.

    Args:
        name: of `CONTENDERS`, or `YARDSTICK`.
        size: name of the size.
        cases: such as "forward 8".
        log: a file for what it writes to stderr.
    """

    def __init__(self, name: str, size: str, cases: list[str], log: Path):
        script, variant, backend, _ = CONTENDERS.get(name, ("products.py", "eager", "torch", ()))
        self.name, self.cases, self.ready = name, [], False
        self.process = start(script, backend, size, variant, *cases, log=log)
        self.lines: queue.Queue = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout:
            if line.startswith("{"):
                self.lines.put(json.loads(line))
        self.lines.put(None)

    def prepared(self, deadline: float):
        """Yields a record for each case, until all are prepared, the process ends, or the time has come."""
        while not self.ready:
            try:
                line = self.lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                return
            if line is None:
                self.ready = True
                yield {"error": f"ended with {self.process.wait()}"}
            elif "ready" in line:
                self.ready = True
            else:
                if "error" not in line:
                    self.cases.append(line["case"])
                yield line

    def ask(self, case: str, timeout: float = 30) -> dict:
        try:
            self.process.stdin.write(f"{case}\n")
            self.process.stdin.flush()
            return self.lines.get(timeout=timeout) or {"case": case, "error": "ended"}
        except (OSError, queue.Empty) as error:
            self.kill()
            return {"case": case, "error": repr(error)}

    def close(self) -> dict:
        if self.process.poll() is not None or not self.ready:
            self.kill()
            return {}
        self.process.stdin.close()
        try:
            return self.lines.get(timeout=20) or {}
        except queue.Empty:
            return {}
        finally:
            self.kill()

    def kill(self) -> None:
        self.cases = []
        self.process.kill()
        self.process.wait()


def phases(size: Size) -> dict[str, list[str]]:
    """What is run at once: every contender has a process for each."""
    return {
        "inference": [*(f"forward {batch}" for batch in size.forward), f"stream {size.questions}"],
        "training": [f"training {batch}" for batch in size.training],
        "pretraining": [f"pretraining {batch}" for batch in size.pretraining],
    }


class Run:
    """One run of the benchmark, which writes to `path` and has ended by `deadline`."""

    def __init__(self, arguments: argparse.Namespace):
        self.size, self.rounds, self.only = arguments.size, arguments.rounds, arguments.only
        self.path, self.log = arguments.results, arguments.results.with_suffix(".log")
        self.deadline = time.monotonic() + 60 * arguments.minutes
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text("")

    def write(self, **record) -> None:
        line = json.dumps(record)
        print(line, flush=True)
        with self.path.open("a") as file:
            file.write(f"{line}\n")

    def all(self, chosen: list[str]) -> None:
        """Runs what is chosen of "parity" and `phases`."""
        self.write(kind="circumstances", size=self.size, **circumstances())
        names = [name for name in self.only if installed(CONTENDERS[name][3])]
        self.write(kind="left out", names=[name for name in self.only if name not in names])
        parity = self.start_parity() if "parity" in chosen else {}
        cases = {phase: each for phase, each in phases(SIZES[self.size]).items() if phase in chosen}
        # What compiles begins with all of it: that takes longest, and the others are not to be timed meanwhile.
        compiling = [name for name in names if CONTENDERS[name][1] == "compiled"]
        early = {(name, phase): self.contender(name, cases[phase]) for phase in cases for name in compiling}
        for number, phase in enumerate(cases):
            contenders = [early.get((name, phase)) or self.contender(name, cases[phase]) for name in names]
            contenders.append(self.contender(YARDSTICK, [f"product {8192 if self.size == 'base' else 64}"]))
            until = time.monotonic() + PREPARING[number] * (self.deadline - time.monotonic())
            self.prepare(contenders, phase, until)
            for name, process in parity.items():
                self.finish_parity(name, process, until)
            if number == 0:
                for (_, later), contender in early.items():
                    self.prepare([contender], later, until)
            parity = {}
            self.measure(contenders, phase)

    def contender(self, name: str, cases: list[str]) -> Contender:
        return Contender(name, self.size, cases, self.log)

    def prepare(self, contenders: list[Contender], phase: str, until: float) -> None:
        for contender in contenders:
            for record in contender.prepared(until):
                self.write(kind="prepared", contender=contender.name, phase=phase, **record)

    def measure(self, contenders: list[Contender], phase: str) -> None:
        cases = list(dict.fromkeys(case for contender in contenders for case in contender.cases))
        for _ in range(self.rounds):
            for case in cases:
                for contender in contenders:
                    if contender.ready and case in contender.cases and time.monotonic() < self.deadline:
                        self.write(kind="measured", contender=contender.name, **contender.ask(case))
        for contender in contenders:
            if not contender.ready:
                self.write(kind="prepared", contender=contender.name, phase=phase, error="not prepared in time")
            self.write(kind="memory", contender=contender.name, phase=phase, **contender.close())

    def start_parity(self) -> dict[str, subprocess.Popen]:
        return {
            name: start("parity.py", backend, package, log=self.log)
            for name, (package, backend, packages) in PARITY.items()
            if installed(packages)
        }

    def finish_parity(self, name: str, process: subprocess.Popen, until: float) -> None:
        try:
            output, _ = process.communicate(timeout=max(until - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        for line in output.splitlines():
            self.write(kind="parity", package=name, **json.loads(line))
        if process.returncode:
            self.write(kind="parity", package=name, failed=process.returncode)


def circumstances() -> dict:
    """The card, its driver, the machine, and versions."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        gpu = subprocess.run(query, capture_output=True, text=True, check=True).stdout.strip().splitlines()[0]
    except (OSError, subprocess.CalledProcessError):
        gpu = ""
    return {"gpu": gpu, "machine": machine(), "versions": {name: _version(name) for name in PACKAGES}}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def report(lines: list[str]) -> str:
    """The tables of a run in Markdown.

    Args:
        lines: records as JSON, as the run has written them.
    """
    records = [json.loads(line) for line in lines]
    about = next(record for record in records if record["kind"] == "circumstances")
    seconds: dict = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record["kind"] == "measured" and "seconds" in record:
            seconds[record["case"]][record["contender"]].append(record["seconds"])
    memory = {(r["contender"], r["phase"]): r.get("peak_bytes") for r in records if r["kind"] == "memory"}
    rate = None
    base = about["size"] == "base"
    for case in [case for case in seconds if case.startswith("product")]:
        length = int(case.split()[1])
        rate = 2 * length**3 / median(seconds.pop(case)[YARDSTICK])
    parts = [parity_table([record for record in records if record["kind"] == "parity"])]
    for phase, cases in phases(SIZES[about["size"]]).items():
        if measured := [case for case in cases if case in seconds]:
            parts.append(phase_table(phase, measured, seconds, memory, rate if base else None))
    if rate:
        parts.append(f"A product of large matrices in bfloat16 runs at {rate / 1e12:.0f} TFLOP/s in the same run.")
    failed = [record for record in records if "contender" in record and "error" in record]
    if errors := sorted({f"{r['contender']}, {r.get('case') or r['phase']}: {r['error']}" for r in failed}):
        parts.append("Did not run: " + "; ".join(errors) + ".")
    found = ", ".join(f"{name} {number}" for name, number in about["versions"].items() if number)
    card = about["gpu"] or f"no GPU, {about['machine']['cpu']}"
    parts.append(f"{card}; {about['machine']['cores']} cores, Python {about['machine']['python']}; {found}.")
    return "\n\n".join(part for part in parts if part)


def parity_table(records: list[dict]) -> str:
    """The largest error of all outputs for each package and dtype, but of the loss, whose golden value is float32."""
    errors: dict = defaultdict(dict)
    for record in records:
        if "output" in record:
            errors[record["package"], record["dtype"]][record["output"]] = record
    rows = []
    for (package, dtype), outputs in errors.items():
        holds = all(r["error"] is not None and r["error"] <= r["allowed"] for r in outputs.values())
        found = [max(r["error"] for r in outputs.values() if (r["output"] == "loss") == loss) for loss in (False, True)]
        allowed = next(iter(outputs.values()))["allowed"]
        rows.append([package, dtype, *(f"{e:.1e}" for e in found), f"{allowed:.0e}", "yes" if holds else "**no**"])
    header = ["golden results on the card", "dtype", "largest error", "of the loss", "allowed", "holds"]
    return table(header, rows) if rows else ""


def phase_table(phase: str, cases: list[str], seconds: dict, memory: dict, rate: float | None) -> str:
    """Milliseconds (questions/s for the stream), the share of the card's rate in brackets, and the peak memory."""
    names = list(dict.fromkeys(name for case in cases for name in seconds[case]))
    rows = []
    for name in names:
        cells = [cell(case, seconds[case].get(name), rate) for case in cases]
        peak = memory.get((name, phase))
        rows.append([name, *cells, f"{peak / 1e9:.1f} GB" if peak else "-"])
    return table([phase, *(title(case) for case in cases), "peak memory"], rows)


def title(case: str) -> str:
    work, number = case.split()
    return f"{number} questions" if work == "stream" else f"batch {number}"


def cell(case: str, times: list[float] | None, rate: float | None) -> str:
    if not times:
        return "-"
    work, number = case.split()[0], int(case.split()[1])
    if work == "stream":
        return f"{number / median(times):,.0f}/s"
    share = ""
    if rate:
        passes = 1 if work == "forward" else 3
        flop = passes * sum(2 * rows * width * out for rows, width, out in products(number))
        share = f" ({100 * flop / median(times) / rate:.0f} %)"
    return f"{1000 * median(times):.2f} ms{share}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="base", help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="times each is asked (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=8, help="when to stop (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    works = ["parity", "inference", "training", "pretraining"]
    parser.add_argument("--work", nargs="+", choices=works, default=works, help="(default: all)")
    parser.add_argument("--results", type=Path, default=RESULTS / "gpu.jsonl", help="(default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="run nothing; write the README's section")
    arguments = parser.parse_args()
    if not arguments.report:
        Run(arguments).all(arguments.work)
    text = report(arguments.results.read_text().splitlines())
    print(text)
    if arguments.report:
        write_section(README, "gpu", text)


if __name__ == "__main__":
    main()
