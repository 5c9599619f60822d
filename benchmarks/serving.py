"""Serving: an exported model beside a SavedModel of upstream's TFLxmertModel, and load on a running server.

`python -m benchmarks.serving` compares at base size, both through TensorFlow's C API and in turn.
`python -m benchmarks.serving --server HOST:PORT --name vqa` asks a running server as fast as it answers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles

import numpy as np

from benchmarks.common import ROOT, circumstances, in_turn, peer, ratio, save, table, versions

TOKENS, BOXES, FEAT_DIM = 20, 36, 2048
BATCHES = (1, 8, 32)
VQA_LENGTHS = (6, 10, 6, 7, 11)  # tokens of five questions; VQA's have 8 on average
FIVE = {
    "five": f"five questions of {TOKENS} tokens on one image",
    "five of VQA": f"five of {min(VQA_LENGTHS)} to {max(VQA_LENGTHS)} tokens, padded to {TOKENS}, on one image",
}
RUNNER = ROOT / "tests" / "support" / "run_saved_models.py"

# Run in upstream's environment. Its own serving signature demands a visual mask that its graph then fails on.
EXPORT_UPSTREAM = f"""
import sys
import tensorflow as tf
from transformers import LxmertConfig, TFLxmertModel

model = TFLxmertModel(LxmertConfig())
shapes = {{"input_ids": ([None, None], tf.int32), "attention_mask": ([None, None], tf.int32),
          "token_type_ids": ([None, None], tf.int32), "visual_feats": ([None, None, {FEAT_DIM}], tf.float32),
          "visual_pos": ([None, None, 4], tf.float32)}}
specs = {{name: tf.TensorSpec(shape, dtype, name) for name, (shape, dtype) in shapes.items()}}

@tf.function(input_signature=[specs])
def serve(inputs):
    output = model(inputs, training=False)
    return {{"language_output": output[0], "vision_output": output[1], "pooled_output": output[2]}}

model({{name: tf.zeros([1 if s is None else s for s in shape], dtype) for name, (shape, dtype) in shapes.items()}})
tf.saved_model.save(model, sys.argv[1], signatures=serve)
"""
EXPORT_OURS = """
import sys
from pathlib import Path
import lxmert_tf
from lxmert_tf.serving.export import export

work, words = Path(sys.argv[1]), ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "what", "is", "?"]
for name, kind, answers in (("bare", "TFLxmertModel", 1), ("vqa", "TFLxmertForQuestionAnswering", 3129)):
    model = getattr(lxmert_tf, kind)(lxmert_tf.LxmertConfig(num_qa_labels=answers))
    model.save_pretrained(work / name)
    (work / name / "vocab.txt").write_text("\\n".join(words))
    export(work / name, work / "models", name, text=name == "vqa")
    print(model.count_params())
"""


# The comparison


def prepare(work: Path) -> None:
    """Exports both sides at base size with random weights, unless `work` has them."""
    if not (work / "upstream" / "saved_model.pb").exists():
        _run([peer("transformers4"), "-c", EXPORT_UPSTREAM, str(work / "upstream")])
    if not (work / "parameters.json").exists():
        printed = _run([sys.executable, "-c", EXPORT_OURS, str(work)], PYTHONPATH=str(ROOT))
        (work / "parameters.json").write_text(
            json.dumps(dict(zip(("bare", "vqa"), map(int, printed.split()), strict=True)))
        )


def compare(work: Path, rounds: int) -> None:
    """Measures and writes the section of the README."""
    prepare(work)
    ours, vqa, upstream = (str(work / path) for path in ("models/bare/1", "models/vqa/1", "upstream"))
    cases, cold = {}, {}
    for batch in BATCHES:
        inputs = write_inputs(work, batch)
        cases[f"ours {batch}"] = [[ours, "serving_default", inputs["all"]]]
        cases[f"upstream {batch}"] = [[upstream, "serving_default", inputs["all but the visual mask"]]]
    one = write_inputs(work, 1)
    for key, lengths in (("five", [TOKENS] * 5), ("five of VQA", VQA_LENGTHS)):
        five = write_inputs(work, 5, lengths)
        cases[f"ours {key}"] = [[vqa, "encode_image", one["visual"]], [vqa, "answer_encoded", five["text"]]]
        cases[f"upstream {key}"] = [[upstream, "serving_default", five["all but the visual mask"]]]
    for side, folder in (("ours", ours), ("upstream", upstream)):
        cold[side] = lambda side=side, folder=folder: _cold(folder, cases[f"{side} 1"])
    colds = in_turn(cold, 3)
    steady = _measure(cases, rounds)["steady"]
    parameters = json.loads((work / "parameters.json").read_text())
    sizes = {name: _size(work / "models" / name / "1") / (4 * count) for name, count in parameters.items()}
    save("serving", {"steady": steady, "cold": colds, "disk": sizes}, _text(steady, colds, sizes))


def _text(steady: dict, colds: dict, sizes: dict) -> str:
    names = {**{str(b): f"batch of {b}" for b in BATCHES}, **FIVE}
    rows = [
        [
            title,
            f"{1000 * median(steady[f'ours {key}']):.0f} ms",
            f"{1000 * median(steady[f'upstream {key}']):.0f} ms",
            f"{ratio(steady[f'upstream {key}'], steady[f'ours {key}']):.2f}",
        ]
        for key, title in names.items()
    ]
    for what in ("load", "first"):
        ours, theirs = ([run[what] for run in colds[side]] for side in ("ours", "upstream"))
        title = {"load": "cold load", "first": "first request after it, batch of 1"}[what]
        rows.append([title, f"{median(ours):.1f} s", f"{median(theirs):.1f} s", f"{ratio(theirs, ours):.2f}"])
    disk = ", ".join(f"{size:.3f} of its weights ({name})" for name, size in sizes.items())
    packages = versions(["tensorflow", "keras"]), versions(["transformers"], peer("transformers4"))
    return "\n\n".join(
        [
            f"Base size, float32, {TOKENS} tokens unless said, {BOXES} boxes. Both SavedModels run in one process "
            "through TensorFlow's C API, in turn. Upstream has no answer head, and its model takes no visual mask. "
            "Five questions on one image are a call of encode_image and one of answer_encoded here, a batch there.",
            table(["", "lxmert_tf", "transformers", "times faster"], rows),
            f"A version folder, all in it, takes on disk: {disk}.",
            circumstances(*packages),
        ]
    )


def write_inputs(work: Path, batch: int, lengths: Sequence[int] = ()) -> dict[str, str]:
    """Files of inputs of a batch, with the names of those they hold; texts are padded if they have `lengths`."""
    rng = np.random.default_rng(batch)
    mask = np.arange(TOKENS) < np.array(lengths or [TOKENS] * batch)[:, None]
    text = {
        "input_ids": np.where(mask, rng.integers(1000, 30000, (batch, TOKENS)), 0).astype("int32"),
        "attention_mask": mask.astype("int32"),
        "token_type_ids": np.zeros((batch, TOKENS), "int32"),
    }
    boxes = {
        "visual_feats": rng.random((batch, BOXES, FEAT_DIM), "float32"),
        "visual_pos": rng.random((batch, BOXES, 4), "float32"),
    }
    mask = {"visual_attention_mask": np.ones((batch, BOXES), "int32")}
    groups = {
        "all": {**text, **boxes, **mask},
        "all but the visual mask": {**text, **boxes},
        "visual": {**boxes, **mask},
        "text": text,
    }
    paths = {}
    for name, arrays in groups.items():
        paths[name] = str(work / f"{name.replace(' ', '-')}-{batch}-{'-'.join(map(str, lengths))}.npz")
        np.savez(paths[name], **arrays)
    return paths


def _cold(folder: str, steps: list) -> dict[str, float]:
    measured = _measure({"case": steps}, 0)
    return {"load": measured["load"][folder], "first": measured["first"]["case"]}


def _measure(cases: dict, rounds: int) -> dict:
    return json.loads(
        _run(
            [sys.executable, str(RUNNER), json.dumps({"rounds": rounds, "cases": cases})],
            PYTHONPATH=str(ROOT / "tests"),
        )
    )


def _run(command: list[str], **environment: str) -> str:
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2", **environment}
    done = subprocess.run(command, capture_output=True, text=True, env=quiet)
    if done.returncode:
        raise SystemExit(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# Load on a running server


def load(args: argparse.Namespace) -> None:
    """Asks a running server from several threads, and prints requests a second and latencies."""
    from lxmert_tf.serving.client import ServingError, connect

    seconds, errors, lock = [], [], threading.Lock()
    stop = time.monotonic() + args.seconds

    def ask(seed: int) -> None:
        client, rng = connect(args.server, args.name, args.protocol), np.random.default_rng(seed)
        features = rng.random((args.batch, args.boxes, args.feat_dim), "float32")
        boxes = rng.random((args.batch, args.boxes, 4), "float32")
        ids = rng.integers(0, args.vocab_size, (args.batch, args.tokens))
        while time.monotonic() < stop:
            start = time.perf_counter()
            try:
                if args.text:
                    client.answer(["what is in the picture?"] * args.batch, features, boxes)
                else:
                    client.answer_ids({"input_ids": ids}, features, boxes)
            except ServingError as error:
                with lock:
                    errors.append(str(error))
                continue
            with lock:
                seconds.append(time.perf_counter() - start)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(args.clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(seconds) > 1:
        cuts = quantiles(seconds, n=100)
        print(
            f"{len(seconds)} requests of {args.batch}, {len(seconds) / args.seconds:.1f} a second; latency in ms: "
            f"median {1000 * cuts[49]:.1f}, 95% {1000 * cuts[94]:.1f}, 99% {1000 * cuts[98]:.1f}"
        )
    for error in sorted(set(errors)):
        print(f"{errors.count(error)} times: {error}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of the comparison (default: %(default)s)")
    parser.add_argument("--work", type=Path, help="folder to keep the exports of the comparison in, and take them from")
    parser.add_argument("--prepare", action="store_true", help="only export into --work")
    running = parser.add_argument_group("a running server")
    running.add_argument("--server", metavar="HOST:PORT")
    running.add_argument("--name", default="vqa")
    running.add_argument("--protocol", choices=["auto", "rest", "grpc"], default="auto")
    running.add_argument("--clients", type=int, default=8)
    running.add_argument("--seconds", type=float, default=10.0)
    running.add_argument("--batch", type=int, default=1)
    running.add_argument("--tokens", type=int, default=TOKENS)
    running.add_argument("--boxes", type=int, default=BOXES)
    running.add_argument("--feat-dim", type=int, default=FEAT_DIM)
    running.add_argument("--vocab-size", type=int, default=30522)
    running.add_argument("--text", action="store_true", help="send strings, to a model exported with --text")
    args = parser.parse_args()
    if args.server:
        load(args)
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        if args.prepare:
            prepare(work)
        else:
            compare(work, args.rounds)


if __name__ == "__main__":
    main()
