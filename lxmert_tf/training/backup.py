"""Backups from which training is resumed exactly: one file, written beside its place and renamed.

Keras' `BackupAndRestore` knows the epoch but not the step within it, nor the means of the metrics, the state of other
callbacks, or the order of the data; and it replaces its file in place, so that a kill may leave none.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lxmert_tf.files import replacing

if TYPE_CHECKING:
    import keras

FORMAT = 3  # 1: with the means of losses over batches; 2: with the optimizer's count of skipped updates twice


class Backup:
    """Everything that changes while a compiled model trains, in one `.safetensors` file.

    Weights, seeds of dropout, moments and step count of the optimiser, and running metrics are tensors; the rest of the
    state is JSON in the file's metadata.

    Args:
        path: the file.
        model: a compiled model whose optimiser and metrics are built.
        write: whether this process writes (in a group of workers only the chief does; all read).
    """

    def __init__(self, path: str | os.PathLike, model: "keras.Model", write: bool = True):
        self.path, self.model, self.write = Path(path), model, write

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the file; until that is done the previous one stays.

        Args:
            state: JSON values.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        # In a group of workers a metric's value is the sum over all of them: every worker must ask for it.
        arrays = {name: np.array(variable.numpy(), order="C") for name, variable in self._variables()}
        if not self.write:
            return
        metadata = {"lxmert_tf_backup": json.dumps({"format": FORMAT, "state": state})}
        with replacing(self.path) as temporary:
            try:
                save_file(arrays, temporary, metadata)
            except SafetensorError as error:
                raise OSError(f"Cannot write {self.path}; the previous backup is intact: {error}") from error

    def restore(self) -> dict[str, Any] | None:
        """Puts weights and optimiser back and returns the state, or None if there is no backup.

        Metrics wait for `restore_metrics`, because `fit` resets them when an epoch begins.

        Raises:
            ValueError: the file is damaged, or of another model or optimiser.
        """
        if not self.path.exists():
            return None
        state, self._metrics = self._read()
        return state

    def restore_metrics(self) -> None:
        """Puts the running metrics back, once, after `restore`."""
        for variable, array in self.__dict__.pop("_metrics", []):
            variable.assign(array)

    def _read(self) -> tuple[dict[str, Any], list]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path, framework="numpy") as file:
                content = json.loads((file.metadata() or {})["lxmert_tf_backup"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise ValueError(
                f"Cannot read the backup {self.path} ({error}); remove it to start this run anew."
            ) from error
        if content["format"] != FORMAT:
            raise ValueError(
                f"{self.path} was written by another version of lxmert-tf (format {content['format']}, not {FORMAT}): "
                "resume it with that version, or start the run anew in another directory."
            )
        variables = dict(self._variables())
        shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
        differing = sorted(
            set(shapes) ^ set(arrays)
            | {name for name in set(shapes) & set(arrays) if shapes[name] != arrays[name].shape}
        )
        if differing:
            raise ValueError(
                f"{self.path} is the backup of another model or optimiser: {len(differing)} tensors differ, "
                f"such as {differing[0]}."
            )
        metrics = []
        for name, variable in variables.items():
            if name.startswith("metric/"):
                metrics.append((variable, arrays[name]))
            else:
                variable.assign(arrays[name])
        return content["state"], metrics

    def _variables(self) -> Iterator[tuple[str, Any]]:
        """Name and variable of all that changes."""
        metrics = {id(variable) for variable in self.model.metrics_variables}
        groups = {
            "model": [variable for variable in self.model.variables if id(variable) not in metrics],
            "optimizer": self.model.optimizer.variables,
            "metric": self.model.metrics_variables,
        }
        for group, variables in groups.items():
            # By number: seed generators share their path, and the optimiser's paths hold the model's name.
            for number, variable in enumerate(variables):
                yield f"{group}/{number}", variable
