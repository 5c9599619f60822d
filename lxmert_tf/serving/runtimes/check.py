"""`lxmert-tf export --format ... --check`: exports are complete, load in their runtime, answer, and agree."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_tf.input_table import TABLE, TEXT_INPUTS
from lxmert_tf.serving.check import sample_inputs
from lxmert_tf.serving.checkpoint import Source, load
from lxmert_tf.serving.comparison import model_outputs
from lxmert_tf.serving.metadata import changed_files, read_metadata
from lxmert_tf.serving.runtimes.base import DEFAULT_SIGNATURE, Loaded, Runtime, model_name, runtime, signature_names
from lxmert_tf.serving.version_folders import versions
from lxmert_tf.serving.warmup import BOXES, TOKENS

# Largest difference from the checkpoint, relative to the largest value: the same operations in another order; in
# reduced precision no more than a gross error, as the cost is in the metadata
TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2, "int8": 0.25}


def check_model(
    base: str | os.PathLike,
    name: str,
    format: str,
    source: str | os.PathLike,
    report: Callable[[str], None],
    config: str | os.PathLike | None = None,
) -> bool:
    """Checks every version of a model and of its further signatures; returns whether all are sound.

    Args:
        base, name: BASE/NAME holds the versions.
        format: of the runtime that loads them.
        source: the checkpoint; versions exported from it must compute what it computes.
        report: takes a line for each version and each problem.
        config: config.json in place of the checkpoint's own.

    Raises:
        FileNotFoundError: there is no version.
        ImportError: the runtime is not installed.
    """
    target = runtime(format)
    target.check("float32")
    if not versions(Path(base) / name):
        raise FileNotFoundError(f"{Path(base) / name} has no version to check.")
    loaded = functools.cache(lambda: load(source, config=config))
    sound = True
    for signature in signature_names(loaded().model):
        folder = Path(base) / model_name(name, signature)
        for number in versions(folder):
            problems, summary = _check_version(folder / str(number), signature, target, loaded())
            report(f"{folder / str(number)}: {'; '.join(problems) if problems else summary}")
            sound &= not problems
    return sound


def _check_version(folder: Path, signature: str, target: Runtime, source: Source) -> tuple[list[str], str]:
    """Problems of a version, and a line about it where there are none."""
    try:
        problems, metadata = changed_files(folder), read_metadata(folder)
        if problems:
            return problems, ""
        model = target.load(folder, metadata["precision"])
        for size in metadata["batch_sizes"]:
            _replay(model, source.model.config, size)
        if signature != DEFAULT_SIGNATURE or metadata["source"]["sha256"] != source.digest:
            return [], f"sound: answers in batches of {_listed(metadata['batch_sizes'])}"
        difference = _difference(model, source.model)
    except Exception as error:  # damaged files make the runtimes raise anything
        return [(str(error).strip() or type(error).__name__).splitlines()[-1]], ""
    if not difference <= TOLERANCES[metadata["precision"]]:
        return [f"differs from the checkpoint by {difference:.1e} of the largest value"], ""
    sizes = _listed(metadata["batch_sizes"])
    return [], f"sound: answers in batches of {sizes}, equal to the checkpoint within {difference:.1e}"


def _replay(model: Loaded, config: Any, size: int) -> None:
    """Runs a request of a batch size; ValueError for an answer that is not finite, or of another size."""
    inputs = {name: _filled(name, spec, size, config) for name, spec in model.inputs.items()}
    for name, value in model.run(inputs).items():
        if len(value) != size:
            raise ValueError(f"It returns {name} for {len(value)} examples instead of {size}.")
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(f"It returns {name} that is not finite for a request of {size}.")


def _filled(name: str, spec: Mapping[str, Any], size: int, config: Any) -> np.ndarray:
    tokens = min(TOKENS, config.max_position_embeddings)
    free = iter((size, tokens if name in TEXT_INPUTS else BOXES))
    default = TABLE[name].default or 0 if spec["dtype"] == "int32" else 0.5
    return np.full([next(free) if n is None else n for n in spec["shape"]], default, spec["dtype"])


def _difference(model: Loaded, reference: Any) -> float:
    """The largest difference of an output, relative to its largest value, for random inputs of three sizes."""
    largest = 0.0
    for examples in (1, 3, 8):
        inputs = sample_inputs(reference.config, reference.num_images, examples, seed=examples)
        got = model.run(inputs)
        for name, wanted in model_outputs(reference, inputs).items():
            largest = max(largest, float(np.abs(got[name] - wanted).max() / np.abs(wanted).max()))
    return largest


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
