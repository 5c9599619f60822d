"""Packages whose public names are imported when they are asked for, so that importing the package costs nothing."""

import importlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def face(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """`__all__`, `__getattr__` and `__dir__` of a package (PEP 562).

    For type checkers and editors the package imports the same names under `typing.TYPE_CHECKING`. Modules and packages
    in it are attributes as well: `import lxmert_tf` is enough for `lxmert_tf.data.open_features`.

    Args:
        package: the package's `__name__`.
        names: module -> its public names. None of them may be the name of a module of the package, which would hide it.
    """
    module_of = {name: module for module, exported in names.items() for name in exported}
    public = list(module_of)

    def __getattr__(name: str) -> Any:
        if name in module_of:
            return getattr(importlib.import_module(module_of[name]), name)
        if not name.startswith("_") and importlib.util.find_spec(f"{package}.{name}"):
            return importlib.import_module(f"{package}.{name}")
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted(public)

    return public, __getattr__, __dir__
