"""Tensors are views of their mapped file, and what cannot be viewed is read; both give the same values."""

import json
import mmap
import subprocess
import sys
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import pytest
from support.checkpoints import CONFIG, SOURCES

from conversion import tensors
from conversion.compare import identical
from conversion.convert import convert
from conversion.formats import read_file
from conversion.names import rows
from conversion.writers import write_checkpoint
from lxmert_tf import LxmertConfig

GOLDEN_CONFIG = json.loads(CONFIG.read_text())
# Runs `lxmert-convert`, and prints last the most anonymous memory that it held, in MB.
PEAK = """
import sys, threading, time
from conversion.cli import main
peak, done = 0, threading.Event()
def watch():
    global peak
    while not done.wait(0.002):
        with open("/proc/self/status") as status:
            peak = max(peak, *(int(line.split()[1]) for line in status if line.startswith("RssAnon")))
watcher = threading.Thread(target=watch)
watcher.start()
code = main(sys.argv[1:])
done.set()
watcher.join()
print(peak / 1024)
sys.exit(code)
"""


def is_mapped(array: np.ndarray) -> bool:
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 3), (64, 33), (100, 200), (3, 4, 5)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64", ml_dtypes.bfloat16])
def test_pieces_are_the_values_in_order(monkeypatch, shape, dtype):
    monkeypatch.setattr(tensors, "CHUNK", 1000)
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    for each in (array, array.T):
        pieces = list(tensors.pieces(each))
        assert all(piece.flags.c_contiguous and piece.ndim == 1 for piece in pieces)
        assert all(piece.nbytes <= 1000 or each.ndim > 1 for piece in pieces)
        assert identical(np.concatenate(pieces), each.flatten())
        assert identical(tensors.contiguous(each), each.copy())


@pytest.mark.parametrize("source", ["hf-pt", "hf-tf", "hf-tf safetensors"])
def test_golden_files_are_mapped(source):
    _, found, _ = read_file(SOURCES[source])
    assert all(is_mapped(array) for array in found.tensors.values())


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    ("to", "file"), [("hf-pt", ""), ("hf-tf", ""), ("keras", ""), ("keras-weights", ".weights.h5")]
)
def test_what_is_written_can_be_mapped(tmp_path, to, file, dtype):
    if (to, dtype) != ("hf-tf", "bfloat16"):
        path = tmp_path / f"out{file}"
        convert(SOURCES["hf-pt"], path, to=to, dtype=dtype)
        weights = path if file else next(path.glob("*model*.*5" if to != "hf-pt" else "*.safetensors"))
        assert all(is_mapped(array) for array in read_file(weights)[1].tensors.values())


@pytest.mark.parametrize(
    "options", [{"dtype": ">f4"}, {"chunks": True}, {"chunks": True, "compression": "gzip"}], ids=str
)
def test_h5_of_another_layout_gives_the_same(tmp_path, options):
    def copy(name: str, item) -> None:
        if isinstance(item, h5py.Dataset):
            there.create_dataset(name, data=item[()], **options)
        else:
            there.require_group(name).attrs.update(item.attrs)

    with h5py.File(SOURCES["hf-tf"]) as here, h5py.File(tmp_path / "tf_model.h5", "w") as there:
        there.attrs.update(here.attrs)
        here.visititems(copy)
    expected, found = (read_file(path)[1].tensors for path in (SOURCES["hf-tf"], tmp_path / "tf_model.h5"))
    assert set(found) == set(expected) and not any(is_mapped(array) for array in found.values())
    assert all(identical(found[name], expected[name]) for name in expected)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
@pytest.mark.parametrize(("to", "file"), [("keras-weights", "out.weights.h5"), ("hf-tf", "out"), ("hf-pt", "out")])
def test_memory_does_not_grow_with_the_checkpoint(tmp_path, to, file):
    assert peak_of_converting(large(tmp_path / "source", "hf-pt"), tmp_path / file, "--to", to) < 60


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux only")
def test_copies_are_compared_piece_by_piece(tmp_path):
    path = large(tmp_path / "source", "hf-tf")
    table = "tf_lxmert_for_pre_training/lxmert/embeddings/word_embeddings/weight:0"
    with h5py.File(path, "r+") as file:
        array = file[f"lxmert/{table}"][()]
        del file[f"cls/{table}"]  # the same data so far
        file[f"cls/{table}"] = array
    assert path.stat().st_size > 2 * array.nbytes
    assert peak_of_converting(path.parent, tmp_path / "out") < 60


def large(folder: Path, format: str) -> Path:
    """The weights file of a checkpoint with one tensor of 123 MB."""
    config = LxmertConfig.from_dict({**GOLDEN_CONFIG, "hidden_size": 512, "vocab_size": 60_000})
    shapes = {row.torch: row.shape(config) for row in rows(config, "pretraining")}
    stored = {
        name: tensors.Stored(shape, np.dtype("float32"), lambda shape=shape: np.ones(shape, "float32"))
        for name, shape in shapes.items()
    }
    return write_checkpoint(folder, tensors.Tensors(stored), config, "pretraining", format)


def peak_of_converting(*arguments: object) -> float:
    """The most anonymous memory, in MB, that `lxmert-convert convert` holds."""
    command = [sys.executable, "-c", PEAK, "convert", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])
