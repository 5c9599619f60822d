"""Vocabulary and configuration of a small model that learns the synthetic sets, the same for every task."""

import re
import string

from lxmert_tf.demo import gqa, nlvr2, pretraining, vqa
from lxmert_tf.demo.pictures import BACKGROUND, PLAIN
from lxmert_tf.demo.questions import ANSWERS, SIDES
from lxmert_tf.demo.scenes import COLORS, SHAPES


def vocabulary() -> list[str]:
    """WordPiece vocabulary of all sentences: special tokens ([PAD] is 0), punctuation, characters, whole words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    characters = string.digits + string.ascii_lowercase
    templates = [
        *vqa.SENTENCES.values(),
        *gqa.SENTENCES.values(),
        *gqa.RELATIONS,
        *(statement.sent for statement in nlvr2.STATEMENTS),
        *pretraining.CAPTIONS.values(),
    ]
    words = {word for template in templates for word in re.findall(r"[a-z]+", re.sub(r"\{\w+\}s?", " ", template))}
    words |= {*SHAPES, *(f"{shape}s" for shape in SHAPES), *COLORS, *SIDES, "object", "objects", *ANSWERS}
    pieces = [*characters, *(f"##{character}" for character in characters)]
    return [*special, *string.punctuation, *pieces, *sorted(words - {*pieces})]


def model_config(vocab_size: int, feat_dim: int) -> dict:
    """The keys of a config.json: a LXMERT small enough to learn the set on a processor in minutes."""
    return {
        "model_type": "lxmert",
        "vocab_size": vocab_size,
        "hidden_size": 96,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "l_layers": 2,
        "r_layers": 1,
        "x_layers": 2,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "max_position_embeddings": 32,
        "type_vocab_size": 2,
        "initializer_range": 0.05,  # 0.02 is for width 768
        "visual_feat_dim": feat_dim,
        "visual_pos_dim": 4,
        "num_qa_labels": len(ANSWERS),
        "num_object_labels": BACKGROUND + 1,
        "num_attr_labels": PLAIN + 1,
        "id2label": {str(row): answer for row, answer in enumerate(ANSWERS)},
        "label2id": {answer: row for row, answer in enumerate(ANSWERS)},
    }
