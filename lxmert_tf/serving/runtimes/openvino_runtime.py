"""OpenVINO: from the TensorFlow graph, by OpenVINO's own converter; int8 by NNCF."""

import io
import re
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from lxmert_tf.command_line import quiet_start
from lxmert_tf.serving.checkpoint import Source
from lxmert_tf.serving.runtimes.base import Arrays, Loaded, Runtime, Specs
from lxmert_tf.serving.signatures import Options

_SCOPE = re.compile(r"_\d+$")  # Keras numbers what it calls
HINTS = {"float32": "f32", "bfloat16": "bf16", "int8": "f32"}


class OpenVINO(Runtime):
    format, file, modules = "openvino", "model.xml", ("openvino", "nncf")
    precisions: Mapping[str, str] = {"float32": "", "bfloat16": "", "int8": ""}

    def convert(self, source: Source, options: Options, folders: Mapping[str, Path]) -> None:
        from lxmert_tf.serving.runtimes.graphs import make_servable

        openvino = _openvino()
        servable = make_servable(source.model, options)
        for signature, folder in folders.items():
            model = openvino.convert_model(servable.signatures[signature])
            openvino.save_model(model, folder / self.file, compress_to_fp16=False)

    def layers(self, folder: Path) -> dict[str, list[str]]:
        found = defaultdict(list)
        for operation in _openvino().Core().read_model(folder / self.file).get_ops():
            if operation.get_type_name() == "MatMul":
                _, layer, *_ = operation.get_friendly_name().split("/")
                found[_SCOPE.sub("", layer)].append(operation.get_friendly_name())
        return dict(found)

    def quantize(self, folder: Path, target: Path, batches: Sequence[Arrays], excluded: Sequence[str]) -> None:
        openvino = _openvino()
        with quiet_start():
            import nncf
            from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

        nncf.set_log_level(40)
        model = openvino.Core().read_model(folder / self.file)
        names = [one.get_any_name() for one in model.inputs]
        with redirect_stdout(io.StringIO()):  # progress
            quantized = nncf.quantize(
                model,
                nncf.Dataset([{name: batch[name] for name in names} for batch in batches]),
                subset_size=len(batches),
                model_type=nncf.ModelType.TRANSFORMER,
                ignored_scope=nncf.IgnoredScope(
                    names=list(excluded), types=["Gather", "ScaledDotProductAttention"], validate=False
                ),
                # Processors without VNNI overflow on weights of eight bits
                advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE),
            )
        openvino.save_model(quantized, target / self.file, compress_to_fp16=False)

    def load(self, folder: Path, precision: str) -> Loaded:
        hint = {"INFERENCE_PRECISION_HINT": HINTS[precision]}
        compiled = _openvino().Core().compile_model(folder / self.file, "CPU", hint)
        inputs, outputs = _specs(compiled.inputs), _specs(compiled.outputs)

        def run(arrays: Mapping[str, np.ndarray]) -> Arrays:
            results = compiled({name: np.ascontiguousarray(arrays[name]) for name in inputs})
            return {name: np.array(results[name]) for name in outputs}

        used = compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()
        return Loaded(run, inputs, outputs, {"bf16": "bfloat16"}.get(used, "float32"))


RUNTIME = OpenVINO()


def _openvino() -> Any:
    # It reports its use over the network, without asking, where this package is installed
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _specs(ports: Sequence[Any]) -> Specs:
    return {
        port.get_any_name(): {
            "dtype": np.dtype(port.element_type.to_dtype()).name,
            "shape": [None if size.is_dynamic else size.get_length() for size in port.partial_shape],
        }
        for port in ports
    }
