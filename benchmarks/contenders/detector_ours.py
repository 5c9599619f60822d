"""The detector of lxmert_tf: `python detector_ours.py detector DTYPE HEIGHT WIDTH`, weights in $DETECTOR."""

import os
import sys

import numpy as np
from worker import serve

from lxmert_tf.detector import FasterRCNN, make_pipeline
from lxmert_tf.detector.image_processor import ProcessedImage

dtype, height, width = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
detector = FasterRCNN.from_pretrained(os.environ["DETECTOR"], dtype=dtype)
pixels = np.random.default_rng(0).uniform(-120, 130, (height, width, 3)).astype("float32")
picture = ProcessedImage(pixels, (height, width), (1.0, 1.0))
pipeline = make_pipeline("huggingface", detector.config)
serve(lambda: detector.detect_processed(picture, pipeline))
