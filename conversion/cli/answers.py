"""`lxmert-convert answers`: a checkpoint for question answering whose head starts from the pretrained answers."""

import argparse

from conversion.cli.common import add_destination, add_json, add_source, destination_options, show

NAME = "answers"
HELP = "initialise a fine-tuning answer head from a pretrained one, by matching answers"
EPILOG = """\
Answers are compared as the pretraining list spells them: lower case, without article or full stop, numbers as digits.
Rows of answers that are not found are zero.

examples:
  lxmert-convert answers lxmert-base vqa --pretrained all_ans.json --answers vqa/trainval_label2ans.json
  lxmert-convert answers model_LXRT.pth gqa.keras --pretrained all_ans.json --answers gqa/trainval_label2ans.json --json

exit codes: 0 done, 1 tensors are missing or were reread with other values, 2 bad usage or an unreadable file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_source(parser)
    add("--pretrained", required=True, metavar="FILE", help="SRC's answers, in the order of its head: all_ans.json")
    add("--answers", required=True, metavar="FILE", help="answers of the new head, in its order: label2ans.json")
    add_destination(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from conversion.answers import convert_answers

    result = convert_answers(args.source, args.destination, args.pretrained, args.answers, **destination_options(args))
    show(result, args.json)
    return 0
