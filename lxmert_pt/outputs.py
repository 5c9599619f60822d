"""What the models return: dicts of the entries that are present, in a fixed order."""

from collections.abc import Iterable, Mapping
from typing import Any


class LxmertOutput(dict):
    """A dict that holds only the entries that are present, in field order.

    `out.name` gives an entry or None, `out["name"]` an entry or a KeyError, and `out[2]` or `out[:2]` index
    `out.to_tuple()`, which skips absent entries.

    Args:
        entries: (name, value) pairs or a mapping, as for a dict.
        losses: each loss by its name, as `out.losses`; not an entry.
        **values: entries by field name; None means absent.

    Raises:
        TypeError: a name that is not a field.
    """

    fields: tuple[str, ...] = ()

    def __init__(
        self,
        entries: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        /,
        losses: Mapping[str, Any] | None = None,
        **values: Any,
    ):
        values = {**dict(entries), **values}
        if unknown := sorted(values.keys() - set(self.fields)):
            raise TypeError(f"{type(self).__name__} has no field {', '.join(unknown)}.")
        super().__init__({name: values[name] for name in self.fields if values.get(name) is not None})
        self.losses = dict(losses or {})

    def __getattr__(self, name: str) -> Any:
        if name in type(self).fields:
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no field {name!r}.")

    def __getitem__(self, key: str | int | slice) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def to_tuple(self) -> tuple[Any, ...]:
        """The present entries, in field order."""
        return tuple(self.values())


_STATES = ("language_hidden_states", "vision_hidden_states")
_ATTENTIONS = ("language_attentions", "vision_attentions", "cross_encoder_attentions")


class LxmertModelOutput(LxmertOutput):
    """What LxmertModel returns; the shapes are in `lxmert_pt.modeling`. Source: upstream `LxmertModelOutput`."""

    fields = ("language_output", "vision_output", "pooled_output", *_STATES, *_ATTENTIONS)


class LxmertForPreTrainingOutput(LxmertOutput):
    """What LxmertForPreTraining returns. Source: upstream `LxmertForPreTrainingOutput`."""

    fields = (
        "loss",
        "prediction_logits",
        "cross_relationship_score",
        "question_answering_score",
        *_STATES,
        *_ATTENTIONS,
    )


class LxmertForQuestionAnsweringOutput(LxmertOutput):
    """What LxmertForQuestionAnswering returns. Source: upstream `LxmertForQuestionAnsweringOutput`."""

    fields = ("loss", "question_answering_score", *_STATES, *_ATTENTIONS)


class LxmertForVisualReasoningOutput(LxmertOutput):
    """What LxmertForVisualReasoning returns; upstream has no such model."""

    fields = ("loss", "logits", *_STATES, *_ATTENTIONS)
