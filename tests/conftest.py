"""Lets every test import the shared helpers, and keeps torch to one thread: golden models are too small for more."""

import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is first imported
sys.path.insert(0, str(Path(__file__).parent))
