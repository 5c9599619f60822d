"""The README.md beside a checkpoint: its model card, with a header that the Hub reads."""

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from lxmert_tf.files import write_text
from lxmert_tf.tasks import ARCHITECTURES, keras_class
from lxmert_tf.versions import installed

CARD = "README.md"
LIBRARY = "lxmert-tf"


class Task(NamedTuple):
    """What a card says of a task.

    Attributes:
        title: of the card, which begins with the task in words.
        purpose: what the model does.
        hub: the Hub's name for the task, where it has one.
        call: lines that call the model, after `features` and `boxes` of a picture's regions.
    """

    title: str
    purpose: str
    hub: str | None
    call: str


CALL = """\
tokenizer = LxmertTokenizer.from_pretrained("path")
text = tokenizer(["{text}"], return_tensors="np")
# float32[{shape}, D] and [{shape}, 4]: regions of {image}, boxes as (x1, y1, x2, y2) in 0..1
output = model(**text, visual_feats=features, visual_pos=boxes)
print({printed})"""
TASKS = {
    "model": Task(
        "Encoding of texts and images with LXMERT",
        "Encodes texts and images; a backbone without a head.",
        None,
        CALL.format(text="a black cat", shape="1, N", image="a picture", printed="output.pooled_output"),
    ),
    "pretraining": Task(
        "Vision-and-language pretraining with LXMERT",
        "Pretrained, with its heads: masked words, matching of text and image, objects, attributes, features, answers.",
        None,
        CALL.format(text="a black cat", shape="1, N", image="a picture", printed="output.cross_relationship_score"),
    ),
    "qa": Task(
        "Visual question answering with LXMERT",
        "Answers questions about an image.",
        "visual-question-answering",
        CALL.format(
            text="what color is the cat?",
            shape="1, N",
            image="a picture",
            printed="output.question_answering_score.numpy().argmax()",
        )
        + "  # of the names in model.config.id2label, if there are any",
    ),
    "visual-reasoning": Task(
        "Visual reasoning with LXMERT",
        "Tells whether a statement about two images is true.",
        None,
        CALL.format(
            text="both pictures show cats",
            shape="1, 2, N",
            image="two pictures",
            printed="bool(output.logits.numpy().argmax())",
        ),
    ),
    "detector": Task(
        "Object detection with Faster R-CNN",
        "Finds the regions that LXMERT reads: boxes, features, objects and attributes.",
        "object-detection",
        '[regions] = model.detect(["cat.jpg"])\nprint(regions.labels(), regions.boxes, regions.features)',
    ),
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

`pip install '{install}'`. For `path`, a folder or the id of a repository on the Hub:

```python
from {keras_module} import {imports}

model = {keras_class}.from_pretrained("path")
{call}
```

The same model in PyTorch (`pip install 'lxmert-tf[pt]'`), which takes tensors:

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
        base_model: the path or Hub id of the weights that this model, or its training, began with; of a path only the
            last part is told, and nothing where it is the directory itself.
        data: files that it was trained on or measured with, by their purpose; of a path only the last part is told.
        metrics: values by name, such as {"epoch": 4, "val_accuracy": 0.7}.
        tags: for the Hub's filters, beside ours.

    Returns:
        The file, or None where somebody's own was left as it is.
    """
    path = Path(directory) / CARD
    if os.path.lexists(path) and not is_written_card(path):
        return None
    if _is_in(base_model, path.parent):
        base_model = ""
    about = TASKS[task]
    names = {
        "keras_module": "lxmert_tf" if task != "detector" else "lxmert_tf.detector",
        "torch_module": "lxmert_pt" if task != "detector" else "lxmert_pt.detector",
        "keras_class": keras_class(task) if task != "detector" else "FasterRCNN",
        "torch_class": ARCHITECTURES.get(task, "FasterRCNN"),
    }
    rows = {"Task": about.title.partition(" with ")[0]}
    if base_model:
        rows["Base model"] = _base_model(base_model)
    for purpose, files in (data or {}).items():
        rows[purpose] = ", ".join(_code(Path(file).name) for file in files)
    rows["Versions"] = ", ".join(f"{package} {version}" for package, version in installed(packages).items())
    text = TEMPLATE.format(
        header=_header(task, base_model, metrics or {}, [tags] if isinstance(tags, str) else list(tags or ())),
        title=about.title,
        purpose=about.purpose,
        source=DETECTOR if task == "detector" else LXMERT,
        rows="\n".join(f"| {name} | {value} |" for name, value in rows.items()),
        metrics=_metrics(metrics or {}),
        install="lxmert-tf[detector]" if task == "detector" else "lxmert-tf",
        imports=names["keras_class"] if task == "detector" else f"LxmertTokenizer, {names['keras_class']}",
        call=about.call,
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
        pipeline_tag=TASKS[task].hub,
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


def _is_in(name: str, directory: Path) -> bool:
    """Whether a name is the directory's, or that of a file in it."""
    path = Path(name).resolve()
    return bool(name) and directory.resolve() == (path.parent if path.is_file() else path)


def _is_hub_id(name: str) -> bool:
    return bool(re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name, re.ASCII)) and not os.path.exists(name)


def _code(text: str) -> str:
    """A name as inline code in a table, whatever it is made of."""
    printable = text.encode("utf-8", "replace").decode("utf-8")
    return "`" + re.sub(r"[`|<>\s]+", " ", printable) + "`"
