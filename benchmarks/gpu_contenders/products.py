"""A product of large matrices in bfloat16: `python products.py SIZE VARIANT "product LENGTH"`."""

import torch
from worker import serve

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def product(length):
    one, other = (torch.randn(length, length, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return lambda: one @ other


def finish(result):
    if DEVICE == "cuda":
        torch.cuda.synchronize()


serve({"product": product}, finish, lambda: None)
