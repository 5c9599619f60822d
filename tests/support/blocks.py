"""Code blocks of documents: what tests take out of them, and a script that runs those of Python.

`python blocks.py PAGE` runs them in order. It needs nothing installed, so that any environment can run it. Blocks share
a folder and, where a page says that they go on from one another, names. A failure shows the page's line.
"""

import re
import sys
from pathlib import Path


def blocks(text: str, *languages: str) -> list[tuple[str, str, int]]:
    """Language, text and line, from 1, of each fenced block in one of the languages, in order."""
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [(block[1], block[2], text.count("\n", 0, block.start(2)) + 1) for block in found if block[1] in languages]


def run(page: str) -> None:
    """Runs the Python blocks of a page, and prints the line of each."""
    text = Path(page).read_text(encoding="utf-8")
    shared: dict | None = {} if "blocks go on from one another" in text else None
    for _, code, line in blocks(text, "python"):
        names = {} if shared is None else shared
        names["__name__"] = f"line {line}"
        exec(compile("\n" * (line - 1) + code, page, "exec"), names)
        print("ran the block at line", line)


if __name__ == "__main__":
    run(sys.argv[1])
