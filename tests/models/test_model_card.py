"""README.md beside a checkpoint: a header that the Hub reads, what is known, and nobody's own text lost."""

import re

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard
from support.blocks import blocks
from support.models import tiny_config, tiny_model

import lxmert_pt
import lxmert_tf
from lxmert_tf.model_card import CARD, TASKS, is_written_card, write_model_card
from lxmert_tf.tasks import ARCHITECTURES, keras_class


@pytest.fixture(scope="module", params=["keras", "torch"])
def model(request):
    if request.param == "torch":
        return lxmert_pt.LxmertForQuestionAnswering(tiny_config())
    return tiny_model(lxmert_tf.TFLxmertForQuestionAnswering)


def test_a_card_says_what_is_known(model, tmp_path):
    model._source = "unc-nlp/lxmert-base-uncased"
    model.save_pretrained(tmp_path, tags="fruit")
    card = ModelCard.load(tmp_path / CARD)
    assert card.data.to_dict() == {
        "base_model": "unc-nlp/lxmert-base-uncased",
        "library_name": "lxmert-tf",
        "pipeline_tag": "visual-question-answering",
        "tags": ["lxmert", "keras", "pytorch", "fruit"],
    }
    assert "\n# Visual question answering with LXMERT\n" in card.text
    assert "| Task | Visual question answering |" in card.text
    assert f"lxmert-tf {lxmert_tf.__version__}" in card.text
    assert ("torch 2" in card.text) == isinstance(model, lxmert_pt.LxmertForQuestionAnswering)
    assert "[unc-nlp/lxmert-base-uncased](https://huggingface.co/unc-nlp/lxmert-base-uncased)" in card.text


def test_a_base_model_is_where_the_weights_come_from(model, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"

    def base(directory):
        text = (directory / CARD).read_text(encoding="utf-8")
        return re.findall(r"^(?:\| Base model|base_model).*", text, re.MULTILINE)

    config = tiny_config(_name_or_path="unc-nlp/lxmert-base-uncased")
    config.name_or_path = "unc-nlp/lxmert-base-uncased"
    fresh = type(model)(config)  # random weights, whatever the config was read from
    fresh.save_pretrained(first)
    assert base(first) == []
    loaded = type(model).from_pretrained(first)
    loaded.save_pretrained(second)
    assert base(second) == ["| Base model | `first` |"]
    for source in (first, next(first.glob("model.*"))):  # a folder is not its own base
        type(model).from_pretrained(source).save_pretrained(first)
        assert base(first) == []
    if hasattr(loaded, "state_dict"):
        type(model).from_pretrained(first, state_dict=loaded.state_dict()).save_pretrained(second)
        assert base(second) == []


def test_a_card_of_ours_is_written_anew_and_one_of_others_stays(model, tmp_path):
    card = tmp_path / CARD
    model._source = ""
    model.save_pretrained(tmp_path)
    model._source = str(tmp_path / "secret" / "base")
    model.save_pretrained(tmp_path)
    text = card.read_text(encoding="utf-8")
    assert "| Base model | `base` |" in text
    assert "secret" not in text
    assert "base_model" not in yaml.safe_load(text.split("---\n")[1])
    for own in ("# Mine\n", text.replace("# Visual", "# My visual"), text + "\nTrained by me.\n", "\xff"):
        card.write_bytes(own.encode("latin-1"))
        model.save_pretrained(tmp_path)
        assert card.read_bytes() == own.encode("latin-1")
    card.unlink()
    model.save_pretrained(tmp_path, model_card=False)
    assert not card.exists()
    card.mkdir()
    model.save_pretrained(tmp_path)
    assert card.is_dir()


@pytest.mark.parametrize("task", TASKS)
def test_a_card_of_each_task_loads_what_it_is_about(task, tmp_path):
    write_model_card(tmp_path, task)
    text = (tmp_path / CARD).read_text(encoding="utf-8")
    assert is_written_card(tmp_path / CARD)
    assert "pip install 'lxmert-tf" in text
    codes = [code for _, code, _ in blocks(text, "python")]
    assert len(codes) == 2
    for code in codes:
        names: dict = {}
        exec(code.splitlines()[0], names)
        [loaded] = re.findall(r"^model = (\w+)\.from_pretrained\(\"path\"\)$", code, re.MULTILINE)
        assert hasattr(names[loaded], "from_pretrained")
        assert loaded.removeprefix("TF") == ARCHITECTURES.get(task, "FasterRCNN")


@pytest.mark.parametrize("task", ARCHITECTURES)
def test_the_call_on_a_card_runs(task, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model = tiny_model(getattr(lxmert_tf, keras_class(task)))
    model.save_pretrained("path")
    (tmp_path / "path" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncat\n")
    [(_, code, _), _] = blocks((tmp_path / "path" / CARD).read_text(encoding="utf-8"), "python")
    shape = (1, 3) if model.num_images == 1 else (1, 2, 3)
    features = np.zeros((*shape, model.config.visual_feat_dim), "float32")
    exec(code, {"features": features, "boxes": np.tile([0.1, 0.1, 0.9, 0.9], (*shape, 1))})
    assert capsys.readouterr().out.strip()


def test_metrics_and_data(tmp_path):
    data = {"Trained on": ["/home/me/train.json", "b|`c`\udcff.json"], "Validated on": ["minival.json"]}
    metrics = {"epoch": 4, "val_accuracy": 0.70125}
    write_model_card(tmp_path, "visual-reasoning", ["keras"], "../base", data=data, metrics=metrics)
    card = ModelCard.load(tmp_path / CARD)
    assert card.data.to_dict()["metrics"] == ["accuracy"]
    assert card.data.pipeline_tag is None
    for row in (
        "| Base model | `base` |",
        "| Trained on | `train.json`, `b c ?.json` |",
        "| Validated on | `minival.json` |",
        "| `epoch` | 4 |",
        "| `val_accuracy` | 0.7013 |",
    ):
        assert f"\n{row}\n" in card.text
    assert "/home" not in card.text
