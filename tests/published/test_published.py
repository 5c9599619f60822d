"""`make published`: everything that upstream's authors published of the real weights, on this code.

Needs the network, or LXMERT_WEIGHTS=DIR with what README.md here lists; what is missing is skipped, by name.
"""

import os
from pathlib import Path

import pytest
from support.published import (
    NUMBERS,
    Comparison,
    Files,
    Missing,
    backbone_slice,
    demo_answers,
    demo_boxes,
    published_rows,
    table,
)

from lxmert_pt import LxmertModel
from lxmert_tf import TFLxmertModel
from lxmert_tf.hub import fetch

pytestmark = pytest.mark.published

PATTERNS = ["*.json", "*.yaml", "*.txt", "pytorch_model.bin", "model.safetensors"]


@pytest.fixture(scope="module")
def files() -> Files:
    folder = os.environ.get("LXMERT_WEIGHTS")
    return Files(Path(folder) if folder else None, None if folder else lambda name: fetch(name, PATTERNS))


@pytest.fixture(scope="module")
def compare():
    """Asserts that a check's comparisons are all the same; shows them."""
    every: list[Comparison] = []

    def compare(comparisons):
        try:
            found = list(comparisons)
        except Missing as missing:
            pytest.skip(str(missing))
        every.extend(found)
        assert all(each.same for each in found), "\n" + table(found)

    yield compare
    if every:
        print("\n" + table(every))


@pytest.mark.parametrize(("backbone", "framework"), [(TFLxmertModel, "keras"), (LxmertModel, "torch")])
def test_hidden_states(files, compare, backbone, framework):
    compare(backbone_slice(files, backbone, framework))


@pytest.mark.parametrize("name", ["unc-nlp/lxmert-gqa-uncased", "unc-nlp/lxmert-vqa-uncased"])
def test_answers_to_a_picture(files, compare, name):
    compare(demo_answers(files, name))


@pytest.mark.parametrize("weights", NUMBERS["demos"])
def test_boxes_of_the_notebooks(files, compare, weights):
    compare(demo_boxes(files, weights))


def test_features_that_lxmert_was_trained_on(files, compare):
    compare(published_rows(files))
