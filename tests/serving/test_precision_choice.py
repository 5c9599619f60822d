"""`--precision auto`: what is chosen on which processor, and that it is given up where it costs too much."""

import pytest
from support.serving import write_checkpoint

from lxmert_tf import processor
from lxmert_tf.cli import main
from lxmert_tf.serving import comparison
from lxmert_tf.serving.metadata import read_metadata
from lxmert_tf.serving.precision import REDUCED, choose

ZEN2, ICE_LAKE, SAPPHIRE_RAPIDS, NEOVERSE = (
    "fma avx avx2",
    "avx2 avx512f avx512_vnni",
    "avx2 avx512_vnni avx512_bf16 amx_bf16 amx_int8",
    "asimd asimddp bf16 i8mm",
)


@pytest.fixture
def processor_with(monkeypatch, tmp_path):
    """Puts another processor into this machine, of these features."""

    def replace(features, key="flags"):
        (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{key}\t\t: {features}\n\nprocessor\t: 1\n")
        monkeypatch.setattr(processor, "CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(processor.platform, "system", lambda: "Linux")
        processor.features.cache_clear()

    yield replace
    monkeypatch.undo()
    processor.features.cache_clear()


@pytest.mark.parametrize(
    ("features", "key", "chosen"),
    [
        (ZEN2, "flags", ("float32", "float32", "int8", "int8")),
        ("fma avx sse4_2", "flags", ("float32", "float32", "float32", "float32")),
        (ICE_LAKE, "flags", ("float32", "int8", "int8", "int8")),
        (SAPPHIRE_RAPIDS, "flags", ("bfloat16", "bfloat16", "int8", "int8")),
        (NEOVERSE, "Features", ("bfloat16", "bfloat16", "int8", "int8")),
    ],
)
def test_the_fastest_precision_of_each_format(processor_with, features, key, chosen):
    processor_with(features, key)
    assert tuple(choose(format, calibrated=True)[0] for format in REDUCED) == chosen


def test_the_reason_is_told(processor_with):
    processor_with(SAPPHIRE_RAPIDS)
    assert choose("saved_model", False) == ("bfloat16", "it is faster than float32 on this processor (amx_bf16)")
    processor_with(ICE_LAKE)
    precision, reason = choose("openvino", calibrated=False)
    assert precision == "float32"
    assert reason == "this processor has no products in bfloat16, and int8 needs --features to calibrate with"
    processor_with("", "Model")
    assert choose("onnx", False) == ("float32", "what this processor has is not known here")


@pytest.mark.parametrize("costs_too_much", [False, True])
def test_an_export_takes_it_or_float32(processor_with, tmp_path, monkeypatch, capsys, costs_too_much):
    write_checkpoint("model", tmp_path / "checkpoint")
    processor_with(SAPPHIRE_RAPIDS)
    if costs_too_much:
        monkeypatch.setattr(comparison, "loss", lambda result: 0.5)
    arguments = [str(tmp_path / "checkpoint"), str(tmp_path / "models"), "--name", "m", "--precision", "auto"]
    assert main(["export", *arguments, "--batch-sizes", "1"]) == 0
    printed = capsys.readouterr().out
    assert "Exporting bfloat16: it is faster than float32 on this processor (amx_bf16).\n" in printed
    assert ("loses 0.50 points of accuracy" in printed and "Exporting float32." in printed) == costs_too_much
    written = read_metadata(tmp_path / "models" / "m" / "1")["precision"]
    assert written == ("float32" if costs_too_much else "bfloat16")
