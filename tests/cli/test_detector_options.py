"""The options of subcommands that find the regions of pictures."""

import argparse

import pytest

from lxmert_tf.cli.detector_options import NO_CHANGES, add_detector_arguments, detector_settings


def settings(*arguments: str) -> dict:
    parser = argparse.ArgumentParser()
    add_detector_arguments(parser)
    return detector_settings(parser.parse_args(["--detector", "frcnn", *arguments]))


def test_settings():
    assert settings() == NO_CHANGES == {"pipeline": "caffe", "min_boxes": None, "max_boxes": None}
    assert settings("--pipeline", "huggingface", "--boxes", "8") == {
        "pipeline": "huggingface",
        "min_boxes": 8,
        "max_boxes": 8,
    }
    changed = settings("--min-boxes", "3", "--max-boxes", "9", "--set", "min_size=112", "--set", "nms=0.3,0.5")
    assert changed == {"pipeline": "caffe", "min_boxes": 3, "max_boxes": 9, "min_size": 112, "nms": (0.3, 0.5)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--boxes", "8", "--min-boxes", "8"), "--boxes is --min-boxes and --max-boxes in one"),
        (("--boxes", "0"), "--boxes must be at least 1, got 0"),
        (("--set", "min_size"), "--set must be NAME=VALUE with a NAME of min_size, .*, got 'min_size'"),
        (("--set", "size=3"), "got 'size=3'"),
        (("--set", "min_size=3.5"), r"--set min_size must be an integer, got '3\.5'"),
        (("--set", "conf=a"), "--set conf must be a number, got 'a'"),
    ],
)
def test_settings_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        settings(*arguments)
