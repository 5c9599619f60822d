"""The published recipes, and what they and the options refuse."""

import pytest

from lxmert_tf.tasks import ARCHITECTURES, MODEL_TASKS, TASKS
from lxmert_tf.training.options import TrainOptions
from lxmert_tf.training.recipes import RECIPES

FILES = {"train": ("t.json",), "features": "f.h5", "output": "run", "config": "c.json"}


def test_published_hyper_parameters():
    published = {  # task: epochs, batch, learning rate, warm-up, clip, answers loaded
        "vqa": (4, 32, 5e-5, 0.1, 5.0, True),
        "gqa": (4, 32, 1e-5, 0.1, 5.0, True),
        "nlvr2": (4, 32, 5e-5, 0.1, 5.0, False),
        "pretrain": (20, 256, 1e-4, 0.05, 1.0, True),
    }
    assert set(RECIPES) == set(TASKS) == set(published)
    assert set(MODEL_TASKS.values()) < set(ARCHITECTURES)
    for task, recipe in RECIPES.items():
        found = (
            recipe.epochs,
            recipe.batch_size,
            recipe.learning_rate,
            recipe.warmup,
            recipe.clip,
            recipe.load_answers,
        )
        assert found == published[task]
        assert (recipe.optimizer, recipe.weight_decay, recipe.exclude_from_decay) == ("bertadam", 0.01, False)
        assert (recipe.max_length, recipe.accumulate, recipe.layer_decay) == (20, 1, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, got nan"),
        ({"warmup": 1.0}, r"warmup must be in \[0, 1\), got 1.0"),
        ({"optimizer": "sgd"}, "optimizer must be one of bertadam, adamw, got 'sgd'"),
        ({"layer_decay": 1.5}, "layer_decay must be above 0 and at most 1"),
        ({"max_length": 2}, "max_length must be at least 3"),
        ({"precision": "int8"}, "precision must be one of"),
        ({"backup_every": 0}, "backup_every must be at least 1"),
        ({"early_stopping": 2}, "early_stopping needs a validation set"),
        ({"config": None}, "Give a config .* or a checkpoint"),
        ({"init_answers": "all_ans.json"}, "names the answers of a checkpoint, but there is none"),
        ({"skip_nan": True, "accumulate": 2}, "skip_nan cannot go with accumulate"),
    ],
)
def test_options_out_of_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainOptions("vqa", **{**FILES, **changes})


def test_soft_scores_belong_to_questions():
    with pytest.raises(ValueError, match="vqa and gqa only"):
        TrainOptions("nlvr2", **FILES, loss="ce")


def test_options_take_the_place_of_the_recipe():
    recipe = TrainOptions("gqa", **FILES, epochs=2, optimizer="adamw", clip=0).recipe()
    assert (recipe.epochs, recipe.optimizer, recipe.learning_rate) == (2, "adamw", 1e-5)
    assert recipe.clip == float("inf")


def test_from_scratch_takes_another_optimiser_unless_told():
    assert (TrainOptions("vqa", **FILES).recipe().optimizer, TrainOptions("vqa", **FILES).recipe().clip) == ("adamw", 1)
    tuned = TrainOptions("vqa", **{**FILES, "config": None}, init="checkpoint").recipe()
    assert (tuned.optimizer, tuned.clip) == ("bertadam", 5)
    told = TrainOptions("vqa", **FILES, init="checkpoint").recipe()  # whatever its config
    assert (told.optimizer, told.clip) == ("bertadam", 5)
    assert TrainOptions("vqa", **FILES, optimizer="bertadam").recipe().optimizer == "bertadam"


def test_what_makes_a_run_leaves_out_where_and_how_often_it_writes():
    one = TrainOptions("vqa", **FILES, backup_every=5)
    other = TrainOptions("vqa", **{**FILES, "output": "elsewhere"})
    assert one.fixed() == other.fixed()
    assert one.fixed() != TrainOptions("vqa", **FILES, seed=1).fixed()
