"""int8 within a limit of accuracy: layers that cost too much stay float32."""

import shutil
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from lxmert_tf.serving.comparison import loss
from lxmert_tf.serving.precision import PrecisionError
from lxmert_tf.serving.runtimes.base import Arrays, Runtime


def quantize_within(
    runtime: Runtime,
    folder: Path,
    target: Path,
    batches: list[Arrays],
    measure: Callable[[Path], dict[str, Any]],
    max_loss: float,
) -> tuple[list[str], dict[str, Any]]:
    """Quantizes a model, and leaves out layers until it loses no more than allowed.

    The order is that of the mean error that each layer causes alone. Without labels all layers are quantized.

    Args:
        runtime: of the model.
        folder: with the float32 model.
        target: of the int8 model.
        batches: to calibrate with.
        measure: compares a folder's model with float32, as `comparison.measure` does.
        max_loss: of accuracy, in points.

    Returns:
        The layers that stay float32, and the comparison.

    Raises:
        PrecisionError: the limit is exceeded whatever is left out.
    """
    layers, kept = runtime.layers(folder), []
    comparison = _try(runtime, folder, target, batches, measure, [])
    if not loss(comparison) > max_loss:  # NaN where it was not measured
        return [], comparison
    alone = {}
    for layer in layers:
        others = chain.from_iterable(names for other, names in layers.items() if other != layer)
        alone[layer] = _try(runtime, folder, target, batches, measure, list(others))["mean_error"]
    for layer in sorted(alone, key=alone.__getitem__, reverse=True)[:-1]:
        kept.append(layer)
        excluded = list(chain.from_iterable(layers[name] for name in kept))
        comparison = _try(runtime, folder, target, batches, measure, excluded)
        if loss(comparison) <= max_loss:
            return kept, comparison
    raise PrecisionError(
        f"int8 loses more than {max_loss:g} points of accuracy, whichever layers stay float32: choose float32, or "
        "calibrate with --features of the model's own images."
    )


def _try(
    runtime: Runtime,
    folder: Path,
    target: Path,
    batches: list[Arrays],
    measure: Callable[[Path], dict[str, Any]],
    excluded: list[str],
) -> dict[str, Any]:
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    runtime.quantize(folder, target, batches, excluded)
    return measure(target)
