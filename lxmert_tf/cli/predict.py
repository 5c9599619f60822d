"""`lxmert-tf predict`: submissions in each benchmark's format."""

import argparse
from pathlib import Path

from conversion.report import counted
from lxmert_tf.cli.evaluate import add_model_arguments, make_evaluator
from lxmert_tf.command_line import exit_on_sigterm
from lxmert_tf.files import check_apart

NAME = "predict"
HELP = "answer questions and write a submission in the format of VQA, GQA or NLVR2"
EPILOG = """\
VQA: json [{question_id, answer}]; GQA: json [{questionId, prediction}]; NLVR2: csv lines identifier,True|False.

examples:
  lxmert-tf predict vqa --model RUN/best --data OUT/test.json --features OUT/features.h5 --output predictions.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=("vqa", "gqa", "nlvr2"), help="what the model was trained for")
    add_model_arguments(parser)
    parser.add_argument("--output", required=True, metavar="FILE", help="file to write, json or (NLVR2) csv")


def run(args: argparse.Namespace) -> int:
    model = [args.model, *(Path(args.model).iterdir() if Path(args.model).is_dir() else [])]
    check_apart(args.output, [*args.data, args.features, args.answers, args.vocab, *model])
    with exit_on_sigterm():
        number = make_evaluator(args).write_predictions(args.data, args.output, args.limit)
    print(f"{counted(number, 'prediction')} in {args.output}")
    return 0
