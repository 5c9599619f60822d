"""Answering a stream of questions as VQA's are: 8 pieces on average, 5 questions for each image of 36 boxes.

Ours encodes each image once (`encode_image`, `answer_encoded`) and sorts questions by length; transformers has neither,
and its users pad to 20 tokens, as the original code does.
"""

import argparse
from statistics import median

from benchmarks.common import circumstances, peer, save, table, versions
from benchmarks.contenders import add_only, contest

OURS = "lxmert-tf, graph"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=160, help="how many (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="times each is asked (default: %(default)s)")
    add_only(parser)
    arguments = parser.parse_args()
    names = [name for name in arguments.only if name != "lxmert-tf, XLA"]  # which compiles for every length
    results = contest(names, arguments.rounds, True, "vqa", arguments.questions)
    rates = {name: arguments.questions / median(one["seconds"]) for name, one in results.items()}
    text = table(
        ["", "questions/s", "ours is faster by", "peak memory"],
        [
            [name, f"{rate:.1f}", f"{rates[OURS] / rate:.2f}x", f"{results[name]['peak_mb'] / 1000:.1f} GB"]
            for name, rate in rates.items()
        ],
    )
    about = circumstances(
        versions(["tensorflow", "keras", "numpy"]),
        versions(["transformers", "tensorflow"], peer("transformers4")),
        versions(["transformers", "torch"], peer("transformers5")),
    )
    save("vqa_inference", {"questions": arguments.questions, **results}, f"{text}\n\n{about}")


if __name__ == "__main__":
    main()
