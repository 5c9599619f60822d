"""`lxmert-convert SUBCOMMAND`: each subcommand lives in the module of its name, as `lxmert_tf.command_line` asks.

Exit codes: 0 done; 1 a negative result: tensors are missing, unknown, misshapen or differ; 2 bad usage or a file that
cannot be read or written; 130 interrupted. Frameworks are imported only where a format needs them.
"""

from collections.abc import Sequence

from conversion.cli import answers, convert, diff, inspect, verify
from lxmert_tf import command_line

MODULES = (convert, inspect, verify, diff, answers)

DESCRIPTION = "Converts LXMERT checkpoints between PyTorch, TensorFlow and Keras, and shows what is in them."
EPILOG = """\
examples:
  lxmert-convert convert unc-nlp/lxmert-base-uncased keras-lxmert --to keras
  lxmert-convert inspect model_LXRT.pth
  lxmert-convert verify unc-nlp/lxmert-base-uncased keras-lxmert

exit codes: 0 done, 1 incomplete or different, 2 bad usage or an unreadable file
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand; arguments and exit codes are those of `command_line.run`."""
    return command_line.run(make_parser(), arguments)


def make_parser() -> command_line.Parser:
    """The parser of the whole command line."""
    return command_line.make_parser("lxmert-convert", DESCRIPTION, MODULES, EPILOG)
