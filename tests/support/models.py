"""What the Keras tests share: tiny models with weights that matter, and batches of odd sizes with masks on."""

import keras
import numpy as np

from lxmert_tf import (
    LxmertConfig,
    TFLxmertForPreTraining,
    TFLxmertForQuestionAnswering,
    TFLxmertForVisualReasoning,
    TFLxmertModel,
)

MODELS = (TFLxmertModel, TFLxmertForPreTraining, TFLxmertForQuestionAnswering, TFLxmertForVisualReasoning)
TASK_MODELS = MODELS[1:]


def tiny_config(**changes) -> LxmertConfig:
    """Two language, one vision, one cross layer of width 12; no two sizes alike; no dropout."""
    sizes = {
        "vocab_size": 37,
        "hidden_size": 12,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "num_qa_labels": 5,
        "num_object_labels": 7,
        "num_attr_labels": 6,
        "max_position_embeddings": 16,
        "visual_feat_dim": 9,
        "l_layers": 2,
        "r_layers": 1,
        "x_layers": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return LxmertConfig(**{**sizes, **changes})


def tiny_model(model_class=TFLxmertForQuestionAnswering, dtype=None, seed: int = 0, **changes):
    """A model whose every weight, biases and normalisations too, is random."""
    model = model_class(tiny_config(**changes), dtype=dtype)
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        centre = 1.0 if variable.path.endswith("gamma") else 0.0
        variable.assign(centre + 0.3 * rng.standard_normal(variable.shape))
    return model


def batch(model, examples: int = 3, tokens: int = 7, boxes: int = 5, seed: int = 0) -> dict[str, np.ndarray]:
    """All inputs of a model but `inputs_embeds`; some tokens and boxes are masked."""
    rng, config = np.random.default_rng(seed), model.config
    regions = (examples, 2, boxes) if isinstance(model, TFLxmertForVisualReasoning) else (examples, boxes)
    lengths = rng.integers(min(2, tokens), tokens + 1, examples)
    corners = np.sort(rng.random((*regions, 2, 2)), axis=-2).reshape(*regions, 4)
    visual_mask = (rng.random(regions) < 0.8).astype("int32")
    visual_mask[..., 0] = 1
    return {
        "input_ids": rng.integers(1, config.vocab_size, (examples, tokens)).astype("int32"),
        "visual_feats": rng.standard_normal((*regions, config.visual_feat_dim)).astype("float32"),
        "visual_pos": corners.astype("float32"),
        "attention_mask": (np.arange(tokens) < lengths[:, None]).astype("int32"),
        "visual_attention_mask": visual_mask,
        "token_type_ids": rng.integers(0, config.type_vocab_size, (examples, tokens)).astype("int32"),
    }


def labels(model, examples: int = 3, tokens: int = 7, boxes: int = 5, seed: int = 1) -> dict:
    """Labels by the name of the call argument, some of them ignored."""
    rng, config = np.random.default_rng(seed), model.config
    if isinstance(model, TFLxmertForVisualReasoning):
        return {"labels": rng.integers(0, 2, examples).astype("int32")}
    if isinstance(model, TFLxmertForQuestionAnswering):
        return {"labels": rng.integers(0, config.num_qa_labels, examples).astype("int32")}
    words = rng.integers(0, config.vocab_size, (examples, tokens))
    confidence = rng.random((3, examples, boxes)).astype("float32")
    ans = rng.integers(0, config.num_qa_labels, examples)
    ans[0] = -100
    return {
        "masked_lm_labels": np.where(rng.random(words.shape) < 0.5, words, -100).astype("int32"),
        "matched_label": rng.integers(0, 2, examples).astype("int32"),
        "ans": ans.astype("int32"),
        "obj_labels": {
            "obj": (rng.integers(0, config.num_object_labels, (examples, boxes)).astype("int32"), confidence[0]),
            "attr": (rng.integers(0, config.num_attr_labels, (examples, boxes)).astype("int32"), confidence[1]),
            "feat": (rng.standard_normal((examples, boxes, config.visual_feat_dim)).astype("float32"), confidence[2]),
        },
    }


def flat(output) -> dict[str, np.ndarray]:
    """The output's entries as arrays, tuples spread out as `name.index`."""
    entries = {}
    for name, value in output.items():
        parts = {f"{name}.{i}": item for i, item in enumerate(value)} if isinstance(value, tuple) else {name: value}
        entries.update({key: to_numpy(item) for key, item in parts.items()})
    return entries


def to_numpy(x) -> np.ndarray:
    """A tensor of any backend as numpy; half precision as float32, which numpy can compute with."""
    dtype = keras.backend.standardize_dtype(x.dtype)
    return keras.ops.convert_to_numpy(keras.ops.cast(x, "float32") if dtype in ("float16", "bfloat16") else x)
