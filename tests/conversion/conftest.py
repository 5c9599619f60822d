"""A checkpoint of every format, made once, and what makes `verify` quick."""

from pathlib import Path

import pytest
from support.checkpoints import PRETRAINED, SOURCES, write_archive

from conversion.convert import convert
from conversion.run_models import run_pytorch


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of every format."""
    folder = tmp_path_factory.mktemp("sources")
    convert(PRETRAINED, folder / "model.weights.h5", to="keras-weights")
    write_archive(folder / "model.keras", folder / "model.weights.h5")
    return {**SOURCES, "keras": folder / "model.weights.h5", "keras archive": folder / "model.keras"}


@pytest.fixture
def only_pytorch(monkeypatch):
    """Lets `verify` run checkpoints in the faster of the two packages."""
    monkeypatch.setattr("conversion.verify.frameworks", lambda: {"lxmert_pt": run_pytorch})
