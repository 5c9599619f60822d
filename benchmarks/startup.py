"""A fresh process from its imports to the first answer of a base-size checkpoint on disk, and its memory.

Both are in environments of their own: Keras imports pandas, matplotlib and scikit-learn where they are installed.
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.common import circumstances, in_turn, measure, peer, ratio, save, table, versions
from benchmarks.contenders import QUIET

INPUTS = """
import numpy as np, sys
given = {
    "input_ids": np.ones((1, 20), "int64"),
    "visual_feats": np.ones((1, 36, 2048), "float32"),
    "visual_pos": np.ones((1, 36, 4), "float32"),
}
"""
OURS = f"""{INPUTS}
from lxmert_tf import TFLxmertModel
print(TFLxmertModel.from_pretrained(sys.argv[1])(given).pooled_output.numpy().sum())
"""
THEIRS = f"""{INPUTS}
from transformers import TFLxmertModel
model = TFLxmertModel.from_pretrained(sys.argv[1])
print(model(given).pooled_output.numpy().sum())
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    from lxmert_tf import LxmertConfig, TFLxmertModel

    with tempfile.TemporaryDirectory() as folder:
        model = TFLxmertModel(LxmertConfig())
        model.save_pretrained(Path(folder) / "pt", format="hf-pt")
        model.save_pretrained(Path(folder) / "tf", format="hf-tf")
        weights_mb = sum(np.prod(weight.shape) for weight in model.weights) * 4 / 1e6
        del model
        ours, theirs = peer("alone"), peer("transformers4")
        runs = {
            "lxmert-tf": lambda: measure([ours, "-c", OURS, f"{folder}/pt"], TF_CPP_MIN_LOG_LEVEL="3"),
            "transformers TF": lambda: measure([theirs, "-c", THEIRS, f"{folder}/tf"], **QUIET),
        }
        for run in runs.values():
            run()
        results = in_turn(runs, arguments.rounds)
    answers = [float(run.output) for runs in results.values() for run in runs]
    if max(answers) - min(answers) > 1e-3:
        raise SystemExit(f"The answers differ: {answers}.")
    text = table(
        ["", "seconds", "peak anonymous memory", "of the weights"],
        [
            [
                name,
                f"{median(run.seconds for run in runs):.1f}",
                f"{max(run.anonymous for run in runs):.0f} MB",
                f"{max(run.anonymous for run in runs) / weights_mb:.2f}",
            ]
            for name, runs in results.items()
        ],
    )
    seconds = {name: [run.seconds for run in runs] for name, runs in results.items()}
    faster = ratio(seconds["transformers TF"], seconds["lxmert-tf"])
    about = circumstances(
        versions(["tensorflow", "keras", "numpy"], ours), versions(["transformers", "tensorflow", "tf-keras"], theirs)
    )
    anonymous = {name: [run.anonymous for run in runs] for name, runs in results.items()}
    save(
        "startup",
        {"seconds": seconds, "anonymous_mb": anonymous, "weights_mb": weights_mb},
        f"{text}\n\nOurs is faster by {faster:.2f}x (median of the ratios). {about}",
    )


if __name__ == "__main__":
    main()
