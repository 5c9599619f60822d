"""Notes of the library on the command line: each once, on standard error, whatever reads the checkpoint."""

import logging
import shutil
from pathlib import Path

import pytest
from support.models import tiny_model

from lxmert_tf.cli import main
from lxmert_tf.command_line import print_notes

logger = logging.getLogger("lxmert_tf")


def test_notes_are_printed_once_and_nothing_else_changes(capsys, caplog):
    before = logger.level, list(logger.filters)
    logger.info("a note before", extra={"note": True})
    with print_notes():
        for _ in range(2):
            logger.info("100%% of %s", "it", extra={"note": True})
        logger.info("not a note")
        logger.warning("a warning")
    logger.info("a note after", extra={"note": True})
    assert capsys.readouterr() == ("", "note: 100% of it\n")
    assert caplog.messages == ["a warning"]
    assert (logger.level, list(logger.filters)) == before


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model directory with two formats and a vocabulary."""
    folder = tmp_path_factory.mktemp("models") / "two"
    tiny = tiny_model(id2label=dict(enumerate("abcde")))
    tiny.save_pretrained(folder)
    tiny.save_pretrained(folder.parent / "pt", "hf-pt")
    shutil.copy(folder.parent / "pt/model.safetensors", folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    (folder.parent / "empty.json").write_text("[]")
    return folder


@pytest.mark.parametrize("command", ["evaluate", "predict", "train", "export"])
def test_the_file_that_is_read_is_told_by_every_command(model, tmp_path, capsys, command):
    """They end at the next file that they read, which is not there or empty."""
    if command == "export":
        pytest.importorskip("tensorflow_serving", reason="needs the extra `serving`")
    absent, empty, output = tmp_path / "absent", model.parent / "empty.json", tmp_path / "output"
    answering = ["vqa", "--model", model, "--data", empty, "--features", absent]
    arguments = {
        "evaluate": answering,
        "predict": [*answering, "--output", output],
        "train": ["vqa", "--init", model, "--train", empty, "--features", empty, "--output", output],
        "export": [model, output, "--name", "m", "--labels", absent],
    }[command]
    assert main([command, *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[0] == f"note: {model} also holds model.weights.h5; model.safetensors is used"
    assert err.splitlines()[1].startswith(f"lxmert-tf {command}: error: ") and len(err.splitlines()) == 2
