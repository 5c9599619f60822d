"""The benchmarks run, at a size that says nothing about speed."""

import json
import subprocess
import sys

import pytest
from support.golden import ROOT

from benchmarks.gpu import YARDSTICK, report


@pytest.mark.slow
def test_the_conversion_benchmark_runs():
    command = [sys.executable, "-m", "benchmarks.conversion", "--size=tiny", "--rounds=1", "--no-peer", "--no-save"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count(" MB |") == 4 and "verified / copy" in done.stdout


@pytest.mark.slow
def test_the_gpu_benchmark_runs_without_a_gpu(tmp_path):
    pytest.importorskip("torch")
    results = tmp_path / "gpu.jsonl"
    chosen = ["--only", "lxmert-tf, PyTorch eager", "--work", "parity", "inference", "training"]
    command = [sys.executable, "benchmarks/gpu.py", "--size=small", "--rounds=1", f"--results={results}", *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for line in (
        "| lxmert_tf, PyTorch | float64 |",
        "| inference | batch 1 | batch 2 | 20 questions |",
        "| training | batch 2 |",
    ):
        assert line in done.stdout
    assert "**no**" not in done.stdout and "Did not run" not in done.stdout
    assert {json.loads(line)["kind"] for line in results.read_text().splitlines()} >= {"parity", "measured", "memory"}


def test_the_report_of_a_gpu_run():
    about = {"gpu": "A card", "size": "base", "versions": {"keras": "3.15.1", "jax": None}}
    records = [
        {"kind": "circumstances", **about, "machine": {"cores": 4, "python": "3.12.3"}},
        {
            "kind": "parity",
            "package": "ours",
            "dtype": "float64",
            "output": "answers",
            "error": 2e-15,
            "allowed": 1e-11,
        },
        {"kind": "parity", "package": "ours", "dtype": "float64", "output": "loss", "error": 5e-7, "allowed": 4e-7},
        *({"kind": "measured", "contender": "ours", "case": "forward 8", "seconds": t} for t in (0.002, 0.009, 0.001)),
        {"kind": "measured", "contender": YARDSTICK, "case": "product 1000", "seconds": 2e-5},
        {"kind": "memory", "contender": "ours", "phase": "inference", "peak_bytes": 1.5e9},
        {"kind": "prepared", "contender": "theirs", "phase": "inference", "error": "not prepared in time"},
    ]
    text = report([json.dumps(record) for record in records])
    assert "| ours | float64 | 2.0e-15 | 5.0e-07 | 1e-11 | **no** |" in text
    # 84 GFLOP of the forward pass in the median, 2 ms, are 42 TFLOP/s; the product runs at 100.
    assert "| ours | 2.00 ms (42 %) | 1.5 GB |" in text
    assert "Did not run: theirs, inference: not prepared in time." in text
    assert "A card; 4 cores, Python 3.12.3; keras 3.15.1." in text


def test_the_wheels_for_a_gpu_are_the_versions_that_the_tests_run_with():
    pinned = {line for line in (ROOT / "benchmarks" / "gpu-wheels.txt").read_text().splitlines() if "==" in line}
    known = {line.partition(";")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert pinned and pinned <= known
