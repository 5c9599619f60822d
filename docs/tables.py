"""Writes the tables that are generated: of tensors' names into docs/names.md, of upstream's into docs/from-tflxmert.md.

python docs/tables.py
"""

import json
from pathlib import Path
from typing import Any

import yaml

from conversion.names import Row, templates

DOCS = Path(__file__).parent
UPSTREAM = DOCS / "from-tflxmert.yml"
NAMES = DOCS.parent / "tests" / "upstream" / "names.json"


def pages() -> dict[Path, str]:
    """Each page with its tables as they should be."""
    return {
        DOCS / "names.md": with_table(read(DOCS / "names.md"), "names", names()),
        UPSTREAM.with_suffix(".md"): with_tables(read(UPSTREAM.with_suffix(".md"))),
    }


def with_tables(page: str) -> str:
    """The page of upstream's names with a table for each group of rows."""
    groups, arguments = upstream(), json.loads(read(NAMES))
    elsewhere = {name for rows in groups.values() for row in rows for name in row.get("names", ()) if "(" in name}
    for group, rows in groups.items():
        lines = (cells(row, arguments, elsewhere) for row in rows)
        page = with_table(page, group, table(["transformers 4.57.6", "here", "what differs"], lines))
    return page


def with_table(page: str, name: str, text: str) -> str:
    """The page with a table between the markers of its name."""
    start, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    head, rest = page.split(start)
    return f"{head}{start}\n{text}\n{end}{rest.split(end)[1]}"


def table(columns: list[str], rows: Any) -> str:
    """In Markdown."""
    lines = (columns, ["---"] * len(columns), *rows)
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


# Names of tensors


def names() -> str:
    """Of every weight, in each framework."""
    return table(["PyTorch", "Keras", "TensorFlow", "shape in PyTorch"], map(_names, templates()))


def _names(row: Row) -> list[str]:
    shape = ", ".join(str(size).replace("2*", "2 ") for size in row.sizes)
    layout = ", transposed" if row.layout == "transpose" else ""
    return [f"`{row.torch}`", f"`{row.keras}`", f"`{row.tf}`", shape + layout]


# Names of upstream


def upstream() -> dict[str, list[dict[str, Any]]]:
    """Rows by group; the file itself says what is in a row."""
    return yaml.safe_load(read(UPSTREAM))


def cells(row: dict[str, Any], arguments: dict[str, list[str]], elsewhere: set[str]) -> list[str]:
    """Of one row.

    Args:
        row: of `upstream()`.
        arguments: of upstream's names.
        elsewhere: those that have rows of their own, as `name(argument)`.
    """
    here, prefix = row.get("here", "the same"), f"{row['of']}." if "of" in row else ""
    shown = []
    for name in row.get("names", ()):
        given = [each for each in arguments.get(prefix + name, ()) if f"{prefix}{name}({each})" not in elsewhere]
        shown.append(f"`{name}({', '.join(given)})`" if given and here != "-" else f"`{name}`")
    there = row.get("there") or (f"`{row['of']}`: " if prefix else "") + ", ".join(shown)
    return [there, here, row.get("note", "")]


def read(path: Path) -> str:
    """The text of a file."""
    return path.read_text(encoding="utf-8")


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
