"""What tests of documents share: the pages, their code blocks, and the commands in these."""

import json
import re
import shlex

from support.blocks import blocks as blocks_of
from support.golden import ROOT

NOTEBOOKS = ROOT / "docs/notebooks"
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("*.md"),
        *(page for page in (ROOT / "docs").rglob("*.md") if NOTEBOOKS not in page.parents),  # what they have written
        *NOTEBOOKS.glob("*.ipynb"),
        ROOT / "benchmarks/README.md",
    )
)
PAGES.append("tests/published/README.md")


def read(page: str) -> str:
    """The text of a page; a notebook as Markdown."""
    text = (ROOT / page).read_text(encoding="utf-8")
    if not page.endswith(".ipynb"):
        return text
    cells = ((cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"])
    return "".join(f"```python\n{source}\n```\n" if kind == "code" else f"{source}\n\n" for kind, source in cells)


def blocks(page: str, *languages: str) -> list[tuple[str, str]]:
    """Language and text of each fenced block in one of the languages, in order."""
    return [(language, text) for language, text, _ in blocks_of(read(page), *languages)]


def commands(text: str) -> list[list[str]]:
    """The lines of `lxmert-tf` and `lxmert-convert` in blocks, as arguments; lines end with a backslash to go on."""
    lines = text.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if re.match(r"\s*lxmert-\w+ ", line)]
