"""ONNX: from the PyTorch reference, by PyTorch's exporter, which writes layer normalisation and GELU as such; int8 by
ONNX Runtime's dynamic quantizer.
"""

import logging
import re
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_tf.serving.checkpoint import Source
from lxmert_tf.serving.runtimes.base import Arrays, Loaded, Runtime, Specs
from lxmert_tf.serving.signatures import Options

OPSET = 20  # the first with GELU
SCOPES = "pkg.torch.onnx.name_scopes"
_LAYER = re.compile(r"(?:[a-z_]+\.)*?(?:encoder\.)?((?:layer|[rx]_layers)\.\d+|visn_fc|pooler|answer_head|cls)")
PRODUCTS = ["MatMul", "Gemm"]


class ONNX(Runtime):
    format, file = "onnx", "model.onnx"
    modules = ("torch", "onnx", "onnxscript", "onnxruntime")
    precisions: Mapping[str, str] = {
        "float32": "",
        "bfloat16": "ONNX Runtime has no bfloat16 products on CPUs; choose float32 or int8",
        "int8": "",
    }

    def convert(self, source: Source, options: Options, folders: Mapping[str, Path]) -> None:
        from lxmert_tf.serving.runtimes.torch_graphs import export_signature

        with tempfile.TemporaryDirectory() as checkpoint, _quiet():
            model = _reference(source.model, Path(checkpoint))
            for signature, folder in folders.items():
                program = export_signature(model, signature, options, OPSET)
                _remove_traces(program.model)
                program.save(folder / self.file)

    def layers(self, folder: Path) -> dict[str, list[str]]:
        import onnx

        graph = onnx.load(folder / self.file, load_external_data=False).graph
        weights, found = {each.name for each in graph.initializer}, defaultdict(list)
        for node in graph.node:
            if node.op_type in PRODUCTS and node.input[1] in weights:
                scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "")
                layer = _LAYER.search(scopes.rpartition("model.")[2])
                found[layer[1] if layer else node.name].append(node.name)
        return dict(found)

    def quantize(self, folder: Path, target: Path, batches: Sequence[Arrays], excluded: Sequence[str]) -> None:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with _quiet():
            quantize_dynamic(
                folder / self.file,
                target / self.file,
                op_types_to_quantize=PRODUCTS,
                nodes_to_exclude=[*excluded, *(f"{name}_MatMul" for name in excluded)],  # as it renames Gemm
                per_channel=True,
                reduce_range=True,  # processors without VNNI overflow on weights of eight bits
                weight_type=QuantType.QInt8,
                extra_options={"MatMulConstBOnly": True},
            )

    def load(self, folder: Path, precision: str) -> Loaded:
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / self.file, providers=["CPUExecutionProvider"])
        inputs, outputs = _specs(session.get_inputs()), _specs(session.get_outputs())

        def run(arrays: Mapping[str, np.ndarray]) -> Arrays:
            results = session.run(list(outputs), {name: arrays[name] for name in inputs})
            return dict(zip(outputs, results, strict=True))

        return Loaded(run, inputs, outputs)


RUNTIME = ONNX()


def _reference(model: Any, folder: Path) -> Any:
    """The PyTorch model with the weights of a Keras model."""
    import lxmert_pt

    model.save_pretrained(folder, model_card=False)
    return getattr(lxmert_pt, type(model).__name__.removeprefix("TF")).from_pretrained(folder).eval()


@contextmanager
def _quiet() -> Any:
    """Without the converters' messages and warnings, none of which is for their users."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _remove_traces(model: Any) -> None:
    """Leaves out what the exporter notes of the source code, with the paths of this machine."""
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get(SCOPES)
        node.metadata_props.clear()
        if scopes is not None:
            node.metadata_props[SCOPES] = scopes


def _specs(values: Sequence[Any]) -> Specs:
    names = {"float": "float32", "int32": "int32", "int64": "int64"}
    return {
        value.name: {
            "dtype": names[re.sub(r"tensor\((\w+)\)", r"\1", value.type)],
            "shape": [size if isinstance(size, int) else None for size in value.shape],
        }
        for value in values
    }
