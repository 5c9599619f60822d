"""What each model returns: an ordered dict of what it computed, readable by attribute, name and position.

Imports no framework.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

ENCODER_FIELDS = (
    "language_hidden_states",
    "vision_hidden_states",
    "language_attentions",
    "vision_attentions",
    "cross_encoder_attentions",
    "cross_vision_to_language_attentions",
    "cross_language_self_attentions",
    "cross_vision_self_attentions",
)
ATTENTION_FIELDS = ENCODER_FIELDS[2:]


class ModelOutput(dict):
    """Base of the output types. A subclass lists its `fields` in order; entries that were not computed are absent.

    An absent field is None as an attribute, is not a key, and is skipped by position: `out[2]` is the third present
    entry. Being a dict without the absent ones, an output passes wherever nested structures of tensors do.

    Attributes:
        losses: each loss by name (`{"masked_lm_loss": ...}`), empty without labels. Not an entry, hence not part of
            the structure: it does not survive functions that rebuild structures.
        counts: over how many labels, examples or boxes each of them is the mean; likewise.
        encoded: the backbone's inputs and outputs that pretraining losses need beside the entries; likewise.

    Source: upstream `ModelOutput`.
    """

    fields: tuple[str, ...] = ()

    def __init__(
        self,
        *entries: Any,
        losses: dict[str, Any] | None = None,
        counts: dict[str, Any] | None = None,
        encoded: dict[str, Any] | None = None,
        **values: Any,
    ):
        given = dict(*entries, **values)
        unknown = sorted(set(given) - set(self.fields))
        if unknown:
            raise TypeError(
                f"{type(self).__name__} has no field {unknown[0]!r}; its fields are {', '.join(self.fields)}."
            )
        super().__init__((name, given[name]) for name in self.fields if given.get(name) is not None)
        self.__dict__["losses"] = losses or {}
        self.__dict__["counts"] = counts or {}
        self.__dict__["encoded"] = encoded or {}

    def __getattr__(self, name: str) -> Any:
        if name in type(self).fields:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}.")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in type(self).fields:
            super().__setattr__(name, value)
        elif value is None:
            self.pop(name, None)
        else:
            self[name] = value

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __reduce__(self) -> tuple:
        return type(self), (dict(self),), {"losses": self.losses, "counts": self.counts}

    def to_tuple(self) -> tuple:
        """The present entries, in field order."""
        return tuple(self[name] for name in self.fields if name in self)

    # As a structure to Keras and its backends

    # Sorted by name, which is how TensorFlow and Keras order the entries of a plain dict.
    def tree_flatten(self) -> tuple[tuple, tuple]:
        names = tuple(sorted(self))
        return tuple(self[name] for name in names), names

    @classmethod
    def tree_unflatten(cls, names: tuple, children: Iterable) -> "ModelOutput":
        return cls(zip(names, children, strict=True))

    # The same in PyTorch's dialect.
    def torchtree_flatten(self) -> tuple[list, tuple]:
        children, names = self.tree_flatten()
        return list(children), names

    @classmethod
    def torchtree_unflatten(cls, children: list, names: tuple) -> "ModelOutput":
        return cls.tree_unflatten(names, children)

    def torchtree_flatten_with_keys(self) -> tuple[list, tuple]:
        from torch.utils import _pytree

        children, names = self.tree_flatten()
        return [(_pytree.MappingKey(name), child) for name, child in zip(names, children, strict=True)], names


class TFLxmertModelOutput(ModelOutput):
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
        With `output_attentions="all"`, which upstream has not, also of each cross layer:
        cross_vision_to_language_attentions: tuple of float[B, A, N, T].
        cross_language_self_attentions: tuple of float[B, A, T, T].
        cross_vision_self_attentions: tuple of float[B, A, N, N].
    """

    fields = ("language_output", "vision_output", "pooled_output", *ENCODER_FIELDS)


class TFLxmertForPreTrainingOutput(ModelOutput):
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
        *ENCODER_FIELDS,
    )


class TFLxmertForQuestionAnsweringOutput(ModelOutput):
    """Output of `TFLxmertForQuestionAnswering`.

    Fields:
        loss: float[], if labels were given.
        question_answering_score: float[B, num_qa_labels], logits.
        The hidden states and attentions of `TFLxmertModelOutput`.
    """

    fields = ("loss", "question_answering_score", *ENCODER_FIELDS)


class TFLxmertForVisualReasoningOutput(ModelOutput):
    """Output of `TFLxmertForVisualReasoning`; encoder entries have a row per image, 2B in all.

    Fields:
        loss: float[], if labels were given.
        logits: float[B, 2], index 1: the sentence is true of the pair of images.
        The hidden states and attentions of `TFLxmertModelOutput`, with 2B for B: rows 2i and 2i+1 are the two images
        of example i.
    """

    fields = ("loss", "logits", *ENCODER_FIELDS)


def attention_fields(maps: Sequence, language_layers: int, vision_layers: int) -> dict[str, tuple]:
    """All maps of a call by the names of `ATTENTION_FIELDS`.

    Args:
        maps: in the order of computation: language layers, vision layers, and four of each cross layer.
        language_layers, vision_layers: how many there are.
    """
    cross = maps[language_layers + vision_layers :]
    by_stream = maps[:language_layers], maps[language_layers : language_layers + vision_layers]
    lists = (*by_stream, *(cross[kind::4] for kind in range(4)))
    return dict(zip(ATTENTION_FIELDS, map(tuple, lists), strict=True))


# Training steps and exports need the names of outputs, also of a model whose config has `return_dict=False`.
_named_outputs: ContextVar[bool] = ContextVar("named_outputs", default=False)


@contextmanager
def named_outputs() -> Iterator[None]:
    """Within it, models return outputs with names unless a call itself has `return_dict=False`."""
    token = _named_outputs.set(True)
    try:
        yield
    finally:
        _named_outputs.reset(token)


def outputs_are_named() -> bool:
    """Whether that is so here."""
    return _named_outputs.get()
