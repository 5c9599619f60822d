"""What each model returns, as structures that Keras and its backends take apart and put together again."""

import keras
from keras.src.tree import register_tree_node_class

from lxmert_tf.model_output import ModelOutput

_ENCODER_FIELDS = (
    "language_hidden_states",
    "vision_hidden_states",
    "language_attentions",
    "vision_attentions",
    "cross_encoder_attentions",
)


def _register(cls: type) -> type:
    """Makes `cls` a node, not a leaf, to `keras.tree` and to JAX; TensorFlow knows every dict as a node already."""
    if keras.backend.backend() == "jax":
        import jax

        jax.tree_util.register_pytree_node(cls, cls.tree_flatten, cls.tree_unflatten)
    return register_tree_node_class(cls)


class _TreeOutput(ModelOutput):
    # Sorted by name, which is how TensorFlow and Keras order the entries of a plain dict.
    def tree_flatten(self) -> tuple[tuple, tuple]:
        names = tuple(sorted(self))
        return tuple(self[name] for name in names), names

    @classmethod
    def tree_unflatten(cls, names: tuple, children: tuple) -> "_TreeOutput":
        return cls(zip(names, children, strict=True))

    # The same in PyTorch's dialect.
    def torchtree_flatten(self) -> tuple[list, tuple]:
        children, names = self.tree_flatten()
        return list(children), names

    @classmethod
    def torchtree_unflatten(cls, children: list, names: tuple) -> "_TreeOutput":
        return cls.tree_unflatten(names, children)

    def torchtree_flatten_with_keys(self) -> tuple[list, tuple]:
        from torch.utils import _pytree

        children, names = self.tree_flatten()
        return [(_pytree.MappingKey(name), child) for name, child in zip(names, children, strict=True)], names


@_register
class TFLxmertModelOutput(_TreeOutput):
    """Output of `TFLxmertModel`. B examples, T tokens, N boxes, H hidden units, A attention heads.

    Fields:
        language_output: float[B, T, H], language stream after the last cross layer.
        vision_output: float[B, N, H], vision stream after the last cross layer.
        pooled_output: float[B, H], tanh of a dense layer over the first token ([CLS]).
        language_hidden_states: tuple of float[B, T, H], after each language and each cross layer.
        vision_hidden_states: tuple of float[B, N, H], after each vision and each cross layer.
        language_attentions: tuple of float[B, A, T, T], of each language layer.
        vision_attentions: tuple of float[B, A, N, N], of each vision layer.
        cross_encoder_attentions: tuple of float[B, A, T, N], language to vision, of each cross layer.
    """

    fields = ("language_output", "vision_output", "pooled_output", *_ENCODER_FIELDS)


@_register
class TFLxmertForPreTrainingOutput(_TreeOutput):
    """Output of `TFLxmertForPreTraining`.

    Fields:
        loss: float[], sum of the losses whose labels were given.
        prediction_logits: float[B, T, vocab_size], masked language modelling.
        cross_relationship_score: float[B, 2], whether sentence and image match (index 1: they do).
        question_answering_score: float[B, num_qa_labels]; absent unless `task_qa`.
        The hidden states and attentions of `TFLxmertModelOutput`.
    """

    fields = (
        "loss",
        "prediction_logits",
        "cross_relationship_score",
        "question_answering_score",
        *_ENCODER_FIELDS,
    )


@_register
class TFLxmertForQuestionAnsweringOutput(_TreeOutput):
    """Output of `TFLxmertForQuestionAnswering`.

    Fields:
        loss: float[], if labels were given.
        question_answering_score: float[B, num_qa_labels], logits.
        The hidden states and attentions of `TFLxmertModelOutput`.
    """

    fields = ("loss", "question_answering_score", *_ENCODER_FIELDS)


@_register
class TFLxmertForVisualReasoningOutput(_TreeOutput):
    """Output of `TFLxmertForVisualReasoning`; encoder entries have a row per image, 2B in all.

    Fields:
        loss: float[], if labels were given.
        logits: float[B, 2], index 1: the sentence is true of the pair of images.
        The hidden states and attentions of `TFLxmertModelOutput`, with 2B for B: rows 2i and 2i+1 are the two images
        of example i.
    """

    fields = ("loss", "logits", *_ENCODER_FIELDS)
