"""Random damage to checkpoints: always one clear sentence or a right conversion."""

import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from support.checkpoints import (
    ALL_SOURCES,
    BIAS,
    CONFIG,
    PRETRAINED,
    bits_apart,
    golden,
    header_of,
    safetensors,
    same,
    settle,
)

from conversion.convert import convert
from conversion.formats import open_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch"),
]

CONTENT = (PRETRAINED / "model.safetensors").read_bytes()
HEADER, DATA = header_of(CONTENT)
NAMES = sorted(set(HEADER) - {"__metadata__"})

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=10,
)
# Numbers near those that are right, and wild ones.
NUMBER = st.integers(-4, 200) | st.sampled_from([len(DATA), len(DATA) - 4, 2**31, 2**32, 2**63, 2**64 - 1, 10**30])


def fuzzed(examples: int):
    """Settings of every test here: the same examples in each run, so that what passed once passes."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def settled(content: bytes, name: str = "x.safetensors", *options: object) -> dict[str, np.ndarray] | str:
    """What a file with this content converts to, or why it is refused."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        return settle(Path(folder) / name, *options)


# Bytes

EDIT = st.tuples(
    st.sampled_from(["flip", "set", "cut", "insert", "copy"]), st.floats(0, 1), st.binary(min_size=1, max_size=8)
)
STARTS = (b"", b"\x80\x02", b"PK\x03\x04", b"PK\x05\x06", b"\x89HDF\r\n\x1a\n", b"{")
DTYPES = ("F64", "F16", "BF16", "I32", "U8", "BOOL", "F8_E4M3")


def edited(content: bytes, kind: str, place: float, value: bytes, head: int) -> bytes:
    """`content` with a change; half of the places lie in its first `head` bytes."""
    at = int(2 * place * head) if place < 0.5 else int((2 * place - 1) * (len(content) - 1))
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ (1 << value[0] % 8)]) + content[at + 1 :]
    if kind == "set":
        return content[:at] + value + content[at + len(value) :]
    if kind == "cut":
        return content[:at] + content[at + value[0] :]
    if kind == "insert":
        return content[:at] + value + content[at:]
    return content[:at] + content[: 16 * len(value)] + content[at + 16 * len(value) :]


@pytest.mark.slow
@pytest.mark.parametrize("source", ALL_SOURCES)
@fuzzed(20)
@given(st.lists(EDIT, min_size=1, max_size=3))
def test_damaged_bytes(sources, source, edits):
    content = sources[source].read_bytes()
    for kind, place, value in edits:
        content = edited(content, kind, place, value, head=6000)
    result = settled(content, sources[source].name)
    if not isinstance(result, str):
        assert set(result) == set(golden())
        if source == "hf-pt":
            assert bits_apart(result, golden()) <= sum(8 * max(len(value), 16 * len(value)) for _, _, value in edits)


@fuzzed(60)
@given(st.binary(max_size=200), st.sampled_from(STARTS))
def test_noise_is_refused(noise, start):
    assert isinstance(settled(start + noise), str)


# The header of safetensors


@fuzzed(60)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(NAMES),
            st.one_of(
                st.tuples(st.just("data_offsets"), st.lists(NUMBER, max_size=3) | JSON),
                st.tuples(st.just("shape"), st.lists(NUMBER, max_size=3) | JSON),
                st.tuples(st.just("dtype"), st.sampled_from(DTYPES) | JSON),
                st.tuples(st.text(max_size=5), JSON),
            ),
        ),
        min_size=1,
        max_size=2,
    ),
    JSON,
)
def test_a_header_with_other_values(changes, metadata):
    header = {name: dict(entry) for name, entry in HEADER.items()}
    for name, (key, value) in changes:
        header[name][key] = value
    if isinstance(metadata, dict):
        header["__metadata__"] = metadata
    result = settled(safetensors(header, DATA))
    if not isinstance(result, str):
        assert same(result, golden()), "a header that lies was believed"


@fuzzed(40)
@given(st.integers(0, 2**64 - 1) | st.integers(0, len(CONTENT)))
def test_a_header_of_another_length(length):
    result = settled(safetensors(HEADER, DATA, length))
    assert isinstance(result, str) or same(result, golden())


# Names

RENAMES = {
    "module": lambda name: f"module.{name}",
    "bert": lambda name: name.replace("lxmert.", "bert.", 1),
    "gamma": lambda name: name.removesuffix(".weight") + ".gamma",
    "beta": lambda name: name.removesuffix(".bias") + ".beta",
    "bare": lambda name: name.removeprefix("lxmert."),
    "next layer": lambda name: name.replace(".0.", ".1.", 1),
    "upper": str.upper,
    "longer": lambda name: f"{name}.0",
    "control": lambda name: f"\n{name}\x1b[2J\u202e\x00",
}
ALIASES = ("module", "bert")


@pytest.mark.slow
@fuzzed(60)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from([*RENAMES, *ALIASES * 8])), min_size=1, max_size=4))
def test_names_that_are_nearly_right(changes):
    """A name is that of its tensor, of one that is then there twice, or unknown: no tensor takes another's place."""
    tensors = golden()
    for name, rename in changes:
        if name in tensors:
            tensors[RENAMES[rename](name)] = tensors.pop(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_file(tensors, path, {"format": "pt"})
        result = settle(path)
    assert isinstance(result, str) or same(result, golden())
    assert not isinstance(result, str) or not {rename for _, rename in changes} <= set(ALIASES)


@fuzzed(30)
@given(st.dictionaries(st.text(max_size=30), st.just(np.ones(2, "f4")), min_size=1, max_size=5))
def test_names_of_something_else(tensors):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_file({**golden(), **tensors}, path, {"format": "pt"})
        assert same(settle(path), golden())
        assert set(open_checkpoint(path).outside) == set(tensors)  # told, and left out


# JSON files


@pytest.mark.slow
@fuzzed(60)
@given(
    st.dictionaries(
        st.sampled_from([*json.loads(CONFIG.read_text()), "id2label", "label2id", "extra", "self", "model_type"]),
        JSON | NUMBER,
        min_size=1,
        max_size=2,
    )
)
def test_a_config_with_other_values(changes):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps({**json.loads(CONFIG.read_text()), **changes}))
        result = settle(PRETRAINED / "model.safetensors", "--config", path)
    if not isinstance(result, str):  # switches may have turned heads off
        assert same(result, {name: golden()[name] for name in result})


@fuzzed(30)
@given(st.dictionaries(st.sampled_from([BIAS, "strange", "__metadata__", *NAMES[:5]]), JSON, max_size=3), JSON)
def test_an_index_with_other_values(sharded_folder, changes, metadata):
    index = sharded_folder / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["weight_map"].update(changes)
    values["metadata"] = metadata
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "source"
        shutil.copytree(sharded_folder, copy)
        (copy / index.name).write_text(json.dumps(values))
        result = settle(copy)
    assert isinstance(result, str) or same(result, golden())


@pytest.fixture(scope="module")
def sharded_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sharded") / "source"
    convert(PRETRAINED, folder, shard_size=50_000)
    return folder
