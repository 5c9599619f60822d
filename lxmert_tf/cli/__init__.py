"""`lxmert-tf SUBCOMMAND`: each subcommand lives in the module of its name.

A subcommand module has `NAME`, `HELP`, `EPILOG`, `add_arguments(parser)` and `run(args) -> int`, and imports frameworks
only inside `run`, so that `--help` answers at once.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from lxmert_tf import __version__

SUBCOMMANDS = ["demo", "demo_data"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
        arguments: the command line without the program's name. Default: the process's own.

    Returns:
        The exit code: the subcommand's own; 2 after a user's error, which is told in one sentence on stderr; 130 when
        interrupted.
    """
    args = make_parser().parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes are no output of ours
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError, ImportError) as error:
        if args.traceback:
            raise
        print(f"lxmert-tf {args.subcommand}: error: {sentence(error)}", file=sys.stderr)
        return 2


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(prog="lxmert-tf", description="LXMERT, the vision-and-language Transformer, in Keras 3.")
    parser.add_argument("--version", action="version", version=f"lxmert-tf {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    for name in SUBCOMMANDS:
        add_subcommand(subparsers, importlib.import_module(f"lxmert_tf.cli.{name}"))
    return parser


def add_subcommand(subparsers, module) -> None:
    """Adds the subcommand that `module` describes."""
    subparser = subparsers.add_parser(
        module.NAME,
        help=module.HELP,
        description=module.HELP,
        epilog=module.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    module.add_arguments(subparser)
    subparser.set_defaults(run=module.run)


def sentence(error: BaseException) -> str:
    """What went wrong, on one line."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return " ".join(str(error).split()) or type(error).__name__


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}; see `{self.prog} --help`.\n")
