"""The OpenVINO backend for CPUs: the networks compiled to graphs that compute in bf16 where that is fast, or in int8.

Shape key: as in explicit.py.
Gain on two cores against eager torch in bf16: see README, Speed (`run.py benchmark --backend all`).

Does not know about scenes, players or other backends than eager.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
import time
import warnings
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

# OpenVINO's converter reports its use to its maker unless this package is absent; a player's machine reports nothing
sys.modules["openvino_telemetry"] = None  # type: ignore[arg-type]

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from torch import Tensor, nn

from generator.checkpoint import Weights
from generator.model.int8_file import Range, Ranges
from generator.precision import adds_int8_exactly, computes_bf16
from generator.runtime import graph_cache, int8_graph
from generator.runtime.backend import Backend
from generator.runtime.explicit import ExplicitDecode, ExplicitDepth, ExplicitEncode, ExplicitRefine
from generator.runtime.graph import Arrays, Graph, graph_backend
from generator.runtime.quantise import CALIBRATED, Pixels, calibration

WIDTH, TRIES = 128, 8  # channels of a convolution that is timed in float32 and int8, and how often
TRIED = 12  # inputs that a convolution is tried in int8 on
IN_INT8 = (ExplicitEncode, ExplicitDepth, ExplicitRefine, ExplicitDecode)  # the transformer has no convolutions


def options_of(threads: int, precision: str) -> dict[str, Any]:
    """One request at a time, as fast as so many threads make it, computing in this precision."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }


def convert(module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    """A module as OpenVINO's graph, for inputs of these shapes."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of assertions on sizes, which never change here
        graph = ov.convert_model(module.eval(), example_input=example)
    graph.reshape({port: list(value.shape) for port, value in zip(graph.inputs, example, strict=True)})
    return graph


def compile_graph(
    module: nn.Module,
    example: tuple[Tensor, ...],
    threads: int,
    precision: str,
    key: str = "",
    ranges: Sequence[Range] = (),
) -> Any:
    """Trace a module and compile it for the CPU, with convolutions in int8 where there are ranges; returns an infer
    request.

    With a `key` that names the weights, the compiled graph is kept in the user's cache, which saves seconds at the
    next start; a cache that cannot be read or written changes nothing else.
    """
    core, options = ov.Core(), options_of(threads, precision)
    path = cached_graph(module, threads, precision, key, ranges) if key else None
    if path is not None and (kept := graph_cache.read(path)) is not None:
        with contextlib.suppress(RuntimeError, ValueError):  # its complaint may be bytes that are no text
            return core.import_model(kept, "CPU", options).create_infer_request()
    if ranges:
        graph = int8_graph.quantise(folded(module, example), ranges, adds_int8_exactly())
    else:
        graph = convert(module, example)
    compiled = core.compile_model(graph, "CPU", options)
    if path is not None:
        with contextlib.suppress(RuntimeError):
            blob = compiled.export_model()
            graph_cache.keep(path, blob.getvalue() if isinstance(blob, io.BytesIO) else bytes(blob))
    return compiled.create_infer_request()


def cached_graph(module: nn.Module, threads: int, precision: str, key: str, ranges: Sequence[Range] = ()) -> Path:
    """Where the compiled graph of these weights, this code, this OpenVINO and this processor is kept."""
    processor = ov.Core().get_property("CPU", "FULL_DEVICE_NAME")
    about = (key, type(module).__name__, threads, precision, tuple(ranges), ov.__version__, processor)
    return graph_cache.cache_path("openvino", ".blob", *about)


def as_graph(request: Any) -> Graph:
    """An infer request as a function from arrays to arrays."""
    held: list[npt.NDArray[Any]] = []  # the request points at its inputs until it is given others, and owns none

    def graph(inputs: Arrays) -> Arrays:
        given = [np.ascontiguousarray(array) for array in inputs]
        for port, array in enumerate(given):
            request.set_input_tensor(port, ov.Tensor(array, shared_memory=True))
        held[:] = given
        request.infer()
        return [request.get_output_tensor(port).data for port in range(len(request.results))]

    return graph


def open_openvino(name: str, weights: Weights, threads: int, dtype: str = "bf16") -> Backend:
    """The networks as OpenVINO graphs that compute in bf16 where the processor does so fast, in fp32, or with their
    convolutions in int8 beside that, within the ranges that the weights come with or else of a walk here and now.
    """
    precision = "bf16" if dtype != "fp32" and computes_bf16("cpu") else "f32"
    ranges: Ranges = {}
    if dtype == "int8":
        ranges = weights.int8 or calibrate(weights, threads)

    def compiler(module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
        rows = ranges.get(type(module).__name__, ())
        return as_graph(compile_graph(module, example, threads, precision, weights.hash, rows))

    return dataclasses.replace(graph_backend(name, weights, compiler), switches={"precision": precision})


def calibrate(weights: Weights, threads: int, pictures: Sequence[Pixels] = (), frames: int = CALIBRATED) -> Ranges:
    """The ranges of what flows into a world's convolutions on walks of so many latent frames from each of the pictures,
    uint8 (Y, X, 3), of those that lose little; of all, on a walk from a made-up picture, without any.
    """
    seen = calibration(weights, frames, pictures)
    examples: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {}

    def note(module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
        examples[type(module).__name__] = module, example
        return list

    graph_backend("calibration", weights, note)
    options, exact, made = options_of(threads, "f32"), adds_int8_exactly(), {}
    for name, (module, example) in examples.items():
        if isinstance(module, IN_INT8):
            build = partial(folded, module, example)
            rows = int8_graph.observe(build(), seen[name], options)
            some = seen[name][:: -(-len(seen[name]) // TRIED)]
            made[name] = tuple(int8_graph.choose(build, rows, some, options, exact) if pictures else rows)
    return made


@cache
def gain_of_int8() -> float:
    """How many times as fast in int8 as in float32 this processor does a convolution such as decoders have, measured in
    a few tenths of a second. The answer is not in its list of instructions: without VNNI it may be more or less than 1.
    """
    convolution, example = nn.Conv2d(WIDTH, WIDTH, 3, padding=1), (torch.ones(1, WIDTH, 40, 64),)
    best = []
    for ranges in ([], [Range(0, 0.0, 1.0, (WIDTH, WIDTH, 3, 3))]):
        graph, took = as_graph(compile_graph(convolution, example, 1, "f32", ranges=ranges)), []
        for _ in range(TRIES):
            began = time.perf_counter()
            graph([part.numpy() for part in example])
            took.append(time.perf_counter() - began)
        best.append(min(took))
    return best[0] / best[1]


def folded(module: nn.Module, example: tuple[Tensor, ...]) -> Any:
    """A module as a graph whose kernels are constants."""
    return int8_graph.fold(convert(module, example))
