"""What a release says of itself: one version, how to cite it, and that it has type hints."""

import datetime
import re

import pytest
import yaml
from support.golden import ROOT

import lxmert_tf

PACKAGES = ("lxmert_tf", "lxmert_pt", "conversion")


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def citation() -> dict:
    return yaml.safe_load(read("CITATION.cff"))


def test_the_citation_has_what_its_schema_requires(citation):
    """Source: Citation File Format 1.2.0, schema.json."""
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    paper = citation["preferred-citation"]
    assert {"type", "title", "authors"} <= set(paper)
    for author in (*citation["authors"], *paper["authors"]):
        assert set(author) in ({"name"}, {"family-names", "given-names"})  # an entity, a person
    assert (paper["type"], paper["doi"]) == ("conference-paper", "10.18653/v1/D19-1514")
    assert (paper["year"], paper["start"], paper["end"]) == (2019, 5100, 5111)
    assert [author["family-names"] for author in paper["authors"]] == ["Tan", "Bansal"]


def test_the_version_is_the_same_everywhere(citation):
    assert citation["version"] == lxmert_tf.__version__
    assert citation["license"] in read("pyproject.toml")
    headings = re.findall(r"^## (.+)$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[:2] == ["[Unreleased]", f"[{lxmert_tf.__version__}] - {citation['date-released']}"]
    assert isinstance(citation["date-released"], datetime.date)


def test_each_package_is_typed_and_named_by_the_readme():
    lists = re.findall(r"^packages = \[(.+)\]$", read("pyproject.toml"), re.MULTILINE)
    assert [tuple(re.findall(r"\w+", each)) for each in lists] == [PACKAGES, PACKAGES]  # of the wheel, and for mypy
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").is_file()
        assert f"`{package}`" in read("README.md")
