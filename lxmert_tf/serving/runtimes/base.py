"""What every runtime can do: convert a model, quantize it, and run what was written.

A runtime knows one signature per file, so each signature is a model of its own.
"""

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_tf.serving.checkpoint import Source
from lxmert_tf.serving.signatures import Options

Arrays = dict[str, np.ndarray]
Specs = dict[str, dict[str, Any]]  # name -> {"dtype": "int32", "shape": [None, 5]}

DEFAULT_SIGNATURE, ENCODE_IMAGE, ANSWER_ENCODED = "serving_default", "encode_image", "answer_encoded"


@dataclass(frozen=True)
class Loaded:
    """A model file in its runtime.

    Attributes:
        run: inputs -> outputs, arrays by name; inputs that the model does not have are left out.
        inputs, outputs: dtype and shape by name, with None for free sizes.
        precision: "float32" or "bfloat16", in which this processor computes what is not quantized.
    """

    run: Callable[[Mapping[str, np.ndarray]], Arrays]
    inputs: Specs
    outputs: Specs
    precision: str = "float32"


class Runtime(ABC):
    """One runtime.

    Attributes:
        format: its name on the command line, and that of the extra.
        file: what it loads from a version's folder.
        modules: what it needs, by the names of imports.
        precisions: those that there are, each with the reason why not, or "".
    """

    format: str
    file: str
    modules: tuple[str, ...]
    precisions: Mapping[str, str]

    def check(self, precision: str) -> None:
        """Checks that this can be exported here.

        Raises:
            ValueError: the runtime does not have this precision.
            ImportError: it is not installed.
        """
        refusal = self.precisions.get(precision, f"it has {', '.join(k for k, v in self.precisions.items() if not v)}")
        if refusal:
            raise ValueError(f"--format {self.format} does not come in {precision}: {refusal}.")
        absent = [module for module in self.modules if not find_spec(module)]
        if absent:
            raise ImportError(
                f"--format {self.format} needs {', '.join(absent)}: pip install 'lxmert-tf[{self.format}]'."
            )

    @abstractmethod
    def convert(self, source: Source, options: Options, folders: Mapping[str, Path]) -> None:
        """Writes a checkpoint's signatures in float32, each to the folder given for it.

        The model of `source` can only compute from here on.
        """

    @abstractmethod
    def layers(self, folder: Path) -> dict[str, list[str]]:
        """The layers whose products `quantize` would make int8, each with the names of these in the file."""

    @abstractmethod
    def quantize(self, folder: Path, target: Path, batches: Sequence[Arrays], excluded: Sequence[str]) -> None:
        """Writes the float32 model of a folder to another one, with int8 products.

        Args:
            folder, target: of the versions.
            batches: inputs to calibrate with, where the runtime needs that.
            excluded: names of products that stay float32.
        """

    @abstractmethod
    def load(self, folder: Path, precision: str) -> Loaded:
        """Loads what is in a version's folder, on the processor."""


def runtime(format: str) -> Runtime:
    """The runtime of a format: "openvino", "onnx" or "litert"."""
    module = importlib.import_module(f"lxmert_tf.serving.runtimes.{format}_runtime")
    return module.RUNTIME


def model_name(name: str, signature: str) -> str:
    """What a server calls the model of a signature: NAME, or NAME_signature."""
    return name if signature == DEFAULT_SIGNATURE else f"{name}_{signature}"


def signature_names(model: Any) -> tuple[str, ...]:
    """The signatures of a model: those without strings, and with masks."""
    encoded = (ENCODE_IMAGE, ANSWER_ENCODED) if hasattr(model, "answer_encoded") else ()
    return (*encoded, DEFAULT_SIGNATURE)
