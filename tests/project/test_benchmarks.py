"""The benchmarks run, at a size that says nothing about speed."""

import subprocess
import sys

import pytest
from support.golden import ROOT


@pytest.mark.slow
def test_the_conversion_benchmark_runs():
    command = [sys.executable, "-m", "benchmarks.conversion", "--size=tiny", "--rounds=1", "--no-peer", "--no-save"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.count(" MB |") == 4 and "verified / copy" in done.stdout
