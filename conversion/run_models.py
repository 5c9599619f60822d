"""What every block of a checkpoint's model computes, in Keras and in PyTorch, in float64.

Shapes: B examples, T tokens, N boxes.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import numpy as np

from conversion.formats import Checkpoint
from conversion.names import STACKS, head_of, rows
from lxmert_tf.command_line import quiet_start
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.input_table import IMAGE_INPUTS
from lxmert_tf.tasks import ARCHITECTURES, keras_class

EXAMPLES, TOKENS, BOXES = 4, 9, 6
# What every model computes with and shapes do not show.
BEYOND_SHAPES = ("num_attention_heads", "hidden_act", "layer_norm_eps")
PRETRAINING_TASKS = ("task_matched", "task_mask_lm", "task_obj_predict", "task_qa")
VISUAL_LOSSES = ("visual_obj_loss", "visual_attr_loss", "visual_feat_loss", "visual_loss_normalizer")
# The head that each output of a whole model comes from.
HEAD_OUTPUTS = {
    "prediction_logits": "cls",
    "cross_relationship_score": "cls",
    "question_answering_score": "answer_head",
    "logits": "answer_head",
}


def fields_in_use(config: LxmertConfig, task: str) -> set[str]:
    """The config's fields that a model of `task` computes its outputs and losses with.

    Not among them: dropout and how weights are drawn; the names of answers; what a call returns by default; and sizes
    of heads that the model does not have.
    """
    sizes = {size.rpartition("*")[2] for row in rows(config, task) for size in row.sizes if isinstance(size, str)}
    losses = (*PRETRAINING_TASKS, *(VISUAL_LOSSES if config.task_obj_predict else ())) if task == "pretraining" else ()
    return {*BEYOND_SHAPES, *STACKS, *sizes, *losses}


def example_inputs(*configs: LxmertConfig) -> dict[str, np.ndarray]:
    """Inputs that models of all these configs take, the same at each call; some tokens and boxes are masked.

    Returns:
        input_ids, token_type_ids and attention_mask int[B, T], visual_feats float[B, N, visual_feat_dim], visual_pos
        float[B, N, visual_pos_dim] in 0..1, visual_attention_mask int[B, N]. An even B: two rows are a pair of images.

    Raises:
        ValueError: the configs have features or boxes of other widths.
    """

    def smallest(name: str) -> int:
        return min(getattr(config, name) for config in configs)

    for name in ("visual_feat_dim", "visual_pos_dim"):
        if len({getattr(config, name) for config in configs}) > 1:
            raise ValueError(f"{name} differs, so no input fits both")
    generator = np.random.default_rng(0)
    tokens = min(TOKENS, smallest("max_position_embeddings"))
    lengths = generator.integers(1, tokens + 1, (EXAMPLES, 1))
    boxes = generator.integers(1, BOXES + 1, (EXAMPLES, 1))
    return {
        "input_ids": generator.integers(0, smallest("vocab_size"), (EXAMPLES, tokens)),
        "visual_feats": generator.standard_normal((EXAMPLES, BOXES, smallest("visual_feat_dim"))),
        "visual_pos": generator.random((EXAMPLES, BOXES, smallest("visual_pos_dim"))),
        "attention_mask": (np.arange(tokens) < lengths).astype("int64"),
        "visual_attention_mask": (np.arange(BOXES) < boxes).astype("int64"),
        "token_type_ids": generator.integers(0, smallest("type_vocab_size"), (EXAMPLES, tokens)),
    }


def output_order(config: LxmertConfig) -> list[tuple[str, str]]:
    """Every output of a model with every head, with the block that computes it, first to last.

    Names are those of the models' outputs, `name.index` for entries of a tuple, and `obj_predict_head.obj` and so on.
    """
    language, vision, cross = config.l_layers, config.r_layers, config.x_layers
    layers = [
        *_layer_outputs("language", language),
        *_layer_outputs("vision", vision),
        *(
            (f"cross layer {i}", name)
            for i in range(cross)
            for name in (
                f"cross_encoder_attentions.{i}",
                f"language_hidden_states.{language + i}",
                f"vision_hidden_states.{vision + i}",
            )
        ),
    ]
    return [
        ("language embeddings", "embeddings"),
        ("vision embeddings", "visn_fc"),
        *layers,
        ("encoder", "language_output"),
        ("encoder", "vision_output"),
        ("pooler", "pooled_output"),
        *((head, name) for name, head in HEAD_OUTPUTS.items()),
        *(("obj_predict_head", f"obj_predict_head.{name}") for name in ("obj", "attr", "feat")),
    ]


def _layer_outputs(stream: str, depth: int) -> Iterator[tuple[str, str]]:
    for i in range(depth):
        yield f"{stream} layer {i}", f"{stream}_attentions.{i}"
        yield f"{stream} layer {i}", f"{stream}_hidden_states.{i}"


# Running


def run_keras(checkpoint: Checkpoint, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a checkpoint's model in `lxmert_tf`, float64, by the names of `output_order`.

    Heads that the checkpoint lacks are left out.
    """
    with quiet_start():
        import keras

        keras.ops.zeros(())  # the first tensor looks for devices
    import lxmert_tf

    with _quiet():
        model = getattr(lxmert_tf, keras_class(checkpoint.task)).from_pretrained(checkpoint, dtype="float64")
    outputs = _outputs(model, inputs, _complete_heads(checkpoint), checkpoint.task)
    return {name: keras.ops.convert_to_numpy(value) for name, value in outputs.items()}


def run_pytorch(checkpoint: Checkpoint, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same in `lxmert_pt`."""
    import torch

    import lxmert_pt

    with _quiet(), torch.no_grad():
        model = getattr(lxmert_pt, ARCHITECTURES[checkpoint.task]).from_pretrained(checkpoint, dtype=torch.float64)
        given = {name: torch.from_numpy(value) for name, value in inputs.items()}
        outputs = _outputs(model, given, _complete_heads(checkpoint), checkpoint.task)
    return {name: value.numpy() for name, value in outputs.items()}


def frameworks() -> dict[str, Callable[[Checkpoint, dict[str, np.ndarray]], dict[str, np.ndarray]]]:
    """What runs a checkpoint, by the package of the models, for the frameworks that are installed."""
    pytorch = {"lxmert_pt": run_pytorch} if find_spec("torch") else {}
    return {"lxmert_tf": run_keras, **pytorch}


def _outputs(model: Any, inputs: dict, heads: set[str], task: str) -> dict:
    """Tensors of the model's framework."""
    backbone = model.get_backbone()
    encoded = backbone(**inputs, output_hidden_states=True, output_attentions=True, return_dict=True)
    outputs = {
        "embeddings": backbone.embeddings(inputs["input_ids"], inputs["token_type_ids"]),
        "visn_fc": backbone.encoder.visn_fc(inputs["visual_feats"], inputs["visual_pos"]),
    }
    for name, value in encoded.items():
        outputs.update(
            {f"{name}.{i}": each for i, each in enumerate(value)} if isinstance(value, tuple) else {name: value}
        )
    if task != "model":
        predicted = model(**(_paired(inputs) if task == "visual-reasoning" else inputs), return_dict=True)
        outputs.update({name: value for name, value in predicted.items() if HEAD_OUTPUTS.get(name) in heads})
    if "obj_predict_head" in heads:
        predicted = model.obj_predict_head(encoded.vision_output)
        outputs.update({f"obj_predict_head.{name}": value for name, value in predicted.items()})
    return outputs


def _paired(inputs: dict) -> dict:
    """Every two images as a pair, with the first one's sentence."""
    return {
        name: value.reshape(len(value) // 2, 2, *value.shape[1:]) if name in IMAGE_INPUTS else value[::2]
        for name, value in inputs.items()
    }


def _complete_heads(checkpoint: Checkpoint) -> set[str]:
    """The heads that the checkpoint has all tensors of; others would be drawn at random."""
    missing = {head_of(name) for name in checkpoint.match().missing}
    heads = {head_of(row.torch) for row in rows(checkpoint.config, checkpoint.task)} - missing
    return {head for head in heads if head is not None}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the log lines on missing heads and an inferred config, which the caller reports itself."""
    logger = logging.getLogger("lxmert_tf")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
