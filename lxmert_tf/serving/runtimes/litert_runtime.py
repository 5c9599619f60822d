"""LiteRT: from the TensorFlow graph, by TensorFlow's converter; dynamic int8 by AI Edge Quantizer."""

import io
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_tf.serving.checkpoint import Source
from lxmert_tf.serving.runtimes.base import Arrays, Loaded, Runtime, Specs
from lxmert_tf.serving.signatures import Options


class LiteRT(Runtime):
    format, file, modules = "litert", "model.tflite", ("ai_edge_litert", "ai_edge_quantizer")
    precisions: Mapping[str, str] = {
        "float32": "",
        "bfloat16": "LiteRT has no bfloat16 products on CPUs; choose float32 or int8",
        "int8": "",
    }

    def convert(self, source: Source, options: Options, folders: Mapping[str, Path]) -> None:
        import tensorflow as tf

        from lxmert_tf.serving.runtimes.graphs import make_servable

        servable = make_servable(source.model, options)
        for signature, folder in folders.items():
            function = servable.signatures[signature]
            converter = tf.lite.TFLiteConverter.from_concrete_functions([function], servable.root)
            (folder / self.file).write_bytes(converter.convert())

    def layers(self, folder: Path) -> dict[str, list[str]]:
        from ai_edge_litert import schema_py_generated as schema

        model = schema.ModelT.InitFromPackedBuf((folder / self.file).read_bytes())
        (graph,), found = model.subgraphs, defaultdict(list)
        for operator in graph.operators:
            if model.operatorCodes[operator.opcodeIndex].builtinCode == schema.BuiltinOperator.FULLY_CONNECTED:
                name = graph.tensors[operator.outputs[0]].name.decode()
                _, *scopes = name.rpartition(";")[2].split("/")
                found[re.sub(r"_\d+$", "", scopes[0]) if scopes else name].append(name)
        return dict(found)

    def quantize(self, folder: Path, target: Path, batches: Sequence[Arrays], excluded: Sequence[str]) -> None:
        from ai_edge_quantizer import qtyping, quantizer
        from ai_edge_quantizer.algorithm_manager import AlgorithmName

        products = qtyping.TFLOperationName.FULLY_CONNECTED
        recipe = quantizer.Quantizer(os.fspath(folder / self.file))
        recipe.add_dynamic_config(".*", products, num_bits=8)
        for name in excluded:
            recipe.update_quantization_recipe(f"^{re.escape(name)}", products, algorithm_key=AlgorithmName.NO_QUANTIZE)
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):  # progress
            recipe.quantize().export_model(os.fspath(target / self.file))

    def load(self, folder: Path, precision: str) -> Loaded:
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(os.fspath(folder / self.file), num_threads=os.cpu_count())
        runner = interpreter.get_signature_runner()
        inputs, outputs = _specs(runner.get_input_details()), _specs(runner.get_output_details())

        def run(arrays: Mapping[str, np.ndarray]) -> Arrays:
            return runner(**{name: arrays[name] for name in inputs})

        return Loaded(run, inputs, outputs)


RUNTIME = LiteRT()


def _specs(details: Mapping[str, Any]) -> Specs:
    return {
        name: {
            "dtype": np.dtype(detail["dtype"]).name,
            "shape": [None if size == -1 else int(size) for size in detail["shape_signature"]],
        }
        for name, detail in details.items()
    }
