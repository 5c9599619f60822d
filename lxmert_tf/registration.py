"""Makes Keras know the LXMERT classes as soon as both packages are imported, in either order.

Keras loads a `.keras` file only if the classes in it are registered, which happens when their modules are imported.
Importing them with the package would make `import lxmert_tf` import TensorFlow, so it waits until Keras is there.
"""

import importlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULES = ("lxmert_tf.modeling", "lxmert_tf.optimizers")


def register_with_keras() -> None:
    """Registers now if Keras has been imported, else right after it is."""
    if "keras" in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _AfterKeras())


def _register() -> None:
    # A submodule imported on its own, before Keras, is half done when Keras is; the models cannot be built on it yet.
    # Whoever imports one of ours by its own name does not go on to load files by Keras' name.
    if any(_is_initializing(name) for name in list(sys.modules) if name not in ("lxmert_tf", *MODULES)):
        return
    for module in MODULES:
        importlib.import_module(module)


def _is_initializing(name: str) -> bool:
    spec = getattr(sys.modules[name], "__spec__", None)
    return name.startswith("lxmert_tf.") and getattr(spec, "_initializing", False)


class _AfterKeras(importlib.abc.MetaPathFinder):
    """Finds `keras` the usual way, and has its loader call `_register` when it is done."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                _register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]  # of this loader alone
        return spec
