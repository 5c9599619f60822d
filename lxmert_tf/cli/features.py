"""`lxmert-tf features`: region features in one file that training reads at random."""

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from conversion.report import counted
from lxmert_tf.cli import features_extract
from lxmert_tf.configuration import LxmertConfig

if TYPE_CHECKING:
    from lxmert_tf.data.features.build import BuildReport

NAME = "features"
HELP = "extract region features of pictures; build, show and check files of them"
EPILOG = """\
examples:
  lxmert-tf features extract val2014/ coco.h5 --detector frcnn     36 boxes of each picture
  lxmert-tf features extract 'val2014/*.jpg' coco.h5 --detector frcnn --min-boxes 10 --max-boxes 100
  lxmert-tf features build train2014_obj36.tsv val2014_obj36.tsv coco.h5
  lxmert-tf features build vg_gqa_obj36.tsv coco.h5 --append       add images to a file
  lxmert-tf features build extracted.tsv mine.h5 --dtype float16   half the space
  lxmert-tf features build npz_files/ more.lmdb test.tsv mine.h5   what other extractors write, in any mixture
  lxmert-tf features build shard-0.tsv shard-1.tsv all.h5          what `extract --shard` has written
  lxmert-tf features info coco.h5                                  also of a TSV file, what is recorded beside it
  lxmert-tf features check coco.h5                                 also checks what is to be built

The same command resumes what was interrupted. docs/data.md describes what is read, and the layout of the file, and
docs/images.md the detector; HDF5 and npz files of that layout made by other programs can be used as they are.
"""
SHOWN = 20  # bad lines that are printed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    extract = actions.add_parser(
        "extract",
        help="extract features of pictures into OUT",
        description=features_extract.DESCRIPTION,
        epilog=features_extract.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    features_extract.add_arguments(extract)
    extract.set_defaults(perform=features_extract.run)
    build = actions.add_parser("build", help="build OUT from SOURCEs", description="Build OUT from SOURCEs.")
    build.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="TSV file of ten or six columns, .npz or .npy file of one image, directory or LMDB file of such",
    )
    build.add_argument("output", metavar="OUT", help="HDF5 file to write")
    build.add_argument("--dtype", choices=["float32", "float16"], default="float32", help="default: %(default)s")
    build.add_argument("--append", action="store_true", help="add to the images of OUT")
    build.add_argument("--overwrite", action="store_true", help="replace OUT")
    build.add_argument("--skip-bad", action="store_true", help="leave out what cannot be read, and list it")
    _add_config(build)
    build.add_argument("--extractor", help="what made the features, for the record")
    build.set_defaults(perform=run_build)
    info = actions.add_parser("info", help="show what FILE holds", description="Show what FILE holds.")
    info.add_argument(
        "file", metavar="FILE", help="HDF5 or npz file of region features, or TSV file with FILE.json beside it"
    )
    info.add_argument("--json", action="store_true", help="as one JSON object")
    info.set_defaults(perform=run_info)
    check = actions.add_parser(
        "check", help="read all of FILE", description="Read all of FILE; exit 1 if there is a problem."
    )
    check.add_argument("file", metavar="FILE", help="file of region features, or a source of one")
    _add_config(check)
    check.set_defaults(perform=run_check)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="config.json of the model, whose num_object_labels and num_attr_labels say which classes there are "
        "(default: those of LxmertConfig())",
    )


def _read_config(args: argparse.Namespace) -> LxmertConfig:
    return LxmertConfig.from_pretrained(args.config) if args.config else LxmertConfig()


def run(args: argparse.Namespace) -> int:
    return args.perform(args)


def run_build(args: argparse.Namespace) -> int:
    from lxmert_tf.data.features.build import build_features

    report = build_features(
        args.sources,
        args.output,
        dtype=args.dtype,
        append=args.append,
        overwrite=args.overwrite,
        skip_bad=args.skip_bad,
        config=_read_config(args),
        extractor=args.extractor,
        progress=sys.stderr.isatty(),
    )
    print_report(report, args.output, args.skip_bad, args.append)
    return 0


def print_report(report: "BuildReport", output: str, skip_bad: bool, append: bool = False) -> None:
    for line in report.skipped[:SHOWN]:
        print(f"skipped: {line}", file=sys.stderr)
    if len(report.skipped) > SHOWN:
        print(f"skipped: {len(report.skipped) - SHOWN:,} more", file=sys.stderr)
    if report.resumed:
        print(f"resumed after {counted(report.resumed, 'image')}")
    added = f", {report.added:,} of them new" if append else ""
    skipped = f"; {counted(len(report.skipped), 'bad image')} skipped" if skip_bad else ""
    print(f"{output}: {counted(report.images, 'image')}{added}, {counted(report.boxes, 'box', 'boxes')}{skipped}")


def run_info(args: argparse.Namespace) -> int:
    from lxmert_tf.data.features.provenance import read_provenance
    from lxmert_tf.data.features.store import open_features

    if made := read_provenance(args.file):  # of a TSV file, which is not read at random
        return print_info({"file": args.file, "provenance": made}, args.json)
    store = open_features(args.file)
    facts: dict[str, Any] = {
        "file": store.path,
        "images": len(store),
        "boxes": store.num_boxes,
        "boxes_per_image": [store.min_boxes, store.max_boxes],
        "feature_dimension": store.feat_dim,
        "dtype": str(store.dtype),
        "box_format": store.box_format,
        "objects_and_attributes": store.has_labels,
        "provenance": store.provenance,
    }
    if not args.json:
        low, high = store.min_boxes, store.max_boxes
        facts["boxes_per_image"] = str(low) if low == high else f"{low} to {high}"
    return print_info(facts, args.json)


def print_info(facts: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    for name, value in (facts | facts.pop("provenance")).items():
        if name == "sources":
            for source in value:
                print(f"{'source':<24}{_source_text(source)}")
        elif isinstance(value, dict):
            print(f"{name.replace('_', ' '):<24}{json.dumps(value)}")
        elif value is not None:
            text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
            print(f"{name.replace('_', ' '):<24}{text}")
    return 0


def _source_text(source: dict[str, Any]) -> str:
    if "images" in source:
        return f"{source['name']}, {counted(source['images'], 'picture')}"
    return f"{source['name']}, {source['bytes']:,} bytes, sha256 {source['sha256']}"


def run_check(args: argparse.Namespace) -> int:
    from lxmert_tf.data.features.check import check_features

    problems = 0
    for problem in check_features(args.file, sys.stderr.isatty(), _read_config(args)):
        print(problem)
        problems += 1
    print(f"{args.file}: {counted(problems, 'problem') if problems else 'no problems'}")
    return 1 if problems else 0
