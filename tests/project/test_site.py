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


def test_an_entry_of_several_arguments_is_one_of_each():
    griffe = pytest.importorskip("griffe")
    options = {"docstring_parser": "google", "extensions": griffe.load_extensions(str(ROOT / "docs" / "arguments.py"))}
    loader = griffe.GriffeLoader(search_paths=[ROOT], **options)
    package = loader.load("lxmert_tf")

    def entries(name: str, kind: str) -> list:
        sections = package[name].docstring.parse(warnings=False)
        return [entry for section in sections if section.kind.value == kind for entry in section.value]

    given = {each.name: each for each in entries("modeling.TFLxmertModel.call", "parameters")}
    for name in ("output_attentions", "output_hidden_states"):
        assert given[name].description.startswith("whether to return them")
        assert given[name].default == "None" and "bool" in str(given[name].annotation)
    config = {
        each.name: (each.default, str(each.annotation)) for each in entries("configuration.LxmertConfig", "parameters")
    }
    assert config["l_layers"] == ("9", "int") and config["r_layers"] == ("5", "int")
    assert not [name for name in config if "," in name]
    assert len(entries("configuration.LxmertConfig", "raises")) == 1  # only arguments are taken apart
    code = [kind.value for kind, _ in entries("modeling.TFLxmertModel", "examples")]
    assert code == ["examples"]


def test_links_are_words():
    for page in PAGES:
        if page.startswith("docs/"):
            assert re.findall(r"\[`?[\w/-]+\.(?:md|ipynb)`?\]\(", read(page)) == []


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
