"""The same work by this project and by what a user would pick instead, each in a process and environment of its own."""

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.common import ROOT, in_turn, peer

HERE = Path(__file__).parent
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}

# By name: script, variant, and the peer whose environment it runs in, if any.
CONTENDERS: dict[str, tuple[str, str, str | None]] = {
    "lxmert-tf, graph": ("ours.py", "graph", None),
    "lxmert-tf, XLA": ("ours.py", "xla", None),
    "transformers TF, graph": ("transformers_tf.py", "graph", "transformers4"),
    "transformers TF, XLA": ("transformers_tf.py", "xla", "transformers4"),
    "transformers PyTorch, eager": ("transformers_torch.py", "eager", "transformers5"),
    "transformers PyTorch, compiled": ("transformers_torch.py", "compiled", "transformers5"),
}

# What `lxmert-tf export` writes, and what others run LXMERT with on a CPU; the last word is the precision.
EXPORTS: dict[str, tuple[str, str, str | None]] = {
    "lxmert-tf, SavedModel": ("exported.py", "saved_model-float32", None),
    "lxmert-tf, OpenVINO": ("exported.py", "openvino-float32", None),
    "lxmert-tf, ONNX": ("exported.py", "onnx-float32", None),
    "lxmert-tf, LiteRT": ("exported.py", "litert-float32", None),
    "lxmert-tf, SavedModel bfloat16": ("exported.py", "saved_model-bfloat16", None),
    "lxmert-tf, OpenVINO bfloat16": ("exported.py", "openvino-bfloat16", None),
    "lxmert-tf, OpenVINO int8": ("exported.py", "openvino-int8", None),
    "lxmert-tf, ONNX int8": ("exported.py", "onnx-int8", None),
    "lxmert-tf, LiteRT int8": ("exported.py", "litert-int8", None),
}
PEERS: dict[str, tuple[str, str, str | None]] = {
    "transformers, PyTorch": ("transformers_torch.py", "eager", "runtimes"),
    "transformers, ONNX Runtime": ("runtimes.py", "onnxruntime-float32", "runtimes"),
    "transformers, OpenVINO": ("runtimes.py", "openvino-float32", "runtimes"),
    "transformers, PyTorch bfloat16": ("transformers_torch.py", "bfloat16", "runtimes"),
    "transformers, OpenVINO bfloat16": ("runtimes.py", "openvino-bfloat16", "runtimes"),
    "transformers, PyTorch int8": ("transformers_torch.py", "int8", "runtimes"),
    "transformers, ONNX Runtime int8": ("runtimes.py", "onnxruntime-int8", "runtimes"),
    "transformers, OpenVINO int8": ("runtimes.py", "openvino-int8", "runtimes"),
}
YARDSTICK = "its matrix products alone"  # what no float32 forward pass can be faster than
DETECTORS: dict[str, tuple[str, str, str | None]] = {
    "lxmert-tf, float32": ("detector_ours.py", "float32", None),
    "lxmert-tf, bfloat16": ("detector_ours.py", "bfloat16", None),
    "research code, as shipped": ("detector_research.py", "contiguous", "research"),
    "research code, channels_last": ("detector_research.py", "channels_last", "research"),
}
_SCRIPTS = CONTENDERS | EXPORTS | PEERS | DETECTORS | {YARDSTICK: ("products.py", "graph", None)}


def add_only(parser: argparse.ArgumentParser) -> None:
    """The option of a benchmark to run some of the contenders."""
    names = "; ".join(f'"{name}"' for name in CONTENDERS)
    parser.add_argument(
        "--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME", help=f"of {names}"
    )


class Contender:
    """A process that has warmed up, and does its work once whenever it is asked.

    Args:
        name: one of `CONTENDERS`, or `YARDSTICK`.
        work: "forward", "training", "pretraining" or "vqa".
        sizes: the batch size, and what else the work takes.

    Raises:
        SystemExit: the process failed; with the command that shows why.
    """

    def __init__(self, name: str, work: str, *sizes: int):
        command, environment = _command(name, work, *sizes)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, env=environment
        )
        self.name = name
        self._read()

    def run(self) -> float:
        """Seconds that one piece of work takes."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self._read())

    def close(self) -> float:
        """Ends the process; returns the most memory it has held, in MB."""
        self.process.stdin.close()
        peak = json.loads(self._read())["peak_mb"]
        self.process.wait()
        return peak

    def _read(self) -> str:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(
                f"{self.name} ended with {self.process.wait()}; run {' '.join(self.process.args)} to see why."
            )
        return line


def _command(name: str, work: str, *sizes: int) -> tuple[list[str], dict[str, str]]:
    """A contender's command, and the variables it runs with."""
    script, variant, environment = _SCRIPTS[name]
    ours = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    python, path = (peer(environment), "") if environment else (sys.executable, ours)
    quiet = QUIET if environment else {k: v for k, v in QUIET.items() if k != "TF_USE_LEGACY_KERAS"}
    return [python, str(HERE / script), work, variant, *map(str, sizes)], {**os.environ, **quiet, "PYTHONPATH": path}


def onednn_kernels(name: str, work: str, *sizes: int) -> Counter:
    """The kernels with which oneDNN multiplies in a contender, as it names them, with how often each runs.

    TensorFlow, PyTorch in reduced precision and OpenVINO multiply with it; others tell nothing.
    """
    command, environment = _command(name, work, *sizes)
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env={**environment, "ONEDNN_VERBOSE": "1"}
    )
    kernels: Counter = Counter()
    for line in done.stdout.splitlines():
        fields = line.split(",")
        if fields[0] == "onednn_verbose" and "exec" in fields:
            kind, kernel = fields[fields.index("exec") + 2 :][:2]
            if kind in ("matmul", "inner_product"):
                kernels[kernel] += 1
    return kernels


def contest(names: Sequence[str], rounds: int, together: bool, work: str, *sizes: int) -> dict[str, dict]:
    """Times contenders in turn: seconds of every round, and peak memory, by name.

    Args:
        together: whether all processes live at once and take turns, or, where memory is short, one after the other.
    """
    if not together:
        return {name: one for name in names for one in contest([name], rounds, True, work, *sizes).values()}
    contenders = {name: Contender(name, work, *sizes) for name in names}
    seconds = in_turn({name: contender.run for name, contender in contenders.items()}, rounds)
    return {name: {"seconds": seconds[name], "peak_mb": contenders[name].close()} for name in names}


def rows(results: Mapping[str, dict], ours: Sequence[str]) -> list[list[str]]:
    """Rows of a table: name, median, minimum, peak memory, and how many times as long as our best it took."""
    best = min(median(results[name]["seconds"]) for name in ours)
    return [
        [
            name,
            f"{1000 * median(one['seconds']):.0f} ms",
            f"{1000 * min(one['seconds']):.0f} ms",
            f"{one['peak_mb'] / 1000:.1f} GB",
            f"{median(one['seconds']) / best:.2f}",
        ]
        for name, one in results.items()
    ]
