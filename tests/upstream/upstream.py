"""Upstream's half of `make interop`: runs where transformers is installed, and imports nothing of this project.

python upstream.py load cases.json results.json    # load what this project wrote, compare the outputs
python upstream.py save plan.json results.json     # save with upstream's classes, for this project to load
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

os.environ.update(HF_HUB_OFFLINE="1", TF_USE_LEGACY_KERAS="1", TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="")

VISUAL_MASK = "visual_attention_mask"  # upstream's TensorFlow classes crash on it


def main() -> None:
    """Handles one file of cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("load", "save"))
    parser.add_argument("cases", type=Path, help="JSON list of cases, as tests/upstream/run.py writes it")
    parser.add_argument("results", type=Path, help="JSON file to write: versions, and the cases with their results")
    args = parser.parse_args()
    handle = {"load": load, "save": save}[args.command]
    cases = json.loads(args.cases.read_text())
    results = [{**case, **attempt(handle, case)} for case in cases]
    args.results.write_text(json.dumps({"versions": versions(), "results": results}, indent=2))


def attempt(handle: Callable[[dict], dict], case: dict) -> dict[str, Any]:
    """The result of a case; a problem is reported, not raised."""
    try:
        return {"problem": None, **handle(case)}
    except Exception as error:  # whatever upstream raises is a result
        return {"problem": f"{type(error).__name__}: {str(error).strip()[:500]}"}


def versions() -> dict[str, str]:
    """Of the packages that matter and are installed."""
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for name in ("transformers", "torch", "tensorflow", "tf-keras", "safetensors", "h5py"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def load(case: Mapping[str, Any]) -> dict[str, Any]:
    """Loads `directory` with upstream's `class`; returns `error`, the largest of any output.

    Raises:
        ValueError: upstream lacks a weight or finds one too many.
    """
    import transformers

    model, info = getattr(transformers, case["class"]).from_pretrained(case["directory"], output_loading_info=True)
    wrong = {kind: sorted(map(str, names)) for kind, names in info.items() if names}
    if wrong:
        raise ValueError(f"loaded with {wrong}")
    masked = not is_tensorflow(case)
    outputs = run(model, read(case["inputs"]), masked)
    expected = case["expected"]["masked" if masked else "unmasked"]
    return {"error": max(largest_error(outputs, read(path)) for path in expected)}


def save(case: Mapping[str, Any]) -> dict[str, Any]:
    """Saves a model of `class` with random weights to `directory`, and its outputs beside it."""
    import transformers

    directory = Path(case["directory"])
    config = transformers.LxmertConfig.from_dict(json.loads(Path(case["config"]).read_text()))
    model = getattr(transformers, case["class"])(config)
    inputs, masked = read(case["inputs"]), not is_tensorflow(case)
    if not masked:
        run(model, inputs, masked)  # builds it
    randomise(model)
    model.save_pretrained(directory, **case["options"])
    np.savez(directory / "expected.npz", **run(model, inputs, masked))
    return {"masked": masked}


def is_tensorflow(case: Mapping[str, Any]) -> bool:
    """Whether a case is about one of upstream's TensorFlow classes."""
    return case["class"].startswith("TF")


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of an npz file."""
    with np.load(path) as arrays:
        return dict(arrays)


def randomise(model) -> None:
    """Draws every weight, biases and normalisations too; tied ones once."""
    rng = np.random.default_rng(0)
    if hasattr(model, "parameters"):
        import torch

        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(torch.from_numpy(draw(rng, name, tuple(value.shape))))
    else:
        for value in model.weights:
            value.assign(draw(rng, value.name, tuple(value.shape)))


def draw(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random float32 values, around 1 for the scale of a normalisation, else around 0."""
    scale = name.endswith(("LayerNorm.weight", "layer_norm.weight", "gamma:0", "logit_fc.2.weight"))
    return (scale + 0.3 * rng.standard_normal(shape)).astype("float32")


def run(model, inputs: Mapping[str, np.ndarray], masked: bool) -> dict[str, np.ndarray]:
    """All outputs of a PyTorch or TensorFlow model, ours or upstream's, attentions and hidden states included."""
    inputs = {name: value for name, value in inputs.items() if masked or name != VISUAL_MASK}
    options = {"output_attentions": True, "output_hidden_states": True, "return_dict": True}
    if hasattr(model, "parameters"):
        import torch

        with torch.no_grad():
            output = model.eval()(**{name: torch.from_numpy(value) for name, value in inputs.items()}, **options)
    else:
        output = model(**inputs, **options)
    arrays = flat(output)
    if not model.config.task_qa:
        arrays.pop("question_answering_score", None)  # without an answer head, upstream puts a hidden state there
    return arrays


def flat(output: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The outputs as arrays, tuples spread out as `name.index`."""
    arrays = {}
    for name, value in output.items():
        entries = {f"{name}.{i}": item for i, item in enumerate(value)} if isinstance(value, tuple) else {name: value}
        arrays.update({key: np.asarray(item) for key, item in entries.items()})
    return arrays


def largest_error(actual: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> float:
    """The largest error of any output, relative to that output's largest magnitude.

    Raises:
        ValueError: the outputs have other names or shapes, or are not finite.
    """
    if set(actual) != set(expected):
        raise ValueError(f"only one side has the outputs {sorted(set(actual) ^ set(expected))}")
    return max(_error(name, actual[name].astype("float64"), expected[name].astype("float64")) for name in expected)


def _error(name: str, actual: np.ndarray, expected: np.ndarray) -> float:
    if actual.shape != expected.shape:
        raise ValueError(f"{name} has shape {actual.shape}, expected {expected.shape}")
    if not np.isfinite(actual).all():
        raise ValueError(f"{name} is not finite")
    return float(np.abs(actual - expected).max() / (np.abs(expected).max() or 1.0))


if __name__ == "__main__":
    main()
