"""The versions that a run or an export was made with."""

import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from lxmert_tf import __version__


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python, of this project, and of those of `packages` that are installed."""
    found = {"python": platform.python_version(), "lxmert-tf": __version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
