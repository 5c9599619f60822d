"""Conversion at the published size, as whole processes: against copying the same bytes with numpy, and transformers.

The weights are random and written to a temporary directory first, so every source lies in the page cache. Both
`lxmert-convert` and the copy flush what they wrote to disk; transformers does not.
"""

import argparse
import filecmp
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import Measured, circumstances, in_turn, measure, peer, ratio, save, table, versions
from conversion.names import rows
from conversion.tensors import Stored, Tensors
from conversion.writers import write_checkpoint
from lxmert_tf.configuration import LxmertConfig

PEER = "transformers4"
TASK = "pretraining"
SIZES: dict[str, dict[str, int]] = {
    "base": {},
    "tiny": {"l_layers": 1, "r_layers": 1, "x_layers": 1, "hidden_size": 12, "num_attention_heads": 3},
}
COPY = """
import os, sys
import numpy as np
source, destination = sys.argv[1:]
values = np.fromfile(source, np.uint8)
with open(destination, "wb") as file:
    values.tofile(file)
    file.flush()
    os.fsync(file.fileno())
"""
UPSTREAM = """
import sys
from transformers import TFLxmertForPreTraining
TFLxmertForPreTraining.from_pretrained(sys.argv[1], from_pt=True).save_pretrained(sys.argv[2])
"""
UPSTREAM_ENVIRONMENT = {
    "TF_USE_LEGACY_KERAS": "1",
    "HF_HUB_OFFLINE": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "CUDA_VISIBLE_DEVICES": "",
}


@dataclass(frozen=True)
class Conversion:
    """One conversion: what it is called, its source and its weights file, its destination and format."""

    name: str
    source: str
    weights: str
    destination: str
    to: str
    has_peer: bool


CONVERSIONS = (
    Conversion("HF safetensors to .weights.h5", "hf", "model.safetensors", "keras.weights.h5", "keras-weights", False),
    Conversion("HF safetensors to tf_model.h5", "hf", "model.safetensors", "tf", "hf-tf", True),
    Conversion(".weights.h5 to HF safetensors", "keras.weights.h5", "", "hf-of-keras", "hf-pt", False),
    Conversion("tf_model.h5 to HF safetensors", "tf", "tf_model.h5", "hf-of-tf", "hf-pt", False),
)


def main() -> None:
    """Measures, prints the tables, and saves them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each command, in turn (default: %(default)s)")
    parser.add_argument("--size", choices=SIZES, default="base", help="of the model (default: %(default)s)")
    parser.add_argument("--no-peer", action="store_true", help="leave transformers out")
    parser.add_argument("--no-save", action="store_true", help="print only")
    parser.add_argument("--directory", type=Path, help="where temporary files go: 6 GB at base size")
    args = parser.parse_args()
    python = None if args.no_peer else peer(PEER)
    with tempfile.TemporaryDirectory(dir=args.directory) as folder:
        size = write_source(Path(folder) / "hf", args.size)
        results = in_turn(runs(Path(folder), python), args.rounds)
        for conversion in CONVERSIONS[2:]:
            if not filecmp.cmp(*(Path(folder) / name / "model.safetensors" for name in ("hf", conversion.destination))):
                raise SystemExit(f"{conversion.name} did not give back the source.")
    used = [versions(["numpy", "h5py", "safetensors"])]
    if python:
        used.append(versions(["transformers", "tensorflow", "tf-keras", "torch"], python))
    text = report(results, size, args.rounds, circumstances(*used))
    print(text)
    if not args.no_save:
        raw = {name: [vars(each) for each in measured] for name, measured in results.items()}
        save("conversion", {"versions": used, "bytes": size, "runs": raw}, text)


def write_source(directory: Path, size: str) -> int:
    """Writes a checkpoint of random values, one tensor at a time; returns its bytes."""
    config = LxmertConfig(**SIZES[size])
    rng = np.random.default_rng(0)

    def values(shape: tuple[int, ...]) -> np.ndarray:
        return rng.standard_normal(shape, "float32") * np.float32(0.02)

    shapes = {row.torch: row.shape(config) for row in rows(config, TASK)}
    stored = {name: Stored(shape, np.dtype("float32"), partial(values, shape)) for name, shape in shapes.items()}
    tensors = Tensors(stored)
    write_checkpoint(directory, tensors, config, TASK, "hf-pt")
    return tensors.nbytes


# Runs


def runs(folder: Path, python: str | None) -> dict[str, Callable[[], Measured]]:
    """Every command by its name, in an order in which each source is there when it is needed."""
    return dict(_runs(folder, python))


def _runs(folder: Path, python: str | None) -> Iterator[tuple[str, Callable[[], Measured]]]:
    for each in CONVERSIONS:
        source, destination = folder / each.source, folder / each.destination
        convert = [sys.executable, "-m", "conversion", "convert", source, destination, "--to", each.to]
        yield f"{each.name}, unverified", partial(fresh, destination, [*convert, "--no-verify"])
        yield each.name, partial(fresh, destination, convert)
        copy = folder / "copy"
        yield f"{each.name}, copy", partial(fresh, copy, [sys.executable, "-c", COPY, source / each.weights, copy])
        if python and each.has_peer:
            theirs = folder / "upstream"
            command = [python, "-c", UPSTREAM, source, theirs]
            yield f"{each.name}, upstream", partial(fresh, theirs, command, **UPSTREAM_ENVIRONMENT)


def fresh(destination: Path, command: list[Any], **environment: str) -> Measured:
    """Measures a command that writes `destination`, which is removed first."""
    if destination.is_dir():
        shutil.rmtree(destination)
    destination.unlink(missing_ok=True)
    return measure(command, **environment)


# The report


def report(results: Mapping[str, list[Measured]], size: int, rounds: int, where: str) -> str:
    """Both tables in Markdown."""
    times, memory = [], []
    for each in CONVERSIONS:
        ours, unverified, copy = (results[f"{each.name}{kind}"] for kind in ("", ", unverified", ", copy"))
        theirs = results.get(f"{each.name}, upstream")
        times.append(
            [
                each.name,
                *(f"{seconds(runs):.2f} s" for runs in (ours, unverified, copy)),
                *(f"{ratio(all_seconds(runs), all_seconds(copy)):.2f}" for runs in (ours, unverified)),
                f"{seconds(theirs):.1f} s" if theirs else "-",
                f"{ratio(all_seconds(theirs), all_seconds(ours)):.1f}" if theirs else "-",
            ]
        )
        peaks = [max(run.anonymous for run in runs) for runs in (ours, theirs) if runs]
        memory.append([each.name, *(f"{peak:.0f} MB" for peak in peaks), *["-"] * (2 - len(peaks))])
    return "\n\n".join(
        [
            "## Conversion",
            f"`python -m benchmarks.conversion`: {size / 1e6:.0f} MB of float32 weights, whole processes, medians of "
            f"{rounds} rounds. The copy reads the source file and writes it again with numpy; it and `lxmert-convert` "
            "flush to disk, transformers does not. Verified, the default, means that the file was read again and "
            "every tensor compared bit for bit.",
            table(
                [
                    "conversion",
                    *("verified", "`--no-verify`", "copy", "verified / copy", "`--no-verify` / copy"),
                    *("transformers", "transformers / verified"),
                ],
                times,
            ),
            "The most anonymous memory (RssAnon) at any time of any round; pages of mapped files do not count.",
            table(["conversion", "verified", "transformers"], memory),
            "transformers has no Keras 3 format, and its way back (`from_tf=True`) fails in 4.57.6: it saves tensors "
            "without data.",
            where,
        ]
    )


def all_seconds(runs: list[Measured]) -> list[float]:
    return [run.seconds for run in runs]


def seconds(runs: list[Measured]) -> float:
    return median(all_seconds(runs))


if __name__ == "__main__":
    main()
