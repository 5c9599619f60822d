"""The examples of the README and of pages without files run as they stand; the commands that the README names exist."""

import re
import shlex

import pytest
from support.golden import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    """The shell commands in indented lines and in inline code."""
    prose = re.sub(r"^```.*?^```$", "", README, flags=re.DOTALL | re.MULTILINE)
    code = re.findall(r"^    (.+)$", prose, re.MULTILINE) + re.findall(r"`([^`\n]+)`", prose)
    return [shlex.split(line, comments=True) for line in code if re.match(r"(make|pip|lxmert-\w+) ", line)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "least"),
    [
        ("README.md", 5),
        ("docs/retrieval.md", 1),
        ("docs/explaining.md", 1),
        ("docs/from-tflxmert.md", 1),
        pytest.param("docs/from-keras.md", 6, marks=pytest.mark.slow),
    ],
)
def test_python_blocks_run_in_order(forked, page, least, tmp_path):
    blocks = re.findall(r"^```python$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    printed = forked.run("-m", "support.blocks", ROOT / page, cwd=tmp_path)
    assert printed.count("ran the block at line") == len(blocks) >= least


def test_commands_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    scripts = set(re.findall(r'^(lxmert-\w+) = "', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))
    from lxmert_tf.cli import SUBCOMMANDS

    found = commands()
    assert ["make", "demo"] in found
    assert ["make", "test"] in found
    for program, *arguments in found:
        if program == "make":
            assert {argument for argument in arguments if "=" not in argument} <= targets, arguments
        elif program == "lxmert-tf":
            assert program in scripts
            assert arguments[0] in SUBCOMMANDS, arguments
        else:
            assert program in {"pip", *scripts}, program
