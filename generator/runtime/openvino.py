"""The OpenVINO backend for CPUs: the networks compiled to graphs that compute in bf16 where the processor can.

Shape key: as in explicit.py.
Gain on two cores against eager torch in bf16: see README, Speed (`run.py benchmark --backend all`).

Does not know about scenes, players or other backends than eager.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# OpenVINO's converter reports its use to its maker unless this package is absent; a player's machine reports nothing
sys.modules["openvino_telemetry"] = None  # type: ignore[arg-type]

import numpy as np
import numpy.typing as npt
import openvino as ov
import torch
from torch import Tensor, nn

from controls.errors import UserError
from controls.files import write_atomic
from generator.checkpoint import Weights
from generator.runtime import explicit
from generator.runtime.backend import Backend
from generator.runtime.graph import Arrays, Graph, graph_backend
from generator.runtime.onnx_export import places


def options_of(threads: int, precision: str) -> dict[str, Any]:
    """One request at a time, as fast as so many threads make it, computing in this precision."""
    return {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }


def compile_graph(module: nn.Module, example: tuple[Tensor, ...], threads: int, precision: str, key: str = "") -> Any:
    """Trace a module and compile it for the CPU; returns an infer request.

    With a `key` that names the weights, the compiled graph is kept in the user's cache, which saves seconds at the
    next start; a cache that cannot be read or written changes nothing else.
    """
    core, options = ov.Core(), options_of(threads, precision)
    path = cached_graph(module, threads, precision, key) if key else None
    if path is not None and path.is_file():
        with contextlib.suppress(RuntimeError, OSError, ValueError):  # its complaint may be bytes that are no text
            return core.import_model(path.read_bytes(), "CPU", options).create_infer_request()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # of assertions on sizes, which never change here
        graph = ov.convert_model(module.eval(), example_input=example)
    graph.reshape({port: list(value.shape) for port, value in zip(graph.inputs, example, strict=True)})
    compiled = core.compile_model(graph, "CPU", options)
    if path is not None:
        with contextlib.suppress(RuntimeError, UserError):
            blob = compiled.export_model()
            write_atomic(path, blob.getvalue() if isinstance(blob, io.BytesIO) else bytes(blob))
            forget_old(path.parent)
    return compiled.create_infer_request()


def cached_graph(module: nn.Module, threads: int, precision: str, key: str) -> Path:
    """Where the compiled graph of these weights, this code, this OpenVINO and this processor is kept."""
    core = ov.Core()
    package = Path(explicit.__file__).parent.parent
    files = [*sorted(package.glob("model/*.py")), *sorted(package.glob("tokenizer/*.py")), Path(explicit.__file__)]
    source = "".join(path.read_text() for path in files)
    parts = (
        key,
        type(module).__name__,
        threads,
        precision,
        ov.__version__,
        core.get_property("CPU", "FULL_DEVICE_NAME"),
    )
    name = hashlib.sha256("|".join([*map(str, parts), source]).encode()).hexdigest()[:32]
    root = Path(os.environ.get("FARSTEP_CACHE") or Path.home() / ".cache" / "farstep")
    return root / "openvino" / f"{name}.blob"


def forget_old(folder: Path, keep: int = 12) -> None:
    """Remove all but the newest compiled graphs; each is tens of megabytes."""
    for stale in sorted(folder.glob("*.blob"), key=lambda path: path.stat().st_mtime)[:-keep]:
        stale.unlink(missing_ok=True)


def compile_onnx(blob: bytes, threads: int, precision: str) -> tuple[Any, list[int]]:
    """An ONNX graph of `graph_bytes` compiled for the CPU: an infer request, and which inputs it reads in turn."""
    core = ov.Core()
    compiled = core.compile_model(core.read_model(blob), "CPU", options_of(threads, precision))
    return compiled.create_infer_request(), places(port.any_name for port in compiled.inputs)


def as_graph(request: Any, read: Sequence[int]) -> Graph:
    """An infer request that reads these of the inputs as a function from arrays to arrays."""
    held: list[npt.NDArray[Any]] = []  # the request points at its inputs until it is given others, and owns none

    def graph(inputs: Arrays) -> Arrays:
        given = [np.ascontiguousarray(inputs[place]) for place in read]
        for port, array in enumerate(given):
            request.set_input_tensor(port, ov.Tensor(array, shared_memory=True))
        held[:] = given
        request.infer()
        return [request.get_output_tensor(port).data for port in range(len(request.results))]

    return graph


def open_openvino(name: str, weights: Weights, threads: int, dtype: str = "bf16") -> Backend:
    """The networks as OpenVINO graphs that compute in bf16 where the processor can, in fp32, or in int8 beside bf16."""
    precision = {"bf16": "bf16", "fp32": "f32", "int8": "bf16"}[dtype]
    seen: dict[str, Any] = {}

    def request_for(module: nn.Module, example: tuple[Tensor, ...]) -> tuple[Any, Sequence[int]]:
        if dtype == "int8":
            from generator.runtime.onnx_runtime import IN_INT8, int8_bytes

            if isinstance(module, IN_INT8):
                return compile_onnx(int8_bytes(module, example, weights, seen), threads, precision)
        return compile_graph(module, example, threads, precision, weights.hash), range(len(example))

    def compiler(module: nn.Module, example: tuple[Tensor, ...]) -> Graph:
        return as_graph(*request_for(module, example))

    return graph_backend(name, weights, compiler)
