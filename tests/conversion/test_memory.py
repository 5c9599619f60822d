"""Models and state dicts in memory, as sources and as targets."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from support.checkpoints import BIAS, CONFIG, PRETRAINED, SOURCES, golden, same
from support.golden import GOLDEN, ROOT

import conversion
import lxmert_pt
import lxmert_tf
from conversion import load_into, load_state_dict, open_checkpoint
from conversion.convert import convert
from conversion.diff import diff
from conversion.models import task_of_model
from conversion.plan import Incomplete
from lxmert_tf import LxmertConfig

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch")


@pytest.mark.parametrize("source", SOURCES)
def test_a_state_dict_of_every_format(source):
    assert same(load_state_dict(SOURCES[source]), golden())


def test_a_checkpoint_is_opened_from_anywhere(tmp_path):
    golden_model = lxmert_pt.LxmertForPreTraining.from_pretrained(PRETRAINED)
    opened = open_checkpoint(PRETRAINED)
    for source in (str(PRETRAINED), golden_model, golden_model.state_dict(), opened):
        checkpoint = open_checkpoint(source, CONFIG)
        assert checkpoint.task == "pretraining" and same(load_state_dict(checkpoint), golden())
        assert checkpoint.config == LxmertConfig.from_json_file(CONFIG)
    with pytest.raises(FileNotFoundError, match="a Hub id has the form owner/name"):
        open_checkpoint("nowhere")


def test_the_package_itself_is_light():
    check = (
        "import sys, conversion; print(*sys.modules); assert set(conversion.__all__) <= set(dir(conversion)); "
        "conversion.open_checkpoint; assert 'numpy' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"numpy", "h5py", "keras", "torch"} & set(done.stdout.split())
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        conversion.nothing  # noqa: B018


def test_the_task_of_a_model_is_that_of_its_class():
    class Upstreams:
        pass

    class LxmertForQuestionAnswering(Upstreams):
        pass

    class Mine(LxmertForQuestionAnswering):
        pass

    class Named(Upstreams):
        task = "visual-reasoning"

    class Other(Mine):
        task = "vqa"  # of a data set, which says nothing of the model

    assert [task_of_model(each()) for each in (Mine, Named, Other)] == ["qa", "visual-reasoning", "qa"]
    with pytest.raises(ValueError, match="Upstreams is not an LXMERT model"):
        task_of_model(Upstreams())


def test_a_head_that_lacks_its_first_tensor_keeps_the_others():
    state = load_state_dict(GOLDEN / "original/nlvr2_BEST.pth", config=CONFIG)
    first = "answer_head.logit_fc.0.weight"
    lacking = {name: array for name, array in state.items() if name != first}
    again = load_state_dict(lacking, task="visual-reasoning", config=CONFIG, allow_missing=True)
    assert same({name: array for name, array in again.items() if name != first}, lacking)


def test_a_state_dict_of_another_task_and_dtype():
    state = load_state_dict(SOURCES["original"], task="qa", dtype="float64", config=CONFIG)
    assert len(state) == 153 and {array.dtype.name for array in state.values()} == {"float64"}
    with pytest.raises(Incomplete, match="lacks 6 tensors"):
        load_state_dict(GOLDEN / "hf_pt_model", task="qa")
    assert len(load_state_dict(GOLDEN / "hf_pt_model", task="qa", allow_missing=True)) == 153
    with pytest.raises(ValueError, match="dtype must be one of float64, float32, float16, bfloat16, got 'int8'"):
        load_state_dict(PRETRAINED, dtype="int8")


@pytest.mark.parametrize("package", ["lxmert_tf", "lxmert_pt"])
def test_into_a_model_and_out_of_it(tmp_path, package):
    config = LxmertConfig.from_json_file(CONFIG)
    model_class = lxmert_tf.TFLxmertForPreTraining if package == "lxmert_tf" else lxmert_pt.LxmertForPreTraining
    model = model_class(config)
    before = load_state_dict(model)
    with pytest.raises(Incomplete):
        load_into(model, GOLDEN / "hf_pt_qa")
    assert same(load_state_dict(model), before)
    assert not load_into(model, SOURCES["original"]).initialised
    assert diff(model, PRETRAINED).same
    convert(model, tmp_path / "x.keras")
    assert diff(tmp_path / "x.keras", PRETRAINED).same


def test_into_a_model_of_another_dtype():
    model = lxmert_pt.LxmertForQuestionAnswering(LxmertConfig.from_json_file(CONFIG)).to(torch.bfloat16)
    load_into(model, PRETRAINED)
    assert {value.dtype for value in model.state_dict().values()} == {torch.bfloat16}
    assert torch.equal(model.state_dict()[BIAS], torch.from_numpy(golden()[BIAS]).bfloat16())


@pytest.mark.parametrize("source", [5, None, ["a"], {1: np.zeros(2)}], ids=str)
def test_a_source_that_is_none_is_told(tmp_path, source):
    with pytest.raises(TypeError, match=r"source must be a path|state dict must map names"):
        convert(source, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", [{}, {"a": np.zeros(2)}, torch.nn.Linear(2, 2)], ids=["empty", "other", "module"])
def test_weights_of_another_model_are_told(tmp_path, source):
    with pytest.raises(ValueError, match="not the weights of an LXMERT"):
        convert(source, tmp_path / "out")
