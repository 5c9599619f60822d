"""Keeps torch to one thread: golden models are too small for more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
