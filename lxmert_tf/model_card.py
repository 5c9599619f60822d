"""The README.md beside a checkpoint: its model card, with a header that the Hub reads."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from lxmert_tf.files import write_text
from lxmert_tf.tasks import ARCHITECTURES, keras_class
from lxmert_tf.versions import installed

CARD = "README.md"
LIBRARY = "lxmert-tf"

# By task: what the model does, and what the Hub calls that, where it has a word for it.
TASKS = {
    "model": ("Encodes texts and images; a backbone without a head.", None),
    "pretraining": (
        "Pretrained, with its heads: masked words, matching of text and image, objects, attributes, features, answers.",
        None,
    ),
    "qa": ("Answers questions about an image.", "visual-question-answering"),
    "visual-reasoning": ("Tells whether a statement about two images is true.", None),
    "detector": ("Finds the regions that LXMERT reads: boxes, features, objects and attributes.", "object-detection"),
}

TEMPLATE = """\
---
{header}
---

# {title}

{purpose} {source}

| | |
|---|---|
{rows}
{metrics}
## Use

With [Keras](https://keras.io), and the same in PyTorch; for `path`, a folder or the id of a repository on the Hub:

```python
from {keras_module} import {keras_class}

model = {keras_class}.from_pretrained("path")
```

```python
from {torch_module} import {torch_class}

model = {torch_class}.from_pretrained("path")
```

"""
LXMERT = "LXMERT: [Tan & Bansal, EMNLP 2019](https://doi.org/10.18653/v1/D19-1514)."
DETECTOR = "The Faster R-CNN of [Anderson et al., CVPR 2018](https://arxiv.org/abs/1707.07998)."

# The last line, by whose checksum a card that was edited is told from one that may be written anew.
MARK = "<!-- lxmert-tf writes this anew with the checkpoint until it is edited. {digest} -->\n"


def write_model_card(
    directory: str | os.PathLike,
    task: str,
    packages: Iterable[str] = (),
    base_model: str = "",
    data: Mapping[str, Iterable[str | os.PathLike]] | None = None,
    metrics: Mapping[str, float] | None = None,
    tags: str | Iterable[str] | None = None,
) -> Path | None:
    """Writes README.md, whole or not at all, unless there is one that this function has not written.

    Args:
        directory: of the checkpoint.
        task: "model", "pretraining", "qa", "visual-reasoning" or "detector".
        packages: those whose versions are named, beside ours and Python's.
        base_model: the path or Hub id of what the training began with; of a path only the last part is told.
        data: files that it was trained on or measured with, by their purpose; of a path only the last part is told.
        metrics: values by name, such as {"epoch": 4, "val_accuracy": 0.7}.
        tags: for the Hub's filters, beside ours.

    Returns:
        The file, or None where somebody's own was left as it is.
    """
    path = Path(directory) / CARD
    if os.path.lexists(path) and not is_written_card(path):
        return None
    names = {
        "keras_module": "lxmert_tf" if task != "detector" else "lxmert_tf.detector",
        "torch_module": "lxmert_pt" if task != "detector" else "lxmert_pt.detector",
        "keras_class": keras_class(task) if task != "detector" else "FasterRCNN",
        "torch_class": ARCHITECTURES.get(task, "FasterRCNN"),
    }
    rows = {"Task": task} | ({"Base model": _base_model(base_model)} if base_model else {})
    for purpose, files in (data or {}).items():
        rows[purpose] = ", ".join(_code(Path(file).name) for file in files)
    rows["Versions"] = ", ".join(f"{package} {version}" for package, version in installed(packages).items())
    text = TEMPLATE.format(
        header=_header(task, base_model, metrics or {}, [tags] if isinstance(tags, str) else list(tags or ())),
        title=names["torch_class"],
        purpose=TASKS[task][0],
        source=DETECTOR if task == "detector" else LXMERT,
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        metrics=_metrics(metrics or {}),
        **names,
    )
    write_text(path, _marked(text))
    return path


def is_written_card(path: str | os.PathLike) -> bool:
    """Whether a file is a model card as `write_model_card` left it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return False
    return text == _marked(text[: text.rfind(MARK.partition("{")[0])])


def _marked(text: str) -> str:
    return text + MARK.format(digest=hashlib.sha256(text.encode()).hexdigest()[:16])


def _header(task: str, base_model: str, metrics: Mapping[str, float], tags: list[str]) -> str:
    """YAML; what is not known, such as the license and the data's ids on the Hub, is left out."""
    from huggingface_hub import ModelCardData

    card = ModelCardData(
        library_name=LIBRARY,
        tags=list(dict.fromkeys(["lxmert", "keras", "pytorch", *tags])),
        pipeline_tag=TASKS[task][1],
        base_model=base_model if _is_hub_id(base_model) else None,
        metrics=["accuracy"] if any("accuracy" in name for name in metrics) else None,
    )
    return card.to_yaml()


def _metrics(metrics: Mapping[str, float]) -> str:
    if not metrics:
        return ""
    values = {name: f"{value:,}" if isinstance(value, int) else f"{value:.4f}" for name, value in metrics.items()}
    rows = "\n".join(f"| {_code(name)} | {value} |" for name, value in values.items())
    return f"\n## Metrics\n\n| | |\n|---|---|\n{rows}\n"


def _base_model(name: str) -> str:
    return f"[{name}](https://huggingface.co/{name})" if _is_hub_id(name) else _code(Path(name).name)


def _is_hub_id(name: str) -> bool:
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII)) and not os.path.exists(name)


def _code(text: str) -> str:
    """A name as inline code in a table, whatever it is made of."""
    printable = text.encode("utf-8", "replace").decode("utf-8")
    return "`" + re.sub(r"[`|<>\s]+", " ", printable) + "`"
