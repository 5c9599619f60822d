"""README.md beside a checkpoint: a header that the Hub reads, what is known, and nobody's own text lost."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard
from support.blocks import blocks
from support.models import tiny_config, tiny_model

import lxmert_pt
import lxmert_tf
from lxmert_tf.model_card import CARD, TASKS, is_written_card, write_model_card
from lxmert_tf.tasks import ARCHITECTURES


@pytest.fixture(scope="module", params=["keras", "torch"])
def model(request):
    if request.param == "torch":
        return lxmert_pt.LxmertForQuestionAnswering(tiny_config())
    return tiny_model(lxmert_tf.TFLxmertForQuestionAnswering)


def test_a_card_says_what_is_known(model, tmp_path):
    model.config.name_or_path = "unc-nlp/lxmert-base-uncased"
    model.save_pretrained(tmp_path, tags="fruit")
    card = ModelCard.load(tmp_path / CARD)
    assert card.data.to_dict() == {
        "base_model": "unc-nlp/lxmert-base-uncased",
        "library_name": "lxmert-tf",
        "pipeline_tag": "visual-question-answering",
        "tags": ["lxmert", "keras", "pytorch", "fruit"],
    }
    assert "| Task | qa |" in card.text
    assert f"lxmert-tf {lxmert_tf.__version__}" in card.text
    assert ("torch 2" in card.text) == isinstance(model, lxmert_pt.LxmertForQuestionAnswering)
    assert "[unc-nlp/lxmert-base-uncased](https://huggingface.co/unc-nlp/lxmert-base-uncased)" in card.text


def test_a_card_of_ours_is_written_anew_and_one_of_others_stays(model, tmp_path):
    card = tmp_path / CARD
    model.config.name_or_path = ""
    model.save_pretrained(tmp_path)
    model.config.name_or_path = tmp_path / "secret" / "base"
    model.save_pretrained(tmp_path)
    text = card.read_text(encoding="utf-8")
    assert "| Base model | `base` |" in text
    assert "secret" not in text
    assert "base_model" not in yaml.safe_load(text.split("---\n")[1])
    for own in ("# Mine\n", text.replace("# Lxmert", "# My Lxmert"), text + "\nTrained by me.\n", "\xff"):
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
    codes = [code for _, code, _ in blocks(text, "python")]
    assert len(codes) == 2
    for code in codes:
        names: dict = {}
        exec(code.splitlines()[0], names)
        [loaded] = re.findall(r"^model = (\w+)\.from_pretrained\(\"path\"\)$", code, re.MULTILINE)
        assert hasattr(names[loaded], "from_pretrained")
        assert loaded.removeprefix("TF") == ARCHITECTURES.get(task, "FasterRCNN")


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
