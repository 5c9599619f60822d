"""A hook of mkdocs: each notebook is run while the site is built, and is a page of it, with all that its cells show."""

import os
import re
import tempfile
from pathlib import Path

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

NOTEBOOKS = Path(__file__).with_name("notebooks")
CELL_SECONDS = 300
# What TensorFlow logs all the same, such as that there is no GPU
LOG = re.compile(r"^(INFO:|WARNING: All log messages before absl::|[IWE]\d{4} \d\d:\d\d:\d).*\n?", re.MULTILINE)

log = get_plugin_logger("notebooks")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds a page for each notebook, and its pictures. All run in one folder: the first saves what the others load."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with tempfile.TemporaryDirectory() as folder:
        for path in sorted(NOTEBOOKS.glob("*.ipynb")):
            log.info("Running %s", path.name)
            notebook = run(path, folder)
            markdown, found = MarkdownExporter().from_notebook_node(notebook, {"unique_key": path.stem})
            for words in alternatives(notebook):
                markdown = markdown.replace("![png](", f"![{words}](", 1)
            files.append(File.generated(config, f"notebooks/{path.stem}.md", content=markdown))
            for name, picture in found["outputs"].items():
                files.append(File.generated(config, f"notebooks/{name}", content=picture))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Adds a link to the notebook itself."""
    here = Path(page.file.src_uri)
    if here.parent.name != "notebooks":
        return markdown
    return f"{markdown}\n\nThis page is [{here.stem}.ipynb]({here.stem}.ipynb) as it ran when the site was built.\n"


def alternatives(notebook: nbformat.NotebookNode) -> list[str]:
    """What each picture shows, in words: of the metadata of the cell that draws it."""
    return [
        cell.metadata["alt"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]


def run(path: Path, folder: str) -> nbformat.NotebookNode:
    """A notebook with its outputs, run in this folder.

    Raises:
        CellExecutionError: a cell raises.
        PluginError: a cell writes to stderr, as warnings do.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=CELL_SECONDS, resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        if text := "".join(LOG.sub("", output.text) for output in outputs if output.get("name") == "stderr").strip():
            raise PluginError(f"{path.name} writes to stderr: {text}")
        outputs[:] = [output for output in outputs if output.get("name") != "stderr"]
    return notebook
