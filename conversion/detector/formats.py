"""Detectors among the checkpoints: recognised by what is in them, under one set of names, with a config.

| format | files |
|---|---|
| hf-pt-bin | pytorch_model.bin with config.yaml, as Hugging Face's code writes it |
| detectron2 | `.pkl` files of arrays, as detectron2 writes them |
| milvlg | `.pth` files of MILVLG/bottom-up-attention.pytorch, of its networks converted from Caffe |
| caffe | `.caffemodel` files of the original, read without Caffe |
| keras | model.weights.h5 with config.json |
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from conversion.copies import merged
from conversion.detector.caffe_layouts import CHANGES
from conversion.detector.names import Row, rows, skip_reason
from conversion.formats import Checkpoint
from conversion.matching import Matched
from conversion.models import variables_by_path
from conversion.names import LAYOUTS, Shape, unwrapped
from conversion.readers import Content, Unreadable, reading
from conversion.report import counted
from conversion.tensors import Stored, Tensors
from lxmert_tf.configuration import LxmertConfig
from lxmert_tf.detector.configuration import CONFIG_NAME, DEPTHS, MODEL_TYPE, YAML_NAME, DetectorConfig
from lxmert_tf.files import read_json

MARKS = ("backbone.stem.", "backbone/stem/", "res2a_branch1/", "backbone.bottom_up.")  # of names, in any spelling
PREFIXES = ("", "state_dict.", "model_state_dict.", "model.")  # of the dicts that training code keeps its state dict in
OUTSIDE = "it is no part of the detector"
CLASS_NAME = "FasterRCNN"
TASK = "detector"
SIZES = (
    "depth",
    "stem_out_channels",
    "res2_out_channels",
    "width_per_group",
    "rpn_hidden_channels",
    "num_classes",
    "num_attributes",
    "class_embedding_size",
    "attribute_hidden_size",
)


@dataclass(frozen=True)
class DetectorCheckpoint(Checkpoint):
    """An opened checkpoint of a detector; `tensors` are by Hugging Face's names, in PyTorch layout.

    Args:
        config: from the config.json or config.yaml beside the file, else inferred from the shapes.
        format: "hf-pt-bin", "detectron2", "milvlg", "caffe", "keras" or "memory".
        task: "detector".
    """

    config: DetectorConfig  # type: ignore[assignment]

    @property
    def class_name(self) -> str:
        return CLASS_NAME

    @property
    def sizes(self) -> dict[str, int]:
        return {name: getattr(self.config, name) for name in SIZES}

    def rows(self) -> list[Any]:
        return rows(self.config)

    def skip_reason(self, name: str) -> str | None:
        return skip_reason(name)

    @property
    def contradiction(self) -> str:
        return ""

    def with_settings(self, **settings: Any) -> Checkpoint:
        """Those of an LXMERT model.

        Raises:
            ValueError: always, since a detector has none of them.
        """
        raise ValueError(f"{self.path} is a detector, not an LXMERT model; give an LXMERT checkpoint.")

    def named_for(self, task: str) -> Tensors:
        return self.tensors

    def match(
        self,
        task: str | None = None,
        config: Any = None,
        ignore_mismatched_sizes: bool = False,
        allow_missing: bool = False,
    ) -> Matched:
        """All rows of the detector, each of which the checkpoint must have in its shape.

        Raises:
            ValueError: naming every missing, unexpected and misshapen tensor.
        """
        table = rows(config or self.config)
        wanted, found = {row.torch: row.sizes for row in table}, self.tensors.shapes
        unused = {name: reason for name in sorted(found) if (reason := skip_reason(name))}
        problems = [
            *(f"missing: {name} {list(shape)}" for name, shape in wanted.items() if name not in found),
            *(f"unexpected: {name} {list(found[name])}" for name in found if name not in wanted and name not in unused),
            *(
                f"misshapen: {name} {list(found[name])}, expected {list(shape)}"
                for name, shape in wanted.items()
                if name in found and found[name] != shape
            ),
        ]
        if problems:
            head = f"{self.path}: {counted(problems, 'tensor')} of it do not fit {CLASS_NAME} of this config"
            details = (f"  {problem}" for problem in problems)
            raise ValueError("\n".join([f"{head}; check that the config is the checkpoint's own.", *details]))
        return Matched(loaded=table, missing=[], unused={**unused, **self.outside})  # type: ignore[arg-type]


def is_detector(names: Collection[str], prefix: str | None = None) -> bool:
    """Whether these are the names of a detector's tensors, in any spelling, under a given prefix or a usual one."""
    return _start(names, prefix) is not None


def open_detector(path: Path, content: Content, config: Any = None, prefix: str | None = None) -> DetectorCheckpoint:
    """A detector of the content of a file.

    Args:
        path: of the file; the config beside it is its own.
        content: of the file.
        config: a `DetectorConfig`, or its file or directory, in place of the checkpoint's own.
        prefix: what the names of its tensors begin with; by default it is found.

    Raises:
        Unreadable: it is of another network, or its config can neither be found nor inferred.
    """
    with reading(path):
        content, start, outside = _inside(content, prefix)
    _refuse_other_networks(path, content.stored)
    file = None
    if config is None and (file := _config_beside(path)) is not None:
        config = DetectorConfig.from_file(file)
    elif config is not None:
        config, file = given_config(path, config)
    stored, format = _named(path, content, config)
    inferred = ""
    shapes = {name: item.shape for name, item in stored.items()}
    if config is None:
        config = infer_config(path, shapes)
        inferred = "there is no config.json or config.yaml"
    else:
        config = _with_head_sizes(config, shapes)
    return DetectorCheckpoint(
        path, format, Tensors(stored), config, TASK, file, inferred, outside=outside, prefix=start
    )


def given_config(path: Path, config: Any) -> tuple[DetectorConfig, Path | None]:
    """A config that is given for the detector of a file, and the file or directory that it is read from.

    Raises:
        Unreadable: it is that of an LXMERT model.
        FileNotFoundError, ValueError: as `DetectorConfig.from_pretrained`.
    """
    if isinstance(config, DetectorConfig):
        return config, None
    if isinstance(config, LxmertConfig):
        raise Unreadable(f"{path} is a detector, but the config is that of an LXMERT model; give a DetectorConfig.")
    return DetectorConfig.from_pretrained(config), Path(config)


def detector_of(source: Any, config: Any = None, prefix: str | None = None) -> DetectorCheckpoint:
    """A detector of a model in memory, of `lxmert_tf` or `lxmert_pt`, or of a state dict by Hugging Face's names."""
    arrays = tensors_of(source) if hasattr(source, "variables") else source
    arrays = arrays.state_dict() if hasattr(arrays, "state_dict") else arrays
    content, path = Content("memory", "torch", Tensors.of(arrays).stored), Path(type(source).__name__)
    config = config or getattr(source, "config", None)
    if config is None:  # what lies in the current directory is not its own
        stored = _inside(content, prefix)[0].stored
        config = infer_config(path, {name: item.shape for name, item in stored.items()})
    return open_detector(path, content, config, prefix)


def _start(names: Collection[str], prefix: str | None) -> str | None:
    """What a detector's names begin with, besides wrappers, or None of those of other models."""
    starts: tuple[str, ...] = PREFIXES
    if prefix is not None:
        plain = unwrapped(prefix.rstrip("./"))
        starts = (f"{plain}.", f"{plain}/") if plain else ("",)
    marks = {start: tuple(start + mark for mark in MARKS) for start in starts}
    plain_names = [unwrapped(name) for name in names]
    return next((start for start in starts if any(name.startswith(marks[start]) for name in plain_names)), None)


def _inside(content: Content, prefix: str | None) -> tuple[Content, str, dict[str, str]]:
    """The tensors of a detector, without wrappers and prefix; that prefix; the other names, each with why it is out."""
    start = _start(content.stored, prefix) or ""
    entries = [(unwrapped(name), name, item) for name, item in content.stored.items()]
    stored = merged((plain.removeprefix(start), name, item) for plain, name, item in entries if plain.startswith(start))
    outside = {name: skip_reason(name) or OUTSIDE for plain, name, _ in entries if not plain.startswith(start)}
    return replace(content, stored=stored), start, outside


def tensors_of(model: Any) -> dict[str, np.ndarray]:
    """A Keras detector's weights by Hugging Face's names and in PyTorch layout, in the variables' dtype."""
    variables = variables_by_path(model)
    return {row.torch: LAYOUTS[row.layout].inverse(np.asarray(variables[row.keras])) for row in rows(model.config)}


def _config_beside(path: Path) -> Path | None:
    """The config of a file: a config.json that says it is a detector's, else a config.yaml."""
    for name in (CONFIG_NAME, YAML_NAME):
        file = path.parent / name
        if file.is_file() and (name == YAML_NAME or _is_a_detectors(file)):
            return file
    return None


def _is_a_detectors(file: Path) -> bool:
    try:
        values = read_json(file)
    except ValueError:
        return False
    return isinstance(values, dict) and values.get("model_type") == MODEL_TYPE


def _refuse_other_networks(path: Path, stored: Mapping[str, Stored]) -> None:
    """Names the networks of MILVLG that are built otherwise."""
    why = None
    groups = stored.get("backbone.res2.0.conv2.weight")
    if any(name.startswith(("backbone.bottom_up.", "roi_heads.attribute_predictor.")) for name in stored):
        why = "one of MILVLG's models of mode d2 (bua-d2-frcn), whose heads are built otherwise"
    elif "backbone.stem.norm.weight" in stored:
        why = "MILVLG's ResNet-152 (bua-caffe-frcn-r152), which normalises before its convolutions"
    elif groups is not None and len(groups.shape) == 4 and groups.shape[0] != groups.shape[1]:
        why = "a ResNeXt, such as MILVLG's X-152 (bua-d2-frcn-x152), with grouped convolutions"
    if why:
        raise Unreadable(f"{path} is {why}; those of ResNet-101 for 36 or for 10 to 100 boxes (r101) are read.")


# Names and layouts


def _named(path: Path, content: Content, config: DetectorConfig | None) -> tuple[dict[str, Stored], str]:
    """The tensors under Hugging Face's names and in its layout, unknown ones as they are; and the format."""
    stored = content.stored
    if content.spelling == "torch" and not _is_caffes(stored):
        return stored, content.format
    if content.spelling == "torch":
        field, format = "milvlg", "milvlg"
    elif content.spelling == "caffe":
        field, format = "caffe", "caffe"
    else:
        field, format = "h5_path", content.format
    config = config or infer_config(path, _shapes_by_name(stored, field))
    config = _with_head_sizes(config, _shapes_by_name(stored, field))
    table = {getattr(row, field): row for row in rows(config)}
    score = next((stored[name].dtype for name, row in table.items() if _is_score(row) and name in stored), None)
    named = {}
    for name, item in stored.items():
        row = table.get(name)
        if row is None:
            named[name] = item
        elif field == "h5_path":
            layout = LAYOUTS[row.layout]
            shape = layout.inverse_shape(item.shape) if len(item.shape) == len(row.sizes) else item.shape
            named[row.torch] = Stored(shape, item.dtype, partial(_uncurried, layout.inverse, item))
        else:
            named[row.torch] = _changed(row, item, config, score)
    return named, format


def _uncurried(function: Any, item: Stored) -> np.ndarray:
    return function(item.read())


def _is_score(row: Row) -> bool:
    return row.torch == "roi_heads.box_predictor.cls_score.weight"


def _changed(row: Row, item: Stored, config: DetectorConfig, score: np.dtype | None) -> Stored:
    """A tensor of Caffe or MILVLG as detectron2 has it; regressed boxes in the dtype of the class scores."""
    change = CHANGES[row.change]
    if item.shape != change.shape(row.sizes):
        return item  # which is reported by its shape
    dtype = score if row.change == "boxes" and score is not None else item.dtype
    return Stored(row.sizes, dtype, lambda: change.forward(item.read(), config).astype(dtype))


def _is_caffes(stored: Mapping[str, Stored]) -> bool:
    """Whether PyTorch's names are MILVLG's: it has two scores for every anchor."""
    scores = stored.get("proposal_generator.rpn_head.objectness_logits.weight")
    deltas = stored.get("proposal_generator.rpn_head.anchor_deltas.weight")
    return bool(scores and deltas and scores.shape[:1] and deltas.shape[:1] and 2 * scores.shape[0] == deltas.shape[0])


# Configs


def _shapes_by_name(stored: Mapping[str, Stored], field: str) -> dict[str, Shape]:
    """PyTorch name -> shape of the tensors whose shapes show sizes, in a checkpoint of another spelling."""
    shapes = {}
    for depth in sorted(DEPTHS):
        config = DetectorConfig(depth=depth)
        for row in rows(config):
            item = stored.get(getattr(row, field))
            if item is None:
                continue
            shape = item.shape
            if field == "h5_path" and len(shape) == len(row.sizes):
                shape = LAYOUTS[row.layout].inverse_shape(shape)
            elif row.change == "objectness":
                shape = (shape[0] // 2, *shape[1:])
            elif row.change == "boxes":
                shape = (shape[0] - 4, *shape[1:])
            shapes[row.torch] = shape
    return shapes


def infer_config(path: Path, shapes: Mapping[str, Shape]) -> DetectorConfig:
    """The config that tensors of these PyTorch names and shapes belong to; anchors are those of the published detector.

    Raises:
        Unreadable: they are not those of a detector, or have other numbers of anchors.
    """
    try:
        stem, inner = shapes["backbone.stem.conv1.weight"][0], shapes["backbone.res2.0.conv1.weight"][0]
        outer, hidden = shapes["backbone.res2.0.conv3.weight"][0], shapes["proposal_generator.rpn_head.conv.weight"][0]
        anchors = shapes["proposal_generator.rpn_head.anchor_deltas.weight"][0] // 4
        classes = shapes["roi_heads.box_predictor.cls_score.weight"][0] - 1
        boxes = shapes["roi_heads.box_predictor.bbox_pred.weight"][0]
    except (KeyError, IndexError) as error:
        raise Unreadable(f"{path} holds no detector: it has no {error.args[0]} of a known shape.") from None
    blocks = tuple(
        sum(f"{parent}.res{stage}.{i}.conv1.weight" in shapes for i in range(max(map(max, DEPTHS.values()))))
        for stage, parent in ((2, "backbone"), (3, "backbone"), (4, "backbone"), (5, "roi_heads"))
    )
    depth = next((depth for depth, each in DEPTHS.items() if each == blocks), None)
    if depth is None:
        raise Unreadable(f"{path} has {', '.join(map(str, blocks))} bottlenecks in its stages, as no known ResNet has.")
    config = DetectorConfig(
        depth=depth,
        stem_out_channels=stem,
        res2_out_channels=outer,
        width_per_group=inner,
        rpn_hidden_channels=hidden,
        num_classes=classes,
        num_attributes=max(shapes.get("roi_heads.box_predictor.attr_score.weight", (1,))[0] - 1, 0),
        class_agnostic_boxes=boxes == 4 and classes > 1,
    )
    if anchors != config.num_anchors:
        raise Unreadable(
            f"{path} has {anchors} anchors in a cell, the published detector {config.num_anchors}; put its config.yaml "
            "beside it, or give a config."
        )
    return _with_head_sizes(config, shapes)


def _with_head_sizes(config: DetectorConfig, shapes: Mapping[str, Shape]) -> DetectorConfig:
    """The config with the sizes of the attribute head, which no config.yaml gives; 0 attributes where there is none."""
    predictor = "roi_heads.box_predictor"
    found = [shapes.get(f"{predictor}.{name}.weight", ()) for name in ("cls_embedding", "fc_attr")]
    if not any(found):
        return config.with_sizes(num_attributes=0, attribute_names=None) if config.num_attributes else config
    embedding, hidden = (shape if len(shape) == 2 else (0, 0) for shape in found)
    return config.with_sizes(class_embedding_size=embedding[1], attribute_hidden_size=hidden[0])
