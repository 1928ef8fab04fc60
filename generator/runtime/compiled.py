"""The compiled torch backend: the explicit graphs through torch.compile, in bf16.

Needs a C++ compiler on the machine, so it is never chosen by itself. Gain: see README, Speed.

Does not know about scenes, players or other backends.
"""

from __future__ import annotations

import shutil

import torch
from torch import Tensor, nn

from controls.errors import UserError
from generator.checkpoint import Weights
from generator.runtime.backend import Backend
from generator.runtime.graph import Arrays, Graph, graph_backend


def compile_module(module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
    """A graph that runs the compiled module under bf16 autocast; compiled now, on the example."""
    compiled = torch.compile(module.eval(), dynamic=False)

    @torch.no_grad()
    def graph(inputs: Arrays) -> Arrays:
        with torch.autocast("cpu", torch.bfloat16):
            made = compiled(*(torch.from_numpy(array) for array in inputs))
        return [m.numpy() if m.dtype == torch.uint8 else m.float().numpy() for m in made]

    graph([value.contiguous().numpy() for value in example])
    return graph


def open_compiled(name: str, weights: Weights) -> Backend:
    """The networks compiled by torch; UserError when there is no C++ compiler."""
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise UserError(f"The backend {name!r} needs a C++ compiler; install g++ or choose openvino.")
    return graph_backend(name, weights, compile_module)
