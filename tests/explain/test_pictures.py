"""Explanations as pictures and pages, and the command that makes them."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from support.data import make_questions, make_store, make_tokenizer
from support.models import tiny_model

from lxmert_tf.cli import main
from lxmert_tf.data.annotations import write_annotations
from lxmert_tf.detector.drawing import (
    FONTS,
    INK,
    NUMBERED,
    PAPER,
    _font,
    _missing,
    color,
    draw_boxes,
    font_of,
    ranked,
)
from lxmert_tf.explain.drawing import draw, percents, strengths
from lxmert_tf.explain.explanation import Explainer, shown
from lxmert_tf.explain.page import make_page
from lxmert_tf.explain.perturbation import STEPS
from lxmert_tf.explain.scene import from_features

ANSWERS = ["word0", "word1", "word2", "yes", "no"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model directory with its features, as `lxmert-tf explain` takes them."""
    folder = tmp_path_factory.mktemp("explain")
    make_store(folder, images=4)
    model = tiny_model(vocab_size=46, visual_feat_dim=4, l_layers=1, r_layers=0, x_layers=2)
    model.config.id2label = dict(enumerate(ANSWERS))
    model.save_pretrained(folder / "model")
    make_tokenizer(folder).save_pretrained(folder / "model")
    answers = [{ANSWERS[number % 3]: 1.0} for number in range(6)]
    questions = [
        type(each)(each.question_id, each.img_id, each.sent, label)
        for each, label in zip(make_questions(6, images=4), answers, strict=True)
    ]
    write_annotations(folder / "valid.json", questions)
    return folder


@pytest.fixture(scope="module")
def explanation(folder):
    scene = from_features(folder / "features.h5", "image_1")
    return Explainer(str(folder / "model")).explain("word1 word2 </script> word3?", scene, "yes", "chefer")


def test_what_an_explanation_holds(explanation):
    assert explanation.answer == "yes"
    assert "yes" in dict(explanation.answers)
    assert explanation.tokens[0] == "[CLS]"
    assert len(explanation.tokens) == len(explanation.token_relevance)
    assert len(explanation.scene.names) == len(explanation.box_relevance) == 4
    assert explanation.scene.names[0].split()[-2] == "object"
    assert explanation.maps["cross/1/language_to_vision"].shape == (3, len(explanation.tokens), 4)
    assert explanation.scene.pixels.shape == (480, 640, 3)


def test_lightness_rises_with_the_weight():
    grey = [np.dot(color(weight), (0.299, 0.587, 0.114)) for weight in np.linspace(0, 1, 21)]
    assert (np.diff(grey) > 0).all()


def test_the_weightiest_box_has_the_widest_line():
    boxes = np.array([[0.1, 0.1, 0.4, 0.9], [0.6, 0.1, 0.9, 0.9]])
    picture = np.asarray(draw_boxes(np.full((500, 500, 3), 255, np.uint8), boxes, np.array([0.2, 1.0])))
    row = picture[250]
    widths = [(row == color(weight)).all(axis=-1).sum() / 2 for weight in (0.2, 1.0)]
    assert widths == [2, 7]


@pytest.mark.parametrize("number", [0, 1, 36, 100])
def test_any_number_of_boxes(number):
    rng = np.random.default_rng(0)
    corners = np.sort(rng.random((number, 2, 2)), axis=1).reshape(number, 4)
    picture = draw_boxes(np.full((30, 40, 3), 255, np.uint8), corners, rng.random(number))
    assert picture.size == (480, 360)  # small pictures are enlarged
    tags = (np.asarray(picture) == 20).all(axis=-1).sum()
    assert (tags > 300) == (number > 0)


@pytest.mark.parametrize("box", [(0.2, 0.2, 0.6, 0.6), (0.9, 0.9, 0.97, 0.97)])
def test_tags_do_not_hide_each_other(box):
    same = np.tile(box, (NUMBERED, 1))
    one, all_ = (
        (np.asarray(draw_boxes(np.full((500, 500, 3), 255, np.uint8), boxes, np.zeros(len(boxes)))) == 255)
        for boxes in (same[:1], same)
    )
    hidden = one.all(axis=-1).sum() - all_.all(axis=-1).sum()
    assert hidden > (NUMBERED - 1) * 200  # pixels of each tag on paper that is white else


def test_relevance_has_one_scale_for_and_against():
    assert list(strengths(np.array([2.0, -4.0, 1.0]))) == [0.5, -1, 0.25]
    assert percents(np.array([2.0, -4.0, -0.01])) == ["50%", "-100%", "0%"]
    assert list(strengths(np.zeros(2))) == [0, 0]
    assert ranked(np.array([0.5, -1, 0.5, 0])) == [1, 0, 2, 3]


def test_lines_of_what_speaks_against_are_dashed():
    boxes = np.array([[0.1, 0.1, 0.4, 0.9], [0.6, 0.1, 0.9, 0.9]])
    picture = np.asarray(draw_boxes(np.full((500, 500, 3), 128, np.uint8), boxes, np.array([-1.0, 1.0])))
    against, in_favour = picture[200:400, 52], picture[200:400, 302]
    assert {tuple(each) for each in against} == {INK, PAPER}
    assert {tuple(each) for each in in_favour} == {color(1)}


def test_small_pictures_are_not_blurred():
    pixels = np.zeros((40, 40, 3), np.uint8)
    pixels[:, 20:] = 255
    drawn = np.asarray(draw_boxes(pixels, np.zeros((0, 4)), np.zeros(0)))
    assert drawn.shape == (480, 480, 3)
    assert set(np.unique(drawn)) == {0, 255}


def test_a_font_that_has_the_characters():
    own = font_of(16)
    assert font_of(16, "what?") is own
    chosen = font_of(16, "\N{GREEK SMALL LETTER ALPHA}\N{RIGHTWARDS ARROW}\N{CYRILLIC SMALL LETTER ZHE}")
    if all(_font(name, 16) is None for name in FONTS):
        assert chosen is own
    else:
        assert _missing(chosen, "\N{RIGHTWARDS ARROW}\N{CYRILLIC SMALL LETTER ZHE}") == 0


def test_titles_keep_to_their_line_and_direction():
    turned = "what \N{RIGHT-TO-LEFT OVERRIDE}color\N{POP DIRECTIONAL ISOLATE}\n is\tit?"
    assert shown(turned) == "what color is it?"


def test_a_picture_of_all(explanation):
    picture = draw(explanation)
    assert picture.width > 640
    assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 20


def test_a_page_needs_nothing_else(explanation):
    page = make_page(explanation)
    assert "http://" not in page.replace("http-equiv", "")
    assert "https://" not in page
    assert page.count("</script>") == 2  # that of the question is none
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    assert data["question"] == explanation.question
    sizes = [data["heads"] * each["rows"] * each["columns"] for each in data["maps"]]
    assert [each["start"] for each in data["maps"]] == [0, *np.cumsum(sizes)[:-1]]


def test_save(explanation, tmp_path):
    explanation.save(tmp_path / "why.png")
    with Image.open(tmp_path / "why.png") as picture:
        assert picture.format == "PNG"
    with pytest.raises(ValueError, match=r"\.png or \.html"):
        explanation.save(tmp_path / "why.pdf")
    assert [path.name for path in tmp_path.iterdir()] == ["why.png"]


# The command


def test_the_command(folder, tmp_path, capsys):
    common = ["explain", "--model", str(folder / "model"), "--features", str(folder / "features.h5")]
    page = tmp_path / "why.html"
    arguments = ["--image", "image_0", "word1 word2", "--method", "raw_attention", "--save", str(page)]
    assert main([*common, *arguments]) == 0
    assert "word1 word2" in capsys.readouterr().out
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    photo = tmp_path / "photo.png"
    Image.new("RGB", (64, 48), "green").save(photo)
    drawn = tmp_path / "photographed.png"
    arguments = ["--image", "image_0", "--photo", str(photo), "word1", "--method", "rollout", "--save", str(drawn)]
    assert main([*common, *arguments]) == 0
    with Image.open(drawn) as picture:
        assert (np.asarray(picture) == (0, 128, 0)).all(axis=-1).any()


@pytest.mark.slow
def test_the_perturbation_test(folder, tmp_path, capsys):
    arguments = ["--data", str(folder / "valid.json"), "--methods", "raw_attn, random"]
    common = ["explain", "evaluate", "--model", str(folder / "model"), "--features", str(folder / "features.h5")]
    assert main([*common, *arguments, "--json", "--save", str(tmp_path / "curves.png")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["examples"] == 6
    assert result["steps"] == list(STEPS)
    assert set(result["areas"]) == set(result["curves"]) == {"raw_attention", "random"}
    ends = set()
    for parts in result["curves"].values():
        for part, curves in parts.items():
            assert {curve[0] for curve in curves.values()} == {result["accuracy"]}
            ends |= {(part, curve[-1]) for curve in curves.values()}
    assert len(ends) == 2  # without a box or a word it does not matter what came before
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 1000
    assert main([*common, *arguments[:2], "--methods", "random"]) == 0
    assert re.search("boxes negative +boxes positive +words negative +words positive", capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["word1", "--image", "image_0"], "--save is missing"),
        (["word1", "--save", "{out}.png"], "Give --photo and --detector, or --features and --image"),
        (["word1", "--image", "image_0", "--save", "{out}.pdf"], "--save must end in .png or .html"),
        (["word1", "--image", "image_9", "--save", "{out}.png"], "image 'image_9' has no region features"),
        (["word1", "--image", "image_0", "--answer", "purple", "--save", "{out}.png"], "'purple' is none of"),
        (["word1", "--image", "image_0", "--photo", "{features}", "--save", "{out}.png"], "features.h5"),
        (["word1", "--image", "image_0", "--data", "x", "--save", "{out}.png"], '--data goes with "evaluate"'),
        (["evaluate"], "--data is missing"),
        (
            ["word1", "--image", "image_0", "--boxes", "9", "--save", "{out}.png"],
            "--max-boxes and --set go with --photo alone",
        ),
        (["evaluate", "--data", "{data}", "--image", "1"], '--image goes with a question, not with "evaluate"'),
        (["evaluate", "--data", "{data}", "--method", "chefer"], "--method goes with a question"),
        (["evaluate", "--data", "{data}", "--methods", "lime"], "methods must be of chefer"),
        (["evaluate", "--data", "{data}", "--methods", ", "], "integrated_gradients, random, got none"),
        (["evaluate", "--data", "{data}", "--methods", "raw_attn,raw_attention"], "methods has 'raw_attention' twice"),
        (["evaluate", "--data", "{data}", "--save", "{out}/b.png"], "There is no directory"),
        (["word1", "--image", "image_0", "--save", "{out}/b.png"], "to write b.png in"),
        (["word1", "--image", "image_0", "--save", "/proc/b.png"], "/proc/b.png cannot be written: No such file"),
        ([" ", "--image", "image_0", "--save", "{out}.png"], "The question is empty"),
        (
            ["word1 " * 99, "--image", "image_0", "--save", "{out}.png"],
            "has 101 tokens, the model reads 16: ask a shorter one",
        ),
        (["evaluate", "--data", "{data}", "--save", "{out}.html"], "must end in .png"),
    ],
)
def test_errors(folder, tmp_path, capsys, arguments, message):
    names = {"out": tmp_path / "out", "data": folder / "valid.json", "features": folder / "features.h5"}
    given = ["--model", str(folder / "model"), "--features", str(folder / "features.h5")]
    assert main(["explain", *given, *(argument.format(**names) for argument in arguments)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())
