"""From token ids and region features to the two streams of hidden states."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.layers.primitives import Block, dense, dropout, layer_norm
from lxmert_tf.layers.quantization import is_adapted, merged_weight
from lxmert_tf.losses import class_ids


@keras.saving.register_keras_serializable("lxmert_tf")
class PaddedEmbedding(keras.layers.Embedding):
    """Keras' embedding layer, whose row 0 gets no gradient from looking it up.

    Upstream gives all three tables `padding_idx=0`, so row 0 of words, positions and token types only learns what
    comes another way (the word table through the tied decoder).
    """

    def add_weight(self, *args: Any, name: str | None = None, **kwargs: Any):
        # No autocast: a row is cast after it is looked up, not the whole table before.
        return super().add_weight(*args, name="weight" if name == "embeddings" else name, autocast=False, **kwargs)

    @property
    def weight(self):
        """float[rows, H], the table: its variable, or what LoRA or quantization make of it."""
        return merged_weight(self) if is_adapted(self) else self.embeddings

    def quantize(self, mode: str | None = None, type_check: bool = True, **kwargs: Any) -> None:
        """As of Keras' own layer; it leaves subclasses alone, which may compute something else."""
        super().quantize(mode, type_check=False, **kwargs)

    def call(self, inputs):
        """int[...] -> float[..., H]; NaN for an id that is none of the table's rows, never the row of another"""
        # The reshape changes nothing but the gradient, which TensorFlow makes dense on its way back through it. Keras'
        # optimisers square a sparse one before they add up the rows of a repeated id, which is not Adam.
        table = ops.reshape(self.embeddings, (self.input_dim, self.output_dim))
        return self.look_up(inputs, lambda rows: ops.take(table, rows, axis=0))

    def quantized_call(self, inputs):
        """As `call`, with a quantized table."""
        return self.look_up(inputs, super().quantized_call)

    def look_up(self, ids, take: Callable):
        """What `take` gives for the rows int32[...] of the table, NaN for ids that are none."""
        ids = class_ids(ids)
        known = ops.logical_and(ids >= 0, ids < self.input_dim)
        rows = ops.cast(ops.where(known, ids, ops.zeros_like(ids)), "int32")
        looked_up = ops.cast(take(rows), self.compute_dtype)
        looked_up = ops.where(ops.expand_dims(ops.equal(rows, 0), -1), ops.stop_gradient(looked_up), looked_up)
        return ops.where(ops.expand_dims(known, -1), looked_up, ops.full_like(looked_up, float("nan")))


def embedding(rows: int, width: int, name: str, initializer: Any, dtype: Any) -> PaddedEmbedding:
    """A table of `rows` rows, which come from `initializer`; Keras has no tables in float8."""
    if dtype.name.startswith("float8_from_"):
        dtype = dtype.name.removeprefix("float8_from_")
    return PaddedEmbedding(rows, width, embeddings_initializer=initializer, name=name, dtype=dtype)


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertEmbeddings(Block):
    """Sum of word, position and token type embeddings, normalised. Upstream: `LxmertEmbeddings`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        width, options = config.hidden_size, self.options()
        self.word_embeddings = embedding(config.vocab_size, width, "word_embeddings", **options)
        self.position_embeddings = embedding(config.max_position_embeddings, width, "position_embeddings", **options)
        self.token_type_embeddings = embedding(config.type_vocab_size, width, "token_type_embeddings", **options)
        self.LayerNorm = layer_norm(config, "LayerNorm", dtype)
        self.dropout = dropout(config.hidden_dropout_prob, "dropout", dtype)

    def build(self, input_shape: Any = None) -> None:
        self.word_embeddings.build()
        self.position_embeddings.build()
        self.token_type_embeddings.build()
        self.LayerNorm.build((None, None, self.config.hidden_size))

    def compute_output_shape(self, *input_shapes: tuple[int | None, ...] | None):
        batch, length = next(shape for shape in input_shapes if shape is not None)[:2]
        return batch, length, self.config.hidden_size

    def call(self, input_ids=None, token_type_ids=None, inputs_embeds=None, training: bool = False):
        """int[B, T] ids (or float[B, T, H] embeddings) and int[B, T] token types -> float[B, T, H]"""
        words = (
            self.word_embeddings(input_ids) if inputs_embeds is None else ops.cast(inputs_embeds, self.compute_dtype)
        )
        length = ops.shape(words)[1]
        positions = self.position_embeddings(ops.arange(length, dtype="int32"))
        if token_type_ids is None:
            token_type_ids = ops.zeros((1, length), dtype="int32")
        types = self.token_type_embeddings(token_type_ids)
        return self.dropout(self.LayerNorm(words + positions + types), training=training)


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertVisualFeatureEncoder(Block):
    """Mean of the normalised projections of region features and of boxes. Upstream: `LxmertVisualFeatureEncoder`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.visn_fc = dense(config.hidden_size, "visn_fc", **self.options())
        self.visn_layer_norm = layer_norm(config, "visn_layer_norm", dtype)
        self.box_fc = dense(config.hidden_size, "box_fc", **self.options())
        self.box_layer_norm = layer_norm(config, "box_layer_norm", dtype)
        self.dropout = dropout(config.hidden_dropout_prob, "dropout", dtype)

    def build(self, input_shape: Any = None) -> None:
        hidden = (None, None, self.config.hidden_size)
        self.visn_fc.build((None, None, self.config.visual_feat_dim))
        self.visn_layer_norm.build(hidden)
        self.box_fc.build((None, None, self.config.visual_pos_dim))
        self.box_layer_norm.build(hidden)

    def call(self, visual_feats, visual_pos, training: bool = False):
        """float[B, N, visual_feat_dim] and float[B, N, visual_pos_dim] -> float[B, N, H]"""
        features = self.visn_layer_norm(self.visn_fc(visual_feats))
        boxes = self.box_layer_norm(self.box_fc(visual_pos))
        return self.dropout((features + boxes) / 2, training=training)
