"""BERT as a start: the embeddings and language layers of an LXMERT, which are of BERT's kind, from BERT's weights."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conversion.formats import find_weights, read_file
from conversion.names import Row, fit_prefix, rows
from conversion.report import counted, grouped, some
from conversion.tensors import Tensors
from lxmert_tf.configuration import CONFIG_NAME, LxmertConfig
from lxmert_tf.files import read_json

# The fields of a config that BERT and LXMERT share: those that its weights need as they are, and others.
NEEDED = (
    "vocab_size",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "max_position_embeddings",
    "type_vocab_size",
)
SHARED = (
    *NEEDED,
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "initializer_range",
    "layer_norm_eps",
)
LANGUAGE = ("lxmert.embeddings.", "lxmert.encoder.layer.")
# What reports call the parts of a model, by what the names of their tensors begin with.
PARTS = {
    "lxmert.embeddings.": "embeddings",
    "lxmert.encoder.layer.": "language layers",
    "lxmert.encoder.visn_fc.": "vision embeddings",
    "lxmert.encoder.r_layers.": "vision layers",
    "lxmert.encoder.x_layers.": "cross layers",
    "lxmert.pooler.": "pooler",
}


@dataclass(frozen=True)
class Bert:
    """An opened BERT checkpoint.

    Args:
        path: the file read.
        tensors: all of them, those that LXMERT has too by its PyTorch names with `lxmert.`, in PyTorch layout.
        config: of an LXMERT with these language layers.
    """

    path: Path
    tensors: Tensors
    config: LxmertConfig

    def language_rows(self, config: LxmertConfig, task: str) -> list[Row]:
        """The rows of a model whose tensors are BERT's: its embeddings and its language layers.

        Raises:
            ValueError: BERT lacks some, or they have other shapes.
        """
        table = [row for row in rows(config, task) if fit_prefix(row.torch, "qa").startswith(LANGUAGE)]
        shapes = self.tensors.shapes
        wanted = {fit_prefix(row.torch, "qa"): row.shape(config) for row in table}
        if missing := [name for name in wanted if name not in shapes]:
            raise ValueError(
                f"{self.path}: BERT has no {some(missing, 2)}; give a config with no more l_layers than BERT has, "
                f"got {config.l_layers}."
            )
        misshapen = [f"{name} {list(shapes[name])}, not {list(s)}" for name, s in wanted.items() if shapes[name] != s]
        if misshapen:
            raise ValueError(f"{self.path}: BERT has other sizes than the config: {some(misshapen, 2)}.")
        return table

    def named_for(self, task: str) -> Tensors:
        """The tensors under the names that models of `task` have for them."""
        return self.tensors.renamed(lambda name: fit_prefix(name, task))

    def lines(self, config: LxmertConfig, task: str) -> list[str]:
        """What of a model is BERT's, what is new, and what of BERT is left out, a line for each part."""
        taken = {fit_prefix(row.torch, "qa") for row in self.language_rows(config, task)}
        wanted = [fit_prefix(row.torch, "qa") for row in rows(config, task)]
        return [
            *_lines(f"from {self.path}", [name for name in wanted if name in taken]),
            *_lines("new", [name for name in wanted if name not in taken]),
            *_lines("left out of BERT", [name for name in self.tensors if name not in taken]),
        ]


def open_bert(path: str | os.PathLike, config: LxmertConfig | None = None) -> Bert | None:
    """Opens a BERT checkpoint of `transformers`, PyTorch's or TensorFlow's; None if `path` is something else.

    Args:
        path: a directory, or a file in one, with a config.json that is BERT's.
        config: of the LXMERT; by default the paper's, with BERT's sizes and rates.

    Raises:
        FileNotFoundError: there are no weights.
        ValueError: they are damaged, or BERT is not of the config's sizes.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    values = _bert_config(folder / CONFIG_NAME)
    if values is None:
        return None
    file = find_weights(Path(path))
    if values.get("position_embedding_type", "absolute") != "absolute":
        raise ValueError(f"{folder}: BERT's positions must be absolute, got {values['position_embedding_type']!r}.")
    if config is None:
        depth = {"l_layers": min(LxmertConfig.l_layers, values.get("num_hidden_layers", LxmertConfig.l_layers))}
        config = LxmertConfig(**{name: values[name] for name in SHARED if name in values}, **depth)
    differ = [name for name in NEEDED if values.get(name, getattr(config, name)) != getattr(config, name)]
    if differ:
        found = some([f"{name}={getattr(config, name)!r}, BERT {values[name]!r}" for name in differ])
        raise ValueError(f"{folder} does not fit the config, which says {found}.")
    tensors = read_file(file)[1].tensors.renamed(lambda name: fit_prefix(name, "qa"))
    return Bert(file, tensors, config)


def _bert_config(file: Path) -> dict[str, Any] | None:
    """The values of a config.json if it is BERT's; where no model_type tells, it is one without LXMERT's `x_layers`."""
    if not file.is_file():
        return None
    try:
        values = read_json(file)
    except ValueError:
        return None
    if not isinstance(values, dict):
        return None
    is_bert = values.get("model_type", "bert") == "bert" and isinstance(values.get("num_hidden_layers"), int)
    return values if is_bert and "x_layers" not in values else None


def _lines(what: str, names: Collection[str]) -> list[str]:
    parts = {name: next((part for start, part in PARTS.items() if name.startswith(start)), None) for name in names}
    groups = grouped({name: part or name.split(".")[0].split("/")[0] for name, part in parts.items()})
    return [f"{what}: {_part(part, group)} ({counted(group, 'tensor')})" for part, group in groups.items()]


def _part(part: str, names: Collection[str]) -> str:
    """A part, and which layers where it has several."""
    if not part.endswith("layers"):
        return part
    numbers = sorted({int(name.split(".")[3]) for name in names})
    return f"{part} {numbers[0]} to {numbers[-1]}" if len(numbers) > 1 else f"{part[:-1]} {numbers[0]}"
