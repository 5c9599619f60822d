"""Exports and a server, made once."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

pytest.importorskip("tensorflow_serving", reason="needs the extra `serving`")
pytest.importorskip("tensorflow_text", reason="needs the extra `serving`")

from support.serving import TASKS, build_exports, serving, tensorflow_model_server


@pytest.fixture(scope="session")
def exports(tmp_path_factory) -> Path:
    """A folder with a checkpoint of every task, and models/TASK/1 exported from it."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    return build_exports(shared / "exports")


@pytest.fixture(scope="session", params=["loopback", "tensorflow_model_server"])
def server(request, exports):
    """A server with every exported model: {"grpc": HOST:PORT, "rest": HOST:PORT}; TF Serving itself where it is."""
    run = serving if request.param == "loopback" else tensorflow_model_server
    with run(*(f"{task}={exports / 'models' / task}" for task in TASKS)) as running:
        yield running
