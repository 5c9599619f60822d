"""From a checkpoint to BASE/NAME/<version>: the SavedModel and everything a server needs beside it."""

import dataclasses
import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from conversion.formats import weight_files
from conversion.source import open_detector_source
from lxmert_tf.answers import model_answers
from lxmert_tf.configuration import SINGLE_LABEL
from lxmert_tf.detector.modeling import FasterRCNN
from lxmert_tf.detector.pipelines import DEFAULT, make_pipeline
from lxmert_tf.files import sha256
from lxmert_tf.serving import server_files
from lxmert_tf.serving.check import run
from lxmert_tf.serving.checkpoint import Source, load
from lxmert_tf.serving.comparison import Comparison
from lxmert_tf.serving.detection import Detection
from lxmert_tf.serving.graph_inputs import SpecialIds
from lxmert_tf.serving.metadata import check_base, describe, write_metadata
from lxmert_tf.serving.precision import MAX_LOSS
from lxmert_tf.serving.signatures import EXTRAS, Options, Servable
from lxmert_tf.serving.version_folders import check_name, next_version, publish, staged
from lxmert_tf.serving.warmup import write_warmup

PRECISIONS = ("float32", "bfloat16", "float16")
PROBABILITIES = ("sigmoid", "softmax")
BATCH_SIZES = (1, 2, 4, 8, 16, 32)
LARGEST_BATCH = 4096  # the server is warmed up with each size
BERT_IDS = SpecialIds(cls=101, sep=102, pad=0)  # of the vocabulary that every published LXMERT uses


def export(
    source: str | os.PathLike,
    base: str | os.PathLike,
    name: str,
    *,
    text: bool = False,
    precision: str = "float32",
    outputs: Sequence[str] = (),
    labels: str | os.PathLike | None = None,
    top_k: int = 5,
    probabilities: str | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    version: int | None = None,
    label: str = "stable",
    config: str | os.PathLike | None = None,
    detector: str | os.PathLike | None = None,
    pipeline: Mapping[str, Any] | None = None,
    compare: bool = False,
    data: Sequence[str] = (),
    features: str | None = None,
    max_loss: float = MAX_LOSS,
) -> Path:
    """Exports a checkpoint for TensorFlow Serving.

    Args:
        source: checkpoint of any format: directory, file or Hub id.
        base: the server's folder of models.
        name: the model's name there.
        text: with signatures that take questions as strings; needs tensorflow-text and a tokenizer beside the weights.
        precision: "float32", "bfloat16" or "float16" of weights and computation; outputs are float32.
        outputs: any of "hidden_states", "attentions" and "all_attentions", for serving_default.
        labels: JSON file of answers, in place of the model directory's own.
        top_k: answers given per question.
        probabilities: "sigmoid" or "softmax"; by default softmax where the config's `problem_type` is
            "single_label_classification", else sigmoid, as the paper trains.
        batch_sizes: of the server's batches and warm-up requests.
        version: the version folder; by default the next free one.
        label: the version label that models.config puts on it.
        config: config.json in place of the checkpoint's own.
        detector: checkpoint of a detector, for signatures that take pictures; `text` follows.
        pipeline: its pipeline and the numbers of that, as of `FasterRCNN.detect`.
        compare: whether to compare float32 too with the checkpoint; reduced precision always is.
        data: annotation files with labels, for accuracy.
        features: region features, of the images of `data`, or to compare on without that.
        max_loss: points of accuracy that reduced precision may lose on `data`.

    Returns:
        The version folder. It appears whole or not at all.

    Raises:
        FileNotFoundError, ValueError, ImportError: the checkpoint cannot be exported or served that way.
    """
    server_files.check_model_name(check_name(name))
    check_name(label, "A version label")
    _require_serving_api()
    check_choices(precision, outputs, top_k, probabilities, batch_sizes)
    if Path(base).exists() and not Path(base).is_dir():
        raise NotADirectoryError(f"{base} is not a directory: give the server's directory of models.")
    server_files.read_config(base)
    check_base(base, "saved_model")
    if (Path(base) / server_files.OVMS_FILE).exists():
        raise ValueError(f"{base} is the folder of models of OpenVINO Model Server: choose another one.")
    next_version(Path(base) / name, version)
    reference = None
    if compare or precision != "float32":
        reference = Comparison(source, load(source, config=config).model, data, features, max_loss)
    loaded = load(source, precision, config)
    detection, seen = (None, None) if detector is None else load_detection(detector, loaded.model, **pipeline or {})
    options = make_options(loaded, text or detector is not None, outputs, labels, top_k, probabilities, detection)
    servable = Servable(loaded.model, options)
    cost = None
    if reference is not None:
        cost = reference.measure(functools.partial(run, servable.signatures["serving_default"]))
        reference.require(cost, precision)
    with staged(Path(base) / name) as folder:
        tf.saved_model.save(servable.root, os.fspath(folder), signatures=servable.signatures)
        write_warmup(folder, name, servable.signatures, sorted(batch_sizes), loaded.model.config)
        server_files.write_batching(folder, list(batch_sizes))
        values = {
            **model_metadata(source, name, precision, loaded, options),
            "signatures": {name: describe(function) for name, function in sorted(servable.signatures.items())},
            "detector": seen,
            "comparison": cost,
        }
        write_metadata(folder, values)
        with server_files.locked_base(base):
            written = publish(folder, version)
            try:
                server_files.update_config(base, name, int(written.name), label)
            except BaseException:  # an interrupt, too
                shutil.rmtree(written)
                raise
    server_files.write_templates(base, name, tf.__version__, frozen_weights=precision == "bfloat16")
    return written


def make_options(
    loaded: Source,
    text: bool,
    outputs: Sequence[str],
    labels: str | os.PathLike | None,
    top_k: int,
    probabilities: str | None,
    detection: Detection | None = None,
) -> Options:
    """The options of the signatures, with the checkpoint's tokenizer and answers."""
    from lxmert_tf import LxmertTokenizer

    model, config = loaded.model, loaded.model.config
    if labels is not None and model.task != "qa":
        raise ValueError(f"--labels is for models that answer questions; {type(model).__name__} has no answers.")
    if text and not model.answers:
        raise ValueError(
            f"--text is for models that answer; {type(model).__name__} returns a value per token: send it token ids."
        )
    try:
        tokenizer = LxmertTokenizer.from_pretrained(loaded.directory)
    except FileNotFoundError as error:
        if text:
            raise FileNotFoundError(
                f"--text needs the tokenizer's vocab.txt in the model directory: {error}"
            ) from error
        tokenizer = None
    if tokenizer is not None and text and len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, but the model's vocab_size is {config.vocab_size}."
        )
    special = BERT_IDS if config.vocab_size > max(BERT_IDS) else None
    if tokenizer is not None and tokenizer.pad_token_id is not None:
        special = SpecialIds(tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
    if probabilities is None:
        single = config.problem_type == SINGLE_LABEL
        probabilities = "softmax" if single else "sigmoid"
    return Options(
        tokenizer=tokenizer if text else None,
        labels=model_answers(loaded.directory, config, labels) if model.task == "qa" else None,
        outputs=tuple(outputs),
        top_k=top_k,
        probabilities=probabilities,
        special=special,
        detection=detection,
    )


def load_detection(
    source: str | os.PathLike, model: Any, pipeline: str = DEFAULT, **numbers: Any
) -> tuple[Detection, dict[str, Any]]:
    """A detector as a model's signatures use it, and what the metadata say of it.

    Raises:
        FileNotFoundError, ValueError: there is none, it is damaged, or its features are not the model's.
    """
    if not model.answers:
        raise ValueError(f"--detector is for models that answer; {type(model).__name__} does not.")
    checkpoint = open_detector_source(source)
    detector = FasterRCNN.from_pretrained(checkpoint)
    width, wanted = detector.config.feature_size, model.config.visual_feat_dim
    if width != wanted:
        raise ValueError(
            f"The features of {source} are {width} wide, but visual_feat_dim of the model is {wanted}: give the "
            "detector that it was trained with."
        )
    made = make_pipeline(pipeline, detector.config, **numbers)
    seen = {
        "checkpoint": os.path.basename(os.path.abspath(source)),
        "sha256": sha256(*weight_files(checkpoint.path)),
        "pipeline": dataclasses.asdict(made),
    }
    return Detection(detector, made, model.num_images), seen


def check_choices(
    precision: str, outputs: Sequence[str], top_k: int, probabilities: str | None, batch_sizes: Sequence[int]
) -> None:
    for what, value, allowed in (
        ("precision", precision, PRECISIONS),
        ("probabilities", probabilities, (None, *PROBABILITIES)),
        *(("outputs", output, tuple(EXTRAS)) for output in outputs),
    ):
        if value not in allowed:
            raise ValueError(f"{what} must be one of {', '.join(map(str, allowed))}, got {value!r}.")
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}.")
    sizes = set(batch_sizes)
    if not sizes or min(sizes) < 1 or max(sizes) > LARGEST_BATCH or len(sizes) != len(batch_sizes):
        raise ValueError(f"batch_sizes must be distinct integers in 1..{LARGEST_BATCH}, got {list(batch_sizes)}.")


def _require_serving_api() -> None:
    try:
        import tensorflow_serving.apis  # noqa: F401
    except ImportError as error:
        raise ImportError("Exporting needs tensorflow-serving-api: pip install 'lxmert-tf[serving]'.") from error


def model_metadata(
    source: str | os.PathLike, name: str, precision: str, loaded: Source, options: Options
) -> dict[str, Any]:
    """What the metadata of an export in any format say of the checkpoint and its answers."""
    return {
        "name": name,
        "model": type(loaded.model).__name__,
        "precision": precision,
        "source": {
            "checkpoint": os.path.basename(os.path.abspath(source)),
            "format": loaded.format,
            "sha256": loaded.digest,
        },
        "probabilities": options.probabilities,
        "config": loaded.model.config.to_dict(),
        "labels": None if options.labels is None else list(options.labels),
    }
