"""The options of subcommands that find the regions of pictures: which detector, and the numbers of its pipeline."""

import argparse
from typing import Any

from lxmert_tf.detector.pipelines import DEFAULT, PIPELINES, SETTINGS

INTEGERS = ("min_size", "max_size", "pre_nms", "post_nms")
NO_CHANGES = {"pipeline": DEFAULT, "min_boxes": None, "max_boxes": None}  # what no options are


def add_detector_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Adds `--detector` and what `detector_settings` reads."""
    parser.add_argument(
        "--detector", required=required, metavar="DIR", help="checkpoint of the detector: directory, file or Hub id"
    )
    parser.add_argument(
        "--pipeline",
        choices=PIPELINES,
        default=DEFAULT,
        help="whose steps from picture to boxes; LXMERT was trained on the default (%(default)s)",
    )
    parser.add_argument("--boxes", type=int, metavar="N", help="boxes of each picture: both of the next two")
    parser.add_argument("--min-boxes", type=int, metavar="N", help="default: the pipeline's, mostly 36")
    parser.add_argument("--max-boxes", type=int, metavar="N", help="default: the pipeline's, mostly 36")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help=f"another number of the pipeline: {', '.join(SETTINGS)}; nms may be several, as 0.5,0.6",
    )


def detector_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `FasterRCNN.detect` takes, but for pictures: `pipeline`, `min_boxes`, `max_boxes`, and numbers by name.

    Raises:
        ValueError: two options contradict each other, or a number is none.
    """
    low, high = args.min_boxes, args.max_boxes
    if args.boxes is not None:
        if low is not None or high is not None:
            raise ValueError("--boxes is --min-boxes and --max-boxes in one: leave it or them out.")
        if args.boxes < 1:
            raise ValueError(f"--boxes must be at least 1, got {args.boxes}.")
        low = high = args.boxes
    numbers = dict(_number(text) for text in args.set)
    return {"pipeline": args.pipeline, "min_boxes": low, "max_boxes": high, **numbers}


def _number(text: str) -> tuple[str, Any]:
    """The name and the value of NAME=VALUE."""
    name, separator, value = text.partition("=")
    if not separator or name not in SETTINGS:
        raise ValueError(f"--set must be NAME=VALUE with a NAME of {', '.join(SETTINGS)}, got {text!r}.")
    try:
        if name == "nms":
            return name, tuple(float(each) for each in value.split(","))
        return name, int(value) if name in INTEGERS else float(value)
    except ValueError:
        kind = "an integer" if name in INTEGERS else "a number"
        raise ValueError(f"--set {name} must be {kind}, got {value!r}.") from None
