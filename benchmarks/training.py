"""A training step at the published size: forward, backward, clipping and AdamW, with dropout.

Question answering with 3129 answers, and pretraining with all its losses. transformers' TensorFlow class trains with a
head and a loop of its user's, since its own `fit` fails; it cannot pretrain, since it fails on masked labels.
"""

import argparse

from benchmarks.common import circumstances, peer, save, table, versions
from benchmarks.contenders import add_only, contest, rows

OURS = ("lxmert-tf, graph", "lxmert-tf, XLA")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32], help="sizes (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="times each is asked (default: %(default)s)")
    add_only(parser)
    arguments = parser.parse_args()
    results, parts = {}, []
    for work, batches in {"training": arguments.batches, "pretraining": arguments.batches[:1]}.items():
        names = [name for name in arguments.only if work == "training" or "transformers TF" not in name]
        for batch in batches:
            found = results[f"{work} {batch}"] = contest(names, arguments.rounds, False, work, batch)
            header = [f"{work}, batch {batch}", "median", "minimum", "peak memory", "times our best median"]
            parts.append(table(header, rows(found, OURS)))
    parts.append(
        circumstances(
            versions(["tensorflow", "keras", "numpy"]),
            versions(["transformers", "tensorflow"], peer("transformers4")),
            versions(["transformers", "torch"], peer("transformers5")),
        )
    )
    save("training", results, "\n\n".join(parts))


if __name__ == "__main__":
    main()
