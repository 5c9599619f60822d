"""A hook of mkdocs: the repository's own pages are on the site, too, and links to them work there as on GitHub."""

import os
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
# Where they are on the site; what is in docs/ is at its top.
PLACES = {
    "README.md": "overview.md",  # a README.md would be the site's first page
    "CONTRIBUTING.md": "CONTRIBUTING.md",
    "CHANGELOG.md": "CHANGELOG.md",
    "LICENSE": "LICENSE",
    "benchmarks/README.md": "benchmarks/README.md",
    "benchmarks/results/forward.png": "benchmarks/results/forward.png",
    "benchmarks/results/gpu.jsonl": "benchmarks/results/gpu.jsonl",
    "tests/published/README.md": "tests/published/README.md",
}
SOURCES = {place: source for source, place in PLACES.items()}
LINK = re.compile(r"\[([^\[\]]*)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds what is not in docs/."""
    for source, place in PLACES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turns links between places in the repository into links on the site; folders without a page become plain text."""
    here = page.file.src_uri
    folder = posixpath.dirname(SOURCES.get(here, f"docs/{here}"))

    def link(match: re.Match) -> str:
        text, source, anchor = match[1], posixpath.normpath(posixpath.join(folder, match[2])), match[3] or ""
        if (ROOT / source).is_dir():
            source += "/README.md"
            if source not in PLACES:
                return text
        place = PLACES.get(source, source.removeprefix("docs/"))
        if place.endswith(".ipynb"):
            place = place.removesuffix("ipynb") + "md"
        return f"[{text}]({os.path.relpath(place, posixpath.dirname(here) or '.')}{anchor})"

    return LINK.sub(link, markdown)
