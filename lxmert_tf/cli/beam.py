"""`python -m lxmert_tf.cli.beam`: region features of pictures on many machines, as TSV files."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lxmert_tf.cli import features_extract
from lxmert_tf.command_line import Parser

if TYPE_CHECKING:
    from lxmert_tf.data.features.regions import RegionFeatures

DESCRIPTION = """\
Extract the region features of pictures by Apache Beam: PREFIX-00000-of-00008.tsv and so on have the rows, and
PREFIX-bad-00000-of-00001.txt has the path and the reason of each picture that is left out. Patterns, prefix and
directory may be of any of Beam's file systems, such as gs://bucket/name.

All other options are Beam's: --runner, and those of the runner.
"""
EPILOG = """\
examples:
  python -m lxmert_tf.cli.beam --images 'val2014/*.jpg' --output val --detector frcnn --direct_num_workers 4
  lxmert-tf features build val-*.tsv val.h5
"""


def make_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m lxmert_tf.cli.beam",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # what is not known is Beam's
    )
    parser.add_argument(
        "--images", required=True, action="append", metavar="PATTERN", help="pictures; may be given several times"
    )
    parser.add_argument("--output", required=True, metavar="PREFIX", help="what the names of the files begin with")
    parser.add_argument("--shards", type=int, default=0, metavar="N", help="files; default: the runner chooses")
    features_extract.add_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the pipeline of a command line, and waits for its end; returns the exit code."""
    parser = make_parser()
    args, others = parser.parse_known_args(arguments)
    try:
        options = features_extract.options(args)
    except ValueError as error:
        parser.error(str(error).removesuffix("."))

    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    from lxmert_tf.data.beam import BAD, ExtractFeatures

    with beam.Pipeline(options=PipelineOptions(others)) as pipeline:
        found = pipeline | "Images" >> beam.Create(args.images) | ExtractFeatures(args.detector, **options)
        rows = found["regions"] | "Row" >> beam.Map(row)
        rows | "Write" >> beam.io.WriteToText(
            args.output, ".tsv", num_shards=args.shards, coder=beam.coders.BytesCoder()
        )
        lines = found[BAD] | "Line" >> beam.MapTuple("{}\t{}".format)
        lines | "Write bad" >> beam.io.WriteToText(f"{args.output}-bad", ".txt", num_shards=1)
    return 0


def row(regions: "RegionFeatures") -> bytes:
    """The line of a TSV file, without its end.

    Raises:
        ValueError: the detector has no attributes.
    """
    from lxmert_tf.data.features.tsv import format_line

    if not regions.labels():
        raise ValueError(
            "A detector without attributes has no lines for a TSV file; write HDF5 with `features extract`."
        )
    return format_line(regions).removesuffix(b"\n")


if __name__ == "__main__":
    raise SystemExit(main())
