"""Detectors' checkpoints of every format: read by what is in them, written so that they come back bit for bit."""

import pickle
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from support.detector import DETECTOR, HF
from support.pickles import HOSTILE

from conversion import load_into, load_state_dict, open_checkpoint
from conversion.cli import main
from conversion.convert import convert
from conversion.detector import readers
from conversion.detector.formats import DetectorCheckpoint
from conversion.detector.names import rows, skip_reason
from conversion.diff import diff
from conversion.inspect import inspect
from conversion.verify import verify
from lxmert_pt import LxmertModel
from lxmert_pt.detector import FasterRCNN as Reference
from lxmert_tf import LxmertConfig, TFLxmertModel
from lxmert_tf.detector import DetectorConfig, FasterRCNN

FORMATS = DETECTOR / "formats"
D2, CAFFE, MILVLG = FORMATS / "d2", FORMATS / "caffe" / "model.caffemodel", FORMATS / "caffe" / "milvlg.pth"
NAMES = {"keras": "keras", "hf-pt-bin": "hf", "keras-weights": "a.weights.h5", "detectron2": "a.pkl"}
NAMES |= {"milvlg": "a.pth", "caffe": "a.caffemodel"}


@pytest.fixture(scope="module")
def small() -> DetectorCheckpoint:
    """A detector of 100 kB, of detectron2."""
    return open_checkpoint(D2)


def test_every_tensor_has_its_row():
    checkpoint = open_checkpoint(HF)
    assert len(checkpoint.match().loaded) == 535
    assert set(checkpoint.match().unused) == {name for name in checkpoint.tensors if skip_reason(name)}
    state = torch.load(HF / "pytorch_model.bin", weights_only=True)
    assert all(np.array_equal(checkpoint.tensors[name], value) for name, value in state.items())


@pytest.mark.parametrize(("path", "format"), [(CAFFE, "caffe"), (MILVLG, "milvlg")], ids=["caffe", "milvlg"])
def test_caffes_networks_are_the_same_tensors(small, path, format):
    """But for boxes, which detectron2 multiplies by 10 and 5 and rounds to float32."""
    checkpoint = open_checkpoint(path)
    assert (checkpoint.format, checkpoint.config_origin) == (format, "inferred")
    assert len(checkpoint.match().loaded) == 535
    assert replace(checkpoint.config, **pipeline_numbers(small.config)) == small.config
    for row in rows(small.config):
        array, expected = checkpoint.tensors[row.torch], small.tensors[row.torch]
        assert array.dtype == expected.dtype
        tolerance = np.finfo("float32").eps if "bbox_pred" in row.torch else 0
        np.testing.assert_allclose(array, expected, rtol=tolerance, atol=0)


def pipeline_numbers(config: DetectorConfig) -> dict:
    """What no tensor shows."""
    names = ("anchor_sizes", "min_size", "max_size", "pre_nms", "post_nms", "nms", "min_boxes", "max_boxes")
    return {name: getattr(config, name) for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("to", NAMES)
def test_what_is_written_comes_back_bit_for_bit(small, tmp_path, to):
    report = convert(small, tmp_path / NAMES[to], to)
    assert (report.format, report.task, report.tensors, report.verified) == (to, "detector", 535, True)
    again = open_checkpoint(tmp_path / NAMES[to], small.config)
    assert again.format == {"keras-weights": "keras"}.get(to, to)
    for row in rows(small.config):
        assert again.tensors[row.torch].tobytes() == small.tensors[row.torch].tobytes(), row.torch
    assert diff(again, small).same
    if to in ("keras", "hf-pt-bin"):
        assert open_checkpoint(tmp_path / NAMES[to]).config == small.config
    assert [path.name for path in tmp_path.iterdir()] == [NAMES[to]]


def test_hugging_faces_files_are_those_that_it_published(tmp_path):
    """All 640 tensors, of which its code misses none, and settings under the same keys."""
    convert(HF, tmp_path / "hf", "hf-pt-bin")
    files = sorted(path.name for path in (tmp_path / "hf").iterdir())
    assert files == ["attributes_vocab.txt", "config.yaml", "objects_vocab.txt", "pytorch_model.bin"]
    state, expected = (torch.load(each / "pytorch_model.bin", weights_only=True) for each in (tmp_path / "hf", HF))
    assert {n: (v.shape, v.dtype) for n, v in state.items()} == {n: (v.shape, v.dtype) for n, v in expected.items()}
    assert all(torch.equal(state[name], expected[name]) for name in state if "num_batches" not in name)
    settings, expected = (yaml.safe_load((each / "config.yaml").read_text()) for each in (tmp_path / "hf", HF))
    assert settings == expected
    for name in ("objects_vocab.txt", "attributes_vocab.txt"):
        assert (tmp_path / "hf" / name).read_text().splitlines() == (HF / name).read_text().splitlines()


@pytest.mark.slow
def test_keras_reads_its_own_files(small, tmp_path):
    model = FasterRCNN.from_pretrained(small)
    model.save_pretrained(tmp_path / "ours")
    model.save_weights(tmp_path / "keras.weights.h5")
    assert diff(tmp_path / "ours", open_checkpoint(tmp_path / "keras.weights.h5", small.config)).same
    other = FasterRCNN(small.config)
    other.load_weights(tmp_path / "ours" / "model.weights.h5")
    assert diff(other, model).same
    reference = Reference.from_pretrained(model)
    reference.save_pretrained(tmp_path / "reference")
    assert diff(tmp_path / "reference", reference).same
    assert diff(reference, small).same


def test_the_directory_of_one_format_does_not_take_another(small, tmp_path):
    model = Reference.from_pretrained(small)
    model.save_pretrained(tmp_path / "a")
    with pytest.raises(FileExistsError, match=r"holds pytorch_model\.bin, of another format"):
        model.save_pretrained(tmp_path / "a", format="keras")
    with pytest.raises(ValueError, match="format must be one of keras, hf-pt-bin, got 'caffe'"):
        model.save_pretrained(tmp_path / "a", format="caffe")


# In training code's files


@pytest.mark.slow
@pytest.mark.parametrize("keys", [("state_dict",), ("model_state_dict",), ()], ids=".".join)
@pytest.mark.parametrize("wrapper", ["", "module.", "_orig_mod."])
def test_in_dicts_and_wrappers(small, tmp_path, keys, wrapper):
    state = {f"{wrapper}{name}": torch.from_numpy(np.array(array)) for name, array in small.tensors.items()}
    for key in keys:
        state = {key: state, "epoch": 3, "ema": {"decay": torch.zeros(())}}
    torch.save(state, tmp_path / "a.ckpt")
    for source in (tmp_path / "a.ckpt", state):
        checkpoint = open_checkpoint(source, D2)
        assert diff(checkpoint, small).same
        assert checkpoint.outside == ({"ema.decay": "it is no part of the detector"} if keys else {})
    assert inspect(tmp_path / "a.ckpt", D2).skipped == checkpoint.outside


def test_inside_a_larger_model(small, tmp_path):
    state = {f"vision.detector.{name}": torch.from_numpy(np.array(array)) for name, array in small.tensors.items()}
    torch.save({**state, "head.weight": torch.zeros(3)}, tmp_path / "a.pt")
    convert(tmp_path / "a.pt", tmp_path / "keras", config=D2 / "config.yaml", prefix="vision.detector")
    assert diff(tmp_path / "keras", small).same
    with pytest.raises(ValueError, match="no name in it begins with 'vision"):
        open_checkpoint(tmp_path / "a.pt", D2, prefix="vision.other")


def test_a_wrapped_module(small):
    reference = Reference.from_pretrained(small)
    assert diff(open_checkpoint(torch.nn.DataParallel(reference)), small).same


def test_copies_that_differ_are_refused(small, tmp_path):
    state = {name: torch.from_numpy(np.array(array)) for name, array in small.tensors.items()}
    name = "backbone.stem.conv1.weight"
    torch.save({**state, f"module.{name}": state[name] + 1}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=rf"a\.pt cannot be read .+ Two tensors are called {name} but differ"):
        open_checkpoint(tmp_path / "a.pt", D2)


# The command line


def run(capsys, *arguments) -> tuple[int, str, str]:
    code = main([str(each) for each in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_the_command_line_knows_detectors(capsys, tmp_path):
    code, out, err = run(capsys, "convert", CAFFE, tmp_path / "detector", "--config", D2 / "config.yaml")
    assert (code, err) == (0, "")
    assert "535 tensors" in out
    assert sorted(path.name for path in (tmp_path / "detector").iterdir()) == ["config.json", "model.weights.h5"]
    assert run(capsys, "convert", tmp_path / "detector", tmp_path / "a.pth")[0] == 0
    code, out, _ = run(capsys, "inspect", tmp_path / "a.pth")
    assert code == 0
    assert f"{tmp_path / 'a.pth'}: milvlg, FasterRCNN (detector)" in out
    assert "depth=101, stem_out_channels=2" in out
    code, out, _ = run(capsys, "diff", D2, MILVLG)
    assert code == 1
    assert "533 of equal values" in out
    assert run(capsys, "diff", D2, D2 / "model.pkl")[0] == 0


@pytest.mark.slow
def test_verify_runs_both_frameworks():
    verification = verify(D2, CAFFE)
    assert verification.equal
    assert set(verification.outputs[0].errors) == {"lxmert_tf", "lxmert_pt", "a in both"}


@pytest.mark.slow
def test_verify_names_the_first_divergence():
    tensors = {name: np.array(array) for name, array in open_checkpoint(D2).tensors.items()}
    tensors["roi_heads.res5.1.conv2.weight"][0, 0] += 1
    verification = verify(D2, tensors, config=D2 / "config.yaml")
    assert not verification.equal
    assert [output.name for output in verification.outputs][:2] == ["feature_map", "rpn_logits"]
    assert len(verification.outputs) == 7
    assert verification.first_divergence.name == "features"
    assert set(verification.first_divergence.errors) == {"lxmert_tf", "lxmert_pt", "a in both"}


def test_a_detector_is_no_lxmert_model(tmp_path, small):
    TFLxmertModel(tiny()).save_pretrained(tmp_path / "lxmert")
    with pytest.raises(ValueError, match="holds an LXMERT model, not a detector"):
        FasterRCNN.from_pretrained(tmp_path / "lxmert")
    for model_class in (TFLxmertModel, LxmertModel):
        with pytest.raises(ValueError, match="is a detector, not an LXMERT model"):
            model_class.from_pretrained(small, output_attentions=True)
    with pytest.raises(ValueError, match="is a detector, but the config is that of an LXMERT model"):
        load_into(TFLxmertModel(tiny()), D2)
    with pytest.raises(ValueError, match="nothing in common"):
        diff(tmp_path / "lxmert", small)
    with pytest.raises(ValueError, match="caffe is a format of detectors"):
        convert(tmp_path / "lxmert", tmp_path / "a.caffemodel")
    with pytest.raises(ValueError, match=r"written as one of keras, hf-pt-bin, .+, not as hf-tf"):
        convert(small, tmp_path / "a", "hf-tf")
    with pytest.raises(ValueError, match="task does nothing for a detector"):
        convert(small, tmp_path / "a", task="qa")
    with pytest.raises(ValueError, match=r"named \*\.pkl, got a\.pth"):
        convert(small, tmp_path / "a.pth", "detectron2")
    assert [path.name for path in tmp_path.iterdir()] == ["lxmert"]


def tiny() -> LxmertConfig:
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 11, "visual_feat_dim": 8}
    return LxmertConfig(l_layers=1, r_layers=1, x_layers=1, max_position_embeddings=8, **sizes)


# Other networks, damage and malice


@pytest.mark.parametrize(
    ("name", "like", "message"),
    [
        ("backbone.stem.norm.weight", "backbone.stem.conv1.norm.weight", "bua-caffe-frcn-r152"),
        ("roi_heads.attribute_predictor.obj_embed.weight", "roi_heads.box_predictor.cls_score.weight", "bua-d2-frcn"),
    ],
)
def test_other_networks_are_refused_by_name(tmp_path, name, like, message):
    state = torch.load(MILVLG, weights_only=True)["model"]
    torch.save({"model": {**state, name: state[like]}}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=message):
        open_checkpoint(tmp_path / "other.pth")


def test_grouped_convolutions_are_refused_by_name(tmp_path):
    state = torch.load(MILVLG, weights_only=True)["model"]
    state["backbone.res2.0.conv2.weight"] = torch.zeros(32, 1, 3, 3)
    torch.save({"model": state}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="X-152"):
        open_checkpoint(tmp_path / "other.pth")


def test_misfits_are_named(small, tmp_path):
    tensors = {name: small.tensors[name] for name in small.tensors}
    del tensors["backbone.res3.1.conv2.weight"]
    tensors["backbone.res9"] = np.zeros(3, "float32")
    tensors["roi_heads.box_predictor.cls_score.bias"] = np.zeros(3, "float32")
    with open(tmp_path / "a.pkl", "wb") as file:
        pickle.dump({"model": tensors}, file)
    with pytest.raises(ValueError, match="3 tensors of it do not fit FasterRCNN") as caught:
        FasterRCNN.from_pretrained(tmp_path / "a.pkl", config=small.config)
    assert "missing: backbone.res3.1.conv2.weight [2, 2, 3, 3]" in str(caught.value)
    assert "unexpected: backbone.res9 [3]" in str(caught.value)
    assert "misshapen: roi_heads.box_predictor.cls_score.bias [3], expected [7]" in str(caught.value)
    assert not inspect(tmp_path / "a.pkl", small.config).complete


@pytest.mark.parametrize("case", [case for case in HOSTILE if HOSTILE[case][0].startswith(b"\x80")])
def test_hostile_pickles_are_refused(tmp_path, case, capsys):
    data, complaint = HOSTILE[case]
    (tmp_path / "a.pkl").write_bytes(data)
    told = "is damaged or holds more than tensors, which is refused"  # of code, as of PyTorch's pickles
    if "runs code" not in complaint:
        told = rf"cannot be read as an LXMERT checkpoint: .*({complaint})"
    with pytest.raises(ValueError, match=rf"a\.pkl {told}"):
        open_checkpoint(tmp_path / "a.pkl")
    assert not capsys.readouterr().out


def test_pickles_of_something_else_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.pkl"
    for values in ({"a": "text"}, {"a": np.array(["text"])}, [np.zeros(3)], {"a": [1]}):
        path.write_bytes(pickle.dumps({"model": values}))
        with pytest.raises(ValueError, match=r"a\.pkl .* must hold a dict from names to arrays of numbers"):
            open_checkpoint(path)
    monkeypatch.setattr(readers, "LARGEST", 10)
    with pytest.raises(ValueError, match=r"it has [0-9]+ bytes, but a detector has at most 10"):
        open_checkpoint(path)


@pytest.mark.parametrize("source", [D2 / "model.pkl", CAFFE, MILVLG], ids=lambda path: path.suffix)
def test_files_that_are_cut_short_are_refused(tmp_path, source):
    data = source.read_bytes()
    for share in (0.1, 0.5, 0.99):
        path = tmp_path / f"cut{source.suffix}"
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ValueError, match=f"{path.name} (is|cannot)"):
            load_state_dict(path)


def test_a_caffe_model_of_something_else_is_named(tmp_path):
    data = CAFFE.read_bytes().replace(b"res2a_branch1", b"res2x_branch1")
    (tmp_path / "other.caffemodel").write_bytes(data)
    with pytest.raises(ValueError, match="is a Caffe model, but not of the detector"):
        open_checkpoint(tmp_path / "other.caffemodel")


def test_names_and_attributes_may_be_absent(tmp_path, eagerly):
    """The first of detectron2's files has no attributes, and nobody has to bring the names."""
    state = {n: a for n, a in open_checkpoint(D2).tensors.items() if not n.endswith(ATTRIBUTES)}
    with open(tmp_path / "model.pkl", "wb") as file:
        pickle.dump({"model": state, "__author__": "someone"}, file)
    shutil.copy(D2 / "config.yaml", tmp_path)
    detector = FasterRCNN.from_pretrained(tmp_path)
    assert detector.config.num_attributes == 0
    picture = np.random.default_rng(0).integers(0, 256, (50, 60, 3), "uint8")
    regions = detector.detect(picture, boxes=[[[0, 0, 30, 40]]])[0]
    assert regions.attribute_ids is regions.attribute_scores is regions.object_names is None


ATTRIBUTES = ("cls_embedding.weight", "fc_attr.weight", "fc_attr.bias", "attr_score.weight", "attr_score.bias")
