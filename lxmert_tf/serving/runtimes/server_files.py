"""The files that OpenVINO Model Server and Triton read beside models."""

import json
from pathlib import Path
from typing import Any

from lxmert_tf.files import read_json_as, write_text
from lxmert_tf.serving.runtimes.base import Loaded, Specs
from lxmert_tf.serving.runtimes.openvino_runtime import HINTS
from lxmert_tf.serving.server_files import SERVED_AT

OVMS_FILE = "config.json"
TRITON_FILE = "config.pbtxt"
_TRITON_TYPES = {"float32": "TYPE_FP32", "int32": "TYPE_INT32", "int64": "TYPE_INT64"}


def update_ovms(base: Path, name: str, precision: str) -> None:
    """Writes BASE/config.json of OpenVINO Model Server with the model; other models in it are kept.

    It names the precision, as processors with bfloat16 use that for float32 models otherwise.

    Raises:
        ValueError: there is another file of that name.
    """
    path = base / OVMS_FILE
    expected = "the configuration of OpenVINO Model Server, an object with model_config_list"
    content: dict[str, Any] = read_json_as(path, dict, expected) if path.exists() else {"model_config_list": []}
    models = content.get("model_config_list")
    if not isinstance(models, list):
        raise ValueError(f"{path} must be {expected}.")
    entry = {
        "name": name,
        "base_path": f"{SERVED_AT}/{name}",
        "plugin_config": {"INFERENCE_PRECISION_HINT": HINTS[precision]},
    }
    content["model_config_list"] = [*(m for m in models if m.get("config", {}).get("name") != name), {"config": entry}]
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_triton(base: Path, name: str, loaded: Loaded, max_batch_size: int) -> None:
    """Writes BASE/NAME/config.pbtxt for Triton's backend of ONNX Runtime."""
    lines = [
        f'name: "{name}"',
        'backend: "onnxruntime"',
        f"max_batch_size: {max_batch_size}",
        *_tensors("input", loaded.inputs),
        *_tensors("output", loaded.outputs),
        "dynamic_batching { }",
    ]
    write_text(base / name / TRITON_FILE, "\n".join(lines) + "\n")


def _tensors(kind: str, specs: Specs) -> list[str]:
    lines = []
    for name, spec in specs.items():
        dims = ", ".join(str(-1 if size is None else size) for size in spec["shape"][1:])
        lines.append(f'{kind} {{ name: "{name}" data_type: {_TRITON_TYPES[spec["dtype"]]} dims: [ {dims} ] }}')
    return lines
