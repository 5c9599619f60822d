"""What scripts ask a model for: its origin, example inputs, its size, the layers of words, batches of a dataset."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import keras
from keras import ops

from lxmert_tf.head_masks import refuse_pruning
from lxmert_tf.input_table import INPUTS, dummy_inputs
from lxmert_tf.tf_data import batches_of, collator

# To a type checker, a mixin is what it stands before.
if TYPE_CHECKING:
    from keras import Model as _Model
else:
    _Model = object


class ModelAttributes(_Model):
    """Mixin of all models, with upstream's names.

    Source: upstream `TFPreTrainedModel`.
    """

    base_model_prefix = "lxmert"
    main_input_name = "input_ids"

    @property
    def name_or_path(self) -> str:
        """The path or Hub id that the model was loaded from, or ""."""
        return self.config.name_or_path

    @property
    def num_qa_labels(self) -> int:
        """How many answers the config has."""
        return self.config.num_qa_labels

    @classmethod
    def can_generate(cls) -> bool:
        """False: LXMERT generates no text."""
        return False

    @property
    def dummy_inputs(self) -> dict[str, Any]:
        """A small batch of the inputs that a call needs: 2 examples of 3 tokens and 2 boxes each."""
        arrays = dummy_inputs(self.config, self.num_images)
        return {name: ops.convert_to_tensor(array) for name, array in arrays.items()}

    def num_parameters(self, only_trainable: bool = False) -> int:
        """How many numbers the weights hold, or those of them that are trained."""
        weights = self.trainable_weights if only_trainable else self.weights
        return sum(math.prod(weight.shape) for weight in weights)

    def get_output_embeddings(self) -> keras.layers.Layer | None:
        """The layer that words are predicted with, which is the word embeddings; None where there is no such head."""
        return self.get_input_embeddings() if self.get_lm_head() is not None else None

    def get_lm_head(self) -> keras.layers.Layer | None:
        """The head of masked words, or None where there is none."""
        return self.cls.predictions if hasattr(self, "cls") else None

    def get_bias(self) -> dict[str, Any] | None:
        """{"bias": float[V]}, the backend's variable that is added to the scores of words; None without such a head."""
        head = self.get_lm_head()
        return None if head is None else {"bias": head.bias.value}

    def prune_heads(self, heads_to_prune: Any) -> None:
        """Refused, as upstream does, with a NotImplementedError: `head_mask` switches heads off."""
        refuse_pruning()

    def prepare_tf_dataset(
        self,
        dataset: Any,
        batch_size: int = 8,
        shuffle: bool = True,
        tokenizer: Any = None,
        collate_fn: Callable[..., Mapping[str, Any]] | None = None,
        collate_fn_args: Mapping[str, Any] | None = None,
        drop_remainder: bool | None = None,
        prefetch: bool = True,
    ) -> Any:
        """Batches for `fit`, `evaluate` and `predict` of a `datasets.Dataset`, or of any list of dicts.

        Args:
            dataset: has a length, and gives a dict of columns for each index. Columns that are no argument of a call
                are left out; "label" and "label_ids" are other names of `labels`.
            batch_size: rows of a batch.
            shuffle: draw the rows in another order each time.
            tokenizer: pads the columns of text, by its `pad`, and stacks the others.
            collate_fn: a list of rows -> their columns as arrays, in place of that.
            collate_fn_args: arguments of `collate_fn` by name.
            drop_remainder: leave out the last batch if it is not full. Default: as `shuffle`.
            prefetch: make the next batch while one is used.

        Returns:
            A `tf.data.Dataset` of inputs by name or, where there are labels, of inputs and labels: the labels as they
            are where the model takes one kind, else a dict of them.

        Raises:
            ValueError: the dataset has no rows, or none of the model's inputs.
        """
        return batches_of(
            dataset,
            INPUTS,
            getattr(self, "call_labels", ()),
            batch_size,
            shuffle,
            collator(tokenizer, collate_fn, collate_fn_args or {}),
            shuffle if drop_remainder is None else drop_remainder,
            prefetch,
        )
