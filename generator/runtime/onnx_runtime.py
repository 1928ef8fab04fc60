"""The onnxruntime backend for CPUs: every network as an ONNX graph, in float32 or with int8 matrices and kernels.

Shape key: as in explicit.py. Graphs are exported once and kept in the user's cache, by weights, code and versions.

Does not know about scenes, players or other backends.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

from generator.checkpoint import Weights
from generator.precision import adds_int8_exactly
from generator.runtime import graph_cache
from generator.runtime.backend import Backend
from generator.runtime.explicit import ExplicitDecode, ExplicitStep
from generator.runtime.graph import Arrays, Graph, graph_backend
from generator.runtime.onnx_export import Exported, numbered, places, to_onnx
from generator.runtime.quantise import calibration, quantise_graph


def graph_bytes(module: nn.Module, example: tuple[Tensor, ...], key: str) -> bytes:
    """The module as ONNX, from the cache if the same was exported before; `key` names the weights."""
    shapes = [tuple(value.shape) for value in example]
    path = graph_cache.cache_path("onnx", ".onnx", key, type(module).__name__, shapes, torch.__version__)
    if key and (kept := graph_cache.read(path)) is not None:
        return kept
    with torch.no_grad():
        count = len(module(*example))
    named = numbered(len(example)), tuple(f"out_{n}" for n in range(count))
    contiguous = tuple(value.contiguous() for value in example)
    blob = to_onnx(Exported(module, contiguous, *named))
    if key:
        graph_cache.keep(path, blob)
    return blob


IN_INT8 = (ExplicitStep, ExplicitDecode)  # views and their encoding feed back: at int8 they were 0.65 of a latent off


def session(blob: bytes, threads: int) -> onnxruntime.InferenceSession:
    """An onnxruntime session on the CPU with so many threads, that keep off the cores while nothing runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(blob, options, providers=["CPUExecutionProvider"])


def as_graph(made: onnxruntime.InferenceSession) -> Graph:
    """A session of a graph of `graph_bytes` as a function from arrays to arrays."""
    names = [port.name for port in made.get_inputs()]
    read = list(zip(names, places(names), strict=True))

    def graph(inputs: Arrays) -> Arrays:
        return made.run(None, {name: np.ascontiguousarray(inputs[place]) for name, place in read})

    return graph


def cache_key(weights: Weights) -> str:
    """What names these weights in the cache; nothing for random ones, which differ under one name."""
    return "" if weights.hash == "random" else weights.hash


def int8_bytes(module: nn.Module, example: tuple[Tensor, ...], weights: Weights, seen: dict[str, Any]) -> bytes:
    """The module as an int8 graph, from the cache if it is there; `seen` is filled by the first that must calibrate."""
    key, shapes = cache_key(weights), [tuple(value.shape) for value in example]
    version = (torch.__version__, onnxruntime.__version__, adds_int8_exactly())
    path = graph_cache.cache_path("onnx", ".int8.onnx", key, type(module).__name__, shapes, version)
    if key and (kept := graph_cache.read(path)) is not None:
        return kept
    seen.update(seen or calibration(weights))
    blob = quantise_graph(graph_bytes(module, example, key), seen[type(module).__name__])
    if key:
        graph_cache.keep(path, blob)
    return blob


def open_onnxruntime(name: str, weights: Weights, threads: int, int8: bool = False) -> Backend:
    """The networks as onnxruntime graphs in float32, or with int8 matrices and kernels in those of IN_INT8."""
    seen: dict[str, Any] = {}

    def compiler(module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
        key = cache_key(weights)
        small = int8 and isinstance(module, IN_INT8)
        blob = int8_bytes(module, example, weights, seen) if small else graph_bytes(module, example, key)
        return as_graph(session(blob, threads))

    return graph_backend(name, weights, compiler)
