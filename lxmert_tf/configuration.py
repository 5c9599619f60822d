"""LxmertConfig: every size, rate and switch of an LXMERT model, with its JSON round trip. Imports no framework."""

import copy
import json
import logging
import numbers
import os
import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lxmert_tf.answers import are_placeholders, by_row

logger = logging.getLogger("lxmert_tf")

CONFIG_NAME = "config.json"
ACTIVATIONS = ("gelu", "relu", "silu", "gelu_new")
SINGLE_LABEL, MULTI_LABEL = "single_label_classification", "multi_label_classification"
PROBLEM_TYPES = ("regression", SINGLE_LABEL, MULTI_LABEL)

LARGEST_SIZE = 2**31 - 1  # ids are int32
DEEPEST = 1000  # layers of one encoder
# What upstream's base class adds to every config: read where a config does not set it.
BASE_DEFAULTS: dict[str, Any] = {
    "add_cross_attention": False,
    "architectures": None,
    "bos_token_id": None,
    "chunk_size_feed_forward": 0,
    "cross_attention_hidden_size": None,
    "decoder_start_token_id": None,
    "dtype": None,
    "eos_token_id": None,
    "finetuning_task": None,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "pad_token_id": None,
    "prefix": None,
    "pruned_heads": {},
    "sep_token_id": None,
    "task_specific_params": None,
    "tie_word_embeddings": True,
    "tokenizer_class": None,
    "torch_dtype": None,
    "torchscript": False,
    "transformers_version": None,
}
NESTING = 50  # levels of lists and objects in a config.json

# What a field may hold, by the name of its rule: (description, check).
_RULES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "size": ("an integer of at least 1", lambda v: _is_int(v) and v >= 1),
    "depth": (f"an integer of at least 0 and at most {DEEPEST}", lambda v: _is_int(v) and 0 <= v <= DEEPEST),
    "rate": ("a number from 0 up to, not including, 1", lambda v: _is_number(v) and 0 <= v < 1),
    "positive": ("a number above 0", lambda v: _is_number(v) and 0 < v <= sys.float_info.max),
    "nonnegative": ("a number of at least 0", lambda v: _is_number(v) and 0 <= v <= sys.float_info.max),
    "switch": ("True or False", lambda v: isinstance(v, bool)),
    "activation": (
        f"one of {', '.join(ACTIVATIONS)} or a callable",
        lambda v: callable(v) or (isinstance(v, str) and v in ACTIVATIONS),
    ),
    "labels": ("a dict from id to label, or None", lambda v: v is None or isinstance(v, Mapping)),
    "problem": (f"one of {', '.join(PROBLEM_TYPES)}, or None", lambda v: v is None or v in PROBLEM_TYPES),
}


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


@dataclass(init=False, repr=False)
class LxmertConfig:
    """Configuration of an LXMERT model, with upstream's parameters, names and defaults.

    Takes keyword arguments only. Keys it does not know are kept in `extra`, can be read and set as attributes and
    survive `save_pretrained`, so a config.json of any transformers release passes through unharmed. What upstream's
    base class has beyond that (`pad_token_id`, `is_encoder_decoder`, ...) reads as upstream's default.

    Args:
        vocab_size: word pieces in the vocabulary.
        hidden_size: width H of every stream; a multiple of `num_attention_heads`.
        num_attention_heads: heads per attention block.
        num_qa_labels, num_object_labels, num_attr_labels: classes of the answer, object and attribute heads.
        intermediate_size: inner width of the feed-forward blocks.
        hidden_act: "gelu" (erf), "relu", "silu", "gelu_new" (tanh) or a callable. A callable cannot be saved.
        hidden_dropout_prob, attention_probs_dropout_prob: dropout rates in [0, 1).
        max_position_embeddings: longest text, in tokens.
        type_vocab_size: token types.
        initializer_range: standard deviation of the truncated normal initialiser.
        layer_norm_eps: epsilon of every layer normalisation. (Upstream's PyTorch classes compute with 1e-12.)
        l_layers, x_layers, r_layers: depth of the language, cross and vision encoders.
        visual_feat_dim, visual_pos_dim: width of a region feature and of a box.
        visual_loss_normalizer: factor of the object, attribute and feature losses.
        task_matched, task_mask_lm, task_obj_predict, task_qa: which pretraining tasks have a loss.
        visual_obj_loss, visual_attr_loss, visual_feat_loss: which of the visual losses are used.
        output_attentions, output_hidden_states, return_dict: defaults of the call arguments of the same name.
        id2label, label2id: names of the answers; saved with the model. One given alone fills in the other;
            given both, they must say the same.
        problem_type: of question answering with soft scores: "single_label_classification" for the cross entropy of the
            best answer, else binary cross entropy.
        num_labels: without `id2label`, so many answers named LABEL_0, LABEL_1, ..., as upstream.
        name_or_path: what the config or its model was loaded from; not saved.
        **extra: anything else, kept as it is.

    Raises:
        TypeError, ValueError: naming the field, its value and the rule it breaks.

    Source: Tan & Bansal 2019, section 3; upstream `LxmertConfig`.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_attention_heads: int = 12
    num_qa_labels: int = 9500
    num_object_labels: int = 1600
    num_attr_labels: int = 400
    intermediate_size: int = 3072
    hidden_act: str | Callable = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    l_layers: int = 9
    x_layers: int = 5
    r_layers: int = 5
    visual_feat_dim: int = 2048
    visual_pos_dim: int = 4
    visual_loss_normalizer: float = 6.67
    task_matched: bool = True
    task_mask_lm: bool = True
    task_obj_predict: bool = True
    task_qa: bool = True
    visual_obj_loss: bool = True
    visual_attr_loss: bool = True
    visual_feat_loss: bool = True
    output_attentions: bool = False
    output_hidden_states: bool = False
    return_dict: bool = True
    id2label: dict[int, str] | None = None
    label2id: dict[str, int] | None = None
    problem_type: str | None = None

    model_type = "lxmert"

    def __init__(self, **values: Any):
        values.pop("model_type", None)
        depths = values.pop("num_hidden_layers", None)  # derived from the three depths
        if not isinstance(depths, Mapping | None):
            raise TypeError(
                f"num_hidden_layers follows from l_layers, x_layers and r_layers, got {depths!r}; set those."
            )
        self._name_or_path = str(values.pop("name_or_path", ""))
        num_labels = values.pop("num_labels", None)
        unset = {"problem_type": None} if values.get("problem_type", "") is None else {}
        for field in fields(self):
            setattr(self, field.name, values.pop(field.name, field.default))
        if values.get("pruned_heads"):
            logger.warning("pruned_heads is left out: heads are not pruned; a call's head_mask switches them off.")
            values["pruned_heads"] = {}
        self.extra = values | unset  # so that it is written as it was read
        _warn_of_near_misses(values)
        self._complete_labels()
        if num_labels is not None and self.id2label is None:
            self.num_labels = num_labels
        elif num_labels not in (None, self.num_labels):
            logger.warning("num_labels=%s is left out: id2label names %d.", num_labels, self.num_labels)
        self._validate()

    def __getattr__(self, name: str) -> Any:
        known = BASE_DEFAULTS | self.__dict__.get("extra", {})
        if name in known:
            return known[name]
        raise AttributeError(f"LxmertConfig has no field {name!r}.")

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "extra" or name.startswith("_") or hasattr(type(self), name):
            super().__setattr__(name, value)
        else:
            self.extra[name] = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LxmertConfig) and self._settings() == other._settings()

    def __repr__(self) -> str:
        changed = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        return f"LxmertConfig({', '.join(f'{k}={v!r}' for k, v in {**changed, **self.extra}.items())})"

    @property
    def num_hidden_layers(self) -> dict[str, int]:
        """Depth of each encoder, as upstream gives it."""
        return {"vision": self.r_layers, "cross_encoder": self.x_layers, "language": self.l_layers}

    @property
    def num_labels(self) -> int:
        """How many labels `id2label` names, or `num_qa_labels` where it names none."""
        return len(self.id2label) if self.id2label else self.num_qa_labels

    @num_labels.setter
    def num_labels(self, value: int) -> None:
        _check("num_labels", value, "size")
        if not self.id2label or len(self.id2label) != value:
            self.id2label = {row: f"LABEL_{row}" for row in range(value)}
            self.label2id = {label: row for row, label in self.id2label.items()}

    @property
    def use_return_dict(self) -> bool:
        """Upstream's name for `return_dict`."""
        return self.return_dict

    @property
    def name_or_path(self) -> str:
        """The path or Hub id that the config or its model was loaded from, or ""."""
        return self._name_or_path or self.extra.get("_name_or_path", "")

    @name_or_path.setter
    def name_or_path(self, value: str | os.PathLike) -> None:
        self._name_or_path = os.fspath(value)

    # Reading

    @classmethod
    def of(cls, config: Any) -> "LxmertConfig":
        """`config` itself, or what a `transformers.LxmertConfig` of any release says.

        Raises:
            TypeError: it is neither.
            ValueError: it is upstream's config of another model, or breaks a rule.
        """
        if isinstance(config, LxmertConfig):
            return config
        if hasattr(type(config), "model_type") and hasattr(config, "to_dict"):
            # What it would write to a config.json: labels that nobody gave are not in it.
            return cls.from_dict(getattr(config, "to_diff_dict", config.to_dict)())
        raise TypeError(f"config must be an LxmertConfig, got {type(config).__name__}.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], **overrides: Any) -> "LxmertConfig":
        """A config from a dict such as a parsed config.json; `overrides` win over it."""
        if not isinstance(values, Mapping):
            raise TypeError(f"An LXMERT config must be a JSON object, got {type(values).__name__}.")
        _check_nesting(values)
        labels = {"id2label", "label2id"} & set(overrides)
        if len(labels) == 1 or (not labels and "num_labels" in overrides):  # what the other says is overridden with it
            values = {name: value for name, value in values.items() if name not in ("id2label", "label2id")}
        model_type = values.get("model_type", cls.model_type)
        if model_type != cls.model_type:
            start = "; a training can start from it (lxmert-tf train --init)" if model_type == "bert" else ""
            raise ValueError(
                f"model_type must be 'lxmert', got {reprlib.repr(model_type)}: this config is of another model{start}."
            )
        return cls(**{**values, **overrides})

    @classmethod
    def from_json_file(cls, path: str | os.PathLike, **overrides: Any) -> "LxmertConfig":
        """A config from a config.json file of upstream (any release) or ours.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not JSON, or breaks a rule; the message names the file.
        """
        from lxmert_tf.files import read_json

        try:
            values = read_json(path)
        except ValueError as error:
            raise ValueError(f"{path} is not a JSON file ({error}); expected an LXMERT config.json.") from error
        try:
            return cls.from_dict(values, **overrides)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{path}: {error}") from error

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike, **options: Any) -> "LxmertConfig":
        """A config from a directory with a config.json, from such a file, or from a Hub id.

        Args:
            pretrained_model_name_or_path: directory, file, or Hub id such as "unc-nlp/lxmert-base-uncased".
            **options: `revision`, `cache_dir`, `local_files_only`, `token`, `force_download`, `proxies`, `subfolder`
                and upstream's others, as a model's `from_pretrained` takes them; the rest override fields.
        """
        from lxmert_tf.hub import HUB_OPTIONS, fetch
        from lxmert_tf.upstream_arguments import ARGUMENTS, translate

        own = set(options) - set(ARGUMENTS) | set(BASE_DEFAULTS)
        options = translate(f"{cls.__name__}.from_pretrained", options, own)
        hub_options = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
        path = fetch(pretrained_model_name_or_path, [CONFIG_NAME], **hub_options)
        config = cls.from_json_file(path / CONFIG_NAME if path.is_dir() else path, **options)
        config.name_or_path = pretrained_model_name_or_path
        return config

    # Writing

    def to_dict(self) -> dict[str, Any]:
        """Every field and extra key as plain JSON values, with upstream's derived keys.

        Raises:
            ValueError: `hidden_act` is a callable, which JSON cannot hold.
        """
        if callable(self.hidden_act):
            raise ValueError(
                f"hidden_act is the callable {self.hidden_act!r}, which a config.json cannot hold; "
                f"use one of {', '.join(ACTIVATIONS)} in a model that is saved."
            )
        dtypes = {k: v for k in ("dtype", "torch_dtype") if not isinstance(v := self.extra.get(k), str | dict | None)}
        names = {k: str(v).rpartition(".")[2] for k, v in dtypes.items()}  # torch.float16 -> float16
        derived = {"model_type": self.model_type, "num_hidden_layers": self.num_hidden_layers}
        return {**self._settings(), **names, **derived}

    def to_diff_dict(self) -> dict[str, Any]:
        """`to_dict()` without what is as upstream's base class has it for all models."""
        own = {name: getattr(type(self), name) for name in ("output_attentions", "output_hidden_states", "return_dict")}
        base = BASE_DEFAULTS | own
        return {name: value for name, value in self.to_dict().items() if name not in base or value != base[name]}

    def to_json_string(self, use_diff: bool = False) -> str:
        """The text of a config.json that upstream and `from_json_file` read: of all values, or of `to_diff_dict()`."""
        values = self.to_diff_dict() if use_diff else self.to_dict()
        return json.dumps(values, indent=2, sort_keys=True) + "\n"

    def to_json_file(self, json_file_path: str | os.PathLike, use_diff: bool = False) -> None:
        """Writes that text to a file, whole or not at all."""
        from lxmert_tf.files import write_text

        write_text(json_file_path, self.to_json_string(use_diff))

    def save_pretrained(self, save_directory: str | os.PathLike, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Writes `save_directory`/config.json, whole or not at all; `push_to_hub` as of a model's `save_pretrained`."""
        from lxmert_tf.hub import UPLOAD_OPTIONS, upload
        from lxmert_tf.upstream_arguments import translate

        options = translate(f"{type(self).__name__}.save_pretrained", kwargs, ("push_to_hub", *UPLOAD_OPTIONS))
        self.to_json_file(Path(save_directory) / CONFIG_NAME)
        if push_to_hub:
            upload(save_directory, [CONFIG_NAME], **options)

    # Changing

    def replace(self, **changes: Any) -> "LxmertConfig":
        """A copy with other values, checked as those of a new config are."""
        config = type(self).from_dict(copy.deepcopy(self._settings()), **changes)
        config._name_or_path = self._name_or_path
        return config

    def update(self, config_dict: Mapping[str, Any]) -> None:
        """Sets values by name, as upstream's does; where one breaks a rule, none is set."""
        self.__dict__.update(self.replace(**config_dict).__dict__)

    def update_from_string(self, update_str: str) -> None:
        """Sets values from a text such as "l_layers=3,hidden_dropout_prob=0.2,task_qa=false", each of its old type.

        Raises:
            ValueError: a part is no name=value, the config has no such value, or it is of another type; or as `update`.
        """
        changes = {}
        for part in update_str.split(","):
            name, separator, text = part.partition("=")
            if not separator or not hasattr(self, name):
                raise ValueError(f"update_str must hold values of the config as name=value, got {reprlib.repr(part)}.")
            changes[name] = _parsed(name, text, getattr(self, name))
        self.update(changes)

    def _settings(self) -> dict[str, Any]:
        """Fields that are not None and extra keys, to make an equal config of."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**self.extra, **{name: value for name, value in values.items() if value is not None}}

    def resize_answers(self, num_qa_labels: int) -> None:
        """Sets `num_qa_labels`; names of answers stay where all that are left have one, else they are dropped."""
        self.num_qa_labels = num_qa_labels
        if not self.id2label:
            return
        kept = {row: label for row, label in self.id2label.items() if row < num_qa_labels}
        complete = len(kept) >= num_qa_labels
        if not complete:
            logger.warning(
                "id2label names %d of %d answers: it is dropped; set config.id2label and label2id to name all.",
                len(kept),
                num_qa_labels,
            )
        self.id2label = kept if complete else None
        self.label2id = {label: row for row, label in kept.items()} if complete else None

    # Checks

    def _complete_labels(self) -> None:
        """Makes `id2label` and `label2id` each other's inverse; JSON has only string keys.

        Placeholders that contradict names are dropped: transformers leaves its LABEL_0, LABEL_1 in one of the two where
        only the other was given.
        """
        id2label = self._by_row("id2label", "integers to names", lambda id, label: (id, str(label)))
        label2id = self._by_row("label2id", "names to integers", lambda label, id: (id, str(label)))
        if id2label and label2id and are_placeholders(label2id):
            label2id = id2label
        elif id2label and label2id and are_placeholders(id2label):
            id2label = label2id
        known = id2label or label2id
        if not known:
            return
        for row, label in (label2id or {}).items():
            if known.get(row) != label:
                raise ValueError(
                    f"label2id must say the same as id2label, got {label!r} for {row}, where id2label has "
                    f"{known.get(row)!r}; leave label2id out to have it made of id2label."
                )
        self.id2label = known
        self.label2id = {label: row for row, label in known.items()}

    def _by_row(self, name: str, what: str, pair: Callable[[Any, Any], tuple[Any, str]]) -> dict[int, str] | None:
        """The labels of a field by their ids."""
        _check(name, labels := getattr(self, name), "labels")
        if labels is None:
            return None
        try:
            return by_row(pair(key, value) for key, value in labels.items())
        except ValueError as error:
            raise ValueError(f"{name} must map {what}, one to one: {error}.") from None

    def _validate(self) -> None:
        for name, rule in _FIELD_RULES.items():
            _check(name, getattr(self, name), rule)
        for name in _SIZES:
            if getattr(self, name) > LARGEST_SIZE:
                raise ValueError(f"{name} must be at most {LARGEST_SIZE}, got {reprlib.repr(getattr(self, name))}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads, got hidden_size={self.hidden_size} "
                f"and num_attention_heads={self.num_attention_heads}."
            )


_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "num_qa_labels",
    "num_object_labels",
    "num_attr_labels",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "visual_feat_dim",
    "visual_pos_dim",
)
# What `from_pretrained` of a model takes to set in its config.
SETTINGS = (
    *(field.name for field in fields(LxmertConfig)),
    *(name for name in BASE_DEFAULTS if "dtype" not in name),
    "num_labels",
)
_FIELD_RULES = {
    **dict.fromkeys(_SIZES, "size"),
    **dict.fromkeys(("l_layers", "x_layers", "r_layers"), "depth"),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), "rate"),
    **dict.fromkeys(("initializer_range", "layer_norm_eps"), "positive"),
    "visual_loss_normalizer": "nonnegative",
    "hidden_act": "activation",
    "problem_type": "problem",
    **{field.name: "switch" for field in fields(LxmertConfig) if field.type in (bool, "bool")},
}


_WORDS = {**dict.fromkeys(("true", "1", "y", "yes"), True), **dict.fromkeys(("false", "0", "n", "no"), False)}


def _parsed(name: str, text: str, old: Any) -> bool | int | float | str:
    """A text as a value of the type of the old one."""
    kind = type(old)
    if kind not in (bool, int, float, str):
        raise ValueError(f"{name} cannot be set from text, since it is of type {kind.__name__}; use update.")
    try:
        return _WORDS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ValueError(f"{name} must be of type {kind.__name__}, got {reprlib.repr(text)}.") from None


def _check(name: str, value: Any, rule: str) -> None:
    description, holds = _RULES[rule]
    if holds(value):
        return
    right_type = (
        isinstance(value, str)
        if rule in ("activation", "problem")
        else _is_number(value) and rule not in ("switch", "labels")
    )
    error = ValueError if right_type else TypeError
    raise error(f"{name} must be {description}, got {reprlib.repr(value)}.")


def _check_nesting(values: Any) -> None:
    level = [values]
    for _ in range(NESTING):
        level = [child for each in level for child in _children(each)]
    if level:
        raise ValueError(f"An LXMERT config must be nested at most {NESTING} levels deep.")


def _children(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _warn_of_near_misses(extra: Mapping[str, Any]) -> None:
    """Keys that are kept although they are probably misspelt fields."""
    names = [field.name for field in fields(LxmertConfig)]
    for name in extra:
        if name not in BASE_DEFAULTS and (near := get_close_matches(name, names, n=1, cutoff=0.9)):
            logger.warning(
                "LxmertConfig has no field %r, which is kept but does nothing; did you mean %r?", name, near[0]
            )


def checked_size(name: str, value: Any, least: int = 1) -> int:
    """An argument that is a number of something, as Python's int.

    Raises:
        TypeError: it is no integer, of Python or NumPy.
        ValueError: it is below `least`.
    """
    is_integer = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_integer or value < least:
        error = ValueError if is_integer else TypeError
        raise error(f"{name} must be an integer of at least {least}, got {reprlib.repr(value)}.")
    return int(value)


def padded_size(size: int, new_size: int | None, multiple: int | None) -> int | None:
    """What a vocabulary of `size` pieces is to have: `new_size`, rounded up to a multiple; None to stay as it is.

    Raises:
        TypeError, ValueError: as `checked_size`.
    """
    multiple = 1 if multiple is None else checked_size("pad_to_multiple_of", multiple)
    if new_size is not None:
        size = checked_size("new_num_tokens", new_size)
    return None if new_size is None and multiple == 1 else -(-size // multiple) * multiple
