"""`lxmert-tf annotations`: official annotations, or a table of one's own, as label json and an answer table."""

import argparse
import sys

NAME = "annotations"
HELP = "turn official VQA, GQA and NLVR2 annotations, or a table of your own, into the json files that train reads"
EPILOG = """\
Writes SPLIT.json for each split and, with vqa and gqa, the answer table: trainval_label2ans.json and _ans2label.json.
vqa takes official questions and annotations in any order; or tables .csv, .tsv or .jsonl with the columns image,
question, answer (and question_id, if you like). docs/data.md has the rules.

examples:
  lxmert-tf annotations vqa v2_OpenEnded_mscoco_train2014_questions.json v2_mscoco_train2014_annotations.json \\
      v2_OpenEnded_mscoco_val2014_questions.json v2_mscoco_val2014_annotations.json --output vqa
  lxmert-tf annotations vqa train.csv valid.csv --output mine
  lxmert-tf annotations gqa train_balanced_questions.json testdev_balanced_questions.json --output gqa
  lxmert-tf annotations nlvr2 official/train.json official/dev.json --output nlvr2
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=("vqa", "gqa", "nlvr2"), help="what the files are of")
    parser.add_argument("files", metavar="FILE", nargs="+", help="official files, or tables of your own")
    parser.add_argument("--output", required=True, metavar="DIR", help="directory to write into")
    parser.add_argument("--answers", metavar="FILE", help="answer table to use, such as that of a checkpoint")
    parser.add_argument(
        "--min-count",
        type=int,
        metavar="N",
        help="questions that must have an answer for it to be in the table (default: vqa 9, else 1)",
    )
    parser.add_argument(
        "--image-names",
        metavar="FORMAT",
        help="official vqa: how features call images, such as '{image_id}' (default: COCO_{split}_{image_id:012})",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")


def run(args: argparse.Namespace) -> int:
    from lxmert_tf.data import raw_annotations

    options = {name: getattr(args, name) for name in ("answers", "min_count", "image_names")}
    allowed = {"vqa": ("answers", "min_count", "image_names"), "gqa": ("answers", "min_count"), "nlvr2": ()}[args.task]
    for name, value in options.items():
        if value is not None and name not in allowed:
            raise ValueError(f"--{name.replace('_', '-')} does nothing with {args.task}; leave it out")
    prepare = getattr(raw_annotations, f"prepare_{args.task}")
    report = prepare(
        args.files,
        args.output,
        **{name: options[name] for name in allowed},
        overwrite=args.overwrite,
        progress=sys.stderr.isatty(),
    )
    for path, words in report.files.items():
        print(f"{path}: {words}")
    for reason, count in report.dropped.items():
        print(f"left out: {count:,} {reason}")
    return 0
