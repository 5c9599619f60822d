"""What a precision or a runtime costs: its outputs beside those of the checkpoint in float32."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lxmert_tf.input_table import SIGNATURE_INPUTS, TABLE
from lxmert_tf.serving.check import sample_inputs
from lxmert_tf.serving.precision import MAX_LOSS, PrecisionError, check_limit

Arrays = dict[str, np.ndarray]
DERIVED = ("probabilities", "top_ids", "top_scores", "top_answers")
RANDOM_BATCHES, RANDOM_EXAMPLES = 8, 16


@dataclass(frozen=True)
class Examples:
    """Inputs to compare on, and what is right where that is known.

    Attributes:
        batches: inputs of serving_default.
        labels: of each batch, soft scores float[B, A] or class ids int[B]; None where there are none.
        data: what they are, for people.
    """

    batches: Sequence[Arrays]
    labels: Sequence[np.ndarray] | None
    data: str


def random_examples(model: Any) -> Examples:
    """Random texts and regions, with padding."""
    batches = [sample_inputs(model.config, model.num_images, RANDOM_EXAMPLES, seed) for seed in range(RANDOM_BATCHES)]
    return Examples(batches, None, "random inputs")


def features_examples(model: Any, path: str) -> Examples:
    """Random texts about the images of a file of region features.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or its features are not the model's.
    """
    from lxmert_tf.data.features.store import open_features

    store = open_features(path)
    if store.feat_dim != model.config.visual_feat_dim:
        raise ValueError(
            f"The features of {path} are {store.feat_dim} wide, but visual_feat_dim is {model.config.visual_feat_dim}."
        )
    rng, batches = np.random.default_rng(0), []
    for batch in random_examples(model).batches:
        regions = (RANDOM_EXAMPLES, model.num_images) if model.num_images > 1 else (RANDOM_EXAMPLES,)
        read = store.read_rows(rng.integers(0, len(store), int(np.prod(regions))), labels=False)
        images = {
            name: read[name].reshape(*regions, *read[name].shape[1:]).astype(TABLE[name].dtype)
            for name in ("visual_feats", "visual_pos", "visual_attention_mask")
        }
        batches.append({**batch, **images})
    return Examples(batches, None, "random texts about images of the feature file")


def labelled_examples(source: str, model: Any, data: Sequence[str], features: str) -> Examples:
    """The examples of annotation files, as `lxmert-tf evaluate` reads them.

    Raises:
        FileNotFoundError, ValueError: a file does not exist or fit, has no labels, or the model's task has no accuracy.
    """
    from lxmert_tf.training.evaluation import Evaluator

    tasks = {"qa": "vqa", "visual-reasoning": "nlvr2"}
    if model.task not in tasks:
        raise ValueError(f"--data is for models that answer; {type(model).__name__} does not.")
    dataset = Evaluator(tasks[model.task], source, features, batch_size=32).dataset(data)
    batches, labels = [], []
    for step in range(len(dataset)):
        x, y = dataset.batch(step)
        if "labels" not in y:
            raise ValueError(f"{', '.join(data)}: there are no labels to measure accuracy with.")
        batches.append({name: np.asarray(x[name], TABLE[name].dtype) for name in SIGNATURE_INPUTS})
        labels.append(np.asarray(y["labels"]))
    return Examples(batches, labels, f"{sum(map(len, labels))} examples of {', '.join(data)}")


def model_outputs(model: Any, inputs: Mapping[str, np.ndarray]) -> Arrays:
    """What a Keras model gives for inputs by name, by the names that exports have."""
    output = model(dict(inputs), training=False, return_dict=True)
    renamed = {model.answers: "logits"} if model.task == "qa" else {}
    return {
        renamed.get(name, name): np.asarray(value, "float32")
        for name, value in output.items()
        if not isinstance(value, tuple)
    }


class Comparison:
    """A checkpoint's outputs in float32, for others to be compared with.

    Args:
        source: the checkpoint's path.
        model: its model in float32.
        data, features: annotation files with labels, and region features; without both, inputs are random.
        max_loss: points of accuracy that may be lost on `data`.

    Raises:
        FileNotFoundError, ValueError: a file does not exist or fit.
    """

    def __init__(
        self,
        source: str | os.PathLike,
        model: Any,
        data: Sequence[str] = (),
        features: str | None = None,
        max_loss: float = MAX_LOSS,
    ):
        check_limit(max_loss, data, features)
        if data:
            self.examples = labelled_examples(os.fspath(source), model, data, str(features))
        else:
            self.examples = features_examples(model, features) if features else random_examples(model)
        self.max_loss = max_loss
        self._wanted = [model_outputs(model, batch) for batch in self.examples.batches]
        for outputs in self._wanted:
            for name, value in outputs.items():
                if not np.isfinite(value).all():
                    raise ValueError(
                        f"The checkpoint itself gives {name} that is not finite on {self.examples.data}: it or these "
                        "are damaged."
                    )

    def measure(self, run: Callable[[Arrays], Arrays]) -> dict[str, Any]:
        """Compares what a function of inputs gives, as `measure` does."""
        return measure(run, self._wanted, self.examples)

    def require(self, result: Mapping[str, Any], precision: str) -> None:
        """PrecisionError if outputs are not finite, or more accuracy is lost than allowed."""
        if not np.isfinite(result["largest_error"]):
            raise PrecisionError(f"{precision} gives outputs that are not finite: choose float32.")
        if loss(result) > self.max_loss:
            raise PrecisionError(
                f"{precision} loses {loss(result):.2f} points of accuracy, more than {self.max_loss:g} (--max-loss): "
                "choose float32."
            )


def measure(run: Callable[[Arrays], Arrays], reference: Sequence[Arrays], examples: Examples) -> dict[str, Any]:
    """Compares outputs with those of the reference.

    Args:
        run: inputs -> outputs.
        reference: what is right for each batch of `examples`, from `model_outputs`; finite.
        examples: what both are given.

    Returns:
        "largest_error" and "mean_error", absolute, of logits, the scores of answers, or else of all outputs, infinite
        where an output is not finite; "largest_value" of the reference; with answers "equal_answers", a share; with
        labels "accuracy" in 0..1, and "accuracy_float32"; "examples" and "data".
    """
    largest = total = count = equal = rows = magnitude = 0.0
    answers = "logits" in reference[0]
    accuracies: tuple[list, list] = [], []
    for batch, wanted, labels in zip(examples.batches, reference, _or_none(examples.labels), strict=False):
        got = run(batch)
        names = ["logits"] if answers else [name for name in wanted if name not in DERIVED]
        for name in names:
            error = np.abs(np.asarray(got[name], "float64") - wanted[name])
            error[~np.isfinite(error)] = np.inf
            largest = max(largest, float(error.max()))
            magnitude = max(magnitude, float(np.abs(wanted[name]).max()))
            total, count = total + float(error.sum()), count + error.size
        rows += len(wanted[names[0]])
        if answers:
            equal += int((got["logits"].argmax(-1) == wanted["logits"].argmax(-1)).sum())
        if labels is not None:
            for scores, found in zip((got["logits"], wanted["logits"]), accuracies, strict=True):
                found.append(_right(scores, labels))
    result: dict[str, Any] = {
        "largest_error": largest,
        "mean_error": total / count,
        "largest_value": magnitude,
        "examples": int(rows),
        "data": examples.data,
    }
    if answers:
        result["equal_answers"] = equal / rows
    if examples.labels is not None:
        result["accuracy"], result["accuracy_float32"] = (float(np.concatenate(a).mean()) for a in accuracies)
    return result


def loss(comparison: Mapping[str, Any]) -> float:
    """The accuracy lost, in points; NaN where it was not measured."""
    if "accuracy" not in comparison:
        return float("nan")
    return 100 * (comparison["accuracy_float32"] - comparison["accuracy"])


def describe(comparison: Mapping[str, Any]) -> str:
    """A comparison in one line."""
    parts = [f"largest error {comparison['largest_error']:.2g} and mean error {comparison['mean_error']:.2g}"]
    parts[0] += f" of values up to {comparison['largest_value']:.2g}"
    if "equal_answers" in comparison:
        parts.append(f"{100 * comparison['equal_answers']:.2f} % equal answers")
    if "accuracy" in comparison:
        parts.append(
            f"accuracy {100 * comparison['accuracy']:.2f} (float32: {100 * comparison['accuracy_float32']:.2f})"
        )
    else:
        parts.append("accuracy not measured (--data and --features)")
    return f"beside float32, on {comparison['data']}: {', '.join(parts)}"


def _or_none(labels: Iterable[np.ndarray] | None) -> Iterator[np.ndarray | None]:
    if labels is not None:
        yield from labels
    while True:
        yield None


def _right(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    best = scores.argmax(-1)
    if labels.ndim == 2:
        return np.take_along_axis(labels, best[:, None], axis=-1)[:, 0]
    return (best == labels).astype("float32")
