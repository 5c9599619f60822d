"""Whether two checkpoints are the same model: their weights, and what every block computes in both frameworks."""

import gc
import os
import reprlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from conversion.compare import Error, error_between
from conversion.detector.formats import DetectorCheckpoint
from conversion.detector.run_detectors import BESIDE_THE_NETWORK, OUTPUTS, runners
from conversion.diff import Difference, difference
from conversion.formats import Checkpoint
from conversion.names import HEAD_NAMES, head_of
from conversion.report import counted, progress_bar, some
from conversion.run_models import BEYOND_SHAPES, example_inputs, fields_in_use, frameworks, output_order
from conversion.source import open_pair
from lxmert_tf.command_line import option
from lxmert_tf.configuration import LxmertConfig


@dataclass(frozen=True)
class Output:
    """One output of the models.

    Args:
        block: what computes it, "language layer 3".
        name: of the output, "language_hidden_states.3".
        errors: by comparison: "lxmert_tf" and "lxmert_pt", a against b in that package; "a in both", a in one against
            a in the other. None where the shapes differ.
    """

    block: str
    name: str
    errors: dict[str, Error | None]

    def differs(self, max_error: float) -> bool:
        """Whether any error is larger."""
        return any(error is None or error.max > max_error for error in self.errors.values())

    @property
    def is_finite(self) -> bool:
        """Whether all its values are; others prove nothing, even where they are the same."""
        return not any(error and error.nonfinite for error in self.errors.values())


@dataclass(frozen=True)
class Verification:
    """Whether two checkpoints are the same model.

    Args:
        max_error: the largest error that passes, relative to the tensor's largest magnitude.
        weights: how the tensors differ.
        outputs: what both compute, in the order of computation; empty if they were not run.
        packages: the packages that ran them.
        notes: what was not compared or proves nothing, with the reason; how the configs differ; which file was read.
        config: field to its values in a and in b, where it makes the models compute something else.
    """

    max_error: float
    weights: Difference
    outputs: list[Output]
    packages: list[str]
    notes: list[str]
    config: dict[str, tuple[Any, Any]]

    @property
    def differing_weights(self) -> list[str]:
        """Tensors whose error is too large."""
        return [name for name, error in self.weights.values.items() if error.max > self.max_error]

    @property
    def first_divergence(self) -> Output | None:
        """The first output, in the order of computation, whose error is too large, or which is not finite."""
        return next((each for each in self.outputs if each.differs(self.max_error) or not each.is_finite), None)

    @property
    def nonfinite_outputs(self) -> list[Output]:
        """The outputs that prove nothing."""
        return [output for output in self.outputs if not output.is_finite]

    @property
    def differs(self) -> bool:
        """Whether anything differs that both should have in common."""
        weights = self.weights
        if weights.a.task == weights.b.task:
            apart = [*weights.only_a, *weights.only_b, *weights.shapes]
        else:
            apart = [name for name in weights.shapes if not head_of(name)]
        outputs = any(output.differs(self.max_error) for output in self.outputs)
        return bool(apart or self.differing_weights or self.config or outputs)

    @property
    def equal(self) -> bool:
        """Whether both were run, nothing differs that both should have in common, and all of that is finite."""
        return bool(self.outputs) and not (self.differs or self.weights.nonfinite or self.nonfinite_outputs)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: "equal", "max_error", "first_divergence", "weights", "outputs", "packages", "notes"."""
        first = self.first_divergence
        return {
            "equal": self.equal,
            "max_error": self.max_error,
            "first_divergence": None if first is None else {"block": first.block, "name": first.name},
            "weights": {**self.weights.to_dict(), "differing": self.differing_weights},
            "outputs": [
                {**asdict(each), "errors": {name: _json_error(error) for name, error in each.errors.items()}}
                for each in self.outputs
            ],
            "packages": self.packages,
            "notes": self.notes,
        }

    def lines(self) -> list[str]:
        """The verification for people."""
        return [
            f"a: {self.weights.a}",
            f"b: {self.weights.b}",
            *self.weights.tensor_lines(),
            *self._table(),
            *(f"note: {note}" for note in self.notes),
            *self._verdict(),
        ]

    def _table(self) -> list[str]:
        if not self.outputs:
            return []
        blocks, names = (max(len(getattr(each, part)) for each in self.outputs) for part in ("block", "name"))
        titles = "  ".join(f"{title:>17}" for title in self.outputs[0].errors)
        return [
            "max and mean error, relative to the largest magnitude, in float64: a against b, and a against itself",
            f"{'':{blocks + names + 2}}  {titles}",
            *(
                f"{each.block:{blocks}}  {each.name:{names}}  {'  '.join(map(_cell, each.errors.values()))}"
                f"{'  <' if each.differs(self.max_error) or not each.is_finite else ''}"
                for each in self.outputs
            ),
        ]

    def _verdict(self) -> list[str]:
        first, weights = self.first_divergence, self.differing_weights
        if self.equal:
            outputs = f"{counted(self.outputs, 'output')} in {' and '.join(self.packages)}"
            return [f"equal within {self.max_error:g}: {counted(self.weights.compared, 'tensor')}, {outputs}"]
        return [
            *(
                [f"differing by more than {self.max_error:g}: {counted(weights, 'tensor')}: {some(weights)}"]
                if weights
                else []
            ),
            *([f"{first.block} is the first block that {_failure(first)}, in {first.name}"] if first else []),
            self._inequality(),
        ]

    def _inequality(self) -> str:
        if not self.outputs:
            return "different; not run"
        if self.differs:
            return "different"
        things = ((self.weights.nonfinite, "tensor"), (self.nonfinite_outputs, "output"))
        places = " and ".join(counted(each, noun) for each, noun in things if each)
        return f"not proven equal: there are values that are not finite in {places}"


def _failure(output: Output) -> str:
    return "diverges" if output.is_finite else "is not finite"


def _cell(error: Error | None) -> str:
    if error and error.nonfinite:
        return f"{'not finite':>17}"
    return f"{error.max:8.1e} {error.mean:8.1e}" if error else f"{'other shape':>17}"


def _json_error(error: Error | None) -> dict[str, float | None] | None:
    """Plain JSON values; what is not finite has no error."""
    if error is None:
        return None
    return {**error.to_dict(), **({"max_error": None, "mean_error": None} if error.nonfinite else {})}


def verify(
    a: Any,
    b: Any,
    max_error: float = 1e-5,
    config: LxmertConfig | str | os.PathLike | None = None,
    progress: bool = False,
    prefix: str | None = None,
) -> Verification:
    """Compares weights tensor by tensor, then runs both checkpoints on the same inputs, masks on, in both frameworks.

    The models compute in float64, so that rounding explains nothing. Of checkpoints of different tasks, what they have
    in common is compared. A checkpoint without a config takes from the other's what shapes do not show. Configs that
    make the models compute something else are a difference, and values that are not finite prove nothing.

    Args:
        a, b: files, directories or Hub ids of any format; or models or state dicts in memory.
        max_error: the largest error that passes, relative to the largest magnitude of a tensor.
        config: a config or its JSON file, in place of both checkpoints' own.
        progress: show a bar on stderr, if that is a terminal and it takes longer than a second.
        prefix: what the names of the model's tensors begin with, in one or both; by default it is found.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: no name begins with `prefix`; a negative `max_error`; or a checkpoint is damaged, or without a
            config and so incomplete that none can be inferred.
    """
    if not max_error >= 0:
        raise ValueError(f"{option('max_error')} must be at least 0, got {max_error}.")
    first, second = open_pair(a, b, config, prefix)
    if isinstance(first, DetectorCheckpoint):
        return _verify_detectors(first, second, max_error, progress)
    first, second = _completed_config(first, second), _completed_config(second, first)
    weights = difference(first, second, progress)
    decisive = _decisive_fields(first, second, weights)
    outputs, packages, notes = _run(first, second, progress)
    notes = [*weights.notes, *_notes(first, second, weights), *_config_notes(weights.config, decisive), *notes]
    return Verification(max_error, weights, outputs, packages, notes, decisive)


def _verify_detectors(a: DetectorCheckpoint, b: Checkpoint, max_error: float, progress: bool) -> Verification:
    """As `verify`, of detectors: both see the same picture and the same boxes."""
    weights = difference(a, b, progress)
    decisive = {name: pair for name, pair in weights.config.items() if name not in BESIDE_THE_NETWORK}
    notes = [*weights.notes, *_config_notes(weights.config, decisive)]
    try:
        for checkpoint in (a, b):
            checkpoint.match()
    except ValueError as error:
        return Verification(max_error, weights, [], [], [*notes, f"not run: {str(error).splitlines()[0]}"], decisive)
    available = runners()
    results = {}
    with progress_bar(2 * len(available), progress, unit="run") as update:
        for package, run in available.items():
            for side, checkpoint in (("a", a), ("b", b)):
                results[side, package] = run(checkpoint)
                gc.collect()  # a model refers to itself, and is not gone before
                update(1)
    pairs = {package: (results["a", package], results["b", package]) for package in available}
    if "lxmert_pt" in available:
        pairs["a in both"] = results["a", "lxmert_tf"], results["a", "lxmert_pt"]
    else:
        notes.append("torch is not installed, so lxmert_pt was not run")
    shared = set.intersection(*(set(side) for pair in pairs.values() for side in pair))
    outputs = [
        Output(block, name, {title: _error(x[name], y[name]) for title, (x, y) in pairs.items()})
        for block, name in OUTPUTS
        if name in shared
    ]
    return Verification(max_error, weights, outputs, list(available), notes, decisive)


def _completed_config(checkpoint: Checkpoint, other: Checkpoint) -> Checkpoint:
    """Without a config of its own, `checkpoint` with what shapes do not show from the other's."""
    known = {name: getattr(other.config, name) for name in BEYOND_SHAPES}
    if not checkpoint.inferred or other.inferred or checkpoint.config.hidden_size != other.config.hidden_size:
        return checkpoint
    return replace(checkpoint, config=LxmertConfig.from_dict({**checkpoint.config.to_dict(), **known}))


def _decisive_fields(a: Checkpoint, b: Checkpoint, weights: Difference) -> dict[str, tuple[Any, Any]]:
    """The config's fields that differ and make what both have compute something else, losses included."""
    task = a.task if a.task == b.task else "model"
    read = fields_in_use(a.config, task) | fields_in_use(b.config, task)
    return {name: pair for name, pair in weights.config.items() if name in read}


def _config_notes(config: dict[str, tuple[Any, Any]], decisive: dict[str, tuple[Any, Any]]) -> list[str]:
    return [
        f"config: {name} is {reprlib.repr(first)} in a, {reprlib.repr(second)} in b"
        + ("" if name in decisive else ", which changes nothing that is compared")
        for name, (first, second) in config.items()
    ]


def _notes(a: Checkpoint, b: Checkpoint, weights: Difference) -> list[str]:
    notes = []
    if a.task != b.task:
        notes.append(f"the tasks differ ({a.task}, {b.task}), so only what both have is compared")
        if others := [name for name in HEAD_NAMES if name in map(head_of, weights.shapes)]:
            notes.append(f"{' and '.join(others)} of a and of b differ in size, so they are not compared")
    if a.inferred and b.inferred:
        heads = a.config.num_attention_heads
        notes.append(
            f"num_attention_heads={heads} is a guess; if it is wrong, {option('pass config=', 'give it with --config')}"
        )
    return notes


def _run(a: Checkpoint, b: Checkpoint, progress: bool) -> tuple[list[Output], list[str], list[str]]:
    """What both compute, the packages they ran in, and notes on what was not run or compared."""
    try:
        inputs = example_inputs(a.config, b.config)
    except ValueError as error:
        return [], [], [f"not run: {str(error).splitlines()[0]}"]
    for checkpoint in (a, b):
        try:
            checkpoint.match()
        except ValueError as error:
            return [], [], [f"not run: {str(error).splitlines()[0]}"]
    available = frameworks()
    results = {}
    with progress_bar(2 * len(available), progress, unit="run") as update:
        for package, run in available.items():
            for side, checkpoint in (("a", a), ("b", b)):
                results[side, package] = run(checkpoint, inputs)
                gc.collect()  # a model refers to itself, and is not gone before
                update(1)
    pairs = {package: (results["a", package], results["b", package]) for package in available}
    if {"lxmert_tf", "lxmert_pt"} <= set(available):
        pairs["a in both"] = results["a", "lxmert_tf"], results["a", "lxmert_pt"]
    outputs = _compared(a.config, pairs)
    notes = [*_unshared_heads(a, b)]
    if names := [output.name for output in outputs if not output.is_finite]:
        notes.append(f"{counted(names, 'output')} not finite in a or b: {some(names)}")
    if "lxmert_pt" not in available:
        notes.append("torch is not installed, so lxmert_pt was not run")
    if a.task != b.task:  # heads of other sizes are other heads
        outputs = [each for each in outputs if not (head_of(each.block) and None in each.errors.values())]
    return outputs, list(available), notes


def _unshared_heads(a: Checkpoint, b: Checkpoint) -> Iterator[str]:
    """Notes on the heads, or parts of them, that only one of the models has."""
    first, second = _heads(a), _heads(b)
    for side, has, other, others in (("a", first, "b", second), ("b", second, "a", first)):
        present = {head_of(name) for name in has}
        lacking = [
            name.rpartition(".")[0] if (head := head_of(name)) is None or head in present else head
            for name in others - has
        ]
        if lacking:
            yield f"{side} lacks {', '.join(sorted(set(lacking)))}, which {other} has; that is not compared"


def _heads(checkpoint: Checkpoint) -> set[str]:
    """The tensors of heads that a checkpoint's model has from it."""
    return {row.torch for row in checkpoint.match().loaded if head_of(row.torch)}


def _compared(config: LxmertConfig, pairs: dict) -> list[Output]:
    """The outputs that both sides of every pair have."""
    shared = set.intersection(*(set(side) for pair in pairs.values() for side in pair))
    return [
        Output(block, name, {title: _error(x[name], y[name]) for title, (x, y) in pairs.items()})
        for block, name in output_order(config)
        if name in shared
    ]


def _error(a: np.ndarray, b: np.ndarray) -> Error | None:
    return error_between(a, b) if a.shape == b.shape else None
