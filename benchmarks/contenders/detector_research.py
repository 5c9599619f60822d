"""Hugging Face's research code: `python detector_research.py detector LAYOUT HEIGHT WIDTH`, its folder in $RESEARCH.

The layouts are contiguous, as it is shipped, and channels_last. Weights in $DETECTOR. PyPI has torchvision for PyTorch
with CUDA only; beside PyTorch without it, its two operations, which take a few percent, are left out, in this code's
favour.
"""

import contextlib
import os
import sys

import numpy as np
import torch
from worker import serve

sys.path.insert(0, os.environ["RESEARCH"])
sys.modules.setdefault("wget", type(sys)("wget"))  # of downloads, and cannot be installed any more


def without_torchvision(pooled: int = 14) -> None:
    """Puts operations that take no time in the place of torchvision's."""
    regions: dict[tuple[int, ...], torch.Tensor] = {}

    class RoIPool(torch.nn.Module):
        def __init__(self, *args, **kwargs):
            super().__init__()

        def forward(self, features, boxes):
            shape = (len(boxes) if torch.is_tensor(boxes) else sum(map(len, boxes)), features.shape[1], pooled, pooled)
            return regions.setdefault(shape, torch.rand(shape))

    def nms(boxes, scores, threshold):
        return torch.arange(len(boxes))[: 36 if len(boxes) <= 1000 else None]

    ops = type(sys)("torchvision.ops")
    ops.RoIPool = RoIPool
    ops.boxes = type(sys)("torchvision.ops.boxes")
    ops.boxes.nms, ops.boxes.batched_nms = nms, lambda boxes, scores, classes, threshold: nms(boxes, scores, threshold)
    root = type(sys)("torchvision")
    root.ops = ops
    sys.modules |= {"torchvision": root, "torchvision.ops": ops, "torchvision.ops.boxes": ops.boxes}


try:
    import torchvision  # noqa: F401
except RuntimeError:
    without_torchvision()

from modeling_frcnn import GeneralizedRCNN  # noqa: E402
from utils import Config  # noqa: E402

layout, height, width = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
with contextlib.redirect_stdout(sys.stderr):  # it prints what it loads
    config = Config.from_pretrained(os.environ["DETECTOR"])
    model = GeneralizedRCNN.from_pretrained(os.environ["DETECTOR"], config=config).eval()
pixels = np.random.default_rng(0).uniform(-120, 130, (height, width, 3)).astype("float32")
picture = torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None]
if layout == "channels_last":
    model, picture = model.to(memory_format=torch.channels_last), picture.to(memory_format=torch.channels_last)
sizes, scales = torch.tensor([[height, width]]), torch.ones(1, 2)
options = {"padding": "max_detections", "max_detections": 36, "return_tensors": "pt"}


def step():
    with torch.no_grad():
        model(picture, sizes, scales_yx=scales, **options)


serve(step)
