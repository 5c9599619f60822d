"""`lxmert-tf demo`: the whole way, from drawing pictures to a served answer, in a few minutes on a laptop."""

import argparse

NAME = "demo"
HELP = "train a small LXMERT on made-up pictures, check it, convert it, export it, and draw what it looks at"
EPILOG = """\
examples:
  lxmert-tf demo
  lxmert-tf demo --output /tmp/demo --images 500 --epochs 2 --overwrite    a quick look, not an accurate model
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", default="demo", help="directory to write to (default: %(default)s)")
    parser.add_argument("--images", type=int, default=4000, help="pictures to draw (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="passes over the training set (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="questions per step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak learning rate (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of pictures, weights and order (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace the output directory of an earlier run")


def run(args: argparse.Namespace) -> int:
    from lxmert_tf.demo.run import run_demo

    run_demo(
        args.output,
        images=args.images,
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        seed=args.seed,
        overwrite=args.overwrite,
    )
    return 0
