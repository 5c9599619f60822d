"""The detector's table of names: every tensor in PyTorch, Keras, Caffe and MILVLG spelling, its layout and its shape.

PyTorch's are those of Hugging Face and detectron2. The table is the data below; code only expands it for a config into
exact names.
"""

from dataclasses import dataclass

from conversion.names import Shape
from lxmert_tf.detector.configuration import DetectorConfig


@dataclass(frozen=True)
class Row:
    """One tensor.

    Args:
        torch: its PyTorch name, "backbone.res2.0.conv1.norm.weight".
        keras: path of our Keras variable without the root model's name, "backbone/res2/block_0/conv1/norm/gamma".
        caffe: name of the Caffe layer, and the number of the tensor in it: "res2a_branch2a/0".
        milvlg: its name in MILVLG's files.
        layout: key of `conversion.names.LAYOUTS`.
        sizes: the PyTorch shape.
        change: what else tells Caffe's and MILVLG's tensor from this one, a key of `caffe_layouts.CHANGES`.
    """

    torch: str
    keras: str
    caffe: str
    milvlg: str
    layout: str
    sizes: Shape
    change: str = "as_is"

    def shape(self, config: DetectorConfig) -> Shape:
        """The PyTorch shape; the row is that of a config already."""
        return self.sizes

    @property
    def h5_path(self) -> str:
        """Path of the dataset in a `.weights.h5` file, where Keras looks for it."""
        *layers, variable = self.keras.split("/")
        first = LISTED.get(layers[0], layers[0])
        return "/".join([first, *layers[1:], f"vars/{PLACES[variable]}"])


# Keras saves the variables of a layer by number, and what comes after the word `layers` in its list of that name.
PLACES = {"kernel": 0, "bias": 1, "embeddings": 0, "gamma": 0, "beta": 1, "moving_mean": 2, "moving_variance": 3}
LISTED = {"proposal_generator": "layers/proposal_generator", "roi_heads": "layers/roi_heads"}

# PyTorch names that are left out on purpose, and why.
SKIPPED = {
    "num_batches_tracked": "counts batches of a training",
    "cell_anchors": "follows from the config",
}


def skip_reason(name: str) -> str | None:
    """Why a tensor is left out on purpose, or None."""
    return next((reason for part, reason in SKIPPED.items() if part in name.split(".")), None)


def rows(config: DetectorConfig) -> list[Row]:
    """Every tensor of the detector, from the picture on."""
    anchors, hidden, features = config.num_anchors, config.rpn_hidden_channels, config.feature_size
    channels, classes = config.stage_channels(4)[1], config.num_classes + 1
    table = [*_convolution("backbone.stem.conv1", ("conv1", "bn_conv1", "scale_conv1"), config.stem_out_channels, 3, 7)]
    for stage in (2, 3, 4):
        table += _stage("backbone", stage, config)
    rpn = "proposal_generator.rpn_head"
    table += _plain(f"{rpn}.conv", "rpn_conv/3x3", "as_is", hidden, channels, 3)
    table += _plain(f"{rpn}.objectness_logits", "rpn_cls_score", "objectness", anchors, hidden, 1)
    table += _plain(f"{rpn}.anchor_deltas", "rpn_bbox_pred", "anchors", 4 * anchors, hidden, 1)
    table += _stage("roi_heads", 5, config)
    table += _dense("cls_score", "cls_score", "background", classes, features)
    boxes = "as_is" if config.class_agnostic_boxes else "boxes"
    table += _dense("bbox_pred", "bbox_pred", boxes, 4 * config.num_box_classes, features)
    if config.num_attributes:
        embedding, inner = config.class_embedding_size, config.attribute_hidden_size
        name = "roi_heads.box_predictor.cls_embedding"
        milvlg, shape = _milvlg(f"{name}.weight"), (classes, embedding)
        keras = f"{_keras(name)}/embeddings"
        table.append(Row(f"{name}.weight", keras, "cls_embedding/0", milvlg, "as_is", shape, "background"))
        table += _dense("fc_attr", "fc_attr", "as_is", inner, features + embedding)
        table += _dense("attr_score", "attr_score", "background", config.num_attributes + 1, inner)
    return table


def _stage(parent: str, stage: int, config: DetectorConfig) -> list[Row]:
    inner, filters = config.stage_channels(stage)
    table = []
    for i in range(config.blocks[stage - 2]):
        channels = filters if i else config.stem_out_channels if stage == 2 else filters // 2
        convolutions = {"conv1": (inner, channels, 1), "conv2": (inner, inner, 3), "conv3": (filters, inner, 1)}
        if i == 0:
            convolutions = {"shortcut": (filters, channels, 1), **convolutions}
        for name, shape in convolutions.items():
            place = f"{stage}{_letter(stage, i, config.depth)}_{BRANCHES[name]}"
            layers = (f"res{place}", f"bn{place}", f"scale{place}")
            table += _convolution(f"{parent}.res{stage}.{i}.{name}", layers, *shape)
    return table


BRANCHES = {"shortcut": "branch1", "conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}


def _letter(stage: int, i: int, depth: int) -> str:
    """How Caffe's ResNets name a bottleneck: a, b, c, ..., or a, b1, b2, ... where stages are deep."""
    numbered = depth > 50 and stage in (3, 4)
    return f"b{i}" if numbered and i else "abcdef"[i]


def _convolution(name: str, layers: tuple[str, str, str], filters: int, channels: int, size: int) -> list[Row]:
    keras, (convolution, norm, scale) = _keras(name), layers

    def norm_row(torch: str, variable: str, caffe: str, change: str = "as_is") -> Row:
        torch = f"{name}.norm.{torch}"
        return Row(torch, f"{keras}/norm/{variable}", caffe, torch, "as_is", (filters,), change)

    weight, shape = f"{name}.weight", (filters, channels, size, size)
    return [
        Row(weight, f"{keras}/kernel", f"{convolution}/0", weight, "kernel", shape),
        norm_row("weight", "gamma", f"{scale}/0"),
        norm_row("bias", "beta", f"{scale}/1"),
        norm_row("running_mean", "moving_mean", f"{norm}/0"),
        norm_row("running_var", "moving_variance", f"{norm}/1"),
    ]


def _plain(name: str, layer: str, change: str, filters: int, channels: int, size: int) -> list[Row]:
    return _pair(name, layer, name, change, "kernel", (filters, channels, size, size))


def _dense(name: str, layer: str, change: str, units: int, inputs: int) -> list[Row]:
    name = f"roi_heads.box_predictor.{name}"
    return _pair(name, layer, _milvlg(name), change, "transpose", (units, inputs))


def _pair(name: str, layer: str, milvlg: str, change: str, layout: str, shape: Shape) -> list[Row]:
    """The rows of a kernel and a bias."""
    keras = _keras(name)
    return [
        Row(f"{name}.weight", f"{keras}/kernel", f"{layer}/0", f"{milvlg}.weight", layout, shape, change),
        Row(f"{name}.bias", f"{keras}/bias", f"{layer}/1", f"{milvlg}.bias", "as_is", shape[:1], change),
    ]


# MILVLG's names of the attribute head, by those of the others.
MILVLG = {"cls_embedding": "cls_embed", "fc_attr": "attr_linear1", "attr_score": "attr_linear2"}


def _milvlg(name: str) -> str:
    return ".".join(MILVLG.get(part, part) for part in name.split("."))


def _keras(name: str) -> str:
    return "/".join(f"block_{part}" if part.isdecimal() else part for part in name.split("."))
