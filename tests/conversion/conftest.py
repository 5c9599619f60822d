"""A checkpoint of every format, made once."""

from pathlib import Path

import pytest
from conversion_helpers import PRETRAINED, SOURCES, write_archive

from conversion.convert import convert


@pytest.fixture(scope="session")
def sources(tmp_path_factory) -> dict[str, Path]:
    """A checkpoint of every format."""
    folder = tmp_path_factory.mktemp("sources")
    convert(PRETRAINED, folder / "model.weights.h5", to="keras-weights")
    write_archive(folder / "model.keras", folder / "model.weights.h5")
    return {**SOURCES, "keras": folder / "model.weights.h5", "keras archive": folder / "model.keras"}
