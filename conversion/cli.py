"""`lxmert-convert`: LXMERT checkpoints from any format to any other, and what is in them.

Exit codes: 0 done; 1 the answer is no: tensors are missing, unknown, misshapen or differ; 2 bad usage or a file that
cannot be read or written; 130 interrupted. Frameworks are imported only where a format needs them.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from lxmert_tf import __version__

# Those of conversion.convert, which is too slow to import for --help.
FORMATS = ("hf-pt", "hf-pt-bin", "hf-tf", "keras", "keras-weights", "original")
TASKS = ("model", "pretraining", "qa", "visual-reasoning")
DTYPES = ("float64", "float32", "float16", "bfloat16")

EPILOG = """\
examples:
  lxmert-convert convert unc-nlp/lxmert-base-uncased keras-lxmert --to keras
  lxmert-convert convert old/tf_model.h5 lxmert.weights.h5 --to keras-weights
  lxmert-convert convert model_LXRT.pth lxmert-base --config config.json
  lxmert-convert convert lxmert-base half --dtype float16 --shard-size 200MB
  lxmert-convert inspect model_LXRT.pth --json

exit codes: 0 done, 1 the answer is no (incomplete, differs), 2 bad usage or an unreadable file
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
        argv: the command line without the program's name. Default: the process's own.

    Returns:
        The exit code; every error but a bug is told in one sentence on stderr.
    """
    args = make_parser().parse_args(argv)
    try:
        return args.run(args)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (OSError, ValueError, TypeError, RuntimeError, ImportError, MemoryError) as error:
        if args.traceback:
            raise
        print(f"lxmert-convert {args.subcommand}: error: {_sentence(error)}", file=sys.stderr)
        return _exit_code(error)


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    parser = _Parser(
        prog="lxmert-convert",
        description="Converts LXMERT checkpoints between PyTorch, TensorFlow and Keras, and tells what is in them.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"lxmert-convert {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    _add_convert(subparsers)
    _add_inspect(subparsers)
    return parser


def _add_convert(subparsers) -> None:
    parser = _add(subparsers, "convert", "write a checkpoint in another format, dtype or task", _run_convert)
    add = parser.add_argument
    add("source", metavar="SRC", help="a file, a directory or a Hub id; its format is told by its content")
    add("destination", metavar="DST", help="a directory; for keras-weights and original a file")
    add("--to", choices=FORMATS, default="hf-pt", help="format to write (default: %(default)s)")
    add("--task", choices=TASKS, help="model to write (default: the source's own)")
    add("--dtype", choices=DTYPES, help="dtype of all tensors (default: each keeps its own)")
    add("--config", metavar="FILE", help="config.json in place of the source's")
    add("--shard-size", metavar="SIZE", help="split PyTorch weights larger than this, such as 2GB")
    add(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="reread and compare every tensor bit for bit (default: yes)",
    )
    add("--overwrite", action="store_true", help="replace the checkpoint that is at DST")
    add("--allow-missing", action="store_true", help="initialise tensors that SRC lacks")
    add("--json", action="store_true", help="print the report as one JSON object")


def _add_inspect(subparsers) -> None:
    parser = _add(subparsers, "inspect", "tell format, class, sizes and tensors of a checkpoint", _run_inspect)
    parser.add_argument("source", metavar="SRC", help="a file, a directory or a Hub id")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def _add(subparsers, name: str, help: str, run) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        name, help=help, description=help, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(run=run)
    return parser


def _run_convert(args: argparse.Namespace) -> int:
    from conversion.convert import convert

    report = convert(
        args.source,
        args.destination,
        to=args.to,
        task=args.task,
        dtype=args.dtype,
        config=args.config,
        shard_size=args.shard_size,
        verify=args.verify,
        overwrite=args.overwrite,
        allow_missing=args.allow_missing,
    )
    _print(report, args.json)
    return 0


def _run_inspect(args: argparse.Namespace) -> int:
    from conversion.inspect import inspect

    inspection = inspect(args.source)
    _print(inspection, args.json)
    return 0 if inspection.complete else 1


def _print(result, as_json: bool) -> None:
    print(json.dumps(result.to_dict(), indent=2) if as_json else "\n".join(result.lines()))
    sys.stdout.flush()  # a closed pipe is noticed here, not at exit


def _exit_code(error: Exception) -> int:
    """1 where the files could be read and the answer is no, else 2."""
    from conversion.convert import Differs
    from conversion.plan import Incomplete

    return 1 if isinstance(error, (Differs, Incomplete)) else 2


def _sentence(error: Exception) -> str:
    """What went wrong on one line, with the first three details if there are many."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    head, *details = str(error).splitlines() or [type(error).__name__]
    more = [f"and {len(details) - 3} more"] if len(details) > 3 else []
    return " ".join([head, "; ".join(" ".join(line.split()) for line in [*details[:3], *more])]).strip()


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        self.exit(2, f"{self.prog}: error: {message}; see `{self.prog} --help`.\n")
