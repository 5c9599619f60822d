"""Holds dist/ to what a user needs: `python -m tests.release.run dist`, as `make dist` does.

The wheel and the sdist are each installed into an environment of its own, outside the checkout. Beside them these have
what the wheel says that it needs, linked from the environment that runs this, and nothing else.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
import zipfile
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("lxmert_tf", "lxmert_pt", "conversion")
EXTRAS = ("pt", "detector")  # those that the README's blocks need
NOT_IN_SDIST = (".ci/",)

COMMANDS = """
lxmert-tf --help
lxmert-convert --help
lxmert-tf demo-data data --images 12
lxmert-tf features build data/features.tsv features.h5
lxmert-tf features info features.h5
lxmert-convert convert tuned again --to hf-pt
lxmert-convert verify tuned again
"""
WHERE = f"import {', '.join(PACKAGES)}; print(*({'.__file__, '.join(PACKAGES)}.__file__,), sep='\\n')"


def main(folder: str) -> None:
    [wheel], [sdist] = Path(folder).resolve().glob("*.whl"), Path(folder).resolve().glob("*.tar.gz")
    files = check_wheel(wheel)
    check_sdist(sdist)
    for archive in (wheel, sdist):
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            site = make_environment(Path(scratch) / "venv", wheel)
            install(Path(scratch) / "venv", archive)
            missing = {name for name in files if not (site / name).is_file()}
            assert not missing, f"{archive.name} does not install {sorted(missing)}"
            use(Path(scratch))
        print(f"{archive.name} works: {time.monotonic() - started:.0f} s", flush=True)


def check_wheel(wheel: Path) -> set[str]:
    """Holds a wheel to the packages' files in the checkout, no fewer and no more; returns their names."""
    found = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    expected = {str(path.relative_to(ROOT)) for path in found if path.is_file() and path.suffix != ".pyc"}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == expected, f"{wheel.name} differs from the checkout in {sorted(names ^ expected)}"
        changed = [name for name in names if archive.read(name) != (ROOT / name).read_bytes()]
        assert not changed, f"{wheel.name} has other content in {changed}"
    return expected


def check_sdist(sdist: Path) -> None:
    """Holds a source distribution to all files that git tracks."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    tracked = {name for name in listed if name and not name.startswith(NOT_IN_SDIST) and (ROOT / name).is_file()}
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert tracked <= names, f"{sdist.name} lacks {sorted(tracked - names)}"
    assert names - tracked <= {"PKG-INFO"}, f"{sdist.name} has files that git does not: {sorted(names - tracked)}"


def make_environment(place: Path, wheel: Path) -> Path:
    """A virtual environment with what a wheel and its `EXTRAS` need, from this one; returns its site-packages."""
    venv.create(place, symlinks=True)
    [site] = place.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        [metadata] = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        needed = re.findall(r"^Requires-Dist: (.+)$", archive.read(metadata).decode(), re.MULTILINE)
    waiting = [(Requirement(text), EXTRAS) for text in needed]
    linked: set[tuple[str, str]] = set()
    while waiting:
        requirement, extras = waiting.pop()
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            continue
        name = canonicalize_name(requirement.name)
        wanted = {(name, extra) for extra in ("", *requirement.extras)}
        if wanted <= linked:
            continue
        try:
            found = distribution(requirement.name)
        except PackageNotFoundError:
            raise SystemExit(f"{requirement} is needed and not installed in {sys.prefix}.") from None
        if (name, "") not in linked:
            for entry in entries(found):
                (site / entry).parent.mkdir(parents=True, exist_ok=True)
                (site / entry).symlink_to(Path(str(found.locate_file(entry))))
        linked |= wanted
        waiting += [(Requirement(text), tuple(requirement.extras)) for text in found.requires or ()]
    return site


def entries(found: Distribution) -> set[Path]:
    """What to link of a distribution: packages and metadata as a whole, elsewhere, as in namespaces, single files."""
    files = {Path(file) for file in found.files or () if ".." not in file.parts}
    whole = {file.parent for file in files if file.name in ("__init__.py", "METADATA")}
    return {next((parent for parent in reversed(file.parents) if parent in whole), file) for file in files}


def install(place: Path, archive: Path) -> None:
    """Installs a wheel, for which nothing may be missing, or an sdist, whose build takes hatchling from the index."""
    options = ["--no-index"] if archive.suffix == ".whl" else []
    pip = [sys.executable, "-m", "pip", "--python", place / "bin/python", "install", "--quiet", *options]
    run([*pip, f"{archive}[{','.join(EXTRAS)}]"], place)


def use(scratch: Path) -> None:
    """Runs the README's blocks and the command lines, with nothing of the checkout in reach."""
    python, folder = scratch / "venv/bin/python", scratch / "work"
    folder.mkdir()
    found = run([python, "-I", "-c", WHERE], folder).split()
    assert len(found) == 3 and all(Path(path).is_relative_to(scratch) for path in found), found
    shutil.copy(ROOT / "README.md", folder)
    shutil.copy(Path(__file__).parents[1] / "support/blocks.py", scratch)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    ran = run([python, "-I", scratch / "blocks.py", "README.md"], folder)
    assert ran.count("ran the block at line") == readme.count("\n```python\n") > 5, ran
    for line in COMMANDS.strip().splitlines():
        program, *arguments = line.split()
        assert run([scratch / "venv/bin" / program, *arguments], folder), line


def run(command: list, folder: Path) -> str:
    """What a command prints; where it fails, the end of what it says."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    process = subprocess.run(list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True)
    if process.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{process.stdout[-2000:]}\n{process.stderr[-6000:]}")
    return process.stdout


if __name__ == "__main__":
    main(sys.argv[1])
