"""`lxmert-convert inspect`: what a checkpoint is, and what it holds."""

import argparse

from conversion.cli.common import add_json, add_source, show

NAME = "inspect"
HELP = "show format, class, sizes and tensors of a checkpoint"
EPILOG = """\
examples:
  lxmert-convert inspect model_LXRT.pth
  lxmert-convert inspect lxmert-base --json

exit codes: 0 a whole model, 1 tensors are missing, unknown or misshapen, 2 bad usage or an unreadable file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument("--config", metavar="FILE", help="config.json in place of the source's")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from conversion.inspect import inspect

    inspection = inspect(args.source, args.config, args.prefix, args.adapter)
    show(inspection, args.json)
    return 0 if inspection.complete else 1
