"""What `lxmert-tf export` writes, in float32 and reduced precision, beside what others run LXMERT with on a CPU.

A forward pass with all outputs at several batch sizes, and the stream of questions of vqa_inference.py. Rows of
precisions that the processor has no instructions for are left out, unless --all.
"""

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.common import circumstances, peer, save, table, versions
from benchmarks.contenders import EXPORTS, PEERS, contest, onednn_kernels
from lxmert_tf.processor import features, has_products

REFERENCE = "lxmert-tf, graph"  # float32, in every group
TENSORFLOW = "transformers TF, graph"
PRECISIONS = ("float32", "bfloat16", "int8")
BATCHES = (1, 8, 32)
STREAM = "questions/s"


def precision_of(name: str) -> str:
    """The last word of a name, if it is a precision."""
    last = name.rpartition(" ")[2]
    return last if last in PRECISIONS else "float32"


def groups(everything: bool) -> dict[str, list[str]]:
    """By precision, the contenders that live at the same time, each with the reference and TensorFlow's own."""
    names = [*EXPORTS, *PEERS]
    return {
        precision: [REFERENCE, TENSORFLOW, *(name for name in names if precision_of(name) == precision)]
        for precision in PRECISIONS
        if precision != "bfloat16" or everything or has_products("bfloat16")
    }


def relative(results: Mapping[str, dict], name: str) -> float:
    """How many times as long as the reference of its group, as a median of rounds in turn."""
    pairs = zip(results[name]["seconds"], results[REFERENCE]["seconds"], strict=True)
    return median(a / b for a, b in pairs)


def best(results: Mapping[str, dict], names: Sequence[str]) -> str:
    """The name of the fastest."""
    return min((name for name in names if name in results), key=lambda name: relative(results, name))


def verdicts(precision: str, measured: Mapping[str, Mapping[str, dict]]) -> list[list[str]]:
    """For each size, the best export beside the best peer and TensorFlow in transformers."""
    lines = []
    for size, results in measured.items():
        ours, theirs = best(results, list(EXPORTS)), best(results, list(PEERS))
        ratio = relative(results, theirs) / relative(results, ours)
        against = relative(results, TENSORFLOW) / relative(results, ours)
        title = size if size == STREAM else f"batch {size}"
        lines.append([precision, title, ours, theirs, f"{ratio:.2f}", f"{against:.2f}"])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), help="sizes (default: %(default)s)")
    parser.add_argument("--questions", type=int, default=160, help="of the stream (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=11, help="times each is asked (default: %(default)s)")
    parser.add_argument("--all", action="store_true", help="bfloat16 without instructions for it, too")
    parser.add_argument("--work", type=Path, help="folder to keep the exports in, and take them from")
    arguments = parser.parse_args()
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["WRITTEN"] = os.fspath(arguments.work or temporary)
        for precision, names in groups(arguments.all).items():
            results[precision] = {
                str(batch): contest(names, arguments.rounds, True, "forward", batch) for batch in arguments.batches
            }
            rounds = max(3, arguments.rounds // 3)
            results[precision][STREAM] = contest(names, rounds, True, "vqa", arguments.questions)
        kernels = {
            name: onednn_kernels(name, "forward", arguments.batches[0])
            for names in groups(arguments.all).values()
            for name in names
        }
    values = {"features": sorted(features()), "results": results, "kernels": kernels}
    save("runtimes", values, text(results, kernels, arguments.questions))


def text(results: Mapping[str, Mapping], kernels: Mapping[str, Counter], questions: int) -> str:
    """The section of the README."""
    lines, summary = [], []
    for precision, measured in results.items():
        summary += verdicts(precision, measured)
        for name in next(iter(measured.values())):
            if (name == REFERENCE and precision != "float32") or (name == TENSORFLOW and precision != "float32"):
                continue
            peak = max(size[name]["peak_mb"] for size in measured.values()) / 1000
            cells = [name]
            for size, contenders in measured.items():
                seconds = median(contenders[name]["seconds"])
                cells.append(f"{questions / seconds:.0f}" if size == STREAM else f"{1000 * seconds:.0f} ms")
            lines.append([*cells, f"{peak:.1f} GB", ", ".join(kernels[name]) or "-"])
    sizes = [size if size == STREAM else f"batch {size}" for size in next(iter(results.values()))]
    known = sorted(
        each for each in features() if each.startswith(("avx", "amx", "fma", "asimd", "bf16", "i8mm", "sve"))
    )
    return "\n\n".join(
        [
            f"Instructions of this processor: {', '.join(known) or 'unknown'}."
            + ("" if "bfloat16" in results else " It has no products in bfloat16: those rows do not apply."),
            table(["", *sizes, "peak memory", "oneDNN's kernels"], lines),
            table(
                ["", "", "best export", "best of others", "times faster", "than TensorFlow in transformers"], summary
            ),
            circumstances(
                versions(["tensorflow", "keras", "openvino", "onnxruntime", "ai-edge-litert"]),
                versions(["transformers", "torch", "openvino", "onnxruntime"], peer("runtimes")),
                versions(["transformers", "tensorflow"], peer("transformers4")),
            ),
        ]
    )


if __name__ == "__main__":
    main()
