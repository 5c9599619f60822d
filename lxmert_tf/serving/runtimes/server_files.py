"""The files that OpenVINO Model Server and Triton read beside models."""

import json
from pathlib import Path
from typing import Any

from lxmert_tf.files import read_json_as, write_text
from lxmert_tf.serving.runtimes.base import Loaded, Specs
from lxmert_tf.serving.runtimes.openvino_runtime import HINTS
from lxmert_tf.serving.server_files import OVMS_FILE, SERVED_AT

TRITON_FILE = "config.pbtxt"
_TRITON_TYPES = {"float32": "TYPE_FP32", "int32": "TYPE_INT32", "int64": "TYPE_INT64"}


def read_ovms(base: Path) -> dict[str, Any]:
    """BASE/config.json of OpenVINO Model Server, without models where there is none.

    Raises:
        ValueError: there is another file of that name.
    """
    path, expected = base / OVMS_FILE, "the configuration of OpenVINO Model Server, an object with model_config_list"
    content: dict[str, Any] = read_json_as(path, dict, expected) if path.exists() else {"model_config_list": []}
    models = content.get("model_config_list")
    if not isinstance(models, list) or not all(isinstance(m, dict) and "config" in m for m in models):
        raise ValueError(f"{path} must be {expected}.")
    return content


def update_ovms(base: Path, name: str, precision: str) -> None:
    """Writes BASE/config.json with the model; other models in it are kept, and other settings of this one.

    It names the precision, as processors with bfloat16 use that for float32 models otherwise.

    Raises:
        ValueError: there is another file of that name.
    """
    content = read_ovms(base)
    entries = {entry["config"].get("name"): entry for entry in content["model_config_list"]}
    old = entries.get(name, {"config": {}})["config"]
    hint = {"INFERENCE_PRECISION_HINT": HINTS[precision]}
    new = {
        **old,
        "name": name,
        "base_path": f"{SERVED_AT}/{name}",
        "plugin_config": {**old.get("plugin_config", {}), **hint},
    }
    content["model_config_list"] = [*(entry for key, entry in entries.items() if key != name), {"config": new}]
    write_text(base / OVMS_FILE, json.dumps(content, indent=2) + "\n")


def unserved(base: Path, name: str, format: str) -> str:
    """Why the format's server would not load BASE/NAME, or ""."""
    if format == "openvino" and name not in [e["config"].get("name") for e in read_ovms(base)["model_config_list"]]:
        return f"{base / OVMS_FILE} has no model {name}: export again"
    if format == "onnx" and not (base / name / TRITON_FILE).exists():
        return f"{base / name / TRITON_FILE} is missing: export again"
    return ""


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
