"""From pictures and questions to answers, in Python and on the command line."""

import io
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from PIL import Image
from support.detector import HF, IMAGES, TINY, TINY_CONFIG, tiny_detector
from support.serving import LABELS, pytorch_model, pytorch_outputs, write_checkpoint

from lxmert_tf import LxmertTokenizer, TFLxmertModel
from lxmert_tf.cli import main
from lxmert_tf.detector import BadImage, FasterRCNN, VisualQuestionAnsweringPipeline
from lxmert_tf.detector.question_answering import box_weights, model_inputs

QUESTIONS = ["What is in the picture?", "is the cafe in color"]
OPTIONS = [*("--min-boxes", "3", "--max-boxes", "8"), *("--set", "min_size=64", "--set", "max_size=128")]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A folder with a checkpoint for questions, qa, and one for visual reasoning, reasoning."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for task in ("qa", "reasoning"):
        write_checkpoint(task, folder / task, visual_feat_dim=TINY_CONFIG.feature_size)
    return folder


@pytest.fixture(scope="module")
def ask(checkpoints):
    """The pipeline for questions."""
    return make(checkpoints / "qa")


@pytest.fixture(scope="module")
def judge(checkpoints):
    """The pipeline for visual reasoning."""
    return make(checkpoints / "reasoning")


def make(directory) -> VisualQuestionAnsweringPipeline:
    from lxmert_tf.serving.checkpoint import load

    tokenizer = LxmertTokenizer.from_pretrained(directory)
    return VisualQuestionAnsweringPipeline(load(directory).model, tiny_detector(), tokenizer, **TINY)


def scores(answered) -> list[dict]:
    return [{each.id: each.score for each in one.answers} for one in answered]


def assert_same(got, wanted) -> None:
    """Equal within the rounding of products of other sizes."""
    for one, other in zip(scores(got), scores(wanted), strict=True):
        assert one == pytest.approx(other, rel=0, abs=1e-6)


def test_every_question_about_every_picture_is_answered_as_by_pytorch(ask, checkpoints):
    answered = ask(IMAGES[:2], QUESTIONS, top_k=9)
    assert [(each.pictures, each.question) for each in answered] == [
        ((str(path),), question) for path in IMAGES[:2] for question in QUESTIONS
    ]
    model = pytorch_model("qa", checkpoints / "qa")
    for each in answered:
        text = dict(ask.tokenizer([each.question], return_tensors="np"))
        logits = pytorch_outputs(model, {**text, **model_inputs(each.regions)})["question_answering_score"][0]
        assert [answer.id for answer in each.answers] == np.argsort(-logits, kind="stable").tolist()
        assert [answer.text for answer in each.answers] == [LABELS[answer.id] for answer in each.answers]
        wanted = 1 / (1 + np.exp(-logits[[answer.id for answer in each.answers]]))
        assert [answer.score for answer in each.answers] == pytest.approx(wanted, rel=0, abs=1e-5)
        assert each.box_weights is None
    assert answered[0].regions is answered[1].regions, "a picture is detected once"


def test_answers_do_not_depend_on_what_is_asked_with_them(ask, monkeypatch):
    together = ask(IMAGES[:3], [*QUESTIONS, "what is the color of the picture in the cafe?"])
    assert len({len(each.regions[0]) for each in together}) > 1, "pictures have different numbers of boxes"
    alone = [answer for path in IMAGES[:3] for question in QUESTIONS for answer in ask(path, question)]
    assert_same([each for each in together if each.question in QUESTIONS], alone)
    monkeypatch.setattr("lxmert_tf.detector.question_answering.CHUNK", 1)
    assert_same(ask(IMAGES[0], QUESTIONS), alone[:2])


def test_an_image_is_encoded_once(ask, monkeypatch):
    calls = []
    encode = ask.model.encode_image
    monkeypatch.setattr(ask.model, "encode_image", lambda **image: calls.append(image) or encode(**image))
    ask(IMAGES[:2], QUESTIONS * 2)
    assert len(calls) == 2


def test_pictures_as_people_have_them(ask):
    content = IMAGES[0].read_bytes()
    image = Image.open(IMAGES[0]).convert("RGB")
    (wanted,) = ask(IMAGES[0], "what is in the picture?")
    for picture in (str(IMAGES[0]), content, image, np.asarray(image)):
        assert_same(ask([picture], ["what is in the picture?"]), [wanted])


def test_urls_are_left_to_an_opener(ask, monkeypatch):
    url, opened = "https://example.org/cat.png", []

    def opener(address, content):
        opened.append(address)
        return content

    with pytest.raises(ValueError, match=r"https://example\.org/cat\.png is a URL: pass an opener"):
        ask(url, "what")
    wanted = ask(IMAGES[0], "what")
    for content in (IMAGES[0].read_bytes(), io.BytesIO(IMAGES[0].read_bytes())):
        monkeypatch.setattr(ask, "opener", partial(opener, content=content))
        assert_same(ask([url], "what"), wanted)
    assert opened == [url, url]
    monkeypatch.setattr(ask, "opener", lambda address: Image.open(IMAGES[0]))
    assert_same(ask([url], "what"), wanted)
    monkeypatch.setattr(ask, "opener", lambda address: None)
    with pytest.raises(TypeError, match=r"^https://example\.org/cat\.png, as the opener gives it: A picture must be"):
        ask([url], "what")
    assert content.closed
    monkeypatch.setattr(ask, "opener", partial(opener, content=b"<html>"))
    with pytest.raises(BadImage, match=r"https://example\.org/cat\.png: The picture of 6 bytes is not a picture"):
        ask([url], "what")


def test_pairs_are_judged_as_by_pytorch(judge, checkpoints):
    pairs = [IMAGES[:2], [IMAGES[2], IMAGES[0]]]
    answered = judge(pairs, QUESTIONS, output_weights=True)
    model = pytorch_model("reasoning", checkpoints / "reasoning")
    assert [each.pictures for each in answered] == [tuple(map(str, pair)) for pair in pairs for _ in QUESTIONS]
    for each in answered:
        text = dict(judge.tokenizer([each.question], return_tensors="np"))
        logits = pytorch_outputs(model, {**text, **model_inputs(each.regions, True)})["logits"][0]
        wanted = np.exp(logits) / np.exp(logits).sum()
        assert {answer.text: answer.score for answer in each.answers} == pytest.approx(
            {"False": wanted[0], "True": wanted[1]}, rel=0, abs=1e-5
        )
        assert [len(weights) for weights in each.box_weights] == [len(regions) for regions in each.regions]
    assert_same(judge(IMAGES[:2], QUESTIONS), answered[:2])
    with pytest.raises(ValueError, match="pairs of pictures, got 3"):
        judge(IMAGES[:3], QUESTIONS)


def test_box_weights_are_the_attention_that_answers_are_made_of(ask):
    (answered,) = ask(IMAGES[0], "what is in the picture?", output_weights=True)
    (weights,) = answered.box_weights
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    text = dict(ask.tokenizer([answered.question], return_tensors="np"))
    image = model_inputs(answered.regions)
    attention = ask.model(**text, **image, output_attentions=True).cross_encoder_attentions[-1].numpy()
    np.testing.assert_allclose(weights, attention[0, :, 0].mean(axis=0), rtol=0, atol=1e-6)
    twice = box_weights(ask.model, {name: np.repeat(rows, 2, axis=0) for name, rows in text.items()}, image)
    np.testing.assert_allclose(twice, [[weights], [weights]], rtol=0, atol=1e-6)


def test_a_picture_without_regions_is_one_box_of_zeros(ask):
    (answered,) = ask(IMAGES[0], "what")
    (regions,) = answered.regions
    none = replace(regions, **{name: getattr(regions, name)[:0] for name in ("boxes", "normalized_boxes", "features")})
    inputs = model_inputs([none, regions])
    assert inputs["visual_attention_mask"].sum(axis=1).tolist() == [1, len(regions)]
    assert not inputs["visual_feats"][0].any()


def test_a_picture_without_regions_is_refused(ask, monkeypatch):
    (regions,) = ask(IMAGES[0], "what")[0].regions
    names = ("boxes", "normalized_boxes", "features", "object_ids", "object_scores")
    none = replace(regions, **{name: getattr(regions, name)[:0] for name in names})
    monkeypatch.setattr(ask.detector, "detect", lambda *_, **__: [none])
    with pytest.raises(BadImage, match=r"image0_97x143\.png, 143x97 pixels, has no boxes: the detector proposes none"):
        ask(IMAGES[0], "what")


def test_parts_that_do_not_fit(ask, tmp_path):
    detector = tiny_detector()
    with pytest.raises(ValueError, match="TFLxmertModel does not answer"):
        VisualQuestionAnsweringPipeline(TFLxmertModel(ask.model.config), detector, ask.tokenizer)
    write_checkpoint("qa", tmp_path)
    with pytest.raises(ValueError, match="features are 64 wide, but visual_feat_dim of the model is 9"):
        make(tmp_path)
    with pytest.raises(ValueError, match="There must be 5 answers, one for each row, got 2"):
        VisualQuestionAnsweringPipeline(ask.model, detector, ask.tokenizer, answers=["yes", "no"])
    with pytest.raises(ValueError, match="pipeline must be one of"):
        VisualQuestionAnsweringPipeline(ask.model, detector, ask.tokenizer, pipeline="fast")
    for pictures, questions, message in (
        (IMAGES[0], [], "questions must be a text, or a list of at least one"),
        (IMAGES[0], ["what", " "], "none may be empty"),
        ([], "what", "at least one picture"),
        (IMAGES[0], "what is " * 40, r"^The question 'what is .*' has 82 tokens, the model reads"),
    ):
        with pytest.raises(ValueError, match=message):
            ask(pictures, questions)
    with pytest.raises(ValueError, match="top_k must be at least 1, got 0"):
        ask(IMAGES[0], "what", top_k=0)


# The command


@pytest.fixture
def run(checkpoints, monkeypatch, capsys):
    """Runs `lxmert-tf answer` with the checkpoint of a task; gives the exit code and what it printed."""
    monkeypatch.setattr(FasterRCNN, "from_pretrained", lambda source: tiny_detector())  # compiled already

    def answer(*arguments: str, task: str = "qa"):
        code = main(
            ["answer", "--model", str(checkpoints / task), "--detector", str(HF), *OPTIONS, *map(str, arguments)]
        )
        return code, *capsys.readouterr()

    return answer


def test_the_command_prints_what_python_answers(run, ask, tmp_path):
    code, out, _ = run(*IMAGES[:2], *QUESTIONS, "--top-k", "2", "--json")
    assert code == 0
    found, wanted = json.loads(out), ask(IMAGES[:2], QUESTIONS, top_k=2, output_weights=True)
    for one, each in zip(found, wanted, strict=True):
        assert (one["image"], one["question"]) == (*each.pictures, each.question)
        assert [tuple(answer.values()) for answer in one["answers"]] == [tuple(answer) for answer in each.answers]
        assert [region["box"] for region in one["regions"]] == each.regions[0].boxes.tolist()
        assert [region["name"] for region in one["regions"]] == each.regions[0].object_names
        assert [region["weight"] for region in one["regions"]] == pytest.approx(each.box_weights[0].tolist())
    (tmp_path / "questions.txt").write_text(f"{QUESTIONS[0]}\n\n", encoding="utf-8-sig")
    code, out, _ = run(IMAGES[0], "--questions", tmp_path / "questions.txt", "--json")
    assert code == 0 and json.loads(out)[0]["question"] == QUESTIONS[0]
    code, out, _ = run(IMAGES[0], QUESTIONS[0])
    best = wanted[0].answers[0]
    assert code == 0 and out.splitlines()[0] == f"{best.text}\t{best.score:.3f}"


def test_the_command_draws_where_the_model_looked(run, tmp_path):
    save = tmp_path / "answered.png"
    assert run(*IMAGES[:2], *QUESTIONS, "--save", save)[0] == 0
    with Image.open(save) as image:
        wide, high = image.size
        drawn = np.asarray(image.convert("RGB")).astype(int)
    assert wide == 2 * 480 and high > round(97 / 143 * 480) + 480
    assert drawn.std() > 20 and (drawn[:300, :480] != drawn[:300, 480:]).any(), "questions look at other boxes"
    assert run(*IMAGES[:2], "is it", "--save", save, task="reasoning")[0] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["answered.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["what is it"], "Give at least one photo: there is no file 'what is it'"),
        ([IMAGES[0]], "Give at least one question, in quotes or in a file"),
        ([IMAGES[0], "cat.jpg", "what"], "There is no file 'cat.jpg'"),
        ([IMAGES[0].parent, "what"], "is a directory: name the pictures in it"),
        ([IMAGES[0], "what " * 1000], "has 1002 tokens, the model reads 64: ask a shorter one"),
        (["https://example.org/cat", "what"], "https://example.org/cat is a URL, which is not opened: download it"),
        ([IMAGES[0], "what", "--model", HF], "pytorch_model.bin holds a detector, not an LXMERT model; give one of a"),
        ([HF / "config.yaml", "what"], "config.yaml is not a picture of a known kind"),
        ([IMAGES[0], "what", "--save", "a.txt"], "a.txt: a picture is written to a file that ends with .png"),
        ([IMAGES[0], "what", "--save", "a.gif"], "a.gif: a picture is written to a file that ends with .png, .jpg"),
        ([IMAGES[0], "what", "--save", IMAGES[0]], "would be overwritten"),
        ([IMAGES[0], "what", "--set", "size=3"], "--set must be NAME=VALUE"),
        ([IMAGES[0], "what", "--top-k", "0"], "top_k must be at least 1"),
    ],
)
def test_what_the_command_refuses(run, arguments, message):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "") and message in err and "Traceback" not in err
