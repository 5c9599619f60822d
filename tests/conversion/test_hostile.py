"""Hostile and broken input: one clear sentence or a right conversion; no code run, no memory filled, nothing left."""

import contextlib
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from support.checkpoints import (
    ALL_SOURCES,
    BIAS,
    CONFIG,
    KERNEL,
    PRETRAINED,
    SOURCES,
    bits_apart,
    converted,
    golden,
    header_of,
    named,
    refusal,
    run,
    safetensors,
    same,
    settle,
    write_archive,
)

from conversion.convert import FORMATS, convert
from conversion.formats import find_weights, open_checkpoint
from conversion.names import rows
from conversion.writers import write_checkpoint
from lxmert_tf import LxmertConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]


# Files that are something else


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty; download or copy it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page.*download the file itself"),
        (b"\xef\xbb\xbf\n <html>", "web page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
        (b"These are the weights.\n", "no known format; expected safetensors"),
        (b"\x1f\x8b\x08" + bytes(60), "no known format"),
        (b'{"hidden_size": 32}', "no weight_map"),
        (b"\x89PNG\r\n\x1a\n" + bytes(60), "no known format"),
    ],
    ids=["empty", "lfs", "html", "html with mark", "xml", "text", "gzip", "json", "png"],
)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tf_model.h5", "x.keras", "x.pth"])
def test_something_else_under_a_checkpoints_name_is_told(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    assert re.search(words, refusal(tmp_path / name))


def test_a_zip_of_something_else_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "zip archive without model.weights.h5 (Keras) or data.pkl (PyTorch)" in refusal(tmp_path / "x.zip")


@pytest.mark.slow
@pytest.mark.parametrize("source", ALL_SOURCES)
@pytest.mark.parametrize("region", ["start", "header", "middle", "end"])
def test_a_flipped_bit_is_refused_or_carried_over(tmp_path, sources, source, region):
    """Only zip archives have checksums: a bit flipped in a tensor of another format is converted as it is."""
    content = sources[source].read_bytes()
    first, last = {
        "start": (0, 16),
        "header": (16, 4096),
        "middle": (len(content) // 3, len(content) // 2),
        "end": (len(content) - 600, len(content)),
    }[region]
    generator = np.random.default_rng(len(content))
    for position in generator.integers(first, last, 3):
        flipped = bytearray(content)
        flipped[position] ^= 1 << int(generator.integers(8))
        path = tmp_path / sources[source].name
        path.write_bytes(flipped)
        result = settle(path)
        if not isinstance(result, str):
            assert set(result) == set(golden())
        if not isinstance(result, str) and "safetensors" in path.name:
            assert bits_apart(result, golden()) <= 1
        if not isinstance(result, str) and zipfile.is_zipfile(path):
            assert same(result, golden())


# Pickles


class Call:
    """A pickle that calls a function when it is loaded."""

    def __init__(self, function: Callable, *arguments: object):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", ["zip", "legacy", "plain 2", "plain 4"])
@pytest.mark.parametrize("place", ["alone", "value", "name", "attribute"])
def test_a_pickle_never_runs_code_and_pytorchs_advice_to_trust_it_is_not_passed_on(tmp_path, protocol, place):
    marker = tmp_path / "ran"
    call = Call(os.mkdir, str(marker))
    content = {"alone": call, "value": {BIAS: call}, "name": {Named(call): torch.zeros(32)}, "attribute": OrderedDict()}
    if place == "attribute":
        content["attribute"].metadata = call
    path = tmp_path / "pytorch_model.bin"
    if protocol.startswith("plain"):
        path.write_bytes(pickle.dumps(content[place], protocol=int(protocol[-1])))
    else:
        torch.save(content[place], path, _use_new_zipfile_serialization=protocol == "zip")
    assert "holds more than tensors, which is refused: loading it would run code" in refusal(path)
    assert not marker.exists()


class Named(Call):
    """A key of a dict that is such a pickle."""

    def __init__(self, call: Call):
        self.call = call.call

    def __hash__(self):
        return 0


@pytest.mark.parametrize("content", [torch.nn.Linear(2, 2), {"model": torch.nn.Linear(2, 2)}], ids=["module", "nested"])
def test_a_pickled_module_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.bin")
    assert "more than tensors" in refusal(tmp_path / "x.bin")


def test_a_torchscript_archive_is_refused_without_a_warning(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"x/{name}", pickle.dumps({}, protocol=2))
        archive.writestr("x/version", "3\n")
    assert "more than tensors" in refusal(tmp_path / "x.pt")


def state() -> dict[str, torch.Tensor]:
    return torch.load(SOURCES["hf-pt-bin"], weights_only=True)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "disguise",
    [
        lambda x: torch.cat([torch.zeros(5), x.flatten(), torch.zeros(3)])[5:-3].view(x.shape),
        lambda x: x.t().contiguous().t(),
        lambda x: torch.stack([x, x + 1], -1)[..., 0],
        torch.nn.Parameter,
        lambda x: x.clone().requires_grad_(),
    ],
    ids=["offset", "transposed", "strided", "parameter", "gradient"],
)
def test_every_memory_layout_of_a_tensor_is_read(tmp_path, disguise, zipped):
    tensors = state()
    tensors[KERNEL] = disguise(tensors[KERNEL])
    torch.save(tensors, tmp_path / "x.bin", _use_new_zipfile_serialization=zipped)
    assert same(converted(tmp_path / "x.bin"), golden())


def test_tensors_that_share_their_memory_are_read(tmp_path):
    tensors = state()
    shared = torch.arange(40.0)
    names = [name for name in tensors if name.endswith("LayerNorm.bias")][:3]
    for start, name in enumerate(names):
        tensors[name] = shared[start : start + 32]
    tensors[BIAS] = torch.full((1,), 0.5).expand(32)
    torch.save(tensors, tmp_path / "x.bin")
    result = converted(tmp_path / "x.bin")
    assert (result[BIAS] == 0.5).all()
    for start, name in enumerate(names):
        assert (result[name] == np.arange(start, start + 32)).all()


@pytest.mark.parametrize(
    "disguise",
    [
        lambda x: torch.zeros(1).expand(10**12),
        lambda x: torch.zeros(1, dtype=torch.bfloat16).expand(10**12),
        lambda x: x.to_sparse(),
        lambda x: x.to("meta"),
        lambda x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8),
        lambda x: x.to(torch.complex64),
        lambda x: x.to(torch.float8_e4m3fn),
        lambda x: x.to(torch.int32),
        lambda x: x > 0,
    ],
    ids=["bomb", "bfloat16 bomb", "sparse", "meta", "quantized", "complex", "float8", "int", "bool"],
)
def test_tensors_of_another_kind_are_refused(tmp_path, disguise):
    tensors = state()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's of kinds that it means to change or remove
        tensors[BIAS] = disguise(tensors[BIAS])
        torch.save(tensors, tmp_path / "x.bin")
    result = settle(tmp_path / "x.bin")
    assert isinstance(result, str) and (BIAS in result or str(tmp_path) in result)


def test_a_bomb_beside_the_tensors_is_refused(tmp_path):
    torch.save({**state(), "extra": torch.zeros(1).expand(10**12)}, tmp_path / "x.bin")
    assert "extra would expand from 4 to 4,000,000,000,000 bytes" in refusal(tmp_path / "x.bin")


@pytest.mark.parametrize(
    "content",
    [{3: torch.zeros(2)}, {None: torch.zeros(2)}, {("a",): torch.zeros(2)}, {b"a": torch.zeros(2)}, {"a": {}}],
    ids=str,
)
def test_a_pickle_of_anything_but_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.bin")
    assert "a dict from names to tensors" in refusal(tmp_path / "x.bin")


def test_a_dict_that_holds_itself_is_refused(tmp_path):
    content: dict[str, object] = {}
    content["a"] = content
    torch.save(content, tmp_path / "x.bin")
    assert "a dict from names to tensors" in refusal(tmp_path / "x.bin")


def test_a_compressed_pickle_is_refused(tmp_path):
    """PyTorch would map the compressed bytes into memory and take them for tensors."""
    rezip(SOURCES["hf-pt-bin"], tmp_path / "x.bin", zipfile.ZIP_DEFLATED)
    assert "compressed" in refusal(tmp_path / "x.bin")


def test_a_pickle_that_fails_its_checksum_is_refused(tmp_path):
    content = SOURCES["hf-pt-bin"].read_bytes()
    renamed = content.replace(b"lxmert.pooler.dense.bias", b"lxmert.pooler.dense.bisa")
    assert renamed != content
    (tmp_path / "x.bin").write_bytes(renamed)
    assert "CRC" in refusal(tmp_path / "x.bin")


# safetensors


def entries(header: dict) -> tuple[dict, dict]:
    """The first two tensors of the data."""
    return tuple(sorted((v for k, v in header.items() if k != "__metadata__"), key=lambda v: v["data_offsets"])[:2])


LIES: dict[str, Callable[[dict], object]] = {
    "offsets outside": lambda h: entries(h)[1].update(data_offsets=[10**9, 10**9 + 128]),
    "offsets overlap": lambda h: entries(h)[1].update(data_offsets=entries(h)[0]["data_offsets"]),
    "offsets reversed": lambda h: entries(h)[0]["data_offsets"].reverse(),
    "offsets negative": lambda h: entries(h)[0].update(data_offsets=[-128, 0]),
    "offsets too large for 64 bits": lambda h: entries(h)[0].update(data_offsets=[0, 2**70]),
    "offsets that are text": lambda h: entries(h)[0].update(data_offsets=["0", "128"]),
    "one offset": lambda h: entries(h)[0].update(data_offsets=[0]),
    "no offsets": lambda h: entries(h)[0].pop("data_offsets"),
    "shape overflows": lambda h: entries(h)[0].update(shape=[2**32, 2**32]),
    "shape negative": lambda h: entries(h)[0].update(shape=[-1]),
    "shape huge": lambda h: entries(h)[0].update(shape=[10**15]),
    "shape is no list": lambda h: entries(h)[0].update(shape=32),
    "dtype unknown": lambda h: entries(h)[0].update(dtype="F31"),
    "dtype of another size": lambda h: entries(h)[0].update(dtype="F64"),
    "dtype is no text": lambda h: entries(h)[0].update(dtype=32),
    "entry is no object": lambda h: h.update(x=[1]),
    "entry beyond the data": lambda h: h.update(x={"dtype": "F32", "shape": [1], "data_offsets": [10**9, 10**9 + 4]}),
    "metadata is no object": lambda h: h.update(__metadata__="pt"),
    "metadata is nested": lambda h: h.update(__metadata__={"format": {"pt": 1}}),
    "tensor left out": lambda h: h.pop(BIAS),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused(tmp_path, lie):
    header, data = header_of(SOURCES["hf-pt"].read_bytes())
    LIES[lie](header)
    (tmp_path / "x.safetensors").write_bytes(safetensors(header, data))
    assert "cut short or damaged" in refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize("length", [0, 1, 10**6, 10**8 + 1, 2**31, 2**63, 2**64 - 1])
def test_a_header_of_another_length_is_refused(tmp_path, length):
    header, data = header_of(SOURCES["hf-pt"].read_bytes())
    (tmp_path / "x.safetensors").write_bytes(safetensors(header, data, length))
    refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize("length", [0x80, 0x4B50, 0x7B, 0x89])
def test_the_length_of_a_header_is_not_taken_for_another_format(tmp_path, length):
    """It comes first in the file, as the first bytes of a pickle, a zip, a JSON or an HDF5 file do."""
    header, data = header_of(SOURCES["hf-pt"].read_bytes())
    text = json.dumps(header)
    text += " " * ((length - len(text)) % (1 << 8 * (1 + (length > 255))))
    (tmp_path / "x.safetensors").write_bytes(safetensors(text, data))
    assert same(converted(tmp_path / "x.safetensors"), golden())


@pytest.mark.parametrize(
    "text",
    ['{"a":' * 100_000, '{"a": ' + "[" * 100_000, b'{"\xff": 1}', "{", '{"a": NaN}', '{"a": 1e999}', "{" + " " * 10**6],
    ids=["deep objects", "deep lists", "no utf-8", "open", "nan", "infinity", "blanks"],
)
def test_a_header_that_is_no_json_is_refused(tmp_path, text):
    (tmp_path / "x.safetensors").write_bytes(safetensors(text, b""))
    refusal(tmp_path / "x.safetensors")


@pytest.mark.parametrize("dtype", [None, "I32"])
def test_a_name_given_twice_in_a_header_is_refused(tmp_path, dtype):
    """Readers take one of the two without a word, and which one is up to them."""
    header, data = header_of(SOURCES["hf-pt"].read_bytes())
    again = {**header[BIAS], "dtype": dtype or header[BIAS]["dtype"]}
    text = json.dumps(header)[:-1] + f', "{BIAS}": {json.dumps(again)}}}'
    (tmp_path / "x.safetensors").write_bytes(safetensors(text, data))
    assert f"an object has the key '{BIAS}' twice" in refusal(tmp_path / "x.safetensors")


def test_names_that_are_not_an_lxmerts_are_told_on_one_line(tmp_path):
    tensors = {**golden(), "a\nb": np.zeros(1, "f4"), "": np.zeros(1, "f4"), "../../etc/passwd": np.zeros(1, "f4")}
    save_file(tensors, tmp_path / "x.safetensors", {"format": "pt"})
    assert same(converted(tmp_path / "x.safetensors"), golden())
    _, out, _ = run("convert", tmp_path / "x.safetensors", tmp_path / "out", "--config", CONFIG)
    assert "dropped 3: '', ../../etc/passwd, 'a\\nb': it is no part of the LXMERT\n" in out and out.count("\n") == 4


# HDF5


def replaced(source: Path, path: Path, name: str) -> h5py.File:
    """A copy of an HDF5 checkpoint without the dataset whose path ends in `name`, open to be given another."""
    shutil.copy(source, path)
    file = h5py.File(path, "r+")
    found: list[str] = []
    file.visit(lambda each: found.append(each) if each.endswith(name) else None)
    del file[found[0]]
    file.attrs["removed"] = found[0]
    return file


def bias_in(source: str) -> str:
    """The end of the path that the pooler's bias has in an HDF5 checkpoint."""
    row = next(row for row in rows(LxmertConfig.from_json_file(CONFIG), "pretraining") if row.torch == BIAS)
    return row.tf if source == "hf-tf" else row.h5_path


@pytest.mark.parametrize("source", ["hf-tf", "keras"])
@pytest.mark.parametrize(
    "value",
    [
        np.zeros(32, "int32"),
        np.zeros(32, "bool"),
        np.zeros(32, "complex64"),
        np.zeros(32, "S4"),
        np.array(["text"] * 32, dtype=object),
        np.zeros(32, [("a", "f4"), ("b", "f4")]),
        np.zeros(32, "V8"),
        np.zeros(32, np.longdouble),
        h5py.Empty("f4"),
    ],
    ids=["int", "bool", "complex", "bytes", "text", "compound", "opaque", "longdouble", "empty"],
)
def test_h5_datasets_of_a_wrong_dtype_are_refused(tmp_path, sources, source, value):
    with replaced(sources[source], tmp_path / "x.h5", bias_in(source)) as file:
        file[file.attrs["removed"]] = value
    result = settle(tmp_path / "x.h5")
    assert isinstance(result, str) and ("x.h5" in result or BIAS in result)


@pytest.mark.parametrize("value", [np.ones(32, "float64"), np.ones(64, "f4")], ids=["wider", "more"])
def test_h5_data_that_is_not_the_bfloat16_it_says_is_refused(tmp_path, sources, value):
    with replaced(sources["keras"], tmp_path / "x.h5", bias_in("keras")) as file:
        file[file.attrs["removed"]] = value
        file[file.attrs["removed"]].attrs["dtype"] = "bfloat16"
    assert isinstance(settle(tmp_path / "x.h5"), str)


@pytest.mark.parametrize("source", ["hf-tf", "keras"])
@pytest.mark.parametrize(
    "options", [{"dtype": ">f4"}, {"compression": "gzip"}, {"chunks": (8,), "shuffle": True}, {"fletcher32": True}]
)
def test_every_storage_of_an_h5_dataset_is_read(tmp_path, sources, source, options):
    with replaced(sources[source], tmp_path / "x.h5", bias_in(source)) as file:
        file.create_dataset(file.attrs["removed"], **{"data": golden()[BIAS], **options})
    assert same(converted(tmp_path / "x.h5"), golden())


@pytest.mark.parametrize("options", [{"chunks": (2**20,)}, {}, {"chunks": (2**20,), "compression": "gzip"}], ids=str)
@pytest.mark.parametrize("name", [BIAS, "extra"])
def test_an_h5_dataset_that_was_never_written_fills_no_memory(tmp_path, sources, options, name):
    with replaced(sources["keras"], tmp_path / "x.h5", bias_in("keras")) as file:
        place = file.attrs["removed"]
        file.create_dataset("extra" if name == "extra" else place, (2**40,), "f4", **options)
        if name == "extra":
            file[place] = golden()[BIAS]
    assert "would expand from 0 to 4,398,046,511,104 bytes" in refusal(tmp_path / "x.h5")


@pytest.mark.parametrize("kind", ["soft", "external"])
def test_a_tensor_behind_a_link_is_missing(tmp_path, sources, kind):
    with replaced(sources["keras"], tmp_path / "x.h5", bias_in("keras")) as file:
        place = file.attrs["removed"]
        other = h5py.ExternalLink(str(sources["keras"]), f"/{place}")
        file["there"] = np.zeros(32, "f4")
        file[place] = h5py.SoftLink("/there") if kind == "soft" else other
        del file["there"]
    assert "lacks 1 tensor of" in refusal(tmp_path / "x.h5")


def test_h5_links_in_a_cycle_end(tmp_path, sources):
    shutil.copy(sources["keras"], tmp_path / "x.h5")
    with h5py.File(tmp_path / "x.h5", "r+") as file:
        first = next(iter(file))
        file[f"{first}/up"] = file["/"]
        file[f"{first}/self"] = file[first]
        file["a"], file["b"] = h5py.SoftLink("/b"), h5py.SoftLink("/a")
        file["dangling"] = h5py.ExternalLink("/no/such/file.h5", "/")
    assert same(converted(tmp_path / "x.h5"), golden())


def test_a_virtual_h5_dataset_is_refused(tmp_path, sources):
    with replaced(sources["keras"], tmp_path / "x.h5", bias_in("keras")) as file:
        layout = h5py.VirtualLayout((32,), "f4")
        layout[:] = h5py.VirtualSource(str(sources["keras"]), file.attrs["removed"], (32,))
        file.create_virtual_dataset(file.attrs["removed"], layout)
    assert "lies in another file, which is refused" in refusal(tmp_path / "x.h5")


# Archives


def rezip(source: Path, path: Path, compression: int) -> None:
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_a_keras_archive_is_read_however_it_is_compressed(tmp_path, sources, compression):
    rezip(sources["keras archive"], tmp_path / "x.keras", compression)
    assert same(converted(tmp_path / "x.keras"), golden())


@pytest.mark.parametrize("name", ["model.weights.h5", "config.json", "assets/vocab.txt"])
def test_a_zip_bomb_is_refused(tmp_path, sources, name):
    with zipfile.ZipFile(sources["keras archive"]) as old, zipfile.ZipFile(tmp_path / "x.keras", "w") as new:
        for each in {*old.namelist(), name}:
            if each == name:
                new.writestr(each, bytes(50_000_000), zipfile.ZIP_DEFLATED)
            else:
                new.writestr(each, old.read(each))
    assert f"{name} would expand from" in refusal(tmp_path / "x.keras")


def test_path_traversal_in_an_archive_writes_nothing(tmp_path, sources):
    inner = tmp_path / "inner"
    inner.mkdir()
    shutil.copy(sources["keras archive"], inner / "x.keras")
    names = ["../evil", f"{tmp_path}/evil", "a/../../evil", "..\\evil", "../model.weights.h5"]
    with zipfile.ZipFile(inner / "x.keras", "a") as archive:
        for name in names:
            archive.writestr(name, b"evil")
    assert same(converted(inner / "x.keras"), golden())
    assert [path.name for path in tmp_path.rglob("*")] == ["inner", "x.keras"]


@pytest.mark.parametrize("name", ["../model.weights.h5", "/model.weights.h5", "a/model.weights.h5"])
def test_weights_elsewhere_in_an_archive_are_not_its_weights(tmp_path, sources, name):
    with zipfile.ZipFile(tmp_path / "x.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr(name, sources["keras"].read_bytes())
    assert "zip archive without model.weights.h5" in refusal(tmp_path / "x.keras")


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("source", ["keras archive", "hf-pt-bin"])
def test_two_entries_of_one_name_are_refused(tmp_path, sources, source):
    path = tmp_path / sources[source].name
    shutil.copy(sources[source], path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[0], b"other")
    assert "two entries of the same name" in refusal(path)


@pytest.mark.parametrize("field", ["signature", "name length", "extra length"])
def test_an_entry_that_lies_of_its_place_is_refused(tmp_path, sources, field):
    content = bytearray(sources["keras archive"].read_bytes())
    with zipfile.ZipFile(sources["keras archive"]) as archive:
        start = archive.getinfo("model.weights.h5").header_offset
    content[start + {"signature": 0, "name length": 27, "extra length": 29}[field]] ^= 0xFF
    (tmp_path / "x.keras").write_bytes(content)
    refusal(tmp_path / "x.keras")


def test_an_encrypted_archive_is_refused(tmp_path, sources):
    content = bytearray(sources["keras archive"].read_bytes())
    with zipfile.ZipFile(sources["keras archive"]) as archive:
        place = archive.start_dir
    while (place := content.find(b"PK\x01\x02", place)) >= 0:
        content[place + 8] |= 1
        place += 4
    (tmp_path / "x.keras").write_bytes(content)
    assert "encrypted" in refusal(tmp_path / "x.keras")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"class_name": 5}, "5 is not an LXMERT model"),
        ({"class_name": "Functional"}, "Functional is not an LXMERT model"),
        ({"config": []}, "not that of a saved Keras model"),
        ({"config": {}}, "must be a JSON object"),
        ({"config": {"config": {"l_layers": 10**9}}}, "l_layers must be"),
        ({"config": {"config": {"hidden_size": "32"}}}, "hidden_size must be"),
    ],
    ids=str,
)
def test_a_hostile_config_in_an_archive_is_refused(tmp_path, sources, changes, words):
    write_archive(tmp_path / "x.keras", sources["keras"], **changes)
    assert words in refusal(tmp_path / "x.keras")


@pytest.mark.parametrize("weights", [b"", b"no weights", b"\x89HDF\r\n\x1a\n" + bytes(90)], ids=["none", "text", "h5"])
def test_an_archive_with_broken_weights_is_refused(tmp_path, weights):
    write_archive(tmp_path / "x.keras", weights)
    refusal(tmp_path / "x.keras")


# Sharded checkpoints


@pytest.fixture
def sharded(tmp_path) -> Path:
    """The index of a checkpoint in several files."""
    convert(PRETRAINED, tmp_path / "sharded", shard_size=50_000)
    return tmp_path / "sharded/model.safetensors.index.json"


def shards_of(index: Path) -> list[Path]:
    return sorted(index.parent.glob("model-*.safetensors"))


@pytest.mark.parametrize(
    "name",
    [
        ["a", 1],
        [["a"]],
        {"a": 1},
        None,
        True,
        1.5,
        "a\0b",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "C:x",
        "..",
        ".",
        "x" * 5000,
    ],
    ids=lambda name: repr(name)[:12],
)
def test_an_index_that_names_no_file_beside_it_is_refused(sharded, name):
    index = json.loads(sharded.read_text())
    index["weight_map"][BIAS] = name
    sharded.write_text(json.dumps(index))
    assert "weight_map must name files beside it" in refusal(sharded)


@pytest.mark.parametrize(
    "name",
    ["absent.safetensors", ["absent.safetensors"], "x" * 255, "\ud800", "folder"],
    ids=["absent", "list", "long", "surrogate", "folder"],
)
def test_an_index_that_names_a_missing_file_is_refused(sharded, name):
    (sharded.parent / "folder").mkdir()
    index = json.loads(sharded.read_text())
    index["weight_map"][BIAS] = name
    sharded.write_text(json.dumps(index))
    result = settle(sharded)
    assert isinstance(result, str) and str(sharded) in result


@pytest.mark.parametrize(
    "text", ['{"weight_map": ' * 5000, "{" * 10**6, '{"weight_map": []}', '{"weight_map": {}}', "{}", '{"a": '], ids=len
)
def test_an_index_that_is_none_is_refused(sharded, text):
    sharded.write_text(text)
    refusal(sharded)


def test_a_tensor_in_two_shards_is_refused(sharded):
    first, second = shards_of(sharded)[:2]
    tensors = load_file(first)
    name = next(iter(tensors))
    save_file({**load_file(second), name: tensors[name] + 1}, second, {"format": "pt"})
    line = refusal(sharded)
    assert second.name in line and name in line


def test_an_index_that_names_an_index_is_refused(sharded):
    index = json.loads(sharded.read_text())
    index["weight_map"][BIAS] = sharded.name
    sharded.write_text(json.dumps(index))
    assert "must name files with tensors" in refusal(sharded)


def test_an_index_of_files_of_several_formats_is_refused(sharded):
    shutil.copy(SOURCES["hf-tf"], shards_of(sharded)[1])
    assert "its files must all be of one format, got hf-pt, hf-tf" in refusal(sharded)


def test_a_shard_that_is_a_git_lfs_pointer_is_told(sharded):
    shards_of(sharded)[1].write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
    line = refusal(sharded)
    assert "git lfs pull" in line and shards_of(sharded)[1].name in line


def test_shards_that_are_links_are_read(tmp_path, sharded):
    """A Hub cache holds links to files with other names elsewhere."""
    (tmp_path / "blobs").mkdir()
    for number, shard in enumerate(shards_of(sharded)):
        shutil.move(shard, tmp_path / f"blobs/{number}")
        shard.symlink_to(f"../blobs/{number}")
    assert same(converted(sharded.parent), golden())
    (tmp_path / "blobs/1").unlink()
    with pytest.raises(FileNotFoundError, match=shards_of(sharded)[1].name):
        open_checkpoint(sharded.parent)


# Values and shapes


def rewritten(folder: Path, sources: dict[str, Path], format: str, bias: np.ndarray) -> Path:
    """A checkpoint of a format whose pooler's bias is `bias`."""
    path = folder / sources[format].name
    if format == "hf-pt":
        save_file({**golden(), BIAS: bias}, path, {"format": "pt"})
    elif format == "hf-pt-bin":
        torch.save({**state(), BIAS: torch.from_numpy(bias)}, path)
    else:
        with replaced(sources[format], path, bias_in(format)) as file:
            file[file.attrs["removed"]] = bias
    return path


@pytest.mark.slow
@pytest.mark.parametrize("format", ["hf-pt", "hf-pt-bin", "hf-tf", "keras"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (31,), (33,), (32, 1), (1, 32), (2, 4, 4)], ids=str)
def test_a_wrong_shape_is_refused(tmp_path, sources, format, shape):
    line = refusal(rewritten(tmp_path, sources, format, np.zeros(shape, "f4")))
    assert "1 misshapen" in line and BIAS in line and f"{list(shape)}, expected [32]" in line


@pytest.mark.parametrize("format", ["hf-pt", "hf-pt-bin", "hf-tf", "keras"])
def test_nan_and_infinity_are_counted_warned_of_and_kept_bit_for_bit(tmp_path, sources, format):
    bias = golden()[BIAS].copy()
    bias.view("u4")[:4] = 0x7FC12345, 0xFF800001, 0x7F800000, 0xFF800000  # NaN, signalling NaN, both infinities
    source = rewritten(tmp_path, sources, format, bias)
    code, out, err = run("convert", source, tmp_path / "out", "--config", CONFIG)
    assert (code, err) == (0, "") and f"warning: {BIAS} holds 4 values that are not finite" in out
    assert same(load_file(tmp_path / "out/model.safetensors"), {**golden(), BIAS: bias})


# Configs


def config_with(**changes: object) -> str:
    return json.dumps({**json.loads(CONFIG.read_text()), **changes})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((field, value) for field in ("l_layers", "x_layers", "r_layers") for value in (10**9, -1, 2.0, "2", None)),
        *(("hidden_size", value) for value in (0, -32, 10**12, 10**4000, float("nan"), float("inf"), True, [32], {})),
        *((field, 2**31) for field in ("vocab_size", "intermediate_size", "num_qa_labels", "visual_feat_dim")),
        *(("num_attention_heads", value) for value in (0, 5, "4")),
        *(("initializer_range", value) for value in (10**400, 0, -1, float("nan"), "0.02")),
        *(("visual_loss_normalizer", value) for value in (10**400, -1, float("inf"))),
        *(("hidden_act", value) for value in ("exec", ["gelu"], {"gelu": 1}, None, 5)),
        *(("hidden_dropout_prob", value) for value in (1, -0.1, float("nan"), [])),
        *(("task_qa", value) for value in (1, "yes", None, [])),
        *(("id2label", value) for value in ([], "a", {"a": "b"}, {"1e3": "b"}, {"9" * 5000: "b"})),
        *(("label2id", value) for value in ([], {"a": float("inf")}, {"a": float("nan")}, {"a": []}, {"a": None})),
        *(("model_type", value) for value in ("bert", None, 5, ["lxmert"], "x" * 10**6)),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_hostile_config_is_refused_by_name(tmp_path, field, value):
    path = tmp_path / "config.json"
    path.write_text(config_with(**{field: value}))
    result = settle(SOURCES["hf-pt"], "--config", path)
    assert isinstance(result, str) and str(path) in result and field in result


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"lxmert"',
        b"5",
        b"\xff\xfe{}",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"<html></html>",
        b"[" * 10**6,
        b'{"a":' * 10**5,
        b'{"a":' * 80 + b"1" + b"}" * 80,
        b'{"hidden_size": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda text: text[:12].decode(errors="replace") or "empty",
)
def test_a_config_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text)
    shutil.copy(SOURCES["hf-pt"], tmp_path)
    for options in ((PRETRAINED, "--config", tmp_path / "config.json"), (tmp_path,)):
        code, out, err = run("convert", options[0], tmp_path / "new/out", *options[1:])
        assert (code, out, err.count("\n")) == (2, "", 1) and str(tmp_path / "config.json") in err
        assert not (tmp_path / "new").exists() and len(err) < 2000


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"l_layers": 3}, 1, "lacks 16 tensors"),
        ({"l_layers": 1}, 2, "16 unexpected"),
        ({"x_layers": 1000}, 1, "lacks"),
        ({"vocab_size": 98}, 2, "misshapen"),
        ({"num_qa_labels": 2**31 - 1}, 2, "misshapen"),
        ({"visual_feat_dim": 1}, 2, "misshapen"),
    ],
    ids=str,
)
def test_a_config_that_contradicts_the_tensors_is_told(tmp_path, changes, code, words):
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text(config_with(**changes))
    shutil.copy(SOURCES["hf-pt"], source)
    found, out, err = run("convert", source, tmp_path / "out")
    assert (found, out, err.count("\n")) == (code, "", 1) and words in err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


# Destinations


def test_links_to_a_source_are_followed(tmp_path):
    (tmp_path / "link").symlink_to(PRETRAINED)
    (tmp_path / "model.bin").symlink_to(SOURCES["hf-pt"])
    assert same(converted(tmp_path / "link"), golden())
    assert same(converted(tmp_path / "model.bin"), golden())


@pytest.mark.parametrize("kind", ["dangling", "cycle"])
def test_links_to_nothing_are_told(tmp_path, kind):
    (tmp_path / "model.bin").symlink_to("absent" if kind == "dangling" else "model.bin")
    assert "model.bin' is a link to '" in (line := refusal(tmp_path / "model.bin")) and "there is nothing" in line


def test_a_destination_that_is_a_link_to_nothing_is_made_where_it_points(tmp_path):
    (tmp_path / "link").symlink_to("place")
    convert(PRETRAINED, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "place/model.safetensors").is_file()


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("kind", ["under a file", "cycle", "too long"])
def test_a_destination_that_cannot_be_is_told(tmp_path, to, kind):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "cycle").symlink_to("cycle")
    place = {"under a file": "file/out", "cycle": "cycle/out", "too long": "x" * 300}[kind]
    code, out, err = run("convert", PRETRAINED, tmp_path / named(to, place), "--to", to)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert {path.name for path in tmp_path.iterdir()} == {"file", "cycle"}
    assert (tmp_path / "file").read_text() == "mine"


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    """Rights of a user who owns nothing: root may write anywhere."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


def test_a_folder_that_may_not_be_written_is_told():
    with tempfile.TemporaryDirectory() as name:  # unlike `tmp_path` not below a folder that only its owner may enter
        folder = Path(name)
        shutil.copy(SOURCES["hf-pt"], folder)
        shutil.copy(CONFIG, folder)
        (folder / "place").mkdir()
        convert(folder / "model.safetensors", folder / "first")  # imports whatever it needs
        (folder / "place").chmod(0o555)
        folder.chmod(0o755)
        with nobody():
            code, out, err = run("convert", folder / "model.safetensors", folder / "place/out")
        assert (code, out, err.count("\n")) == (2, "", 1) and "Permission denied" in err
        assert not list((folder / "place").iterdir())


LIMITED = """
import resource, sys
from conversion.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("to", FORMATS)
def test_a_full_disk_is_told_and_nothing_is_left(tmp_path, to):
    """Files can grow no further than a limit, which every writer meets half way, as it would the end of a disk."""
    arguments = ["convert", PRETRAINED, tmp_path / named(to), "--to", to]
    done = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1), done.stderr
    assert not list(tmp_path.iterdir())


# Killed

KILLED = """
import os, signal, sys
from conversion.cli import main
from conversion.tensors import Tensors

moment, destination, *arguments = sys.argv[1:]
read, replace, reads = Tensors.__getitem__, os.replace, []

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def read_or_die(self, name):
    reads.append(name)
    return die() if len(reads) == 300 else read(self, name)

def replace_or_die(old, new):
    return die() if os.fspath(new) == destination else replace(old, new)

if moment == "writing":
    Tensors.__getitem__ = read_or_die
elif moment == "flushing":
    os.fsync = die
elif moment == "placing":
    os.replace = replace_or_die
sys.exit(main([*arguments]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("to", "moment"),
    [("hf-pt", "flushing"), ("hf-pt", "placing"), *((to, "writing") for to in FORMATS), ("keras", "placing")],
)
def test_a_run_that_was_killed_leaves_nothing_that_looks_finished(tmp_path, to, moment):
    destination = tmp_path / named(to)
    arguments = ["convert", PRETRAINED, destination, "--to", to]
    command = [sys.executable, "-c", KILLED, moment, os.path.realpath(destination), *arguments]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert not destination.exists()
    left = list(tmp_path.iterdir())
    assert left and all(path.name.startswith(".partial-") for path in left)
    with pytest.raises(FileNotFoundError):
        find_weights(tmp_path)
    code, _, err = run(*arguments)
    assert (code, err) == (0, "")
    assert list(tmp_path.iterdir()) == [destination], "what the killed run has left is removed"
    code, _, err = run("convert", destination, tmp_path / "back", "--config", CONFIG)
    assert (code, err) == (0, "") and same(load_file(tmp_path / "back/model.safetensors"), golden())


def test_what_a_killed_save_leaves_in_a_folder_is_no_checkpoint(tmp_path, monkeypatch):
    """It is whole, but its config may be of other weights or missing."""
    config = LxmertConfig.from_json_file(CONFIG)
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        write_checkpoint(tmp_path, golden(), config, "pretraining", "hf-pt")
    monkeypatch.undo()
    assert [path.stat().st_size > 290_000 for path in tmp_path.glob(".partial-*.safetensors")] == [True]
    with pytest.raises(FileNotFoundError, match="found none"):
        open_checkpoint(tmp_path)
    write_checkpoint(tmp_path, golden(), config, "pretraining", "hf-pt")
    assert same(dict(open_checkpoint(tmp_path).tensors), golden())
