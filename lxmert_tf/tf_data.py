"""Rows that are indexed one by one, such as those of a `datasets.Dataset`, as batches of a `tf.data.Dataset`."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from lxmert_tf.input_table import text_inputs

if TYPE_CHECKING:
    import tensorflow as tf

LABELS = {"label": "labels", "label_ids": "labels"}  # as upstream's collators rename them


def batches_of(
    rows: Any,
    inputs: Sequence[str],
    labels: Sequence[str],
    batch_size: int,
    shuffle: bool,
    collate: Callable[[list], Mapping[str, Any]],
    drop_remainder: bool,
    prefetch: bool,
) -> "tf.data.Dataset":
    """Batches of what rows and model have in common; what is neither input nor label is left out.

    Args:
        rows: has a length, and gives a dict of columns for each index.
        inputs, labels: names of columns. Where `labels` is one name, its column is given as it is, else a dict of them.
        batch_size: rows of a batch.
        shuffle: draw the rows in another order each time.
        collate: a list of rows -> their columns as arrays.
        drop_remainder: leave out the last batch if it is not full.
        prefetch: make the next batch while one is used.

    Raises:
        ValueError: there are no rows, or they have none of the inputs.
    """
    import tensorflow as tf

    if not len(rows):
        raise ValueError("The dataset has no rows.")
    sample = collate([rows[0]])
    columns = [name for name in (*inputs, *labels) if name in sample]
    if not set(columns) & set(inputs):
        raise ValueError(f"The dataset has the columns {', '.join(sample)}, and none of {', '.join(inputs)}.")
    arrays = {name: np.asarray(sample[name]) for name in columns}
    types = [_as_keras(array.dtype) for array in arrays.values()]

    def read(indices: np.ndarray) -> list[np.ndarray]:
        batch = collate([rows[int(index)] for index in indices])
        return [np.asarray(batch[name], dtype) for name, dtype in zip(columns, types, strict=True)]

    def to_batch(indices: "tf.Tensor") -> Any:
        tensors = dict(zip(columns, tf.numpy_function(read, [indices], types), strict=True))
        for name, tensor in tensors.items():
            tensor.set_shape([None] * arrays[name].ndim)
        features = {name: tensors[name] for name in columns if name in inputs and name not in labels}
        targets = {name: tensors[name] for name in columns if name in labels}
        if not targets:
            return features
        return features, targets[labels[0]] if len(labels) == 1 else targets

    dataset = tf.data.Dataset.range(len(rows))
    if shuffle:
        dataset = dataset.shuffle(len(rows))
    dataset = dataset.batch(batch_size, drop_remainder=drop_remainder).map(to_batch)
    return dataset.prefetch(tf.data.AUTOTUNE) if prefetch else dataset


def collator(
    tokenizer: Any, collate_fn: Callable[..., Mapping[str, Any]] | None, arguments: Mapping[str, Any]
) -> Callable[[list], Mapping[str, Any]]:
    """A function from a list of rows to their columns, each with an axis for the rows first.

    Args:
        tokenizer: pads the columns of text.
        collate_fn: in place of this module's.
        arguments: of `collate_fn`.
    """
    if collate_fn is not None:
        return partial(collate_fn, **arguments)

    def collate(rows: list[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        text = [text_inputs(row) for row in rows] if tokenizer else []
        columns = dict(tokenizer.pad(text, return_tensors="np")) if tokenizer and text[0] else {}
        for name in rows[0]:
            if name not in columns:
                columns[LABELS.get(name, name)] = _stack(name, [row[name] for row in rows])
        return columns

    return collate


def _stack(name: str, entries: list[Any]) -> np.ndarray:
    try:
        return np.stack([np.asarray(entry) for entry in entries])
    except ValueError:
        raise ValueError(
            f"The column {name} has entries of different shapes; pad them, or pass tokenizer= or collate_fn=."
        ) from None


def _as_keras(dtype: np.dtype) -> np.dtype:
    """Keras' own rule for arrays: floating numbers are taken in floatx."""
    return np.dtype(keras.config.floatx()) if dtype.kind == "f" else dtype
