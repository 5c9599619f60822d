"""`make interop`: proves that upstream loads what this project writes, and this project what upstream writes.

Tiny checkpoints with random weights are written for every task, in every format that upstream reads, converted from
every other format, and loaded by the classes of `transformers` in virtual environments of their own: without a missing
or unexpected weight, and with the outputs of `lxmert_tf` and `lxmert_pt`. Then upstream saves, and both load. Exits
with 1 if anything does not load, or differs by more than the tolerance.
"""

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import lxmert_pt
import lxmert_tf
from benchmarks.common import table, write_section
from conversion.convert import convert
from conversion.names import rows
from conversion.writers import write_checkpoint
from lxmert_tf import LxmertConfig
from lxmert_tf.tasks import ARCHITECTURES
from tests.upstream.upstream import VISUAL_MASK, largest_error, read, run

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "conversion.md"

# Relative to the largest magnitude in each output; float32 has 6e-8, and errors grow through the layers.
TOLERANCE = 1e-5

TASKS = ("model", "pretraining", "qa")
TENSORFLOW_TASKS = ("model", "pretraining")  # upstream never had the third
SIZES = {
    "vocab_size": 37,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "num_qa_labels": 5,
    "num_object_labels": 7,
    "num_attr_labels": 6,
    "max_position_embeddings": 16,
    "visual_feat_dim": 9,
    "l_layers": 2,
    "r_layers": 1,
    "x_layers": 1,
}
CONFIGS = {
    "small": SIZES,
    "deep": {**SIZES, "l_layers": 3, "r_layers": 2, "x_layers": 4, "hidden_size": 14, "num_attention_heads": 2},
    "relu": {**SIZES, "hidden_act": "relu", "type_vocab_size": 3, "vocab_size": 50},
    "no answers, no features": {**SIZES, "task_qa": False, "visual_feat_loss": False},
    "gelu_new": {**SIZES, "hidden_act": "gelu_new", "l_layers": 1, "x_layers": 2, "intermediate_size": 31},
}
# What is written: a name for the table, the format, and the shard size.
TARGETS = {
    "hf-pt": ("hf-pt", None),
    "hf-pt, sharded": ("hf-pt", "9KB"),
    "hf-pt-bin": ("hf-pt-bin", None),
    "hf-pt-bin, sharded": ("hf-pt-bin", "9KB"),
    "hf-tf": ("hf-tf", None),
}
SOURCES = ("keras", "keras-weights", "original", "hf-pt", "hf-pt-bin", "hf-tf")
# What upstream saves: a name for the table, and the options of `save_pretrained`.
SAVED = {
    "model.safetensors": {},
    "model.safetensors, sharded": {"max_shard_size": "9KB"},
    "pytorch_model.bin": {"safe_serialization": False},
    "pytorch_model.bin, sharded": {"safe_serialization": False, "max_shard_size": "9KB"},
}
SAVED_TENSORFLOW = {"tf_model.h5": {}, "model.safetensors, TensorFlow names": {"safe_serialization": True}}


def main() -> int:
    """Runs everything.

    Returns:
        0 if all loaded within the tolerance, else 1.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pythons", nargs="+", metavar="PYTHON", help="interpreter with a transformers to test against")
    parser.add_argument("--scratch", type=Path, help="directory for the checkpoints (default: temporary)")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {DOCUMENT.relative_to(ROOT)}")
    args = parser.parse_args()
    logging.getLogger("lxmert_tf").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = (args.scratch or Path(temporary)).resolve()
        cases = write_all(scratch)
        written, read_back, versions = [], [], []
        for number, python in enumerate(args.pythons):
            found, results = upstream(python, "load", [case for case in cases if has_class(python, case)], scratch)
            label = f"transformers {found['transformers']}"
            versions.append(f"{label} (" + ", ".join(f"{k} {v}" for k, v in found.items() if k != "transformers") + ")")
            written += [{**result, "upstream": label} for result in results]
            _, saved = upstream(python, "save", saving_cases(python, scratch, scratch / f"saved-{number}"), scratch)
            read_back += [{**result, "upstream": label} for result in load_all(saved)]
    report = text(written, read_back, versions)
    print(report)
    if args.write:
        write_section(DOCUMENT, "interop", report)
    problems = [result for result in (*written, *read_back) if problem(result)]
    for result in problems:
        print(f"{result['upstream']}, {result['name']}, {result['class']}: {problem(result)}", file=sys.stderr)
    return 1 if problems or not written or not read_back else 0


# Our half


def write_all(scratch: Path) -> list[dict[str, Any]]:
    """Writes every checkpoint, with inputs and expected outputs; returns a case for each class that must load it."""
    cases = []
    for name, task in product(CONFIGS, TASKS):
        folder = scratch / name / task
        config = LxmertConfig(**CONFIGS[name], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        write_checkpoint(folder / "source", random_tensors(config, task), config, task, "keras")
        config.save_pretrained(folder)
        np.savez(folder / "inputs.npz", **random_inputs(config))
        expected = write_expected(folder, task)
        sources = write_sources(folder, config)
        for (target, (format, shard_size)), (kind, source) in product(TARGETS.items(), sources.items()):
            if kind == format and shard_size is None:
                continue
            directory = folder / f"{target} from {kind}".replace(", ", "-").replace(" ", "-")
            convert(source, directory, to=format, shard_size=shard_size, config=config)
            if shard_size and len(list(directory.glob("*-of-*"))) < 3:
                raise AssertionError(f"{directory} must have several shards")
            for class_name in classes(format, task):
                cases.append(
                    {
                        "name": target,
                        "class": class_name,
                        "directory": str(directory),
                        "inputs": str(folder / "inputs.npz"),
                        "expected": expected,
                    }
                )
    return cases


def random_tensors(config: LxmertConfig, task: str) -> dict[str, np.ndarray]:
    """A value for every weight, biases and normalisations too, by PyTorch name."""
    rng = np.random.default_rng(0)
    tensors = {}
    for row in rows(config, task):
        centre = 1.0 if row.keras.endswith("gamma") else 0.0
        tensors[row.torch] = (centre + 0.3 * rng.standard_normal(row.shape(config))).astype("float32")
    return tensors


def random_inputs(config: LxmertConfig, examples: int = 3, tokens: int = 7, boxes: int = 5) -> dict[str, np.ndarray]:
    """All inputs but `inputs_embeds`; some tokens and boxes are masked."""
    rng = np.random.default_rng(1)
    corners = np.sort(rng.random((examples, boxes, 2, 2)), axis=-2).reshape(examples, boxes, 4)
    return {
        "input_ids": rng.integers(1, config.vocab_size, (examples, tokens)),
        "visual_feats": rng.standard_normal((examples, boxes, config.visual_feat_dim)).astype("float32"),
        "visual_pos": corners.astype("float32"),
        "attention_mask": (np.arange(tokens) < [[7], [4], [5]]).astype("int64"),
        VISUAL_MASK: (np.arange(boxes) < [[5], [3], [2]]).astype("int64"),
        "token_type_ids": rng.integers(0, config.type_vocab_size, (examples, tokens)),
    }


def write_expected(folder: Path, task: str) -> dict[str, list[str]]:
    """Writes the outputs of both frameworks, with and without the visual mask; returns their paths."""
    models = {
        "lxmert_tf": getattr(lxmert_tf, f"TF{ARCHITECTURES[task]}").from_pretrained(folder / "source"),
        "lxmert_pt": getattr(lxmert_pt, ARCHITECTURES[task]).from_pretrained(folder / "source"),
    }
    paths: dict[str, list[str]] = {"masked": [], "unmasked": []}
    for (name, model), mask in product(models.items(), paths):
        path = folder / f"{name}-{mask}.npz"
        np.savez(path, **run(model, read(folder / "inputs.npz"), mask == "masked"))
        paths[mask].append(str(path))
    return paths


def write_sources(folder: Path, config: LxmertConfig) -> dict[str, Path]:
    """The checkpoint in every format that a conversion may start from."""
    files = {"keras-weights": "source.weights.h5", "original": "source_LXRT.pth"}
    sources = {format: folder / files.get(format, f"source-{format}") for format in SOURCES if format != "keras"}
    for format, path in sources.items():
        convert(folder / "source", path, to=format, config=config)
    return {"keras": folder / "source", **sources}


def classes(format: str, task: str) -> list[str]:
    """Upstream's classes that read a format."""
    if format != "hf-tf":
        return [ARCHITECTURES[task]]
    return [f"TF{ARCHITECTURES[task]}"] if task in TENSORFLOW_TASKS else []


def load_all(cases: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Loads what upstream saved with both frameworks, and compares the outputs."""
    results = []
    for case in cases:
        if not case["problem"]:
            try:
                case = {**case, "error": loaded_error(case)}
            except (ValueError, OSError) as error:
                case = {**case, "problem": str(error)}
        results.append(dict(case))
    return results


def loaded_error(case: Mapping[str, Any]) -> float:
    """The larger error of both frameworks."""
    name = case["class"].removeprefix("TF")
    models = (getattr(lxmert_tf, f"TF{name}"), getattr(lxmert_pt, name))
    expected, inputs = read(Path(case["directory"]) / "expected.npz"), read(case["inputs"])
    outputs = (run(model.from_pretrained(case["directory"]), inputs, case["masked"]) for model in models)
    return max(largest_error(output, expected) for output in outputs)


# Upstream's half


def upstream(python: str, command: str, cases: list[dict[str, Any]], scratch: Path) -> tuple[dict, list[dict]]:
    """The versions and results of upstream.py under another interpreter."""
    asked, answered = scratch / "cases.json", scratch / "results.json"
    asked.write_text(json.dumps(cases))
    script = Path(__file__).with_name("upstream.py")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run([python, str(script), command, asked, answered], env=environment, capture_output=True)
    if finished.returncode:
        raise SystemExit(f"{python} failed:\n{finished.stderr.decode(errors='replace')}")
    answer = json.loads(answered.read_text())
    return answer["versions"], answer["results"]


@cache
def major(python: str) -> int:
    """The first number of the version of transformers that an interpreter has."""
    ask = "from importlib.metadata import version; print(version('transformers'))"
    return int(subprocess.check_output([python, "-c", ask], text=True).split(".")[0])


def has_class(python: str, case: Mapping[str, Any]) -> bool:
    """Whether this transformers has the class of a case: TensorFlow ended with 4."""
    return major(python) < 5 or not case["class"].startswith("TF")


def saving_cases(python: str, scratch: Path, directory: Path) -> list[dict[str, Any]]:
    """A case for everything that upstream can save."""
    chosen = [(ARCHITECTURES[task], task, SAVED) for task in TASKS]
    if major(python) < 5:
        chosen += [(f"TF{ARCHITECTURES[task]}", task, SAVED_TENSORFLOW) for task in TENSORFLOW_TASKS]
    cases = []
    for config, (class_name, task, kinds) in product(CONFIGS, chosen):
        for kind, options in kinds.items():
            if major(python) >= 5 and "safe_serialization" in options:
                continue  # it writes only safetensors
            folder = scratch / config / task
            cases.append(
                {
                    "name": kind,
                    "class": class_name,
                    "directory": str(directory / f"{len(cases)}"),
                    "config": str(folder / "config.json"),
                    "inputs": str(folder / "inputs.npz"),
                    "options": options,
                }
            )
    return cases


# The report


def problem(result: Mapping[str, Any]) -> str | None:
    """What is wrong with a result, or None."""
    if result["problem"]:
        return result["problem"]
    return None if result["error"] <= TOLERANCE else f"differs by {result['error']:.1e}, allowed are {TOLERANCE:.0e}"


def text(written: list[dict], read_back: list[dict], versions: list[str]) -> str:
    """Both tables in Markdown, with what they say."""
    return "\n\n".join(
        [
            f"Written here, from {', '.join(SOURCES[:-1])} or {SOURCES[-1]}, and loaded by upstream: checkpoints that "
            "loaded without a missing or unexpected weight, and the largest error of any output, relative to the "
            f"largest magnitude in it. At most {TOLERANCE:.0e} is allowed.",
            tally(written),
            "Saved by upstream and loaded by `lxmert_tf` and `lxmert_pt`:",
            tally(read_back),
            f"{len(CONFIGS)} tiny configurations with random weights, float32. Upstream: {'; '.join(versions)}.",
        ]
    )


def tally(results: list[dict]) -> str:
    """A row for each kind of checkpoint and class, a column for each upstream."""
    columns = list(dict.fromkeys(result["upstream"] for result in results))
    keys = sorted({(result["class"], result["name"]) for result in results}, key=lambda key: (key[0][:2] == "TF", key))
    rows = []
    for class_name, name in keys:
        same = [result for result in results if (result["class"], result["name"]) == (class_name, name)]
        rows.append([name, f"`{class_name}`", *(cell([r for r in same if r["upstream"] == c]) for c in columns)])
    return table(["checkpoint", "class", *columns], rows)


def cell(results: list[dict]) -> str:
    """How many loaded, and the largest error."""
    if not results:
        return "-"
    errors = [result["error"] for result in results if not problem(result)]
    worst = f", {max(errors):.1e}" if errors else ""
    return f"{len(errors)} of {len(results)}{worst}"


if __name__ == "__main__":
    sys.exit(main())
