"""What the conversion tests share: golden checkpoints by format, and `lxmert-convert` run on a file."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from support.golden import GOLDEN

from conversion import cli
from conversion.compare import identical
from conversion.writers import DIRECTORY_FORMATS

PRETRAINED = GOLDEN / "hf_pt_pretraining"
CONFIG = PRETRAINED / "config.json"
BIAS, KERNEL = "lxmert.pooler.dense.bias", "lxmert.pooler.dense.weight"
# A golden checkpoint of pretraining by the format it has; the "keras" ones are made of them.
SOURCES = {
    "hf-pt": PRETRAINED / "model.safetensors",
    "hf-pt-bin": PRETRAINED / "pytorch_model.bin",
    "hf-tf": GOLDEN / "hf_tf_pretraining/tf_model.h5",
    "hf-tf safetensors": GOLDEN / "hf_tf_pretraining/model.safetensors",
    "original": GOLDEN / "original/Epoch20_LXRT.pth",
}
ALL_SOURCES = (*SOURCES, "keras", "keras archive")


# The contract


def settle(source: Path, *options: object) -> dict[str, np.ndarray] | str:
    """The tensors that `source` converts to or, if it is refused, the one line that says why."""
    if "--config" not in options:
        options = (*options, "--config", CONFIG)
    with tempfile.TemporaryDirectory() as folder:
        code, out, err = run("convert", source, f"{folder}/out", *options)
        if code == 0:
            assert os.listdir(folder) == ["out"] and err == ""
            return load_file(f"{folder}/out/model.safetensors")
        assert (code in (1, 2), os.listdir(folder), out) == (True, [], ""), err
    assert err.startswith("lxmert-convert convert: error: ") and err.count("\n") == 1 and len(err) < 2000, err
    assert "weights_only" not in err and not re.search(r": \w*Error\n", err), err
    assert run("inspect", source)[0] in (0, 1, 2)
    return err


def refusal(source: Path, *options: object) -> str:
    """The line that refuses `source`; it names the file."""
    result = settle(source, *options)
    assert isinstance(result, str), "it was converted"
    assert str(source) in result
    return result


def converted(source: Path) -> dict[str, np.ndarray]:
    result = settle(source)
    assert not isinstance(result, str), result
    return result


def run(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `lxmert-convert`."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as error:  # argparse
            code = error.code
    return code, out.getvalue(), err.getvalue()


CHECK = "import sys; from conversion.cli import main; code = main(sys.argv[1:]); print(*sys.modules); sys.exit(code)"


def modules_imported(*arguments: object) -> set[str]:
    """The packages that a process of `lxmert-convert`, which must succeed, has imported at its end."""
    command = [sys.executable, "-c", CHECK, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in done.stdout.splitlines()[-1].split()}


def place(folder: Path, to: str) -> Path:
    """A destination of the kind that a format takes."""
    if to in DIRECTORY_FORMATS:
        return folder / "out"
    return folder / ("out.weights.h5" if to == "keras-weights" else "out.pth")


def named(to: str, stem: str = "out") -> str:
    """A destination's name that a format takes."""
    return stem if to in DIRECTORY_FORMATS else f"{stem}.weights.h5" if to == "keras-weights" else f"{stem}.pth"


def golden() -> dict[str, np.ndarray]:
    return load_file(SOURCES["hf-pt"])


def same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> bool:
    return set(actual) == set(expected) and all(identical(actual[name], expected[name]) for name in expected)


def saved(folder: Path, tensors: dict[str, np.ndarray], **changes: object) -> Path:
    """A directory with these tensors in model.safetensors and the golden config with changes."""
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**json.loads(CONFIG.read_text()), **changes}))
    return folder


# Files made by hand


def header_of(content: bytes) -> tuple[dict[str, dict], bytes]:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def safetensors(header: dict | str | bytes, data: bytes, length: int | None = None) -> bytes:
    """A file with this header, whatever it says."""
    text = json.dumps(header) if isinstance(header, dict) else header
    text = text.encode() if isinstance(text, str) else text
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def write_archive(path: Path, weights: Path | bytes, **changes: object) -> None:
    """A `.keras` archive; `changes` are entries of its config.json."""
    saved = {
        "class_name": "TFLxmertForPreTraining",
        "config": {"config": json.loads(CONFIG.read_text())},
        **changes,
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(saved))
        archive.writestr("model.weights.h5", weights if isinstance(weights, bytes) else weights.read_bytes())


def bits_apart(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> int:
    apart = [np.frombuffer(a[name].tobytes(), "u1") ^ np.frombuffer(b[name].tobytes(), "u1") for name in b]
    return sum(int(np.unpackbits(each).sum()) for each in apart)
