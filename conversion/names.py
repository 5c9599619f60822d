"""The table of names: every tensor of LXMERT in PyTorch, Keras and old TensorFlow spelling, its layout and its shape.

The table is the data below: rows in blocks, blocks in blocks. Code only expands it for a config's depths, heads and
task into exact names.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import NamedTuple

import numpy as np

from lxmert_tf.configuration import LxmertConfig

Shape = tuple[int, ...]


class Layout(NamedTuple):
    """How a PyTorch array becomes a Keras one, and back."""

    forward: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray]
    shape: Callable[[Shape], Shape]  # of the Keras array
    inverse_shape: Callable[[Shape], Shape]  # of the PyTorch array


LAYOUTS = {
    "as_is": Layout(np.asarray, np.asarray, tuple, tuple),
    "transpose": Layout(np.transpose, np.transpose, lambda shape: tuple(shape[::-1]), lambda shape: tuple(shape[::-1])),
    "kernel": Layout(  # filters, channels, height, width; height, width, channels, filters
        lambda array: array.transpose(2, 3, 1, 0),
        lambda array: array.transpose(3, 2, 0, 1),
        lambda shape: (*shape[2:], shape[1], shape[0]),
        lambda shape: (shape[3], shape[2], *shape[:2]),
    ),
}


@dataclass(frozen=True)
class Row:
    """One tensor.

    Args:
        torch: upstream's PyTorch name, "lxmert.embeddings.word_embeddings.weight".
        keras: path of our Keras variable without the root model's name, "lxmert/embeddings/word_embeddings/weight".
        tf: name in upstream's TensorFlow checkpoints without the root model's name and, even in a bare model, with
            "lxmert/": "lxmert/embeddings/word_embeddings/weight:0".
        layout: key of `LAYOUTS`.
        sizes: the PyTorch shape; each entry a number, a config field, or "2*" and a config field.
    """

    torch: str
    keras: str
    tf: str
    layout: str
    sizes: tuple[str | int, ...]

    def shape(self, config: LxmertConfig) -> Shape:
        """The PyTorch shape in a model of this config."""
        return tuple(_size(size, config) for size in self.sizes)

    @property
    def h5_path(self) -> str:
        """Path of the dataset in a `.weights.h5` file, where Keras looks for it."""
        *layers, variable = self.keras.split("/")
        place = 0 if self.keras in LONE_VARIABLES else PLACES[variable]
        return "/".join([*(LISTED.get(layer, layer) for layer in layers), f"vars/{place}"])


Block = tuple[Row, ...]

# Keras saves the variables of a layer by number.
PLACES = {"weight": 0, "kernel": 0, "gamma": 0, "bias": 1, "beta": 1}
LONE_VARIABLES = ("cls/predictions/bias",)
# Keras walks the attributes of a model in alphabetic order. One of them is its list `layers`, so children that come
# after that word are saved as members of the list, by their classes' names.
LISTED = {
    "lxmert": "layers/tf_lxmert_model",
    "obj_predict_head": "layers/lxmert_visual_obj_head",
    "pooler": "layers/lxmert_pooler",
}


def _size(size: str | int, config: LxmertConfig) -> int:
    if isinstance(size, int):
        return size
    factor, _, name = size.rpartition("*")
    return int(factor or 1) * getattr(config, name)


# The names of layers, where PyTorch, Keras and old TensorFlow spell them differently.
SPELLINGS = {
    "output": ("output", "output_layer", "output"),
    "layer": ("layer.{i}", "layer_{i}", "layer_._{i}"),
    "r_layers": ("r_layers.{i}", "r_layers_{i}", "r_layers_._{i}"),
    "x_layers": ("x_layers.{i}", "x_layers_{i}", "x_layers_._{i}"),
    "logit_fc_0": ("logit_fc.0", "logit_fc_0", "logit_fc_._0"),
    "logit_fc_2": ("logit_fc.2", "logit_fc_2", "logit_fc_._2"),
    "logit_fc_3": ("logit_fc.3", "logit_fc_3", "logit_fc_._3"),
    "decoder_dict_obj": ("decoder_dict.obj", "decoder_dict_obj", "decoder_dict.obj"),
    "decoder_dict_attr": ("decoder_dict.attr", "decoder_dict_attr", "decoder_dict.attr"),
    "decoder_dict_feat": ("decoder_dict.feat", "decoder_dict_feat", "decoder_dict.feat"),
}


# Blocks, primitive to whole


def _block(**children: Block) -> Block:
    """The rows of all children, each under its child's name."""
    return tuple(_under(name, row) for name, rows in children.items() for row in rows)


def _under(name: str, row: Row) -> Row:
    torch, keras, tf = SPELLINGS.get(name, (name, name, name))
    return replace(row, torch=f"{torch}.{row.torch}", keras=f"{keras}/{row.keras}", tf=f"{tf}/{row.tf}")


def _dense(outputs: str | int, inputs: str) -> Block:
    return (
        Row("weight", "kernel", "kernel:0", "transpose", (outputs, inputs)),
        Row("bias", "bias", "bias:0", "as_is", (outputs,)),
    )


def _norm(size: str) -> Block:
    return (
        Row("weight", "gamma", "gamma:0", "as_is", (size,)),
        Row("bias", "beta", "beta:0", "as_is", (size,)),
    )


def _table(rows: str, tf: str) -> Block:
    return (Row("weight", "weight", tf, "as_is", (rows, "hidden_size")),)


H, INNER, WIDE = "hidden_size", "intermediate_size", "2*hidden_size"

ATTENTION = _block(query=_dense(H, H), key=_dense(H, H), value=_dense(H, H))
ATTENTION_OUTPUT = _block(dense=_dense(H, H), LayerNorm=_norm(H))
INTERMEDIATE = _block(dense=_dense(INNER, H))
OUTPUT = _block(dense=_dense(H, INNER), LayerNorm=_norm(H))
SELF_ATTENTION = _block(self=ATTENTION, output=ATTENTION_OUTPUT)
LAYER = _block(attention=SELF_ATTENTION, intermediate=INTERMEDIATE, output=OUTPUT)
X_LAYER = _block(
    visual_attention=_block(att=ATTENTION, output=ATTENTION_OUTPUT),
    lang_self_att=SELF_ATTENTION,
    visn_self_att=SELF_ATTENTION,
    lang_inter=INTERMEDIATE,
    lang_output=OUTPUT,
    visn_inter=INTERMEDIATE,
    visn_output=OUTPUT,
)
GLOBALS = _block(
    embeddings=_block(
        word_embeddings=_table("vocab_size", "weight:0"),
        position_embeddings=_table("max_position_embeddings", "embeddings:0"),
        token_type_embeddings=_table("type_vocab_size", "embeddings:0"),
        LayerNorm=_norm(H),
    ),
    encoder=_block(
        visn_fc=_block(
            visn_fc=_dense(H, "visual_feat_dim"),
            visn_layer_norm=_norm(H),
            box_fc=_dense(H, "visual_pos_dim"),
            box_layer_norm=_norm(H),
        )
    ),
    pooler=_block(dense=_dense(H, H)),
)
# Each with a slot for the number of the layer, and the config field with their number.
STACKS = {
    "l_layers": _block(encoder=_block(layer=LAYER)),
    "r_layers": _block(encoder=_block(r_layers=LAYER)),
    "x_layers": _block(encoder=_block(x_layers=X_LAYER)),
}

TRANSFORM = _block(dense=_dense(H, H), LayerNorm=_norm(H))
LANGUAGE_HEADS = _block(
    cls=(
        Row("predictions.bias", "predictions/bias", "predictions/bias:0", "as_is", ("vocab_size",)),
        *_block(predictions=_block(transform=TRANSFORM), seq_relationship=_dense(2, H)),
    )
)


def _answer_head(inputs: str, answers: str | int) -> Block:
    layers = _block(logit_fc_0=_dense(WIDE, inputs), logit_fc_2=_norm(WIDE), logit_fc_3=_dense(answers, WIDE))
    return _block(answer_head=layers)


ANSWER_HEAD = _answer_head(H, "num_qa_labels")
PAIR_HEAD = _answer_head(WIDE, 2)
# The heads of each task, with the config switches that must all be on.
HEADS: dict[str, tuple[tuple[tuple[str, ...], Block], ...]] = {
    "model": (),
    "pretraining": (
        ((), LANGUAGE_HEADS),
        (("task_obj_predict",), _block(obj_predict_head=_block(transform=TRANSFORM))),
        *(
            (
                ("task_obj_predict", f"visual_{loss}_loss"),
                _block(obj_predict_head=_block(**{f"decoder_dict_{loss}": _dense(size, H)})),
            )
            for loss, size in (
                ("obj", "num_object_labels"),
                ("attr", "num_attr_labels"),
                ("feat", "visual_feat_dim"),
            )
        ),
        (("task_qa",), ANSWER_HEAD),
    ),
    "qa": (((), ANSWER_HEAD),),
    "visual-reasoning": (((), PAIR_HEAD),),
}
HEAD_NAMES = ("cls", "obj_predict_head", "answer_head")


def head_of(name: str) -> str | None:
    """The head that a PyTorch name belongs to, or None if it is of the backbone or unknown."""
    first = name.split(".")[0]
    return first if first in HEAD_NAMES else None


ALL_HEADS = tuple(block for _, block in HEADS["pretraining"])

# PyTorch names that are left out on purpose, and why.
SKIPPED = {
    "cls.predictions.decoder.weight": "tied to the word embeddings",
    "lxmert.embeddings.position_ids": "constant",
    "embeddings.position_ids": "constant",
}
SKIPPED_PARTS = {"optimizer": "the optimizer's state, not the model's"}


def skip_reason(name: str) -> str | None:
    """Why a tensor is left out on purpose whatever the model, or None."""
    return SKIPPED.get(name) or SKIPPED_PARTS.get(name.replace("/", ".").split(".")[0])


# Expansion


def rows(config: LxmertConfig, task: str) -> list[Row]:
    """Every tensor of the model for `task` ("model", "pretraining", "qa" or "visual-reasoning").

    Globals first, then each layer, then the heads that the config switches on.
    """
    if task not in HEADS:
        raise ValueError(f"task must be one of {', '.join(HEADS)}, got {task!r}.")
    depths = {stack: getattr(config, stack) for stack in STACKS}
    wanted = [block for switches, block in HEADS[task] if all(getattr(config, switch) for switch in switches)]
    return expand(depths, wanted, bare=task == "model")


def templates() -> list[Row]:
    """Every tensor of a backbone with all heads once, with `{i}` for the number of a layer."""
    blocks = (GLOBALS, *STACKS.values())
    return [
        *(row for block in blocks for row in _backbone(block, False)),
        *(row for block in ALL_HEADS for row in block),
    ]


def expand(depths: Mapping[str, int], heads: Collection[Block], bare: bool) -> list[Row]:
    """The rows of a backbone of these depths ("l_layers", ...) and of `heads`; `bare` has no `lxmert` prefix."""
    layers = [row for stack, depth in depths.items() for i in range(depth) for row in layer(stack, i, bare)]
    return [*_backbone(GLOBALS, bare), *layers, *(row for block in heads for row in block)]


def layer(stack: str, i: int, bare: bool) -> list[Row]:
    """The rows of layer `i` of a stack."""
    return [
        replace(row, torch=row.torch.format(i=i), keras=row.keras.format(i=i), tf=row.tf.format(i=i))
        for row in _backbone(STACKS[stack], bare)
    ]


def _backbone(block: Block, bare: bool) -> list[Row]:
    full = [_under("lxmert", row) for row in block]
    if not bare:
        return full
    return [replace(row, tf=name.tf) for row, name in zip(block, full, strict=True)]


def lookup(names: Collection[str], spelling: str) -> dict[str, Row]:
    """The rows of a checkpoint by the names it uses, as deep as its layers go.

    Args:
        names: all names in the checkpoint.
        spelling: the field of `Row` they are spelled as: "keras", "tf" or "h5_path".
    """
    names = set(names)

    def present(rows: Iterable[Row]) -> bool:
        return any(getattr(row, spelling) in names for row in rows)

    bare = present(expand({}, (), bare=True)) and not any(present(block) for block in ALL_HEADS)
    depths = {stack: next(i for i in count() if not present(layer(stack, i, bare))) for stack in STACKS}
    return {getattr(row, spelling): row for row in expand(depths, () if bare else ALL_HEADS, bare)}


# Names of other code

# What wraps a module and names a level of its own, wherever it stands: DataParallel, torch.compile, FSDP, PEFT, others.
WRAPPERS = (
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "_forward_module",
    "base_layer",
)
# Of the original code and of BERT's, replaced in this order, each at most once; the longer one is of fine-tuning.
PREFIXES = (
    ("lxrt_encoder.model.bert.", "lxmert."),
    ("bert.", "lxmert."),
    ("logit_fc.", "answer_head.logit_fc."),
)
SUFFIXES = ((".gamma", ".weight"), (".beta", ".bias"))


def unwrapped(name: str) -> str:
    """A PyTorch name without the levels that wrappers add to it."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def canonical(name: str) -> str:
    """Upstream's PyTorch name for that of the original code or of very old releases."""
    for prefix, replacement in PREFIXES:
        if name.startswith(prefix):
            name = replacement + name.removeprefix(prefix)
    for suffix, replacement in SUFFIXES:
        if name.endswith(suffix):
            name = name.removesuffix(suffix) + replacement
    return name


def original_name(name: str, task: str) -> str:
    """The original code's name for upstream's PyTorch name: as its pretraining or its fine-tuning saves it."""
    full = fit_prefix(name, "qa")
    if task in ("qa", "visual-reasoning"):
        head = full.removeprefix("answer_head.")
        return f"lxrt_encoder.model.bert.{full.removeprefix('lxmert.')}" if head == full else head
    return f"module.bert.{full.removeprefix('lxmert.')}" if full.startswith("lxmert.") else f"module.{full}"


def fit_prefix(name: str, task: str) -> str:
    """A PyTorch name with or without `lxmert.`, as models of `task` spell it."""
    if task == "model":
        return name.removeprefix("lxmert.")
    return f"lxmert.{name}" if name.startswith(("embeddings.", "encoder.", "pooler.")) else name
