"""The options of `lxmert-tf train` as data."""

import sys
from dataclasses import asdict, dataclass, field
from typing import Any

from lxmert_tf.tasks import TASKS
from lxmert_tf.training.recipes import FROM_SCRATCH, RECIPES, Recipe

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float64")
SUBSETS = {"tiny": 512, "fast": 5000}  # values of `limit`, as in the original

# Options that make no difference to what is learned: a run may be resumed with others.
CHANGEABLE = ("output", "backup_every", "verbose")


@dataclass(frozen=True)
class TrainOptions:
    """One training run.

    Args:
        task: "vqa", "gqa", "nlvr2" or "pretrain".
        train: annotation files, read one after the other.
        features: the file of region features; `lxmert-tf features build` makes one of several TSV files.
        output: the run directory.
        valid: annotation files to choose the best checkpoint by; without them the last is the best.
        answers: the answer table: a label2ans.json, or an all_ans.json. Default: the labels of `init` or `config`.
        vocab: a vocab.txt or a directory with tokenizer files. Default: that of `init`.
        config: config.json of a model to train from scratch; with `init` in place of the checkpoint's own, such as for
            a .pth file, which has none.
        init: checkpoint of any format, a BERT directory, or Hub id, to start from.
        prefix: what the names of that checkpoint's LXMERT begin with, in one of more. Default: it is found.
        init_answers: the answer table of the checkpoint's head, where its config does not name them.
        load_answers: whether the answer head starts from the checkpoint's. Default: the recipe's.
        epochs ... max_length: in place of the recipe's values; a clip of 0 is none.
        eval_batch_size: examples per validation step.
        seed: of weights, dropout, order and masking.
        deterministic: whether the same run gives the same weights, bit for bit; slower on a GPU.
        backup_every: steps between backups; there is always one after each epoch.
        early_stopping: epochs without a better validation result after which to stop.
        freeze: regular expressions; weights whose path one of them is found in are not trained.
        precision: Keras dtype policy.
        jit: whether XLA compiles the steps: faster ones, after a minute for each length of text.
        gradient_checkpointing: whether layers are computed again for the gradient: less memory, more time.
        skip_nan: whether steps with a gradient that is not finite are skipped and counted instead of fatal.
        limit: use only the first so many images of each set, in the order of the feature file.
        missing: "error" if an image has no region features, or "skip": its examples are left out.
        dropout: rate of both kinds of dropout, in place of the config's.
        verbose: Keras' `verbose`.
    """

    task: str
    train: tuple[str, ...]
    features: str
    output: str
    valid: tuple[str, ...] = ()
    answers: str | None = None
    vocab: str | None = None
    config: str | None = None
    init: str | None = None
    prefix: str | None = None
    init_answers: str | None = None
    load_answers: bool | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    optimizer: str | None = None
    warmup: float | None = None
    weight_decay: float | None = None
    exclude_from_decay: bool | None = None
    clip: float | None = None
    layer_decay: float | None = None
    accumulate: int | None = None
    loss: str | None = None
    max_length: int | None = None
    eval_batch_size: int = 256
    seed: int = 0
    deterministic: bool = False
    backup_every: int | None = None
    early_stopping: int | None = None
    freeze: tuple[str, ...] = field(default=())
    precision: str = "float32"
    jit: bool = False
    gradient_checkpointing: bool = False
    skip_nan: bool = False
    limit: int | None = None
    missing: str = "error"
    dropout: float | None = None
    verbose: int | str = "auto"

    def __post_init__(self) -> None:
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}, got {self.task!r}.")
        if self.config is None and self.init is None:
            raise ValueError("Give a config to train from scratch (--config) or a checkpoint (--init).")
        if self.prefix is not None and self.init is None:
            raise ValueError("prefix is where a checkpoint's LXMERT is, but there is none (--init).")
        if self.init_answers is not None and self.init is None:
            raise ValueError("init_answers names the answers of a checkpoint, but there is none (--init).")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}.")
        for name in ("eval_batch_size", "backup_every", "early_stopping", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be at least 0 and below 2**32, got {self.seed}.")
        if self.clip is not None and not self.clip >= 0:
            raise ValueError(f"clip must be above 0, or 0 for none, got {self.clip}.")
        if self.early_stopping is not None and not self.valid:
            raise ValueError("early_stopping needs a validation set (--valid).")
        if self.loss == "ce" and self.task not in ("vqa", "gqa"):
            raise ValueError("loss can be chosen for vqa and gqa only.")
        if self.recipe().accumulate > 1 and self.skip_nan:  # making the recipe raises on values out of range
            raise ValueError("skip_nan cannot go with accumulate: drop one of them.")

    def recipe(self) -> Recipe:
        """The task's recipe, `FROM_SCRATCH` where there is no checkpoint, and these options in place."""
        names = set(Recipe.__dataclass_fields__) & set(self.__dataclass_fields__)
        changes = {name: getattr(self, name) for name in names}
        if self.init is None:
            changes |= {name: value for name, value in FROM_SCRATCH.items() if changes[name] is None}
        if self.clip == 0:
            changes["clip"] = float("inf")
        return RECIPES[self.task].replace(**changes)

    def fixed(self) -> dict[str, Any]:
        """The options that make a run what it is, as JSON values."""
        values = {name: value for name, value in asdict(self).items() if name not in CHANGEABLE}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def verbosity(verbose: int | str) -> int:
    """Keras' `verbose`; "auto" is a progress bar on a terminal and a line per epoch elsewhere."""
    return (1 if sys.stdout.isatty() else 2) if verbose == "auto" else int(verbose)
