"""The faces of the packages: every public name is there, editors see the same ones, and importing costs nothing."""

import ast
import importlib
import subprocess
import sys

import pytest
from support.golden import ROOT

FACES = ("lxmert_tf", "lxmert_pt", "lxmert_tf.data", "lxmert_tf.training", "lxmert_tf.serving")
FACES += ("lxmert_tf.detector", "lxmert_pt.detector")
HEAVY = ("tensorflow", "keras", "torch", "jax", "numpy", "h5py")


def names_for_editors(package: str) -> list[str]:
    """What is imported under TYPE_CHECKING."""
    tree = ast.parse((ROOT.joinpath(*package.split(".")) / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    aliases = [alias for node in block.body for alias in node.names]
    assert all(alias.asname == alias.name for alias in aliases), "`import X as X` makes X public"
    return [alias.name for alias in aliases]


@pytest.mark.parametrize("package", FACES)
def test_every_name_is_there(package):
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert dir(module) == sorted(module.__all__)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'Nothing'"):
        _ = module.Nothing


@pytest.mark.parametrize("package", FACES)
def test_editors_see_the_same_names(package):
    public = {name for name in importlib.import_module(package).__all__ if not name.startswith("__")}
    listed = names_for_editors(package)
    assert len(listed) == len(set(listed))
    assert set(listed) == public


@pytest.mark.parametrize("package", FACES)
def test_no_name_is_that_of_a_module(package):
    """Once imported, the module would hide it."""
    folder = ROOT.joinpath(*package.split("."))
    modules = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
    assert not modules & set(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", FACES)
def test_importing_a_face_imports_nothing_heavy(package):
    script = f"import sys, {package}; print(*{{name.partition('.')[0] for name in sys.modules}} & {{*{HEAVY!r}}})"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


@pytest.mark.slow
def test_packages_are_attributes_of_the_one_that_is_imported():
    code = (
        "import lxmert_tf; print(lxmert_tf.data.AnswerTable.__name__, lxmert_tf.optimizers.layer_rate_factors.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["AnswerTable", "layer_rate_factors"]
