"""serving_metadata.json: source and versions of an export, and the hashes of its files."""

import datetime
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lxmert_tf.files import sha256, write_text
from lxmert_tf.versions import installed

METADATA_FILE = "serving_metadata.json"
_PACKAGES: tuple[str, ...] = ("tensorflow", "keras", "tensorflow-text", "tensorflow-serving-api", "numpy")
_PACKAGES += ("openvino", "nncf", "torch", "onnx", "onnxruntime", "ai-edge-litert", "ai-edge-quantizer")


def write_metadata(folder: Path, values: dict) -> None:
    """Writes the metadata of a version: `values`, the packages' versions, and a hash of every other file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != METADATA_FILE)
    values = {
        **values,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "versions": installed(_PACKAGES),
        "files": {path.relative_to(folder).as_posix(): sha256(path) for path in files},
    }
    write_text(folder / METADATA_FILE, json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_metadata(folder: str | os.PathLike) -> dict:
    """The metadata of a version folder; ValueError if the file is damaged."""
    path = Path(folder) / METADATA_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"Cannot read {path} as JSON: {error}.") from error
    if not isinstance(values, dict) or not isinstance(values.get("files"), dict):
        raise ValueError(f"{path} is not the metadata of an export.")
    return values


def check_base(base: str | os.PathLike, format: str) -> None:
    """ValueError where a folder of models has an export of another format, which its server could not load."""
    for path in sorted(Path(base).glob(f"*/[0-9]*/{METADATA_FILE}")):
        found = format
        with suppress(ValueError):  # what is damaged is for --check to tell
            found = read_metadata(path.parent).get("format", "saved_model")
        if found != format:
            raise ValueError(
                f"{path.parent} is of format {found}, and a server loads one format from its folder of models: choose "
                f"another folder than {os.fspath(base)}."
            )


def changed_files(folder: str | os.PathLike) -> list[str]:
    """Messages about files of a version that are missing or have changed."""
    folder, problems = Path(folder), []
    for name, digest in read_metadata(folder)["files"].items():
        if not (folder / name).is_file():
            problems.append(f"{name} is missing")
        elif sha256(folder / name) != digest:
            problems.append(f"{name} is damaged: its hash differs from the export's")
    return problems


def describe(function: Any) -> dict:
    """A concrete function's inputs and outputs as JSON: dtype, and shape with null where it is free."""
    inputs = function.structured_input_signature[1]
    return {
        "inputs": {name: _describe(spec) for name, spec in inputs.items()},
        "outputs": {name: _describe(spec) for name, spec in function.structured_outputs.items()},
    }


def _describe(spec: Any) -> dict:
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}
