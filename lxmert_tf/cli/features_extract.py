"""`lxmert-tf features extract`: the region features of pictures."""

import argparse
import sys
from typing import Any

from lxmert_tf.cli.detector_options import add_detector_arguments, detector_settings
from lxmert_tf.command_line import exit_on_sigterm, quiet_start

DESCRIPTION = "Extract the region features of pictures into OUT, each called as its file without the suffix."
EPILOG = """\
examples:
  lxmert-tf features extract val2014/ coco.h5 --detector frcnn
  lxmert-tf features extract 'val2014/*.jpg' more.txt coco.h5 --detector frcnn --min-boxes 10 --max-boxes 100
  lxmert-tf features extract pets/ pets.h5 --detector frcnn --boxes-from boxes.json   {"cat": [[x1, y1, x2, y2], ...]}
  lxmert-tf features extract val2014/ val-0.tsv --detector frcnn --shard 0/2          on one machine, 1/2 on another,
  lxmert-tf features build val-0.tsv val-1.tsv val2014.h5                             and then these put together

The same command resumes what was interrupted.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "images",
        metavar="IMAGES",
        nargs="+",
        help="picture, pattern, directory of pictures, or list: a .txt file with a path on each line, "
        "relative to the working directory",
    )
    parser.add_argument("output", metavar="OUT", help="file to write: .h5, or .tsv as the original's")
    add_options(parser)
    parser.add_argument(
        "--boxes-from",
        metavar="FILE",
        help="describe these boxes, in pixels: region features (.h5, .npz, .tsv) or .json",
    )
    parser.add_argument(
        "--shard",
        type=shard,
        metavar="I/N",
        help="every N-th image from the I-th on, I from 0 to N-1; as .tsv `features build` puts shards together",
    )
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out pictures that cannot be read or have no boxes, and list them"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds what an `Extractor` takes."""
    add_detector_arguments(parser)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32", help="default: %(default)s")


def options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `Extractor`, but for the detector.

    Raises:
        ValueError: as `detector_settings`.
    """
    return {**detector_settings(args), "precision": args.precision}


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
