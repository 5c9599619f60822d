"""The heads: what is read off the two streams."""

from typing import Any

import keras
from keras import ops

from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.layers.primitives import Block, activation, dense, gelu, join_rows, layer_norm, matmul, tanh
from lxmert_tf.losses import IGNORE_INDEX, Loss, class_ids, masked_word_loss, match_shape, weighted


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertPooler(Block):
    """tanh of a dense layer over the first token. Upstream: `LxmertPooler`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.dense = dense(config.hidden_size, "dense", **self.options())

    def build(self, input_shape: Any = None) -> None:
        self.dense.build((None, self.config.hidden_size))

    def call(self, hidden_states):
        """float[B, T, H] -> float[B, H]"""
        return tanh(self.dense(hidden_states[:, 0]))


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertPredictionHeadTransform(Block):
    """Dense, activation, normalisation. Upstream: `LxmertPredictionHeadTransform`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.dense = dense(config.hidden_size, "dense", **self.options())
        self.activation = activation(config.hidden_act)
        self.LayerNorm = layer_norm(config, "LayerNorm", self.dtype_policy)

    def build(self, input_shape: Any = None) -> None:
        hidden = (None, None, self.config.hidden_size)
        self.dense.build(hidden)
        self.LayerNorm.build(hidden)

    def call(self, hidden_states):
        """float[B, L, H] -> float[B, L, H]"""
        return self.LayerNorm(self.activation(self.dense(hidden_states)))


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertLMPredictionHead(Block):
    """Vocabulary logits; the decoder is the word embedding table itself. Upstream: `LxmertLMPredictionHead`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.transform = LxmertPredictionHeadTransform(config, name="transform", **self.options())

    def build(self, input_shape: Any = None) -> None:
        self.transform.build()
        self.bias = self.add_weight(name="bias", shape=(self.config.vocab_size,), initializer="zeros")

    def call(self, hidden_states, word_embeddings):
        """float[B, T, H] and the table float[V, H] -> float[B, T, V]"""
        table = ops.transpose(ops.cast(word_embeddings, self.compute_dtype))
        return matmul(self.transform(hidden_states), table) + ops.cast(self.bias, self.compute_dtype)

    def loss(self, hidden_states, word_embeddings, labels, sample_weight=None) -> Loss:
        """`cross_entropy` of what `call` returns and labels int[B, T], for less where few of them are not -100.

        `sample_weight` is float[B] or float[B, T], as there.
        """
        dtype, hidden, labels = self.compute_dtype, self.transform(hidden_states), class_ids(labels)
        labels = match_shape(labels, hidden[..., 0])
        table, bias = ops.cast(word_embeddings, dtype), ops.cast(self.bias, dtype)
        if sample_weight is not None:
            wide = "float64" if dtype == "float64" else "float32"
            sample_weight = ops.reshape(weighted(ops.ones_like(hidden[..., 0], wide), sample_weight), (-1,))
        value = masked_word_loss(join_rows(hidden)[0], table, bias, ops.reshape(labels, (-1,)), sample_weight)
        return Loss(value, ops.sum(ops.cast(ops.not_equal(labels, IGNORE_INDEX), "int32")))


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertPreTrainingHeads(Block):
    """Masked language modelling and sentence-image matching. Upstream: `LxmertPreTrainingHeads`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.predictions = LxmertLMPredictionHead(config, name="predictions", **self.options())
        self.seq_relationship = dense(2, "seq_relationship", **self.options())

    def build(self, input_shape: Any = None) -> None:
        self.predictions.build()
        self.seq_relationship.build((None, self.config.hidden_size))

    def call(self, language_output, pooled_output, word_embeddings):
        """float[B, T, H], float[B, H] and the table float[V, H] -> float[B, T, V] and float[B, 2]"""
        return self.predictions(language_output, word_embeddings), self.seq_relationship(pooled_output)


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertVisualObjHead(Block):
    """Object, attribute and feature predictions of each box. Upstream: `LxmertVisualObjHead`."""

    def __init__(self, config: LxmertConfig, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.transform = LxmertPredictionHeadTransform(config, name="transform", **self.options())
        for loss, units in self.sizes(config).items():
            name = f"decoder_dict_{loss}"
            setattr(self, name, dense(units, name, **self.options()))

    @staticmethod
    def sizes(config: LxmertConfig) -> dict[str, int]:
        """Width of each visual prediction the config asks for, by the name of its loss."""
        asked = {
            "obj": (config.visual_obj_loss, config.num_object_labels),
            "attr": (config.visual_attr_loss, config.num_attr_labels),
            "feat": (config.visual_feat_loss, config.visual_feat_dim),
        }
        return {loss: units for loss, (wanted, units) in asked.items() if wanted}

    def build(self, input_shape: Any = None) -> None:
        self.transform.build()
        for loss in self.sizes(self.config):
            getattr(self, f"decoder_dict_{loss}").build((None, None, self.config.hidden_size))

    def call(self, vision_output):
        """float[B, N, H] -> {"obj": float[B, N, objects], "attr": float[B, N, attributes], "feat": float[B, N, D]}"""
        hidden = self.transform(vision_output)
        return {loss: getattr(self, f"decoder_dict_{loss}")(hidden) for loss in self.sizes(self.config)}


@keras.saving.register_keras_serializable("lxmert_tf")
class LxmertVisualAnswerHead(Block):
    """Answer logits: dense to twice the width, GELU, normalisation, dense. Upstream: `LxmertVisualAnswerHead`.

    The GELU is the exact one whatever `hidden_act` says. The layers keep their places in upstream's sequence: 0, 2, 3.

    Args:
        num_labels: number of answers A.
        num_images: pooled outputs joined in the input, 1 for questions, 2 for pairs of images.
    """

    def __init__(self, config: LxmertConfig, num_labels: int, num_images: int = 1, **kwargs: Any):
        super().__init__(config, **kwargs)
        dtype = self.dtype_policy
        self.logit_fc_0 = dense(2 * config.hidden_size, "logit_fc_0", **self.options())
        self.logit_fc_2 = layer_norm(config, "logit_fc_2", dtype)
        self.logit_fc_3 = dense(num_labels, "logit_fc_3", **self.options())
        self.num_images = num_images

    def get_config(self) -> dict:
        return {**super().get_config(), "num_labels": self.logit_fc_3.units, "num_images": self.num_images}

    def build(self, input_shape: Any = None) -> None:
        wide = (None, 2 * self.config.hidden_size)
        self.logit_fc_0.build((None, self.num_images * self.config.hidden_size))
        self.logit_fc_2.build(wide)
        self.logit_fc_3.build(wide)

    def call(self, pooled_output):
        """float[B, num_images * H] -> float[B, A]"""
        return self.logit_fc_3(self.logit_fc_2(gelu(self.logit_fc_0(pooled_output))))
