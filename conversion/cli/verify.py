"""`lxmert-convert verify`: whether two checkpoints are the same model."""

import argparse

from conversion.cli.common import add_json, add_sources, show

NAME = "verify"
HELP = "compare two checkpoints' weights, and what they compute in TensorFlow and PyTorch"
EPILOG = """\
Both run on the same made-up inputs, with masks, in float64. Errors are relative to the largest magnitude of a tensor.
Of checkpoints of different tasks, what they have in common is compared. Configs that make models compute something
else are a difference; values that are not finite prove nothing.

examples:
  lxmert-convert verify model_LXRT.pth keras-lxmert
  lxmert-convert verify lxmert-base half --max-error 1e-2
  lxmert-convert verify epoch=3.ckpt lxmert-base --prefix model.encoder
  lxmert-convert verify a b --json | jq .first_divergence

exit codes: 0 equal, 1 something differs or is not finite, 2 bad usage or an unreadable file
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_sources(parser, "a", "b")
    add = parser.add_argument
    add("--max-error", type=float, default=1e-5, metavar="X", help="largest error that passes (default: %(default)s)")
    add("--config", metavar="FILE", help="config.json in place of both checkpoints' own")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from conversion.verify import verify

    verification = verify(args.a, args.b, args.max_error, args.config, progress=True, prefix=args.prefix)
    show(verification, args.json)
    return 0 if verification.equal else 1
