"""CUDA graphs of bodies: functions of nothing that read and write tensors which stay where they are.

Does not know what bodies do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable

import torch

Body = Callable[[], None]
Capture = Callable[[Body], Body]


def on_gpu(device: torch.device) -> bool:
    """Whether streams, graphs and pinned memory mean anything there."""
    return device.type == "cuda"


def capture_for(device: torch.device, wanted: bool = True) -> Capture | None:
    """Captures bodies as CUDA graphs that share one memory pool, so they must never run at the same time; None where
    nothing is to be captured.
    """
    if not (wanted and on_gpu(device)):
        return None
    pool = torch.cuda.graph_pool_handle()

    def capture(body: Body) -> Body:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool):
            body()
        return graph.replay

    return capture


class GraphRunner:
    """Runs bodies by key: `warm_ups` times as they are, which warms them up; then captured; then replayed.

    A capture records without running, so what a body changes is changed once per call either way. Without a `capture`
    bodies always run as they are.
    """

    def __init__(self, capture: Capture | None, warm_ups: int = 1) -> None:
        self.capture, self.warm_ups = capture, warm_ups
        self.ran: Counter[Hashable] = Counter()
        self.graphs: dict[Hashable, Body] = {}

    def run(self, key: Hashable, body: Body) -> None:
        """Run a body, or the graph that stands for it."""
        if self.capture is None or self.ran[key] < self.warm_ups:
            body()
            self.ran[key] += 1
            return
        if key not in self.graphs:
            self.graphs[key] = self.capture(body)
        self.graphs[key]()
