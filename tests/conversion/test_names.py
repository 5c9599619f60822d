"""The table of names against the files upstream wrote, and as a table: exact, one to one, at any depth."""

import math

import h5py
import pytest
from safetensors import safe_open
from support.golden import GOLDEN

from conversion.matching import infer_config, match
from conversion.names import HEADS, SKIPPED, canonical, fit_prefix, lookup, rows, unwrapped
from lxmert_tf import LxmertConfig
from lxmert_tf.tasks import ARCHITECTURES, task_of

TASK_OF_FOLDER = {
    "hf_pt_pretraining": "pretraining",
    "hf_pt_model": "model",
    "hf_pt_qa": "qa",
    "hf_tf_pretraining": "pretraining",
    "hf_tf_model": "model",
}
SPELLINGS = ("torch", "keras", "tf", "h5_path")


def golden_config(folder: str) -> LxmertConfig:
    return LxmertConfig.from_pretrained(GOLDEN / folder)


def torch_shapes(folder: str) -> dict[str, tuple[int, ...]]:
    with safe_open(GOLDEN / folder / "model.safetensors", "numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def tf_shapes(folder: str) -> dict[str, tuple[int, ...]]:
    shapes = {}
    with h5py.File(GOLDEN / folder / "tf_model.h5") as file:
        for layer in file.attrs["layer_names"]:
            for name in file[layer].attrs["weight_names"]:
                shapes[name.partition("/")[2]] = file[layer][name].shape
    return shapes


@pytest.mark.parametrize("folder", ["hf_pt_pretraining", "hf_pt_model", "hf_pt_qa"])
def test_the_table_is_upstreams_pytorch_checkpoint(folder):
    config = golden_config(folder)
    assert {row.torch: row.shape(config) for row in rows(config, TASK_OF_FOLDER[folder])} == torch_shapes(folder)


@pytest.mark.parametrize("folder", ["hf_tf_pretraining", "hf_tf_model"])
def test_the_table_is_upstreams_tensorflow_checkpoint(folder):
    config = golden_config(folder)
    table = {
        row.tf: row.shape(config)[::-1] if row.layout == "transpose" else row.shape(config)
        for row in rows(config, TASK_OF_FOLDER[folder])
    }
    assert table == tf_shapes(folder)


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("depths", [(0, 0, 0), (1, 0, 2), (9, 5, 5), (12, 11, 10)])
def test_names_are_unique_at_any_depth_and_looked_up_without_a_config(task, depths):
    config = LxmertConfig(l_layers=depths[0], r_layers=depths[1], x_layers=depths[2])
    table = rows(config, task)
    for spelling in SPELLINGS:
        names = [getattr(row, spelling) for row in table]
        assert len(set(names)) == len(names)
        assert not any("{" in name for name in names)
    for spelling in ("keras", "tf", "h5_path"):
        if task != "model" or spelling != "tf":
            found = lookup([getattr(row, spelling) for row in table], spelling)
            assert all(found[getattr(row, spelling)].torch == row.torch for row in table)


def test_globals_come_first_then_layers_then_heads():
    names = [row.torch for row in rows(LxmertConfig(), "pretraining")]
    parts = ["layer." in n or "_layers." in n for n in names if n.startswith("lxmert.")]
    assert parts == sorted(parts)
    assert not any(name.startswith("lxmert.") for name in names[len(parts) :])


def test_base_size_has_as_many_parameters_as_upstream():
    config = LxmertConfig()
    assert sum(math.prod(row.shape(config)) for row in rows(config, "pretraining")) == 228_051_752


def test_the_answer_head_keeps_its_literal_places():
    config = LxmertConfig(num_qa_labels=7, hidden_size=24)
    last = next(row for row in rows(config, "qa") if row.torch == "answer_head.logit_fc.3.weight")
    assert (last.keras, last.tf) == ("answer_head/logit_fc_3/kernel", "answer_head/logit_fc_._3/kernel:0")
    assert last.h5_path == "answer_head/logit_fc_3/vars/0"
    assert last.shape(config) == (7, 48)


def test_the_head_of_image_pairs_takes_two_pooled_outputs_and_gives_two_logits():
    config = LxmertConfig(hidden_size=24)
    shapes = {row.torch: row.shape(config) for row in rows(config, "visual-reasoning")}
    assert shapes["answer_head.logit_fc.0.weight"] == (48, 48)
    assert shapes["answer_head.logit_fc.3.weight"] == (2, 48)


@pytest.mark.parametrize(
    ("switches", "absent"),
    [
        ({"task_obj_predict": False}, ("obj_predict_head.",)),
        ({"task_qa": False}, ("answer_head.",)),
        ({"visual_attr_loss": False}, ("obj_predict_head.decoder_dict.attr.",)),
    ],
)
def test_heads_follow_the_switches_of_the_config(switches, absent):
    names = {row.torch for row in rows(LxmertConfig(**switches), "pretraining")}
    full = {row.torch for row in rows(LxmertConfig(), "pretraining")}
    assert full - names == {name for name in full if name.startswith(absent)}
    assert names <= full


def test_an_unknown_task_is_named():
    with pytest.raises(ValueError, match=r"task must be one of model, .* got 'vqa'"):
        rows(LxmertConfig(), "vqa")
    with pytest.raises(ValueError, match="BertModel is not an LXMERT model"):
        task_of("BertModel")
    assert [task_of(f"TF{name}") for name in ARCHITECTURES.values()] == list(ARCHITECTURES)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ("module.bert.pooler.dense.bias", "lxmert.pooler.dense.bias"),
        ("lxrt_encoder.model.bert.pooler.dense.bias", "lxmert.pooler.dense.bias"),
        ("lxrt_encoder.model.module.bert.pooler.dense.bias", "lxmert.pooler.dense.bias"),
        ("module.lxrt_encoder.model.bert.pooler.dense.bias", "lxmert.pooler.dense.bias"),
        ("_orig_mod.module._fsdp_wrapped_module.pooler.dense.bias", "pooler.dense.bias"),
        (
            "lxmert.encoder.layer.0._checkpoint_wrapped_module.output.dense.bias",
            "lxmert.encoder.layer.0.output.dense.bias",
        ),
        ("logit_fc.3.weight", "answer_head.logit_fc.3.weight"),
        ("bert.embeddings.LayerNorm.gamma", "lxmert.embeddings.LayerNorm.weight"),
        ("embeddings.LayerNorm.beta", "embeddings.LayerNorm.bias"),
        ("cls.seq_relationship.weight", "cls.seq_relationship.weight"),
    ],
)
def test_foreign_names_become_upstreams(found, expected):
    assert canonical(unwrapped(found)) == expected
    assert canonical(unwrapped(expected)) == expected


def test_bare_and_full_names():
    assert fit_prefix("lxmert.encoder.layer.0.output.dense.bias", "model") == "encoder.layer.0.output.dense.bias"
    assert fit_prefix("encoder.layer.0.output.dense.bias", "qa") == "lxmert.encoder.layer.0.output.dense.bias"
    assert fit_prefix("answer_head.logit_fc.0.bias", "qa") == "answer_head.logit_fc.0.bias"


# Comparing


@pytest.fixture
def config() -> LxmertConfig:
    return golden_config("hf_pt_pretraining")


@pytest.fixture
def shapes() -> dict[str, tuple[int, ...]]:
    return torch_shapes("hf_pt_pretraining")


def test_everything_matches(config, shapes):
    matched = match(shapes, "pretraining", config)
    assert len(matched.loaded) == 170
    assert matched.missing == []
    assert matched.unused == {}


def test_skipped_names_have_their_reason(config, shapes):
    shapes |= {name: (1,) for name in SKIPPED if not name.startswith("embeddings.")}
    unused = match(shapes, "pretraining", config).unused
    assert unused == {name: SKIPPED[name] for name in unused}
    assert len(unused) == 2


def test_a_backbone_lacks_heads_and_a_backbone_needs_none(config, shapes):
    matched = match(torch_shapes("hf_pt_model"), "qa", config)
    assert len(matched.loaded) == 147
    assert matched.missing == sorted(name for name in shapes if name.startswith("answer_head."))
    matched = match(shapes, "model", config)
    assert len(matched.loaded) == 147
    assert set(matched.unused.values()) == {"LxmertModel of this config has no such head"}


def test_the_head_of_one_image_does_not_start_that_of_two(config, shapes):
    matched = match(shapes, "visual-reasoning", config)
    assert [name for name in matched.missing if not name.startswith("answer_head.")] == []
    assert len(matched.missing) == 6
    assert "pairs of images" in matched.unused["answer_head.logit_fc.2.weight"]


def test_one_report_of_everything_that_does_not_fit(config, shapes):
    del shapes["lxmert.pooler.dense.bias"]
    del shapes["answer_head.logit_fc.3.bias"]  # of a head that is there
    shapes["lxmert.encoder.layer.7.output.dense.bias"] = (32,)
    shapes["cls.predictions.bias"] = (98,)
    with pytest.raises(ValueError, match="2 missing, 1 unexpected, 1 misshapen") as error:
        match(shapes, "pretraining", config)
    assert str(error.value).splitlines()[1:] == [
        "  missing: answer_head.logit_fc.3.bias [11]",
        "  missing: lxmert.pooler.dense.bias [32]",
        "  unexpected: lxmert.encoder.layer.7.output.dense.bias [32]",
        "  misshapen: cls.predictions.bias [98], expected [99]",
    ]


def test_misshapen_tensors_are_left_initialised_if_asked_for(config, shapes):
    shapes["answer_head.logit_fc.3.bias"] = (5,)
    matched = match(shapes, "pretraining", config, ignore_mismatched_sizes=True)
    assert matched.missing == ["answer_head.logit_fc.3.bias"]
    assert "1 missing and initialised (answer_head.logit_fc.3.bias)" in matched.summary()


# Without a config


@pytest.mark.parametrize("task", HEADS)
def test_a_config_is_inferred_from_shapes(task):
    config = LxmertConfig(
        vocab_size=50,
        hidden_size=128,
        num_attention_heads=2,
        intermediate_size=40,
        l_layers=3,
        r_layers=0,
        x_layers=1,
        visual_feat_dim=6,
        **({"task_qa": False, "visual_attr_loss": False, "num_object_labels": 9} if task == "pretraining" else {}),
        **({"num_qa_labels": 13} if task == "qa" else {}),
    )
    assert infer_config({row.torch: row.shape(config) for row in rows(config, task)}) == config


def test_shapes_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"no tensor lxmert\.embeddings\.word_embeddings\.weight"):
        infer_config({"wte.weight": (3, 4)})
