"""Models around ours, and subclasses of ours, are the same in a fresh process, whatever they were saved as."""

import json
import os
import subprocess
import sys

import pytest
from support import wrappers
from support.golden import ROOT

# float32: a graph sums in another order, which a normalisation of 4 values amplifies; a weight that is lost is 0.1
TOLERANCE = 1e-5

# Keras exports with a dict of a class of its own, and says of any functional model of a dict that this is no dict
pytestmark = pytest.mark.filterwarnings("ignore:The structure of `inputs` doesn't match:UserWarning")


@pytest.fixture(scope="module")
def differences(tmp_path_factory) -> dict[str, float]:
    """How far what a fresh process loads is from what was saved, by kind and format."""
    directory = tmp_path_factory.mktemp("wrapped")
    wrappers.save_all(directory)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), *sys.path])}
    command = [sys.executable, "-W", "ignore", wrappers.__file__, directory]
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", wrappers.MAKERS)
def test_what_is_loaded_is_what_was_saved(differences, kind):
    formats = {name: value for name, value in differences.items() if name.startswith(f"{kind}, ")}
    assert len(formats) == (3 if kind in wrappers.EXPORTED else 2)
    assert max(formats.values()) < TOLERANCE, formats


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["backbone", "own build"])
def test_a_keras_file_holds_every_layer(kind, tmp_path):
    assert wrappers.loaded_differs_by(kind, tmp_path) < TOLERANCE
