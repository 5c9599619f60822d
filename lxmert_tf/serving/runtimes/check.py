"""`lxmert-tf export --format ... --check`: exports are complete, load in their runtime, answer, and agree."""

import functools
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_tf.input_table import IMAGE_INPUTS, SIGNATURE_INPUTS, TABLE, TEXT_INPUTS
from lxmert_tf.serving.check import largest_difference, sample_inputs
from lxmert_tf.serving.checkpoint import Source, load
from lxmert_tf.serving.comparison import model_outputs
from lxmert_tf.serving.metadata import changed_files, read_metadata
from lxmert_tf.serving.runtimes.base import (
    ANSWER_ENCODED,
    DEFAULT_SIGNATURE,
    Loaded,
    Runtime,
    model_name,
    runtime,
    signature_names,
)
from lxmert_tf.serving.runtimes.server_files import unserved
from lxmert_tf.serving.version_folders import versions
from lxmert_tf.serving.warmup import BOXES, TOKENS

# Largest difference from the checkpoint, relative to the largest value: the same operations in another order; in
# reduced precision no more than a gross error, as the cost is in the metadata. Scales of int8 may have been fixed for
# other inputs than the random ones here, which then say nothing.
TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2, "int8": np.inf}


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
    for number in versions(Path(base) / name):
        found = format
        with suppress(OSError, ValueError):  # which is told below
            found = read_metadata(Path(base) / name / str(number)).get("format", "saved_model")
        if found != format:
            raise ValueError(f"{Path(base) / name / str(number)} is of format {found}: check it with --format {found}.")
        for signature in signature_names(loaded().model):
            model = model_name(name, signature)
            folder = Path(base) / model / str(number)
            problems, summary = _check_version(folder, signature, target, loaded())
            if unloaded := unserved(Path(base), model, format):
                problems.append(unloaded)
            report(f"{folder}: {'; '.join(problems) if problems else summary}")
            sound &= not problems
    return sound


def _check_version(folder: Path, signature: str, target: Runtime, source: Source) -> tuple[list[str], str]:
    """Problems of a version, and a line about it where there are none."""
    if not folder.is_dir():
        return ["missing, though it is a signature of the model"], ""
    try:
        problems, metadata = changed_files(folder), read_metadata(folder)
        if problems:
            return problems, ""
        model = target.load(folder, metadata["precision"])
        for size in metadata["batch_sizes"]:
            _replay(model, source.model.config, size)
        sound = f"sound: answers in batches of {', '.join(map(str, metadata['batch_sizes']))}"
        if metadata["source"]["sha256"] != source.digest:
            return [], f"{sound}, made from another checkpoint"
        difference = _difference(model, signature, source.model)
    except Exception as error:  # damaged files make the runtimes raise anything
        return [(str(error).strip() or type(error).__name__).splitlines()[-1]], ""
    if difference == np.inf:
        return ["outputs of it or of the checkpoint are not finite, so they cannot be compared"], ""
    if difference > TOLERANCES[metadata["precision"]]:
        return [f"differs from the checkpoint by {difference:.1e} of the largest value"], ""
    if metadata["precision"] == "int8":
        return [], f"{sound}, on random inputs {difference:.1e} from the checkpoint"
    return [], f"{sound}, equal to the checkpoint within {difference:.1e}"


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


def _difference(model: Loaded, signature: str, reference: Any) -> float:
    """The largest difference of an output, relative to its largest value, for random inputs of three sizes.

    It is infinite where an output is not finite.
    """
    largest = 0.0
    for examples in (1, 3, 8):
        inputs = sample_inputs(reference.config, reference.num_images, examples, seed=examples)
        mask = inputs["visual_attention_mask"].astype(bool)
        if signature == DEFAULT_SIGNATURE:
            wanted = model_outputs(reference, inputs)
        else:
            image = {name: inputs[name] for name in IMAGE_INPUTS}
            inputs["vision_states"] = np.asarray(reference.encode_image(**image)["vision_states"], "float32")
            wanted = {"vision_states": inputs["vision_states"][mask]}
            if signature == ANSWER_ENCODED:
                wanted = model_outputs(reference, {name: inputs[name] for name in SIGNATURE_INPUTS})
        got = model.run(inputs)
        got = {name: got[name][mask] if name == "vision_states" else got[name] for name in wanted}
        largest = max(largest, largest_difference(got, wanted))
    return largest
