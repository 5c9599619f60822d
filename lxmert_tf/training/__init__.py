"""Whole training runs with the published recipes: options, backups, run directories, evaluation."""

from typing import TYPE_CHECKING

from lxmert_tf.lazy import face

if TYPE_CHECKING:
    from lxmert_tf.training.callbacks import TrainingError as TrainingError
    from lxmert_tf.training.evaluation import Evaluator as Evaluator
    from lxmert_tf.training.options import TrainOptions as TrainOptions
    from lxmert_tf.training.recipes import RECIPES as RECIPES
    from lxmert_tf.training.recipes import Recipe as Recipe
    from lxmert_tf.training.recipes import make_optimizer as make_optimizer
    from lxmert_tf.training.run import train as train
else:
    __all__, __getattr__, __dir__ = face(
        __name__,
        {
            "lxmert_tf.training.callbacks": ("TrainingError",),
            "lxmert_tf.training.evaluation": ("Evaluator",),
            "lxmert_tf.training.options": ("TrainOptions",),
            "lxmert_tf.training.recipes": ("RECIPES", "Recipe", "make_optimizer"),
            "lxmert_tf.training.run": ("train",),
        },
    )
