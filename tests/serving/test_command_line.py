"""From a checkpoint to answers with two commands, `lxmert-tf export` and `lxmert-tf ask`."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from support.data import make_store
from support.serving import LABELS, serving

from lxmert_tf import LxmertTokenizer, TFLxmertForQuestionAnswering
from lxmert_tf.cli import main


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("features"), images=3, feat_dim=9)


def command(*arguments):
    command = [sys.executable, "-m", "lxmert_tf.cli", *map(str, arguments)]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def ask(capsys, *arguments):
    code = main(["ask", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def best(exports, store, image, question):
    """The answers of the Keras model, best first, and their scores."""
    model = TFLxmertForQuestionAnswering.from_pretrained(exports / "qa")
    text = LxmertTokenizer.from_pretrained(exports / "qa")([question], return_tensors="np")
    logits = np.asarray(model({**text, **store.read([image], labels=False)}).question_answering_score)[0]
    order = np.argsort(-logits)
    return [LABELS[i] for i in order], 1 / (1 + np.exp(-logits[order]))


@pytest.mark.slow
def test_export_check_and_ask(exports, store, tmp_path, capsys):
    base, options = tmp_path / "models", ("--text", "--check", "--top-k", "9", "--batch-sizes", "1")
    printed, said = command("export", exports / "qa", base, "--name", "vqa", *options)
    assert said == "--top-k 9: the model has only 5 answers, and returns all of them.\n"
    assert printed.splitlines()[0] == str(base / "vqa" / "1") and "sound" in printed
    with serving(f"vqa={base / 'vqa'}") as running:
        options = ("--name", "vqa", "--features", store.path, "--image", "image_1")
        answers, scores = best(exports, store, "image_1", "what color is the picture?")
        for protocol in ("grpc", "rest"):
            asking = ("--server", running[protocol], *options, "what color is the picture?")
            if protocol == "grpc":
                printed, said = command("ask", *asking)
            else:
                _, printed, said = ask(capsys, *asking)
            assert not said  # nor any note of TensorFlow's
            lines = [line.split("\t") for line in printed.splitlines()]
            assert [answer for answer, _ in lines] == answers
            np.testing.assert_allclose([float(score) for _, score in lines], scores, rtol=0, atol=6e-4)


def test_several_questions_json_and_a_tokenizer_here(exports, store, server, capsys):
    options = ("--server", server["rest"], "--name", "qa", "--features", store.path, "--image", "image_2")
    code, printed, _ = ask(capsys, *options, "--json", "what is", "in the picture?")
    assert code == 0
    for row, question in zip(json.loads(printed), ("what is", "in the picture?"), strict=True):
        answers, scores = best(exports, store, "image_2", question)
        assert row["question"] == question and [a["text"] for a in row["answers"]] == answers
        np.testing.assert_allclose([a["score"] for a in row["answers"]], scores, rtol=0, atol=1e-5)
    for questions in (["what is"], ["what is", "in the picture?"]):
        one = ask(capsys, *options, *questions)[1]
        assert ask(capsys, *options, "--tokenizer", exports / "qa", *questions)[1] == one


def test_errors_are_one_sentence(store, server, tmp_path, capsys):
    options = ["--name", "qa", "--features", store.path, "--image", "image_2"]
    for change, said in (
        ({"--image": "image_9"}, "image_9"),
        ({"--name": "nobody"}, "nobody"),
        ({"--features": tmp_path / "none.h5"}, "none.h5"),
        ({"--server": "127.0.0.1:1"}, "127.0.0.1:1"),
        ({"--server": "localhost"}, "HOST:PORT"),
        ({"--name": "model"}, "give --tokenizer, or export it with --text"),
        ({"--timeout": "nan"}, "timeout must be a finite number"),
        ({"--retries": "-1"}, "retries must be 0 or more"),
    ):
        given = {"--server": server["rest"], **dict(zip(options[::2], options[1::2], strict=True)), **change}
        arguments = [part for pair in given.items() for part in pair]
        code, printed, error = ask(capsys, "--retries=0", "--timeout=3", *arguments, "what?")
        assert code != 0 and not printed and said in error and error.count("\n") == 1, error
