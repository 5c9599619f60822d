"""What the training tests share: a data set in memory, and a small compiled model."""

from dataclasses import dataclass

import keras
import numpy as np
from support.models import tiny_config

from lxmert_tf import TFLxmertForQuestionAnswering
from lxmert_tf.optimizers import layer_rate_factors
from lxmert_tf.training import tasks
from lxmert_tf.training.recipes import RECIPES, make_optimizer


@dataclass(frozen=True)
class Example:
    """An annotation of `MemoryDataset`."""

    question_id: int


class MemoryDataset:
    """A `TaskDataset` of random questions in memory: batch s is a pure function of (seed, s)."""

    def __init__(self, config=None, examples: int = 40, batch_size: int = 8, seed: int | None = 0, shard=(0, 1)):
        config = config or tiny_config()
        rng = np.random.default_rng(5)
        corners = np.sort(rng.random((examples, 6, 2, 2)), axis=-2).reshape(examples, 6, 4)
        lengths = rng.integers(3, 8, examples)
        self.x = {
            "input_ids": rng.integers(1, config.vocab_size, (examples, 7)).astype("int32"),
            "attention_mask": (np.arange(7) < lengths[:, None]).astype("int32"),
            "visual_feats": rng.standard_normal((examples, 6, config.visual_feat_dim)).astype("float32"),
            "visual_pos": corners.astype("float32"),
            "visual_attention_mask": (np.arange(6) < rng.integers(2, 7, examples)[:, None]).astype("int32"),
        }
        answers = rng.integers(0, config.num_qa_labels, examples)
        scores = 0.3 * rng.random((examples, config.num_qa_labels))
        scores[np.arange(examples), answers] = 1.0
        self.scores = scores.astype("float32")
        self.examples_, self.batch_size, self.seed, self.shard = examples, batch_size, seed, shard
        self.unknown_answers = {}

    def __len__(self) -> int:
        return self.examples_ // self.batch_size

    def rows(self, step: int) -> np.ndarray:
        epoch, position = divmod(step, len(self))
        order = np.arange(self.examples_)
        if self.seed is not None:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.examples_)
        return order[position * self.batch_size : (position + 1) * self.batch_size]

    def batch(self, step: int):
        index, count = self.shard
        share = self.batch_size // count
        rows = self.rows(step)[index * share : (index + 1) * share]
        return {name: value[rows] for name, value in self.x.items()}, {"labels": self.scores[rows]}

    def examples(self, step: int) -> list[Example]:
        return [Example(int(row)) for row in self.rows(step)]

    def batches(self, first_step: int = 0, last_step: int | None = None):
        import tensorflow as tf

        steps = range(first_step, len(self) if last_step is None else last_step)

        def generate():
            yield from map(self.batch, steps)

        spec = [
            {name: tf.TensorSpec((None, *value.shape[1:]), value.dtype) for name, value in part.items()}
            for part in self.batch(0)
        ]
        batches = tf.data.Dataset.from_generator(generate, output_signature=tuple(spec))
        return batches.apply(tf.data.experimental.assert_cardinality(len(steps))).prefetch(2)


def small_config(**changes):
    """One layer of each kind but vision, so that tracing is quick."""
    return tiny_config(**{"l_layers": 1, "r_layers": 0, "x_layers": 1, **changes})


def compiled(config, data, epochs: int = 3, dtype=None, skip_nan: bool = False, eager: bool = False, **changes):
    """A question answering model with the VQA recipe's optimiser and metrics, all of it built."""
    recipe = RECIPES["vqa"].replace(**{"learning_rate": 1e-2, **changes})
    keras.utils.set_random_seed(3)
    model = TFLxmertForQuestionAnswering(config, dtype=dtype)
    optimizer = make_optimizer(recipe, epochs * len(data), layer_rate_factors(model, recipe.layer_decay), skip_nan)
    model.compile(optimizer=optimizer, metrics=tasks.metrics("vqa"), jit_compile=False, run_eagerly=eager)
    model.optimizer.build(model.trainable_variables)
    model._symbolic_build(data_batch=next(iter(data.batches(0, 1))))
    return model


def plain_batches(dataset, first: int, last: int):
    """What `fit` takes without a strategy."""
    return dataset.batches(first, last)


def values(model) -> list[np.ndarray]:
    """Everything that changes in training: weights, seeds, moments, counters."""
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


def assert_same(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    """Asserts equality, bit for bit."""
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
