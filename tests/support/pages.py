"""What tests of documents share: the pages, their code blocks, and the commands in these."""

import re
import shlex

from support.blocks import blocks as blocks_of
from support.golden import ROOT

PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "benchmarks/README.md")
)
PAGES.append("tests/published/README.md")


def read(page: str) -> str:
    """The text of a page."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block in one of the languages, in order."""
    return [(language, text) for language, text, _ in blocks_of(read(page), *languages)]


def commands(text: str) -> list[list[str]]:
    """The lines of `lxmert-tf` and `lxmert-convert` in blocks, as arguments; lines end with a backslash to go on."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if re.match(r"\s*lxmert-\w+ ", line)]
