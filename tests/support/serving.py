"""What the serving tests share: exports of tiny models of every task, and the loopback server in front of them."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from support.models import tiny_model

import lxmert_pt
import lxmert_tf
from lxmert_tf.locks import locked
from lxmert_tf.serving.client import RestClient, ServingError

SERVER = Path(__file__).parent / "model_server.py"
LABELS = ["red", "blue", "two", "a café", "no"]
WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "what",
    "is",
    "in",
    "the",
    "picture",
    "?",
    "##s",
    "cafe",
    "color",
]
TASKS = {
    "model": "TFLxmertModel",
    "pretraining": "TFLxmertForPreTraining",
    "qa": "TFLxmertForQuestionAnswering",
    "reasoning": "TFLxmertForVisualReasoning",
}
# float32 in another order of operations: the same as the parity tests of both frameworks allow
REL = 1e-5
BATCH_SIZES = (1, 3)  # of warm-up requests


def write_checkpoint(task: str, directory: Path, **changes):
    """A tiny model of a task with a vocabulary of 37 and five answers, written to `directory` and returned."""
    labels = {"id2label": dict(enumerate(LABELS))} if task == "qa" else {}
    model = tiny_model(getattr(lxmert_tf, TASKS[task]), max_position_embeddings=64, **{**labels, **changes})
    model.save_pretrained(directory)
    letters = [chr(97 + i) for i in range(model.config.vocab_size - len(WORDS))]
    (directory / "vocab.txt").write_text("\n".join(WORDS + letters), encoding="utf-8")
    return model


def build_exports(folder: Path) -> Path:
    """Writes a checkpoint of every task to `folder`/TASK, and exports it to `folder`/models/TASK, once for all workers.

    `folder` is shared between the workers of a test run: the first one writes, the others wait.
    """
    from lxmert_tf.serving.export import export

    folder.mkdir(exist_ok=True)
    with locked(folder / ".lock"):
        if not (folder / "done").exists():
            for task in TASKS:
                layered = task in ("model", "reasoning")
                write_checkpoint(task, folder / task, **({} if layered else {"l_layers": 1, "r_layers": 0}))
                extras = {"outputs": ("hidden_states", "attentions")} if layered else {}
                export(
                    folder / task,
                    folder / "models",
                    task,
                    text=task in ("qa", "reasoning"),
                    batch_sizes=BATCH_SIZES,
                    **extras,
                )
            (folder / "done").touch()
    return folder


@contextlib.contextmanager
def serving(*models: str, options: tuple[str, ...] = ()):
    """Runs the loopback server for NAME=FOLDER models; yields {"grpc": "127.0.0.1:PORT", "rest": ..., "pid": ...}."""
    command = [sys.executable, str(SERVER), *(part for model in models for part in ("--model", model)), *options]
    environment = {
        **os.environ,
        "PYTHONPATH": str(SERVER.parent.parent),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "GRPC_VERBOSITY": "ERROR",
        "TF_ENABLE_ONEDNN_OPTS": "1",  # as the files have it that run the server, with weights that oneDNN keeps
        "TF_ONEDNN_ASSUME_FROZEN_WEIGHTS": "1",
    }
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"The server did not start: {process.stderr.read()[-2000:]}")
        ports = json.loads(line)
        yield {**{name: f"127.0.0.1:{port}" for name, port in ports.items()}, "pid": process.pid}
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def tensorflow_model_server(*models: str, wait: float = 120):
    """The same in front of TF Serving itself; skips the test where it is not installed."""
    if shutil.which("tensorflow_model_server") is None:
        pytest.skip("tensorflow_model_server is not on the PATH")
    ports = {"grpc": _free_port(), "rest": _free_port()}
    configs = [
        f'config {{ name: "{name}" base_path: "{folder}" model_platform: "tensorflow" '
        'version_labels { key: "stable" value: 1 } }'
        for name, folder in (model.split("=", 1) for model in models)
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".config") as config:
        config.write(f"model_config_list {{ {' '.join(configs)} }}")
        config.flush()
        command = [
            "tensorflow_model_server",
            *(f"--port={ports['grpc']}", f"--rest_api_port={ports['rest']}", f"--model_config_file={config.name}"),
            "--allow_version_labels_for_unavailable_models=true",
        ]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            running = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
            deadline = time.monotonic() + wait
            while not all(_available(running["rest"], model.split("=", 1)[0]) for model in models):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError("tensorflow_model_server does not serve the exports")
                time.sleep(0.2)
            yield {**running, "pid": process.pid}
        finally:
            process.terminate()
            process.wait()


def _available(address: str, name: str) -> bool:
    try:
        return "AVAILABLE" in RestClient(address, name, retries=0, timeout=2).versions().values()
    except ServingError:
        return False


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def random_inputs(config, examples: int, tokens: int, boxes: int, seed: int, num_images: int = 1) -> dict:
    """Inputs of serving_default with random masks; the first token and box are never masked."""
    rng = np.random.default_rng(seed)
    regions = (examples, boxes) if num_images == 1 else (examples, num_images, boxes)
    masks = rng.integers(0, 2, (examples, tokens)), rng.integers(0, 2, regions)
    for mask in masks:
        mask[..., 0] = 1
    return {
        "input_ids": rng.integers(0, config.vocab_size, (examples, tokens)).astype("int32"),
        "attention_mask": masks[0].astype("int32"),
        "token_type_ids": rng.integers(0, config.type_vocab_size, (examples, tokens)).astype("int32"),
        "visual_feats": rng.standard_normal((*regions, config.visual_feat_dim)).astype("float32"),
        "visual_pos": np.sort(rng.random((*regions, 2, 2)), axis=-2).reshape(*regions, 4).astype("float32"),
        "visual_attention_mask": masks[1].astype("int32"),
    }


def batched(requests: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The requests in one batch, as TF Serving makes it with pad_variable_length_inputs."""
    columns = {name: [request[name] for request in requests] for name in requests[0]}
    return {name: np.concatenate([_filled_up(value, values) for value in values]) for name, values in columns.items()}


def _filled_up(value: np.ndarray, values: list[np.ndarray]) -> np.ndarray:
    longest = [max(v.shape[axis] for v in values) for axis in range(1, value.ndim)]
    widths = [(0, 0), *((0, size - had) for size, had in zip(longest, value.shape[1:], strict=True))]
    return np.pad(value, widths, constant_values=value.ravel()[0])


def pytorch_outputs(model, inputs: dict, **options) -> dict[str, np.ndarray]:
    """What lxmert_pt computes: by name, layers stacked as the export stacks them."""
    import torch

    with torch.no_grad():
        output = model(**{name: torch.from_numpy(value) for name, value in inputs.items()}, **options)
    return {
        name: np.stack([v.numpy() for v in value], 1) if isinstance(value, tuple) else value.numpy()
        for name, value in output.items()
    }


def pytorch_model(task: str, directory: Path):
    return getattr(lxmert_pt, TASKS[task].removeprefix("TF")).from_pretrained(directory).eval()
