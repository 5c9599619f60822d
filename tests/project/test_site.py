"""The site: links lead somewhere, every page, public name and test that it names is there, commands are right."""

import ast
import importlib
import re
from pathlib import Path

import pytest
import yaml
from support.golden import ROOT
from support.pages import PAGES, blocks, commands, read

from conversion.cli import make_parser as conversion_parser
from lxmert_tf.cli import make_parser

SITE = read("mkdocs.yml")
FACES = ("lxmert_tf", "lxmert_tf.detector", "lxmert_tf.data", "lxmert_tf.training", "lxmert_tf.explain")
FACES += ("lxmert_tf.serving", "conversion", "lxmert_pt", "lxmert_pt.detector")
# Which test runs the Python of a page
RUN_BY = {
    "docs/conversion.md": "tests/conversion/test_page.py",
    "docs/data.md": "tests/data/test_data_page.py",
    "docs/index.md": "tests/project/test_first_steps.py",
    "docs/serving.md": "tests/serving/test_served_pictures.py",
    "docs/training.md": "tests/training/test_documentation.py",
}


def without_code(page: str) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", read(page), flags=re.DOTALL | re.MULTILINE)


def anchors(page: str) -> set[str]:
    """The headings as GitHub and mkdocs name them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.M), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = without_code(page)
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]+))?\)", text):
        place = (ROOT / page).parent / target if target else ROOT / page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(str(place.resolve().relative_to(ROOT))), f"{target}#{anchor}"


def test_every_page_is_in_the_navigation():
    listed = re.findall(r": (\S+\.md)$", SITE, re.MULTILINE)
    pages = {page.removeprefix("docs/").replace(".ipynb", ".md") for page in PAGES if page.startswith("docs/")}
    assert len(listed) == len(set(listed))
    assert pages <= set(listed)
    hook = read("docs/site.py")
    assert all(f'"{page}"' in hook for page in set(listed) - pages)


def test_pages_load_nothing_from_other_hosts():
    site = yaml.safe_load(SITE)
    assert site["theme"]["font"] is False
    assert not {"repo_url", "extra_javascript", "extra_css"} & set(site)
    assert not [page for page in PAGES if "```mermaid" in read(page) or re.search(r"!\[[^]]*\]\(https?:", read(page))]


def test_every_public_name_has_its_place():
    listed = {name for page in PAGES for name in re.findall(r"^::: (\S+)$", read(page), re.MULTILINE)}
    for face in FACES:
        public = {name for name in importlib.import_module(face).__all__ if not name.startswith("__")}
        assert {f"{face}.{name}" for name in public - ({"LxmertConfig"} if face == "lxmert_pt" else set())} <= listed
    for name in listed:
        module, _, member = name.rpartition(".")
        assert hasattr(importlib.import_module(module), member), name


def test_tests_that_are_named_exist():
    page = read("docs/proven.md")
    named = re.findall(r"`(tests/[\w/]+\.py)((?:::\w+)?)`", page)
    named += [
        (file, f"::{test}")
        for row in page.splitlines()
        for file in re.findall(r"`(tests/[\w/]+\.py)`: ", row)
        for test in re.findall(r"`::(\w+)`", row)
    ]
    assert len(named) > 40
    for file, test in named:
        functions = {node.name for node in ast.walk(ast.parse(read(file))) if isinstance(node, ast.FunctionDef)}
        assert test[2:] in functions | {""}, f"{file}{test}"


def test_code_on_every_page_is_run():
    readme = Path(__file__).with_name("test_readme.py").read_text(encoding="utf-8")
    for page in PAGES:
        if page.endswith(".ipynb"):
            assert "docs/notebooks.py" in yaml.safe_load(SITE)["hooks"]  # it runs them
        elif blocks(page, "python"):
            assert f'"{page}"' in readme or Path(page).name in read(RUN_BY[page]), page


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_commands_parse(page):
    for _, text in blocks(page, "text", "sh"):
        for program, *arguments in commands(text):
            if "..." not in arguments and not {"SRC", "A", "SUBCOMMAND"} & set(arguments):
                parser = {"lxmert-tf": make_parser, "lxmert-convert": conversion_parser}[program]()
                parser.parse_args(arguments)
