"""Writes the table of names in docs/conversion.md from `conversion.names`: `python docs/names.py`."""

from pathlib import Path

from conversion.names import Row, templates

PAGE = Path(__file__).parent / "conversion.md"
MARKERS = ("<!-- names -->\n", "<!-- /names -->")
HEADER = "| PyTorch | Keras | TensorFlow | shape in PyTorch |\n|---|---|---|---|\n"


def table() -> str:
    """The table in Markdown."""
    return HEADER + "".join(map(_line, templates()))


def with_table(page: str) -> str:
    """The page with the table between its markers."""
    start, end = (page.index(marker) for marker in MARKERS)
    return page[: start + len(MARKERS[0])] + table() + page[end:]


def _line(row: Row) -> str:
    shape = ", ".join(str(size).replace("2*", "2 ") for size in row.sizes)
    layout = ", transposed" if row.layout == "transpose" else ""
    return f"| `{row.torch}` | `{row.keras}` | `{row.tf}` | {shape}{layout} |\n"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
