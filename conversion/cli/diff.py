"""`lxmert-convert diff`: how two checkpoints differ, without running them."""

import argparse

from conversion.cli.common import add_json, add_sources, show

NAME = "diff"
HELP = "show how names, shapes, dtypes, values and configs of two checkpoints differ"
EPILOG = """\
Needs no framework, except PyTorch for .bin and .pth files.

examples:
  lxmert-convert diff before.weights.h5 after.weights.h5
  lxmert-convert diff lxmert-base tf_model.h5 --json
  lxmert-convert diff epoch=3.ckpt lxmert-base --prefix model.encoder

exit codes: 0 the same, 1 different, 2 bad usage or an unreadable file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sources(parser, "a", "b")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from conversion.diff import diff

    difference = diff(args.a, args.b, progress=True, prefix=args.prefix)
    show(difference, args.json)
    return 0 if difference.same else 1
