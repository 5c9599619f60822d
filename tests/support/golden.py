"""What the tests share: the golden files, the tolerances, and the comparison. Imports no framework."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]  # of the project
GOLDEN = ROOT / "tests" / "golden"

# Errors are relative to the largest magnitude in the expected tensor. The golden values are float64 results, so
# float64 can differ from them only by the order of additions: 1e-15 to 2e-14 is measured, 1e-11 allows for other
# libraries and is still far below any mistake in the mathematics.
REL64 = 1e-11
# float32 has 24 bits, 6e-8 relative, and errors grow through the layers: up to 7e-6 is measured, in gradients.
REL32 = 2e-5
# Upstream adds its pretraining losses up in a float32 scalar: six roundings of at most 6e-8 each.
REL_FLOAT32_SUM = 4e-7

PRETRAINING_LOSSES = ("masked_lm", "matched", "obj", "attr", "feat", "ans")


def golden_inputs(visual_mask: bool = True) -> dict[str, np.ndarray]:
    """The inputs of every golden result, by the name of the call argument: 3 examples, 9 tokens, 6 boxes."""
    inputs = _read("inputs")
    return inputs if visual_mask else {k: v for k, v in inputs.items() if k != "visual_attention_mask"}


def golden_labels() -> dict[str, np.ndarray | dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The pretraining labels, by the name of the call argument: labels, matched_label, ans, nested obj_labels."""
    labels = _read("labels")
    obj_labels = {name: (labels.pop(name), labels.pop(f"{name}_conf")) for name in ("obj", "attr", "feat")}
    return {**labels, "obj_labels": obj_labels}


def golden_state_dict(folder: str) -> dict[str, np.ndarray]:
    """The weights of golden/`folder`/model.safetensors, by the names in the file."""
    return load_file(GOLDEN / folder / "model.safetensors")


def expected(name: str) -> dict[str, np.ndarray]:
    """The arrays of golden/expected_`name`.npz, or of original/expected_... for "original/...": float64."""
    folder, _, name = name.rpartition("/")
    return _read(f"{folder}/expected_{name}" if folder else f"expected_{name}")


def assert_close(
    actual: np.ndarray, expected: np.ndarray, tolerance: float, name: str = "value", scale: float | None = None
) -> float:
    """Asserts the same shape and an error within `tolerance` of `scale`, and returns that relative error.

    Args:
        scale: what the error is relative to. Default: the largest magnitude in `expected`.
    """
    actual, expected = np.asarray(actual, "float64"), np.asarray(expected, "float64")
    assert actual.shape == expected.shape, f"{name} has shape {actual.shape}, expected {expected.shape}"
    assert np.isfinite(actual).all(), f"{name} is not finite"
    scale = np.abs(expected).max() if scale is None else scale
    error = float(np.abs(actual - expected).max() / (scale or 1.0))
    assert error <= tolerance, f"{name} differs by {error:.2e} relative to {scale:.2e}, allowed are {tolerance:.0e}"
    return error


def assert_gradients_close(
    actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float
) -> float:
    """Asserts the same names and close values, by PyTorch name, and returns the largest relative error.

    A key's bias shifts all scores of a query alike, so its true gradient is 0 and both sides hold rounding noise: it
    is measured against the gradient of the same key's weight.
    """
    assert set(actual) == set(expected)
    scales = {name: np.abs(gradient).max() for name, gradient in expected.items()}
    return max(
        assert_close(actual[name], gradient, tolerance, name, scales[name.replace("key.bias", "key.weight")])
        for name, gradient in expected.items()
    )


def assert_passes_under(backend: str, *files: str | Path) -> None:
    """Runs files of tests in a process of its own under another Keras backend."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *files],
        env={**os.environ, "KERAS_BACKEND": backend, "JAX_ENABLE_X64": "1"},  # JAX has float64 on request only
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:]
    assert "passed" in run.stdout


def _read(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz") as arrays:
        return dict(arrays)
