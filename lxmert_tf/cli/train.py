"""`lxmert-tf train`: fine-tuning and pretraining with the published recipes."""

import argparse
from typing import Any

from lxmert_tf.cli.evaluate import add_missing
from lxmert_tf.tasks import TASKS
from lxmert_tf.training.memory import share_arena
from lxmert_tf.training.options import PRECISIONS, SUBSETS, TrainOptions
from lxmert_tf.training.recipes import LOSSES, OPTIMIZERS, RECIPES

NAME = "train"
HELP = "train or fine-tune for VQA, GQA, NLVR2 or pretraining, with the published recipes as defaults"
EPILOG = """\
The same command resumes an interrupted run from its last backup (one after each epoch, and with --backup-every N
after every N steps). RUN/best and RUN/last are model directories for evaluate, predict and export.
With TF_CONFIG set, several machines train together. More in docs/training.md.

examples:
  lxmert-tf train vqa --train train.json --valid minival.json --features features.h5 \\
      --init unc-nlp/lxmert-base-uncased --init-answers all_ans.json --answers label2ans.json --output runs/vqa
  lxmert-tf train vqa --train OUT/train.json --valid OUT/valid.json --features OUT/features.h5 --vocab OUT/vocab.txt \\
      --answers OUT/label2ans.json --config OUT/config.json --output RUN --batch-size 64 --epochs 16 \\
      --learning-rate 1e-3                                     from scratch, on a set of demo-data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=TASKS, help="what to train for")
    data = parser.add_argument_group("data")
    data.add_argument("--train", nargs="+", required=True, metavar="FILE", help="annotations to train on (json)")
    data.add_argument("--valid", nargs="+", default=[], metavar="FILE", help="annotations to validate on")
    data.add_argument("--features", required=True, metavar="FILE", help="region features, of all images")
    data.add_argument("--answers", metavar="FILE", help="answer table: label2ans.json or all_ans.json")
    data.add_argument("--vocab", metavar="FILE", help="vocab.txt, or a directory with tokenizer files")
    data.add_argument(
        "--max-length", type=int, help="longest text in tokens, at most what the config has positions for (default: 20)"
    )
    add_missing(data)
    subset = data.add_mutually_exclusive_group()
    subset.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="only the first N images of each set (--train, --valid), in the order of the feature file",
    )
    for name, size in SUBSETS.items():
        text = f"the same as --limit {size}, as in the original"
        subset.add_argument(f"--{name}", dest="limit", action="store_const", const=size, help=text)

    start = parser.add_argument_group("model")
    start.add_argument(
        "--config",
        metavar="FILE",
        help="train a model of this config.json from scratch; with --init in place of the checkpoint's own config",
    )
    start.add_argument(
        "--init", metavar="CHECKPOINT", help="start from a checkpoint of any format, a BERT, or a Hub id"
    )
    start.add_argument("--prefix", metavar="NAME", help="the LXMERT's tensors begin with NAME (default: it is found)")
    start.add_argument("--init-answers", metavar="FILE", help="answer table of that checkpoint, such as all_ans.json")
    start.add_argument(
        "--load-answers",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="start the answer head from the checkpoint's, answer by answer",
    )
    start.add_argument("--dropout", type=float, metavar="RATE", help="in place of the config's rates")
    start.add_argument(
        "--freeze", nargs="+", default=[], metavar="PATTERN", help="do not train weights whose path matches"
    )

    recipe = parser.add_argument_group(
        "recipe", "defaults: the published ones of the task; from scratch (--config) adamw and clip 1"
    )
    recipe.add_argument("--epochs", type=int, help=_defaults("epochs"))
    recipe.add_argument("--batch-size", type=int, help=_defaults("batch_size"))
    recipe.add_argument("--eval-batch-size", type=int, default=256, help="in validation (default: %(default)s)")
    recipe.add_argument("--learning-rate", type=float, help=f"the peak; {_defaults('learning_rate')}")
    recipe.add_argument("--optimizer", choices=OPTIMIZERS, help=_defaults("optimizer"))
    recipe.add_argument("--warmup", type=float, metavar="SHARE", help=f"of all steps; {_defaults('warmup')}")
    recipe.add_argument("--weight-decay", type=float, help=_defaults("weight_decay"))
    recipe.add_argument(
        "--exclude-from-decay",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="no decay of biases and layer normalisation (the original decays all)",
    )
    recipe.add_argument("--clip", type=float, metavar="NORM", help=f"global; 0: none; {_defaults('clip')}")
    recipe.add_argument("--layer-decay", type=float, metavar="FACTOR", help="of the learning rate, layer by layer")
    recipe.add_argument("--accumulate", type=int, metavar="N", help="average the gradients of N batches")
    recipe.add_argument("--loss", choices=LOSSES, help="vqa, gqa: soft scores (bce) or the best answer (ce)")
    recipe.add_argument("--early-stopping", type=int, metavar="EPOCHS", help="stop after so many without a better one")

    how = parser.add_argument_group("run")
    how.add_argument("--output", required=True, metavar="RUN", help="run directory")
    how.add_argument("--seed", type=int, default=0, help="of weights, dropout, order, masking (default: %(default)s)")
    how.add_argument("--deterministic", action="store_true", help="the same run gives the same weights, bit for bit")
    how.add_argument("--backup-every", type=int, metavar="N", help="steps (default: after each epoch only)")
    how.add_argument("--precision", choices=PRECISIONS, default="float32", help="(default: %(default)s)")
    how.add_argument("--jit", action="store_true", help="compile the steps with XLA, once for each length of text")
    how.add_argument(
        "--gradient-checkpointing", action="store_true", help="less memory: compute layers again for the gradient"
    )
    how.add_argument(
        "--skip-nan", action="store_true", help="skip steps whose gradients are not finite, and count them"
    )
    how.add_argument("--quiet", dest="verbose", action="store_const", const=0, default="auto", help="no progress bar")


def run(args: argparse.Namespace) -> int:
    values: dict[str, Any] = {name: getattr(args, name) for name in TrainOptions.__dataclass_fields__}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    options = TrainOptions(**values)

    share_arena()
    from lxmert_tf.training.run import train

    train(options)
    return 0


def _defaults(name: str) -> str:
    """The recipes' values, such as "default: 4, pretrain 20"."""
    values = {task: getattr(recipe, name) for task, recipe in RECIPES.items()}
    common = max(values.values(), key=list(values.values()).count)
    others = [f"{task} {value:g}" for task, value in values.items() if value != common]
    shown = common if isinstance(common, str) else f"{common:g}"
    return f"default: {', '.join([shown, *others])}"
