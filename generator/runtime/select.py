"""Choosing a backend by name; no silent fallback: the name in every report is what runs.

Does not know how backends work.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
from typing import TypeVar

import torch
from torch import Tensor, nn

from controls.errors import UserError
from controls.strict_yaml import did_you_mean
from generator.checkpoint import Weights
from generator.precision import WORTH, adds_int8_exactly, computes_bf16
from generator.runtime.backend import Backend, Reprojection
from generator.runtime.eager import EagerDecoder, EagerTransformer, eager_encoder

Module = TypeVar("Module", bound=nn.Module)

# families of backends, and what each is called in each type that it offers
TYPES: dict[str, dict[str, str]] = {
    "torch": {"fp32": "torch-fp32", "bf16": "torch-bf16", "int8": "torch-int8"},
    "torch-compiled": {"bf16": "torch-compiled"},
    "openvino": {"bf16": "openvino", "fp32": "openvino-fp32", "int8": "openvino-int8"},
    "onnxruntime": {"fp32": "onnxruntime", "int8": "onnxruntime-int8"},
    "cuda": {"bf16": "cuda", "fp8": "cuda-fp8"},
    "cuda-tensorrt": {"bf16": "cuda-tensorrt"},
}
BACKENDS = ("auto", *(name for family in TYPES.values() for name in family.values()))
EAGER = {"torch-fp32": torch.float32, "torch-bf16": torch.bfloat16}


def best_backend(weights: Weights | None = None) -> str:
    """The fastest backend for this machine among those installed (measured: see README, Speed), int8 for weights that
    bring the ranges for it, where that is faster: with VNNI it is, elsewhere it is measured.
    """
    if not importlib.util.find_spec("openvino"):
        return best_torch()
    if weights is None or not weights.int8:
        return "openvino"
    from generator.runtime.openvino import gain_of_int8

    return "openvino-int8" if adds_int8_exactly() or gain_of_int8() > WORTH else "openvino"


def best_torch(kind: str = "cpu") -> str:
    """The faster of the torch backends on devices of this type."""
    return "torch-bf16" if computes_bf16(kind) else "torch-fp32"


def backend_name(name: str, dtype: str = "") -> str:
    """The backend of a family, or of a name's family, that computes in this type; any name as it is without a type.

    UserError when the name is unknown or the family does not offer the type.
    """
    if not dtype:
        if name in TYPES and name not in BACKENDS:
            return next(iter(TYPES[name].values()))
        if name not in BACKENDS:
            raise UserError(f"Unknown backend {name!r}{did_you_mean(name, [*BACKENDS, *TYPES])}.")
        return name
    chosen = best_backend() if name == "auto" else name
    families = [family for family, types in TYPES.items() if chosen == family or chosen in types.values()]
    if not families:
        raise UserError(f"Unknown backend {name!r}{did_you_mean(name, [*BACKENDS, *TYPES])}.")
    offered = TYPES[families[0]]
    if dtype not in offered:
        raise UserError(
            f"The backend {families[0]!r} does not compute in --dtype {dtype}; choose {', '.join(offered)}."
        )
    return offered[dtype]


def require(package: str, name: str, extra: str = "") -> None:
    """UserError, naming the command that installs it, when a backend's package is missing."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"The backend {name!r} needs the package {package}; run: pip install {extra or package}")


def open_backend(
    name: str, weights: Weights, threads: int, text: Tensor | None = None, switches: tuple[str, ...] = ()
) -> Backend:
    """Build a backend; UserError when the name is unknown or its package is missing.

    A text prefix (1, L, text_width) is read by the torch and GPU backends alone; `switches` are the GPU runtime's.
    """
    if name not in BACKENDS:
        raise UserError(f"Unknown backend {name!r}{did_you_mean(name, BACKENDS)}.")
    torch.set_num_threads(threads)
    chosen = best_backend(weights) if name == "auto" else name
    if chosen.startswith("cuda"):
        return open_cuda(chosen, weights, text, switches)
    if switches:
        raise UserError(f"The backend {chosen!r} has no switches; choose --backend cuda, or leave out --switch.")
    if chosen in EAGER:
        return open_eager(chosen, weights, EAGER[chosen], text)
    if text is not None:
        raise UserError(f"The backend {chosen!r} reads no text prefix; choose {' or '.join(EAGER)}.")
    if chosen == "torch-int8":
        return open_int8(chosen, weights)
    if chosen == "torch-compiled":
        from generator.runtime.compiled import open_compiled

        return open_compiled(chosen, weights)
    return open_graphs(chosen, weights, threads)


def open_cuda(name: str, weights: Weights, text: Tensor | None, switches: tuple[str, ...]) -> Backend:
    """The GPU runtime, in fp8 or with TensorRT's decoder where the name says so."""
    from generator.runtime import gpu, gpu_attention

    device = gpu_attention.check_gpu()
    attention = gpu_attention.best(torch.cuda.get_device_capability(device))
    base = gpu.Switches(attention=attention, linear="fp8" if name == "cuda-fp8" else "bf16")
    if name != "cuda-tensorrt":
        return gpu.open_gpu(name, weights, device, gpu.parse_switches(switches, base), text)
    from generator.runtime.tensorrt_engine import TensorRTDecoder

    decoder = TensorRTDecoder(weights, device)
    made = gpu.open_gpu(name, weights, device, gpu.parse_switches(switches, base), text)
    return dataclasses.replace(made, decoder=decoder)


def open_graphs(name: str, weights: Weights, threads: int) -> Backend:
    """OpenVINO or onnxruntime, in the type that the name says."""
    if name in TYPES["onnxruntime"].values():
        for package in ("onnxruntime", "onnx", "onnxscript"):
            require(package, name, "-e '.[onnx]'")
        from generator.runtime.onnx_runtime import open_onnxruntime

        return open_onnxruntime(name, weights, threads, int8=name.endswith("int8"))
    require("openvino", name)
    from generator.runtime.openvino import open_openvino

    dtype = next(dtype for dtype, own in TYPES["openvino"].items() if own == name)
    return open_openvino(name, weights, threads, dtype)


def open_int8(name: str, weights: Weights) -> Backend:
    """Plain torch in bf16 with int8 linear layers in the transformer's blocks."""
    from generator.runtime.quantise import quantise_linears

    dit = copy.deepcopy(weights.dit).to(torch.bfloat16)
    quantise_linears(dit.blocks)
    vae = in_dtype(weights.tokenizer, torch.bfloat16)
    turn = weights.reprojector(vae)
    seen = Reprojection(turn, eager_encoder(turn)) if turn else None
    return Backend(name, EagerTransformer(dit), EagerDecoder(vae), seen)


def open_eager(name: str, weights: Weights, dtype: torch.dtype, text: Tensor | None = None) -> Backend:
    """Plain torch in this type, wherever the weights are."""
    dit, vae = in_dtype(weights.dit, dtype), in_dtype(weights.tokenizer, dtype)
    turn = weights.reprojector(vae)
    seen = Reprojection(turn, eager_encoder(turn)) if turn else None
    return Backend(name, EagerTransformer(dit, text), EagerDecoder(vae), seen, dit.embed.weight.device)


def in_dtype(module: Module, dtype: torch.dtype) -> Module:
    """The module itself if it is of this type, else a copy that is."""
    if all(parameter.dtype == dtype for parameter in module.parameters()):
        return module
    return copy.deepcopy(module).to(dtype)
