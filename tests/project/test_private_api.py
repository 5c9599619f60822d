"""Private API of Keras and TensorFlow is touched in one file, lxmert_tf/keras_private.py."""

import ast
import importlib
import inspect
import re

import pytest
from support.golden import ROOT

ALLOWED = "lxmert_tf/keras_private.py"
FILES = sorted(
    file.relative_to(ROOT).as_posix()
    for package in ("lxmert_tf", "conversion")
    for file in (ROOT / package).rglob("*.py")
    if file.relative_to(ROOT).as_posix() != ALLOWED
)
NAMED_TUPLES = {"_replace", "_asdict", "_fields"}  # public, whatever they look like
IMPORTLIB = {"_initializing"}  # of a module's spec


def tree(file: str) -> ast.Module:
    return ast.parse((ROOT / file).read_text(encoding="utf-8"))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined() -> set[str]:
    """The private names that the project itself defines: functions, attributes that it sets, variables."""
    names = set()
    for file in FILES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return {name for name in names if is_private(name)}


OWN = defined() | NAMED_TUPLES | IMPORTLIB


@pytest.mark.parametrize("file", FILES)
def test_no_private_attribute_of_others_is_read(file):
    touched = {node.attr for node in ast.walk(tree(file)) if isinstance(node, ast.Attribute) and is_private(node.attr)}
    assert touched <= OWN


@pytest.mark.parametrize("file", FILES)
def test_no_private_module_is_imported(file):
    private = re.compile(r"^(keras\.src|tensorflow\.python|tensorflow\.compiler)\b|\._|__internal__")
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if private.search(alias.name)]
        elif isinstance(node, ast.ImportFrom):
            assert not private.search(node.module)


def keras_classes() -> list[type]:
    """All classes of the product that derive from one of Keras'."""
    found = []
    for file in FILES:
        if "keras" in (ROOT / file).read_text(encoding="utf-8") and file.startswith("lxmert_tf/"):
            module = importlib.import_module(file.removesuffix(".py").replace("/", ".").removesuffix(".__init__"))
            found += [
                each
                for _, each in inspect.getmembers(module, inspect.isclass)
                if each.__module__ == module.__name__
                and any(base.__module__.startswith("keras") for base in each.__mro__)
            ]
    return found


def test_no_private_attribute_of_keras_is_overridden():
    """Not by a method, and not by an attribute of the same name that an instance sets."""
    classes = keras_classes()
    assert len(classes) > 20
    for each in classes:
        private = {
            name
            for base in each.__mro__
            if base.__module__.split(".")[0] in ("keras", "tensorflow")
            for name in vars(base)
            if is_private(name)
        }
        mine = {name for name in vars(each) if is_private(name)}
        mine |= {name[5:] for name in re.findall(r"self\._\w+(?= = )", inspect.getsource(each))}
        taken = (mine & private) - {"_tf_trackable_method_wrappers", "_obj_type"}
        assert not taken, f"{each.__name__}: {sorted(taken)}"


def test_what_keras_private_touches_is_none_of_ours():
    """The check above would not see it otherwise."""
    for name in ("_compile_loss", "_tracker", "_called", "_symbolic_build", "_iterations", "_flatten_layers"):
        assert name not in OWN
