"""Hugging Face's research code: `python detector_research.py detector LAYOUT HEIGHT WIDTH`, its folder in $RESEARCH.

The layouts are contiguous, as it is shipped, and channels_last. Weights in $DETECTOR.
"""

import os
import sys

import numpy as np
import torch
from worker import serve

sys.path.insert(0, os.environ["RESEARCH"])
sys.modules.setdefault("wget", type(sys)("wget"))  # of downloads, and cannot be installed any more

from modeling_frcnn import GeneralizedRCNN  # noqa: E402
from utils import Config  # noqa: E402

layout, height, width = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
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
