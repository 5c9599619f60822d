"""`lxmert-convert convert`: a checkpoint in another format, dtype or task."""

import argparse

from conversion.cli.common import add_destination, add_json, add_source, destination_options, show
from lxmert_tf.tasks import ARCHITECTURES

NAME = "convert"
HELP = "write a checkpoint in another format, dtype or task"
EPILOG = """\
examples:
  lxmert-convert convert unc-nlp/lxmert-base-uncased keras-lxmert --to keras
  lxmert-convert convert old/tf_model.h5 lxmert.weights.h5
  lxmert-convert convert lxmert-base lxmert.keras
  lxmert-convert convert model_LXRT.pth lxmert-base --config config.json
  lxmert-convert convert epoch=3.ckpt vqa --prefix model.encoder --config config.json
  lxmert-convert convert lxmert-base adapted --adapter lora
  lxmert-convert convert lxmert-base half --dtype float16 --shard-size 200MB
  lxmert-convert convert resnet101_faster_rcnn_final_iter_320000.caffemodel detector

exit codes: 0 done, 1 tensors are missing or were reread with other values, 2 bad usage or an unreadable file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    add_destination(parser)
    parser.add_argument("--task", choices=ARCHITECTURES, help="model to write (default: the source's own)")
    parser.add_argument("--allow-missing", action="store_true", help="initialise tensors that SRC lacks")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from conversion.convert import convert

    report = convert(
        args.source,
        args.destination,
        task=args.task,
        allow_missing=args.allow_missing,
        **destination_options(args),
    )
    show(report, args.json)
    return 0
