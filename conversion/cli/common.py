"""Arguments and output that subcommands share."""

import argparse
import json
from typing import Any

# Those of conversion.convert, which is too slow to import for --help.
FORMATS = ("hf-pt", "hf-pt-bin", "hf-tf", "keras", "keras-weights", "original")
DETECTOR_FORMATS = ("detectron2", "milvlg", "caffe")
DTYPES = ("float64", "float32", "float16", "bfloat16")

SOURCE = "a file, a directory or a Hub id; its format is detected from its content"


class Once(argparse.Action):
    """An option that is given at most once."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, value: Any, option: str | None = None) -> None:
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "give it once; convert once for each to merge several")
        setattr(namespace, self.dest, value)


def add_source(parser: argparse.ArgumentParser) -> None:
    """Adds the checkpoint to read, and what of it and with it."""
    parser.add_argument("source", metavar="SRC", help=SOURCE)
    add_prefix(parser, "")
    parser.add_argument("--adapter", metavar="DIR", action=Once, help="merge a LoRA adapter that PEFT saved")


def add_sources(parser: argparse.ArgumentParser, *names: str) -> None:
    """Adds one positional argument for each checkpoint to compare, and what of them."""
    for name in names:
        parser.add_argument(name, metavar=name.upper(), help=SOURCE)
    add_prefix(parser, f" in {' or '.join(map(str.upper, names))}, or in both")


def add_prefix(parser: argparse.ArgumentParser, where: str) -> None:
    text = f"the LXMERT's tensors begin with NAME{where} (default: it is found)"
    parser.add_argument("--prefix", metavar="NAME", help=text)


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")


def add_destination(parser: argparse.ArgumentParser) -> None:
    """Adds the destination and how it is written."""
    add = parser.add_argument
    add("destination", metavar="DST", help="a directory; *.keras, *.weights.h5, *.pth, *.pkl or *.caffemodel is a file")
    formats = (*FORMATS, *DETECTOR_FORMATS)
    add(
        "--to",
        choices=formats,
        help="format to write (default: that of DST's suffix, else hf-pt, or keras of detectors)",
    )
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


def destination_options(args: argparse.Namespace) -> dict:
    """What `conversion.convert.convert` takes of `add_source` and `add_destination`."""
    names = ("prefix", "adapter", "to", "dtype", "config", "shard_size", "verify", "overwrite")
    return {**{name: getattr(args, name) for name in names}, "progress": True}


def show(result: Any, as_json: bool) -> None:
    """Prints a result that has `to_dict()` and `lines()`."""
    print(json.dumps(result.to_dict(), indent=2) if as_json else "\n".join(result.lines()))
