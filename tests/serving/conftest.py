"""Exports and a server, made once."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

pytest.importorskip("tensorflow_serving", reason="needs the extra `serving`")
pytest.importorskip("tensorflow_text", reason="needs the extra `serving`")

from serving_helpers import TASKS, build_exports, serving


@pytest.fixture(scope="session")
def exports(tmp_path_factory, worker_id="master") -> Path:
    """A folder with a checkpoint of every task, and models/TASK/1 exported from it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return build_exports(shared / "exports")


@pytest.fixture(scope="session")
def server(exports):
    """The loopback server with every exported model: {"grpc": HOST:PORT, "rest": HOST:PORT, "pid": ...}."""
    with serving(*(f"{task}={exports / 'models' / task}" for task in TASKS)) as running:
        yield running
