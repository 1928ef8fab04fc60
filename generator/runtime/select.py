"""Choosing a backend by name; no silent fallback: the name in every report is what runs.

Does not know how backends work.
"""

from __future__ import annotations

import copy
import importlib.util

import torch

from controls.errors import UserError
from controls.strict_yaml import did_you_mean
from generator.checkpoint import Weights
from generator.runtime.backend import Backend, Reprojection
from generator.runtime.eager import EagerDecoder, EagerTransformer, eager_encoder

BACKENDS = ("auto", "torch-fp32", "torch-bf16", "torch-compiled", "openvino")


def best_backend() -> str:
    """The fastest backend for this machine among those installed (measured: see README, Speed)."""
    return "openvino" if importlib.util.find_spec("openvino") else "torch-bf16"


def open_backend(name: str, weights: Weights, threads: int) -> Backend:
    """Build a backend; UserError when the name is unknown or its package is missing."""
    if name not in BACKENDS:
        raise UserError(f"Unknown backend {name!r}{did_you_mean(name, BACKENDS)}.")
    torch.set_num_threads(threads)
    chosen = best_backend() if name == "auto" else name
    if chosen in ("torch-fp32", "torch-bf16"):
        dtype = torch.float32 if chosen == "torch-fp32" else torch.bfloat16
        dit = copy.deepcopy(weights.dit).to(dtype)
        vae = copy.deepcopy(weights.tokenizer).to(dtype)
        turn = weights.reprojector(vae)
        seen = Reprojection(turn, eager_encoder(turn)) if turn else None
        return Backend(chosen, EagerTransformer(dit), EagerDecoder(vae), seen)
    if chosen == "torch-compiled":
        from generator.runtime.compiled import open_compiled

        return open_compiled(chosen, weights)
    if importlib.util.find_spec("openvino") is None:
        raise UserError(f"The backend {chosen!r} needs the package openvino; run: pip install openvino")
    from generator.runtime.openvino import open_openvino

    return open_openvino(chosen, weights, threads)
