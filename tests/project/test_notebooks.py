"""The notebooks: stored without what running them leaves; one that fails or warns fails the site."""

import ast
import importlib.util
import json
import re

import pytest
from support.golden import ROOT
from support.pages import NOTEBOOKS, blocks


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_stored_clean(path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"  # the environment that it runs in
    for each in notebook["cells"]:
        assert not each.get("outputs") and each.get("execution_count") is None
        draws = re.search(r"^(plt\.show|Image\.open)\(", "".join(each["source"]), re.MULTILINE)
        if each["cell_type"] == "code" and draws:
            assert each["metadata"]["alt"]


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_what_is_imported_is_there(path):
    for _, code in blocks(str(path.relative_to(ROOT)), "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and re.match(r"(lxmert_|conversion)", node.module):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert not alias.name.startswith("_") and hasattr(module, alias.name), alias.name


@pytest.fixture
def run():
    """`run` of the hook that builds their pages."""
    for name in ("mkdocs", "nbconvert", "ipykernel"):
        pytest.importorskip(name)
    spec = importlib.util.spec_from_file_location("docs_notebooks", ROOT / "docs" / "notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.run


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("print(1 / 0)", "ZeroDivisionError"),
        ("import warnings\nwarnings.warn('old', DeprecationWarning)", "hasty.ipynb writes to stderr: .*old"),
    ],
)
def test_a_cell_that_fails_or_warns_fails_the_site(run, tmp_path, code, error):
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": code}
    notebook = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "hasty.ipynb").write_text(json.dumps(notebook), encoding="utf-8")
    with pytest.raises(Exception, match=error):
        run(tmp_path / "hasty.ipynb", str(tmp_path))
