"""From token ids and region features to the two streams of hidden states."""

from typing import Any

from keras import ops

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.layers.primitives import Block, dense, dropout, layer_norm
from lxmert_tf.losses import class_ids


class PaddedEmbedding(Block):
    """An embedding table whose row 0 gets no gradient from looking it up.

    Upstream gives all three tables `padding_idx=0`, so row 0 of words, positions and token types only learns what
    comes another way (the word table through the tied decoder).
    """

    def __init__(self, rows: int, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.rows = rows

    def build(self, input_shape: Any = None) -> None:
        shape = (self.rows, self.config.hidden_size)
        # No autocast: a row is cast after it is looked up, not the whole table before.
        self.weight = self.add_weight(name="weight", shape=shape, initializer=self.initializer, autocast=False)

    def call(self, ids):
        """int[...] -> float[..., H]; NaN for an id that is none of the table's rows, never the row of another"""
        # The reshape changes nothing but the gradient, which TensorFlow makes dense on its way back through it. Keras'
        # optimisers square a sparse one before they add up the rows of a repeated id, which is not Adam.
        table = ops.reshape(self.weight, self.weight.shape)
        ids = class_ids(ids)
        known = ops.logical_and(ids >= 0, ids < self.rows)
        rows = ops.cast(ops.where(known, ids, ops.zeros_like(ids)), "int32")
        looked_up = ops.cast(ops.take(table, rows, axis=0), self.compute_dtype)
        looked_up = ops.where(ops.expand_dims(ops.equal(rows, 0), -1), ops.stop_gradient(looked_up), looked_up)
        return ops.where(ops.expand_dims(known, -1), looked_up, ops.full_like(looked_up, float("nan")))


class LxmertEmbeddings(Block):
    """Sum of word, position and token type embeddings, normalised. Upstream: `LxmertEmbeddings`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.word_embeddings = PaddedEmbedding(config.vocab_size, config, name="word_embeddings", **self.options())
        self.position_embeddings = PaddedEmbedding(
            config.max_position_embeddings, config, name="position_embeddings", **self.options()
        )
        self.token_type_embeddings = PaddedEmbedding(
            config.type_vocab_size, config, name="token_type_embeddings", **self.options()
        )
        self.LayerNorm = layer_norm(config, "LayerNorm", dtype)
        self.dropout = dropout(config.hidden_dropout_prob, "dropout", dtype)

    def build(self, input_shape: Any = None) -> None:
        self.word_embeddings.build()
        self.position_embeddings.build()
        self.token_type_embeddings.build()
        self.LayerNorm.build((None, None, self.config.hidden_size))

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
