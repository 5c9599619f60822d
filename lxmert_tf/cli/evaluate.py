"""`lxmert-tf evaluate`: the metrics of a trained model."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from lxmert_tf.tasks import TASKS
from lxmert_tf.training.options import PRECISIONS

if TYPE_CHECKING:
    from lxmert_tf.training.evaluation import Evaluator

NAME = "evaluate"
HELP = "measure a trained model: VQA and GQA accuracy, NLVR2 accuracy and consistency, pretraining losses"
EPILOG = """\
examples:
  lxmert-tf evaluate vqa --model RUN/best --data OUT/valid.json --features OUT/features.h5
  lxmert-tf evaluate nlvr2 --model nlvr2_BEST.pth --vocab vocab.txt --data dev.json --features dev.h5 --json
"""


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """What evaluate and predict share."""
    parser.add_argument("--model", required=True, help="model directory, such as RUN/best, checkpoint or Hub id")
    parser.add_argument("--data", nargs="+", required=True, metavar="FILE", help="annotations (json)")
    parser.add_argument("--features", required=True, metavar="FILE", help="region features")
    parser.add_argument("--answers", metavar="FILE", help="answer table (default: the model's labels)")
    parser.add_argument("--vocab", metavar="FILE", help="vocab.txt or directory (default: the model's)")
    parser.add_argument("--batch-size", type=int, default=256, help="(default: %(default)s)")
    parser.add_argument("--max-length", type=int, help="longest text in tokens (default: as in training)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images, in the order of the features")
    add_missing(parser)
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="(default: %(default)s)")


def add_missing(parser: Any) -> None:
    """What train shares with them; `parser` may be a group of arguments."""
    parser.add_argument(
        "--missing",
        choices=("error", "skip"),
        default="error",
        help="what to do about images without region features (default: %(default)s; skip: leave out their examples)",
    )


def make_evaluator(args: argparse.Namespace) -> "Evaluator":
    """The `Evaluator` that the arguments of `add_model_arguments` describe."""
    from lxmert_tf.training.evaluation import Evaluator

    return Evaluator(
        args.task,
        args.model,
        args.features,
        vocab=args.vocab,
        answers=args.answers,
        batch_size=args.batch_size,
        max_length=args.max_length,
        precision=args.precision,
        missing=args.missing,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=TASKS, help="what the model was trained for")
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    evaluator = make_evaluator(args)
    result = evaluator.evaluate(args.data, args.limit, verbose=0 if args.json else "auto")
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in sorted(result.items()):
            print(f"{name:<20}{value:>10.4f}" if isinstance(value, float) else f"{name:<20}{value:>10}")
    return 0
