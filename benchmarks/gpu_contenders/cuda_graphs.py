"""CUDA graphs of PyTorch: what a step launches is recorded once, and launched as a whole from then on."""

from collections.abc import Callable
from typing import Any

import torch


def captured(step: Callable[[], Any]) -> Callable[[], Any]:
    """The same step as a CUDA graph; the step itself without a GPU.

    Results are overwritten by the next call. What the step holds on to lives as long as the graph, which reads it.
    """
    if not torch.cuda.is_available():
        return step
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay(_kept=step):
        graph.replay()
        return result

    return replay
