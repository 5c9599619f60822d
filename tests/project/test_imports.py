"""Imports point one way, and what must answer at once imports no framework."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.golden import ROOT

PACKAGES = ("lxmert_tf", "lxmert_pt", "conversion")
FRAMEWORKS = ("tensorflow", "keras", "torch", "jax")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))

MAY_USE_TENSORFLOW = tuple(f"lxmert_tf.{part}" for part in ("data", "serving", "training", "cli"))
FRAMEWORK_FREE = (
    "lxmert_tf.configuration",
    "lxmert_tf.detector.configuration",
    "lxmert_tf.detector.pipelines",
    "lxmert_tf.tokenization",
    "lxmert_tf.cli",
)
LAZY = {  # may import PyTorch or TensorFlow inside a function, because it
    "lxmert_tf.tokenization.encoding",  # makes the tokenizer's tensors in the framework asked for
    "lxmert_tf.backend",  # asks TensorFlow, where Keras runs on it
    "lxmert_tf.tf_data",  # makes a tf.data.Dataset
    "lxmert_tf.outputs",  # registers the outputs with the backend that Keras runs on
    "lxmert_tf.pretrained",  # makes tensors without filling them
    "lxmert_tf.serving.runtimes.onnx_runtime",  # exports the PyTorch reference
    "lxmert_tf.demo.run",  # compares with the PyTorch reference where that is installed
}

# Is PyTorch's, as ONNX files are exported from the reference; only what is in LAZY may import it.
IN_PYTORCH = "lxmert_tf.serving.runtimes.torch_graphs"

# The house from the ground up; a module imports its own floor and those below. CONTRIBUTING.md draws it.
GROUND = "registration lazy locks files pickles hub answers tasks configuration head_masks input_table outputs"
GROUND += " tokenization command_line processor versions model_card upstream_arguments"
GROUND += " detector.configuration detector.anchors"
CORE = "backend keras_private checks compilation added_layers exported losses layers inputs shortcuts metrics"
CORE += " optimizers train_step tf_data attributes pretrained modeling detector"
DOOR = "report names tensors compare copies matching parametrized naming readers writers formats adapters bert models"
DOOR += " modules source detector"
CHECKPOINTS = "plan destination convert answers load inspect diff run_models verify"
CHECKPOINTS += " detector.convert detector.run_detectors"
FLOORS = (
    {"lxmert_tf", *(f"lxmert_tf.{name}" for name in GROUND.split())},
    {"conversion", *(f"conversion.{name}" for name in DOOR.split())},
    {"lxmert_pt", *(f"lxmert_tf.{name}" for name in CORE.split())},
    {
        *(f"lxmert_tf.{name}" for name in ("data", "training", "serving", "explain")),
        *(f"conversion.{n}" for n in CHECKPOINTS.split()),
    },
    {"lxmert_tf.cli", "lxmert_tf.demo", "lxmert_tf.web", "conversion.cli", "conversion.__main__"},
)

LATER = ast.FunctionDef | ast.Lambda | ast.AsyncFunctionDef  # what runs when it is called


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(file): file for file in FILES}


def imports(file: Path, only_at_import: bool = False) -> Iterator[str]:
    """Absolute names of what a file imports: modules, and `module.name` for what is taken from one."""
    nodes = [ast.parse(file.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes.extend(node.orelse)  # the rest is for editors and type checkers, and never imported
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: imports are absolute"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        if not (only_at_import and isinstance(node, LATER)):
            nodes.extend(ast.iter_child_nodes(node))


def imports_any(file: Path, packages: tuple[str, ...], **options) -> list[str]:
    return sorted(name for name in imports(file, **options) if name.split(".")[0] in packages)


def under(name: str, *parents: str) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def test_the_walk_sees_imports():
    source = MODULES["lxmert_tf.modeling"]
    assert {"keras", "keras.ops", "lxmert_tf.layers.attention"} <= set(imports(source))


@pytest.mark.parametrize("arguments", [("-c", "import lxmert_tf"), ("-m", "lxmert_tf.cli", "--help")], ids=" ".join)
def test_light_commands_import_no_framework(arguments):
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in run.stderr.splitlines() if line.startswith("import time:")}
    assert "lxmert_tf" in imported
    heavy = {name for name in imported if name.split(".")[0] in (*FRAMEWORKS, "numpy", "matplotlib", "PIL")}
    assert not heavy, sorted(heavy)


@pytest.mark.parametrize("name", MODULES)
def test_direction(name):
    file = MODULES[name]
    if under(name, "lxmert_tf") and name != IN_PYTORCH:
        lazily = {"only_at_import": name in LAZY}
        assert not imports_any(file, ("torch", "lxmert_pt"), **lazily), "PyTorch in lxmert_tf"
        if not under(name, *MAY_USE_TENSORFLOW):
            assert not imports_any(file, ("tensorflow",), **lazily), "TensorFlow where Keras should do"
    elif under(name, "lxmert_pt"):
        assert not imports_any(file, ("tensorflow", "keras")), "Keras in lxmert_pt"


@pytest.mark.parametrize("name", FRAMEWORK_FREE)
def test_needs_no_framework(name):
    assert not imports_any(MODULES[name], FRAMEWORKS, only_at_import=True)


def floor(name: str) -> int:
    """The floor of a module, which stands in `FLOORS` itself or with a package that it is in."""
    while name:
        for number, modules in enumerate(FLOORS):
            if name in modules:
                return number
        name = name.rpartition(".")[0]
    raise AssertionError("every module stands on a floor")


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name):
    """Those inside functions, too."""
    below = {imported for imported in imports(MODULES[name]) if imported in MODULES} - {name}
    assert not {imported: floor(imported) for imported in below if floor(imported) > floor(name)}


def test_every_module_stands_on_its_own_floor():
    """None falls through to the floor of `lxmert_tf` or `conversion` because it was forgotten."""
    named = {module for modules in FLOORS for module in modules}
    tops = {name for name in MODULES if name.count(".") <= 1 and not name.startswith("lxmert_pt")}
    assert tops <= named, sorted(tops - named)
    assert named <= set(MODULES), sorted(named - set(MODULES))


def test_no_circles():
    """No module that is being imported is needed again by what it imports."""
    graph = {
        name: sorted({imported for imported in imports(file, only_at_import=True) if imported in MODULES} - {name})
        for name, file in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for imported in graph[name]:
                visit(imported, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.slow
@pytest.mark.parametrize("names", ["lxmert_tf.losses", "lxmert_tf.pretrained", "keras, conversion.convert"])
def test_can_be_imported_first(names):
    """Keras, once imported, brings the models in; that must not bite a module that is itself being imported."""
    subprocess.run([sys.executable, "-c", f"import {names}"], cwd=ROOT, check=True)
