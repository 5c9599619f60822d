"""`lxmert-tf export --check`: exports are complete, load, answer, and agree with the checkpoint."""

import functools
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from conversion.compare import error_between
from conversion.formats import weight_files
from conversion.source import open_detector_source
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.detector.modeling import FasterRCNN
from lxmert_tf.detector.pipelines import Pipeline
from lxmert_tf.detector.question_answering import model_inputs
from lxmert_tf.files import sha256
from lxmert_tf.input_table import SIGNATURE_INPUTS, TABLE
from lxmert_tf.serving import server_files
from lxmert_tf.serving.checkpoint import Source, load
from lxmert_tf.serving.metadata import changed_files, read_metadata
from lxmert_tf.serving.version_folders import versions
from lxmert_tf.serving.warmup import reason, replay

# Largest difference of an output, relative to its largest magnitude: the same operations in another order
TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2, "float16": 4e-3}
TOLERANCE_OF_REGIONS = 1e-4  # the network is a hundred layers deep


def check_model(
    base: str | os.PathLike,
    name: str,
    source: str | os.PathLike,
    report: Callable[[str], None],
    config: str | os.PathLike | None = None,
    detector: str | os.PathLike | None = None,
) -> bool:
    """Checks every version of a model; returns whether all are sound.

    Args:
        base, name: BASE/NAME holds the versions.
        source: the checkpoint; versions exported from it must compute what it computes.
        report: takes a line for each version and each problem.
        config: config.json in place of the checkpoint's own.
        detector: checkpoint of the detector; versions exported with it must find what it finds.

    Raises:
        FileNotFoundError: there is no version.
    """
    folder = Path(base) / name
    numbers = versions(folder)
    if not numbers:
        raise FileNotFoundError(f"{folder} has no version to check.")
    sound, loaded = True, functools.cache(lambda precision: load(source, precision, config))
    try:
        served = server_files.served(base, name, numbers)
    except ValueError as error:
        report(str(error))
        sound, served = False, numbers
    for number in numbers:
        problems, summary = _check_version(folder / str(number), source, loaded, detector)
        note = "" if number in served else f" ({server_files.CONFIG_FILE} does not serve it)"
        report(f"{folder / str(number)}: {'; '.join(problems) if problems else summary}{note}")
        sound &= not problems
    return sound


def _check_version(
    folder: Path,
    source: str | os.PathLike,
    loaded: Callable[[str], Source],
    detector: str | os.PathLike | None = None,
) -> tuple[list[str], str]:
    """Problems of a version, and a line about it where there are none."""
    try:
        problems, metadata = changed_files(folder), read_metadata(folder)
        if "answer_text" in metadata["signatures"]:
            import tensorflow_text  # noqa: F401 - brings the ops that the graph needs
        signatures = tf.saved_model.load(os.fspath(folder)).signatures
        seen = replay(folder, lambda signature, inputs: run(signatures[signature], inputs))
        missing = sorted(set(signatures) - set(seen))
        if missing:
            problems.append(f"no warm-up request for {', '.join(missing)}")
        difference = None if problems else _compare(signatures, metadata, loaded)
        found = None if problems or detector is None else _compare_detector(signatures, metadata, detector)
    except Exception as error:  # damaged files make TensorFlow raise anything
        return [reason(error)], ""
    if difference == np.inf:
        problems.append(f"outputs of it or of {source} are not finite, so they cannot be compared")
    elif difference is not None and difference > TOLERANCES[metadata["precision"]]:
        problems.append(f"differs from {source} by {difference:.1e} of the largest value")
    compared = (
        "made from another checkpoint" if difference is None else f"equal to the checkpoint within {difference:.1e}"
    )
    if found is not None and found > TOLERANCE_OF_REGIONS:
        problems.append(f"finds other regions than {detector}: they differ by {found:.1e} of the largest value")
    if detector is not None:
        equal = "from another detector, or none" if found is None else f"equal to the detector within {found:.1e}"
        compared = f"{compared}, {equal}"
    requests = sum(map(len, seen.values()))
    return problems, f"sound: {len(signatures)} signatures, {requests} warm-up requests, {compared}"


def run(signature: Any, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A loaded signature's outputs for arrays; strings may be arrays of objects."""
    specs = signature.structured_input_signature[1]
    outputs = signature(**{name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()})
    return {name: value.numpy() for name, value in outputs.items()}


def _compare(signatures: Mapping[str, Any], metadata: dict, loaded: Callable[[str], Source]) -> float | None:
    """The largest relative difference between serving_default and the checkpoint; None if made from another one.

    It is infinite where an output is not finite.
    """
    source = loaded(metadata["precision"])
    if source.digest != metadata["source"]["sha256"]:
        return None
    model = source.model
    inputs = sample_inputs(model.config, model.num_images)
    served = run(signatures["serving_default"], inputs)
    renamed = {"question_answering_score": "logits"} if "logits" in served else {}
    wanted = {
        renamed.get(name, name): tf.cast(value, tf.float32).numpy()
        for name, value in model(inputs, training=False, return_dict=True).items()
        if not isinstance(value, tuple)
    }
    return largest_difference(served, wanted)


def largest_difference(got: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]) -> float:
    """The largest relative difference of those outputs that are wanted; infinite where one is not finite."""
    errors = [error_between(got[name], value) for name, value in wanted.items()]
    return max((np.inf if error.nonfinite else error.max for error in errors), default=0.0)


def _compare_detector(signatures: Mapping[str, Any], metadata: dict, source: str | os.PathLike) -> float | None:
    """The largest relative difference between detect and the detector, of a picture; None if made with another one."""
    made = metadata.get("detector")
    checkpoint = open_detector_source(source)
    if made is None or made["sha256"] != sha256(*weight_files(checkpoint.path)):
        return None
    numbers: dict[str, Any] = {**made["pipeline"], "nms": tuple(made["pipeline"]["nms"])}
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), "uint8")
    file = np.full(signatures["detect"].structured_input_signature[1]["images"].shape[1:], tf.io.encode_png(picture))
    served = run(signatures["detect"], {"images": file[None]})
    (regions,) = FasterRCNN.from_pretrained(checkpoint).detect([picture], Pipeline(**numbers))
    largest = 0.0
    for name, value in model_inputs([regions]).items():
        got = served[name].reshape(-1, *served[name].shape[-value.ndim + 1 :])[0]
        wanted = np.pad(value[0], [(0, len(got) - value.shape[1]), *[(0, 0)] * (value.ndim - 2)])
        largest = max(largest, error_between(got, wanted).max)
    return largest


def sample_inputs(config: LxmertConfig, num_images: int = 1, examples: int = 3, seed: int = 0) -> dict[str, np.ndarray]:
    """Random inputs of serving_default with padding in both masks."""
    rng = np.random.default_rng(seed)
    tokens, boxes = min(12, config.max_position_embeddings), 7
    regions = (examples, boxes) if num_images == 1 else (examples, num_images, boxes)
    corners = np.sort(rng.random((*regions, 2, 2)), axis=-2).reshape(*regions, 4)[..., : config.visual_pos_dim]
    kept = rng.integers(1, tokens + 1, examples)
    visual_mask = rng.integers(0, 2, regions)
    visual_mask[..., 0] = 1
    arrays = {
        "input_ids": rng.integers(0, config.vocab_size, (examples, tokens)),
        "attention_mask": np.arange(tokens) < kept[:, None],
        "token_type_ids": rng.integers(0, config.type_vocab_size, (examples, tokens)),
        "visual_feats": rng.random((*regions, config.visual_feat_dim)),
        "visual_pos": corners,
        "visual_attention_mask": visual_mask,
    }
    return {name: arrays[name].astype(TABLE[name].dtype) for name in SIGNATURE_INPUTS}
