"""Every format into every format, for every task, at many sizes: loaded and run, the outputs are what they were."""

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import torch
from support.checkpoints import CONFIG, place
from support.golden import GOLDEN, REL64, assert_close, expected, golden_inputs
from support.models import tiny_config

import lxmert_pt
import lxmert_tf
from conversion.convert import convert
from conversion.diff import diff
from conversion.formats import open_checkpoint
from conversion.names import rows
from conversion.writers import write_checkpoint
from lxmert_tf import LxmertConfig
from lxmert_tf.tasks import ARCHITECTURES

# Of float32 outputs against upstream's float64, relative to the largest magnitude: float32 has 6e-8, and 1.2e-6 is
# measured after all layers, as much as before conversion. The weights themselves are held to be identical.
REL32_OUTPUTS = 2e-6
TARGETS = (
    "hf-pt",
    "hf-pt, sharded",
    "hf-pt-bin",
    "hf-pt-bin, sharded",
    "hf-tf",
    "keras",
    "keras archive",
    "keras-weights",
    "original",
)
SOURCES = {
    "hf_pt_pretraining/model.safetensors": ("pretraining", "model", "qa"),
    "hf_pt_pretraining/pytorch_model.bin": ("pretraining", "model", "qa"),
    "hf_tf_pretraining/model.safetensors": ("pretraining", "model", "qa"),
    "hf_tf_pretraining/tf_model.h5": ("pretraining", "model", "qa"),
    "original/Epoch20_LXRT.pth": ("pretraining", "model", "qa"),
    "hf_pt_model/model.safetensors": ("model",),
    "hf_tf_model/tf_model.h5": ("model",),
    "hf_pt_qa/model.safetensors": ("qa",),
    "original/vqa_BEST.pth": ("qa",),
    "original/nlvr2_BEST.pth": ("visual-reasoning",),
}
PAIRS = [(source, task) for source, tasks in SOURCES.items() for task in tasks]
ONE_OF_EACH_TASK = [
    ("hf_tf_pretraining/tf_model.h5", "pretraining"),
    ("hf_pt_model/model.safetensors", "model"),
    ("original/vqa_BEST.pth", "qa"),
    ("original/nlvr2_BEST.pth", "visual-reasoning"),
]

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:torch"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras' own
]


def crossed(pairs: list[tuple[str, str]], number: int) -> list[tuple[str, str, str]]:
    """Each source with a number of targets, and each target with many sources.

    What is read of a source does not depend on the target, and test_convert has every pair bit for bit.
    """
    step = len(TARGETS) // number
    return [(*pair, TARGETS[(i + step * j) % len(TARGETS)]) for i, pair in enumerate(pairs) for j in range(number)]


def converted(folder: Path, source: Path, task: str, target: str, config: Path = CONFIG, **options) -> Path:
    to = {"keras archive": "keras"}.get(target, target.removesuffix(", sharded"))
    destination = folder / "out.keras" if target == "keras archive" else place(folder, to)
    shards = {"shard_size": "50KB"} if "sharded" in target else {}
    convert(source, destination, to=to, task=task, config=config, **shards, **options)
    return destination


def expected_outputs(source: str, task: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Golden inputs of a checkpoint, and the float64 outputs that are known of it for a task."""
    if task == "visual-reasoning":
        inputs = golden_inputs(visual_mask=False)
        images = {
            name: np.stack([inputs[name], np.roll(inputs[name], 1, 0)], 1) for name in ("visual_feats", "visual_pos")
        }
        return {**inputs, **images}, {"logits": expected("original/nlvr2")["logit"]}
    if "vqa" in source:
        return golden_inputs(visual_mask=False), {"question_answering_score": expected("original/vqa")["logit"]}
    values = expected("pretraining" if "pretraining" in source or "LXRT" in source else task)
    if task == "model":
        values = expected("model")
    names = {
        "model": ("language_output", "vision_output", "pooled_output"),
        "pretraining": ("prediction_logits", "cross_relationship_score", "question_answering_score"),
        "qa": ("question_answering_score",),
    }[task]
    return golden_inputs(), {name: values[name] for name in names}


def load_keras(path: Path, task: str, config: Path = CONFIG):
    """By Keras' own loading where the format is Keras' own."""
    import keras

    model_class = getattr(lxmert_tf, f"TF{ARCHITECTURES[task]}")
    if path.suffix == ".keras":
        return keras.saving.load_model(path)
    if path.name.endswith(".weights.h5"):
        model = model_class(LxmertConfig.from_json_file(config))
        model.load_weights(path)
        return model
    return model_class.from_pretrained(path, config=LxmertConfig.from_json_file(config) if path.is_file() else None)


def load_pytorch(path: Path, task: str, config: Path = CONFIG):
    own_config = LxmertConfig.from_json_file(config) if path.is_file() and path.suffix != ".keras" else None
    return getattr(lxmert_pt, ARCHITECTURES[task]).from_pretrained(path, config=own_config)


def run_pytorch(model, inputs: dict[str, np.ndarray]) -> dict:
    with torch.no_grad():
        return model(**{name: torch.from_numpy(value) for name, value in inputs.items()})


@pytest.mark.slow
@pytest.mark.parametrize(("source", "task", "target"), crossed(PAIRS, 2))
def test_outputs_in_pytorch(tmp_path, source, task, target):
    inputs, values = expected_outputs(source, task)
    model = load_pytorch(converted(tmp_path, GOLDEN / source, task, target), task)
    for precision, tolerance in ((torch.float32, REL32_OUTPUTS), (torch.float64, REL64)):
        outputs = run_pytorch(model.to(precision), inputs)
        for name, value in values.items():
            assert_close(outputs[name], value, tolerance, name)


@pytest.mark.slow
@pytest.mark.parametrize(("source", "task", "target"), crossed(ONE_OF_EACH_TASK, 3))
def test_outputs_in_keras(tmp_path, source, task, target):
    inputs, values = expected_outputs(source, task)
    outputs = load_keras(converted(tmp_path, GOLDEN / source, task, target), task)(inputs)
    for name, value in values.items():
        assert_close(outputs[name], value, REL32_OUTPUTS, name)


# Other sizes

SIZES = {
    "no two alike": {"l_layers": 3, "r_layers": 2, "x_layers": 1, "hidden_size": 10, "num_attention_heads": 5},
    "one head": {"num_attention_heads": 1, "l_layers": 1, "x_layers": 3},
    "one wide": {"hidden_size": 6, "num_attention_heads": 6, "intermediate_size": 1, "num_qa_labels": 1},
    "no layers": {"l_layers": 0, "r_layers": 0, "x_layers": 0, "hidden_act": "relu"},
    "eleven layers": {"l_layers": 11, "r_layers": 1, "x_layers": 2, "hidden_size": 4, "num_attention_heads": 2},
    "square": {
        "hidden_size": 8,
        "intermediate_size": 8,
        "vocab_size": 8,
        "visual_feat_dim": 8,
        "num_attention_heads": 2,
    },
    "pairs alike": {"hidden_size": 8, "num_qa_labels": 2, "num_attention_heads": 2, "type_vocab_size": 1},
    "no answers": {"task_qa": False, "visual_attr_loss": False},
    "no objects": {"task_obj_predict": False, "visual_pos_dim": 5},
}


def random_checkpoint(folder: Path, task: str, dtype: str = "float32", **changes) -> Path:
    config = tiny_config(**changes)
    generator = np.random.default_rng(0)
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    tensors = {row.torch: generator.normal(size=row.shape(config)).astype(kind) for row in rows(config, task)}
    write_checkpoint(folder, tensors, config, task, "hf-pt")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "task"),
    [
        *((sizes, "pretraining") for sizes in SIZES),
        *(
            pytest.param(sizes, task, marks=pytest.mark.slow)
            for sizes, task in (("one wide", "visual-reasoning"), ("no layers", "model"))
        ),
    ],
)
def test_a_chain_through_every_format_at_other_sizes(tmp_path, sizes, task):
    """Each format from the one before; told by the shapes alone where a format has no config."""
    source = random_checkpoint(tmp_path / "source", task, **SIZES[sizes])
    config, last = source / "config.json", source
    for target in TARGETS:
        (tmp_path / target).mkdir()
        last = converted(tmp_path / target, last, task, target, config, verify=False)
        report = diff(source, last)
        assert not (report.values or report.only_a or report.only_b or report.shapes or report.dtypes), target
        assert open_checkpoint(last).task == task
    assert diff(source, converted(tmp_path, last, task, "hf-pt", config)).same


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "task"), [("no layers", "model"), ("eleven layers", "model"), ("one wide", "visual-reasoning")]
)
def test_keras_loads_other_sizes_with_its_own_functions(tmp_path, sizes, task):
    source = random_checkpoint(tmp_path / "source", task, **SIZES[sizes])
    config = source / "config.json"
    for target in ("keras archive", "keras-weights"):
        path = converted(tmp_path, source, task, target, config)
        assert diff(source, load_keras(path, task, config)).same


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_an_archive_is_loaded_in_its_dtype(tmp_path, dtype):
    source = random_checkpoint(tmp_path / "source", "qa", dtype)
    model = load_keras(converted(tmp_path, source, "qa", "keras archive", source / "config.json"), "qa")
    assert diff(source, model).same and {str(variable.dtype) for variable in model.weights} == {dtype}
