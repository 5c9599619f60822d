"""The base of the command lines: subcommands as modules, exit codes, and errors in one sentence.

A subcommand module has `NAME`, `HELP`, `EPILOG`, `add_arguments(parser)` and `run(args) -> int`, and imports frameworks
only inside `run`, so that `--help` answers at once.
"""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any, NoReturn

from lxmert_tf import __version__

# Errors that users can cause; anything else is a bug, whose traceback is shown.
ERRORS = (OSError, ValueError, TypeError, RuntimeError, ImportError, MemoryError)
DETAILS = 3  # lines of a long report that are shown

_running = ContextVar("command_line", default=False)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with exit code 2."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see `{self.prog} --help`.\n")


def make_parser(program: str, description: str, modules: Iterable[ModuleType], epilog: str = "") -> Parser:
    """The parser of a whole command line.

    Args:
        program: its name.
        description, epilog: before and after the list of subcommands in its help.
        modules: of the subcommands.
    """
    parser = Parser(
        prog=program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{program} {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    subparsers = parser.add_subparsers(dest="subcommand", metavar="SUBCOMMAND", required=True)
    for module in modules:
        add_subcommand(subparsers, module)
    return parser


def add_subcommand(subparsers: Any, module: ModuleType) -> None:
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


def option(argument: str, spelling: str | None = None) -> str:
    """How a message names an option: `argument` to a caller of the library, `spelling` to a user of a command line.

    Args:
        argument: as a caller writes it, such as "overwrite=True" or "shard_size".
        spelling: by default that of the argument: "--overwrite", "--shard-size".
    """
    if not _running.get():
        return argument
    return f"--{argument.partition('=')[0].replace('_', '-')}" if spelling is None else spelling


def run(parser: Parser, arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
        parser: of `make_parser`.
        arguments: the command line without the program's name. Default: the process's own.

    Returns:
        The exit code: the subcommand's own; after a user's error, printed to stderr in one sentence, its `exit_code` if
        it has one, else 2; 130 when interrupted, 141 when the reader has closed the output.
    """
    _open_standard_streams()
    args = parser.parse_args(arguments)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow raises its errors; its notes are noise
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # so is the Hub's advice
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    token = _running.set(True)
    try:
        code = args.run(args)
        sys.stdout.flush()  # a closed pipe is noticed here, not at exit
        return code
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ERRORS as error:
        if args.traceback:
            raise
        print(f"{parser.prog} {args.subcommand}: error: {sentence(error)}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    finally:
        _running.reset(token)


def _open_standard_streams() -> None:
    """Opens standard streams that the caller has closed: a file would get their numbers, and what is printed."""
    if sys.stdout is None or sys.stderr is None:
        while (number := os.open(os.devnull, os.O_RDWR)) < 3:
            pass
        os.close(number)
        devnull = open(os.devnull, "w")  # noqa: SIM115 (open until the end)
        sys.stdout, sys.stderr = sys.stdout or devnull, sys.stderr or devnull


@contextmanager
def quiet_start() -> Iterator[None]:
    """Drops what is written to stderr below Python: TensorFlow's notes at start-up, which no setting turns off."""
    if "tensorflow" in sys.modules:
        yield
        return
    sys.stderr.flush()
    stderr, devnull = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(devnull)


@contextmanager
def print_notes() -> Iterator[None]:
    """Prints notes of the library, log records with the attribute `note`, to stderr, each once."""
    logger = logging.getLogger("lxmert_tf")
    level, threshold, seen = logger.level, logger.getEffectiveLevel(), set()

    def show(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if getattr(record, "note", False) and message not in seen:
            seen.add(message)
            print(f"note: {message}", file=sys.stderr)
        return record.levelno >= threshold  # others are logged as before

    logger.addFilter(show)
    logger.setLevel(min(threshold, logging.INFO))
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeFilter(show)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Lets SIGTERM raise SystemExit, so that unfinished files are removed; exit code 143."""
    if threading.current_thread() is not threading.main_thread():  # only it may set handlers
        yield
        return
    ended = []

    def end(number: int, frame: Any) -> NoReturn:
        ended.append(number)
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except Exception:
        if ended:  # libraries in C++ make errors of their own of the exit
            sys.exit(128 + ended[0])
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def sentence(error: BaseException) -> str:
    """The message of an error on one line, with the first of its details."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    head, *details = str(error).splitlines() or [type(error).__name__]
    more = [f"and {len(details) - DETAILS} more"] if len(details) > DETAILS else []
    return " ".join(" ".join([head, "; ".join([*details[:DETAILS], *more])]).split()) or type(error).__name__
