"""`lxmert-tf features extract`: the region features of pictures."""

import argparse
import json
import logging
import sys
from typing import Any

from lxmert_tf.command_line import exit_on_sigterm, quiet_start
from lxmert_tf.detector.pipelines import DEFAULT, PIPELINES, SETTINGS

DESCRIPTION = "Extract the region features of pictures into OUT, each called as its file without the suffix."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="picture, pattern, directory of pictures, or list: a .txt file with a path on each line",
    )
    parser.add_argument("output", metavar="OUT", help="file to write: .h5, or .tsv as the original's")
    add_options(parser)
    parser.add_argument("--boxes-from", metavar="FILE", help="describe these boxes: .h5, .tsv or .json, in pixels")
    parser.add_argument("--shard", type=shard, metavar="I/N", help="every N-th image from the I-th on, I from 0 to N-1")
    parser.add_argument("--skip-bad", action="store_true", help="leave out pictures that cannot be read, and list them")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what an `Extractor` takes."""
    parser.add_argument("--detector", required=True, metavar="DIR", help="checkpoint of any format, or Hub id")
    parser.add_argument("--pipeline", choices=PIPELINES, default=DEFAULT, help="default: %(default)s")
    parser.add_argument("--boxes", type=int, metavar="N", help="boxes of each picture (default: 36)")
    parser.add_argument("--min-boxes", type=int, metavar="N", help="boxes of a picture at least")
    parser.add_argument("--max-boxes", type=int, metavar="N", help="boxes of a picture at most")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="default: %(default)s")
    parser.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"number of the pipeline: {', '.join(SETTINGS)}",
    )


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `Extractor`, but for the detector.

    Raises:
        ValueError: --boxes contradicts --min-boxes or --max-boxes.
    """
    low, high = args.min_boxes, args.max_boxes
    if args.boxes is not None:
        if low is not None or high is not None:
            raise ValueError("--boxes N stands for --min-boxes N --max-boxes N; give it, or these.")
        low = high = args.boxes
    chosen = {"pipeline": args.pipeline, "min_boxes": low, "max_boxes": high, "precision": args.precision}
    return chosen | dict(args.set)


def setting(text: str) -> tuple[str, Any]:
    """A name and a number, or several with commas between them, of "NAME=VALUE"."""
    name, _, value = text.partition("=")
    try:
        numbers = json.loads(f"[{value}]")
    except ValueError:
        numbers = []
    if name not in SETTINGS or not numbers:
        raise argparse.ArgumentTypeError(f"must be NAME=NUMBER with a name of {', '.join(SETTINGS)}, got {text!r}")
    return name, numbers[0] if len(numbers) == 1 else numbers


def shard(text: str) -> tuple[int, int]:
    """Index and number of "I/N"."""
    index, _, number = text.partition("/")
    if not (index.isdecimal() and number.isdecimal() and int(index) < int(number)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 0 to N-1, got {text!r}")
    return int(index), int(number)


def run(args: argparse.Namespace) -> int:
    from lxmert_tf.cli.features import print_report

    chosen = options(args)
    if args.boxes_from and (chosen["min_boxes"], chosen["max_boxes"]) != (None, None):
        raise ValueError("--boxes-from says which boxes there are; leave out --boxes, --min-boxes and --max-boxes.")
    with quiet_start():
        from lxmert_tf.data.features.extract import extract_features
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of the first few sizes of pictures
    with exit_on_sigterm():
        report = extract_features(
            args.images,
            args.output,
            args.detector,
            boxes_from=args.boxes_from,
            shard=args.shard,
            skip_bad=args.skip_bad,
            overwrite=args.overwrite,
            progress=sys.stderr.isatty(),
            **chosen,
        )
    print_report(report, args.output, args.skip_bad)
    return 0
