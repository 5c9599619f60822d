"""`lxmert-tf SUBCOMMAND`: each subcommand lives in the module of its name, as `lxmert_tf.command_line` asks."""

import importlib
from collections.abc import Sequence

from lxmert_tf import command_line

SUBCOMMANDS = [
    "demo",
    "demo_data",
    "features",
    "annotations",
    "train",
    "evaluate",
    "predict",
    "answer",
    "explain",
    "export",
    "ask",
    "web",
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand; arguments and exit codes are those of `command_line.run`."""
    with command_line.print_notes():
        return command_line.run(make_parser(), arguments)


def make_parser() -> command_line.Parser:
    """The parser of the whole command line."""
    modules = [importlib.import_module(f"lxmert_tf.cli.{name}") for name in SUBCOMMANDS]
    return command_line.make_parser("lxmert-tf", "LXMERT, the vision-and-language Transformer, in Keras 3.", modules)
