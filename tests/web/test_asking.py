"""What the page does, without a browser."""

import re
import sys
import threading

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from support.data import make_store, make_tokenizer
from support.models import tiny_model

from lxmert_tf.cli import main
from lxmert_tf.explain.explanation import Explainer
from lxmert_tf.explain.names import METHODS
from lxmert_tf.web import asking as asking_module
from lxmert_tf.web.asking import MAX_QUESTION, Asking, see_features
from lxmert_tf.web.rendering import LONGEST, render_answers, render_boxes, render_relevance


@pytest.fixture(scope="module", autouse=True)
def eagerly():
    """Nothing is compiled, which takes longer than to run the network once."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def asking(explainer, see) -> Asking:
    return Asking(explainer, see)


@pytest.fixture(scope="module")
def asked(asking, photo):
    return asking.ask(photo, ["word1 <script>?", " ", "word2 word3"], "chefer")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A file of features, and an explainer whose model takes them."""
    folder = tmp_path_factory.mktemp("stored")
    model = tiny_model(vocab_size=46, visual_feat_dim=4, l_layers=1, r_layers=0)
    return make_store(folder, images=3), Explainer(model, make_tokenizer(folder))


# Asking


def test_questions_are_answered(asked):
    first, second = asked.explanations
    assert (first.question, second.question) == ("word1 <script>?", "word2 word3")
    assert len(first.answers) == 5
    assert 3 <= len(first.box_relevance) == len(asked.scene.boxes) <= 8
    assert set(asked.scene.names[0].split()) & {"cat", "dog", "table", "sky", "cup"}


def test_a_picture_is_seen_once(asking, asked, photo, monkeypatch):
    monkeypatch.setattr(asking, "see", lambda picture: pytest.fail("seen again"))
    again = asking.ask(photo, ["word4"], "raw_attention", asked)
    assert again.scene is asked.scene
    assert [why.question for why in again.explanations] == ["word4"]


def test_another_answer_is_explained(asking, asked):
    first, second = asked.explanations
    other = asking.explain(asked, ["red" if first.answer != "red" else "blue", None], "chefer")
    assert other.explanations[0].answer != first.answer
    assert other.explanations[1] is second  # nothing to compute again
    assert not np.allclose(other.explanations[0].token_relevance, first.token_relevance)
    method = asking.explain(asked, [first.answer, second.answer], "raw_attention")
    assert {why.method for why in method.explanations} == {"raw_attention"}


@pytest.mark.parametrize(
    ("picture", "questions", "message"),
    [
        (None, ["word1"], "Choose a picture first"),
        ("{photo}", ["", "  "], "Ask a question first"),
        ("{photo}", ["word1", "w" * (MAX_QUESTION + 1)], f"at most {MAX_QUESTION} characters, not {MAX_QUESTION + 1}"),
        ("{folder}/notes.jpg", ["word1"], "^notes.jpg is not a picture of a known kind"),
        (
            "{folder}/large.png",
            ["word1"],
            "^large.png is too large: pictures of up to 4,000 pixels",
        ),
        ("{folder}/thin.png", ["word1"], "too narrow"),
    ],
)
def test_what_is_refused(asking, photo, tmp_path, monkeypatch, picture, questions, message):
    monkeypatch.setattr(asking_module, "MAX_PIXELS", 4000)
    (tmp_path / "notes.jpg").write_text("no picture")
    Image.new("RGB", (70, 60)).save(tmp_path / "large.png")
    Image.new("RGB", (1, 900)).save(tmp_path / "thin.png")
    if "jpg" in message or "large" in message:
        with pytest.raises(ValueError, match=message):
            asking.check(picture.format(folder=tmp_path))  # at once
    with pytest.raises(ValueError, match=message):
        asking.ask(picture and picture.format(photo=photo, folder=tmp_path), questions, "chefer")


def test_a_question_of_too_many_tokens_is_refused(asking, asked, photo):
    with pytest.raises(ValueError, match="has 42 tokens, the model reads 16: ask a shorter one"):
        asking.ask(photo, ["word1 " * 40], "chefer", asked)


def test_an_unknown_answer_is_refused(asking, asked):
    with pytest.raises(ValueError, match="'purple' is none of"):
        asking.explain(asked, ["purple", None], "chefer")


def test_a_time_limit(explainer, asked, photo):
    go = threading.Event()
    slow = Asking(explainer, lambda picture: go.wait(60) and asked.scene, time_limit=0.05)
    with pytest.raises(TimeoutError, match=r"longer than 0\.05 seconds"):
        slow.ask(photo, ["word1"], "raw_attention")
    go.set()
    slow.time_limit = 60
    assert slow.ask(photo, ["word1"], "raw_attention").explanations


# Region features in place of a detector


def test_pictures_of_a_file(stored, tmp_path):
    store, explainer = stored
    Image.new("RGB", (64, 48), "green").save(tmp_path / "image_1.png")
    see = see_features(explainer, store, tmp_path)
    assert (see("image_1").pixels == (0, 128, 0)).all()
    white = see("image_2").pixels
    assert white.shape == (480, 640, 3)
    assert (white == 255).all()
    with pytest.raises(ValueError, match=r"^There is no picture 'image_9'\.$"):
        see("image_9")
    asked = Asking(explainer, see).ask("image_1", ["word1"], METHODS[0])
    assert max(render_boxes(asked.explanations[0]).size) <= LONGEST


@pytest.mark.parametrize("name", ["../secret", "sub/secret", "..", "/secret"])
def test_names_do_not_lead_out_of_the_directory(name, tmp_path):
    (tmp_path / "pictures" / "sub").mkdir(parents=True)
    for place in ("", "pictures/sub"):
        Image.new("RGB", (4, 4)).save(tmp_path / place / "secret.png")
    assert asking_module._photo(tmp_path / "pictures", name) is None


def test_what_does_not_fit_is_said_at_once(explainer, stored, tmp_path):
    store, fitting = stored
    with pytest.raises(ValueError, match="The features are 4 wide, but visual_feat_dim of the model is 64"):
        see_features(explainer, store)
    with pytest.raises(NotADirectoryError, match="There is no directory"):
        see_features(fitting, store, tmp_path / "nowhere")


# Rendering


def test_what_is_shown(asked):
    first = asked.explanations[0]
    page = render_answers(first) + render_relevance(first)
    assert "<script>" not in page and "<b>no</b>" not in page  # the visitor's and the model's words are no HTML
    assert "word1 &lt;script&gt;?" in page
    for name, chance in first.answers:
        assert f"{chance:.1%}" in page
        assert name in page or "&lt;b&gt;no" in page
    assert page.count("<small>") == len(first.tokens)
    assert page.count('class="bar"') == 5 + len(first.box_relevance)
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", render_relevance(first))]
    assert widths == sorted(widths, reverse=True) and widths[0] == 100


# The page


def test_without_gradio(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "lxmert_tf.web.page", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'lxmert-tf\[web\]'"):
        import lxmert_tf.web.page  # noqa: F401


# The command


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give --detector, or --features"),
        (["--detector", "d", "--images", "i"], "--images goes with --features"),
        (["--features", "f", "--boxes", "9"], "--max-boxes and --set go without --features"),
        (["--detector", "d", "--time-limit", "0"], "--time-limit must be above 0, got 0"),
        (["--detector", "d", "--max-upload", "nan"], "--max-upload must be above 0, got nan"),
    ],
)
def test_errors_of_the_command(arguments, message, capsys):
    assert main(["web", "--model", "/nowhere", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
