"""Starting from BERT: its embeddings and first layers bit for bit, the rest new and told, and a run that trains."""

import json
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from support.models import tiny_config

from conversion import open_checkpoint
from conversion.matching import infer_config
from conversion.models import state_dict
from conversion.names import LAYOUTS, Row, rows
from lxmert_tf import TFLxmertForPreTraining, TFLxmertForQuestionAnswering
from lxmert_tf.data.features.build import build_features
from lxmert_tf.demo.dataset import write_dataset
from lxmert_tf.training.initialization import from_bert, open_start
from lxmert_tf.training.options import TrainOptions
from lxmert_tf.training.run import train

DEPTH = 4  # of BERT; the LXMERT of `CONFIG` has two language layers
CONFIG = tiny_config()
SIZES = ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings")
BERT_CONFIG = {
    "model_type": "bert",
    "architectures": ["BertForPreTraining"],
    "num_hidden_layers": DEPTH,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.25,
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
    **{name: getattr(CONFIG, name) for name in SIZES},
}
LANGUAGE = ("lxmert.embeddings.", "lxmert.encoder.layer.")
OTHERS = ("lxmert.pooler.", "cls.")


@cache
def bert() -> dict[Row, np.ndarray]:
    """BERT for pretraining: the rows that LXMERT has too, in PyTorch layout."""
    rng = np.random.default_rng(0)
    table = rows(tiny_config(l_layers=DEPTH), "pretraining")
    mine = [row for row in table if row.torch.startswith((*LANGUAGE, *OTHERS))]
    return {row: rng.standard_normal(row.shape(CONFIG)).astype("f4") for row in mine}


def pytorch_names(prefix: str = "bert.") -> dict[str, np.ndarray]:
    return {row.torch.replace("lxmert.", prefix, 1): value for row, value in bert().items()}


def tensorflow_names() -> dict[str, np.ndarray]:
    """As `transformers` lays them out and names them: the heads in groups of their own."""
    named = {}
    for row, value in bert().items():
        name = row.tf.replace("lxmert/", "bert/", 1)
        if name.startswith("cls/"):
            name = name.replace("cls/", "nsp___cls/" if "seq_relationship" in name else "mlm___cls/", 1)
        named[name] = np.ascontiguousarray(LAYOUTS[row.layout].forward(value))
    return named


def old_names() -> dict[str, np.ndarray]:
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in pytorch_names().items()
    }


def write_h5(path: Path) -> None:
    """As Keras 2 writes it: groups of the top layers, which list the names in them; the words are in two."""
    root = "tf_bert_for_pre_training"
    names = tensorflow_names()
    words = "bert/embeddings/word_embeddings/weight:0"
    with h5py.File(path, "w") as file:
        tops = sorted({name.split("/")[0] for name in names})
        file.attrs["layer_names"] = np.array(tops, "S")
        for top in tops:
            inside = [name for name in names if name.startswith(f"{top}/")] + [words] * (top == "mlm___cls")
            group = file.create_group(top)
            group.attrs["weight_names"] = np.array([f"{root}/{name}" for name in inside], "S")
            for name in inside:
                group[f"{root}/{name}"] = names[name]


def pickled(tensors: dict[str, np.ndarray], path: Path) -> None:
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)


WRITERS = {
    "safetensors": lambda folder: save_file(pytorch_names(), folder / "model.safetensors", {"format": "pt"}),
    "PyTorch": lambda folder: pickled(pytorch_names(), folder / "pytorch_model.bin"),
    "old names": lambda folder: pickled(old_names(), folder / "pytorch_model.bin"),
    "bare": lambda folder: save_file(pytorch_names(""), folder / "model.safetensors", {"format": "pt"}),
    "TensorFlow h5": lambda folder: write_h5(folder / "tf_model.h5"),
    "TensorFlow safetensors": lambda folder: save_file(
        tensorflow_names(), folder / "model.safetensors", {"format": "tf"}
    ),
}


def write_bert(folder: Path, kind: str = "safetensors", **changes: object) -> Path:
    """A directory as `transformers` writes it."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**BERT_CONFIG, **changes}))
    WRITERS[kind](folder)
    return folder


@pytest.mark.parametrize("kind", WRITERS)
def test_embeddings_and_language_layers_are_berts_bit_for_bit(tmp_path, kind):
    start = open_start(str(write_bert(tmp_path, kind)), CONFIG)
    model = from_bert(TFLxmertForPreTraining, start, CONFIG)
    found = state_dict(model)
    expected = {row.torch: value for row, value in bert().items()}
    taken = {name for name in found if name.startswith(LANGUAGE)}
    assert len(taken) == 5 + 2 * 16
    for name, value in found.items():
        if name in taken:
            np.testing.assert_array_equal(value, expected[name], err_msg=name)
        elif name in expected and name.endswith("weight"):
            assert not np.array_equal(value, expected[name]), name  # new, though BERT has one of the name


def test_every_part_is_told_in_a_line(tmp_path):
    start = open_start(str(write_bert(tmp_path)), CONFIG)
    assert start.lines(CONFIG, "pretraining") == [
        f"from {tmp_path / 'model.safetensors'}: embeddings (5 tensors)",
        f"from {tmp_path / 'model.safetensors'}: language layers 0 to 1 (32 tensors)",
        "new: vision embeddings (8 tensors)",
        "new: pooler (2 tensors)",
        "new: vision layer 0 (16 tensors)",
        "new: cross layer 0 (42 tensors)",
        "new: cls (7 tensors)",
        "new: obj_predict_head (10 tensors)",
        "new: answer_head (6 tensors)",
        "left out of BERT: language layers 2 to 3 (32 tensors)",
        "left out of BERT: pooler (2 tensors)",
        "left out of BERT: cls (7 tensors)",
    ]


def test_without_a_config_the_papers_is_taken_with_berts_sizes_and_rates(tmp_path):
    config = open_start(str(write_bert(tmp_path)), None).config
    assert {name: getattr(config, name) for name in SIZES} == {name: BERT_CONFIG[name] for name in SIZES}
    assert (config.l_layers, config.r_layers, config.x_layers, config.visual_feat_dim) == (DEPTH, 5, 5, 2048)
    assert config.hidden_dropout_prob == 0.25
    deep = open_start(str(write_bert(tmp_path / "deep", num_hidden_layers=12)), None).config
    assert deep.l_layers == 9


@pytest.mark.slow
@pytest.mark.usefixtures("eagerly")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental_run_functions_eagerly`")
def test_a_run_keeps_what_is_frozen_and_trains_the_rest(tmp_path, capsys):
    """Vocabulary and sizes are those of the directory."""
    write_dataset(data := tmp_path / "data", "vqa", num_images=20, boxes=5, feat_dim=9, pictures=False)
    build_features(data / "features.tsv", data / "features.h5")
    folder = write_bert(tmp_path / "bert")
    words = (data / "vocab.txt").read_text().splitlines()[: CONFIG.vocab_size]
    (folder / "vocab.txt").write_text("\n".join(words))
    CONFIG.save_pretrained(tmp_path)
    options = TrainOptions(
        "vqa",
        train=(str(data / "train.json"),),
        features=str(data / "features.h5"),
        answers=str(data / "label2ans.json"),
        init=str(folder),
        config=str(tmp_path / "config.json"),
        output=str(tmp_path / "run"),
        freeze=("embeddings/", "encoder/layer_0/"),
        epochs=1,
        batch_size=8,
        limit=4,
        max_length=4,
    )
    assert train(options)["steps"] > 0
    out = capsys.readouterr().out
    assert "language layers 0 to 1 (32 tensors)" in out and "new: answer_head (6 tensors)" in out
    found = dict(open_checkpoint(tmp_path / "run/last").tensors)
    assert len(found["answer_head.logit_fc.3.bias"]) == len(json.loads((data / "label2ans.json").read_text()))
    for row, value in bert().items():
        if row.torch.startswith(("lxmert.embeddings.", "lxmert.encoder.layer.0.")):
            np.testing.assert_array_equal(found[row.torch], value)
        elif row.torch.startswith("lxmert.encoder.layer.1.") and row.torch.endswith("weight"):
            np.testing.assert_allclose(found[row.torch], value, atol=0.01)
            assert not np.array_equal(found[row.torch], value)


# Refused


@pytest.mark.parametrize(
    ("changes", "config", "words"),
    [
        ({"vocab_size": 36}, CONFIG, r"which says vocab_size=37, BERT 36"),
        ({"hidden_act": "relu"}, CONFIG, r"which says hidden_act='gelu', BERT 'relu'"),
        ({"num_attention_heads": 4}, CONFIG, r"which says num_attention_heads=3, BERT 4"),
        ({"position_embedding_type": "relative_key"}, CONFIG, r"positions must be absolute, got 'relative_key'"),
        ({"hidden_size": "12"}, CONFIG, r"which says hidden_size=12, BERT '12'"),
    ],
)
def test_another_kind_of_bert_is_refused(tmp_path, changes, config, words):
    with pytest.raises(ValueError, match=words):
        open_start(str(write_bert(tmp_path, **changes)), config)


def test_fewer_layers_than_the_config_has_are_refused(tmp_path):
    deep = tiny_config(l_layers=DEPTH + 1)
    start = open_start(str(write_bert(tmp_path)), deep)
    with pytest.raises(
        ValueError, match=r"BERT has no lxmert\.encoder\.layer\.4\..* no more l_layers than BERT has, got 5"
    ):
        from_bert(TFLxmertForQuestionAnswering, start, deep)


def test_tensors_that_contradict_berts_config_are_refused(tmp_path):
    folder = write_bert(tmp_path)
    lies = {**pytorch_names(), "bert.embeddings.position_embeddings.weight": np.ones((3, 12), "f4")}
    save_file(lies, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"position_embeddings\.weight \[3, 12\], not \[16, 12\]"):
        from_bert(TFLxmertForQuestionAnswering, open_start(str(folder), CONFIG), CONFIG)


def test_an_lxmert_is_no_bert_and_a_bert_no_lxmert(tmp_path):
    model = TFLxmertForQuestionAnswering(CONFIG)
    model.save_pretrained(tmp_path / "lxmert")
    assert open_start(str(tmp_path / "lxmert"), None).task == "qa"
    with pytest.raises(ValueError, match="of another model"):
        TFLxmertForQuestionAnswering.from_pretrained(write_bert(tmp_path / "bert"))
    with pytest.raises(ValueError, match="no tensor lxmert"):
        infer_config({row.torch: value.shape for row, value in bert().items()})
