"""Whether a device computes in bf16, or only pretends to; and in eight bits.

Does not know what is computed.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch

SIDE, TRIES = 384, 6  # of matrices that are multiplied to learn what bf16 is worth, and how often
WORTH = 1.15  # of a type: it is 2 and more where it is worth anything, and half where not


@cache
def computes_bf16(kind: str) -> bool:
    """Whether devices of this type have bf16 arithmetic of their own.

    Where a processor has none (no AVX-512, as most laptops), torch imitates it: a 3 x 3 convolution was measured to
    take 10 to 100 times as long as in float32. Some have it for the name only: without matrix tiles (AMX), one of
    Intel's was measured to multiply half as fast in bf16 as in float32; those count as without.
    """
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return kind == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and gain_of_bf16() > WORTH
    except (AttributeError, RuntimeError):  # a torch without oneDNN
        return False


@cache
def gain_of_bf16() -> float:
    """How many times as fast as in float32 this processor multiplies matrices in bf16, measured in milliseconds."""
    best = {}
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.ones(SIDE, SIDE, dtype=dtype)
        took = []
        for _ in range(TRIES):
            began = time.perf_counter()
            torch.mm(square, square)
            took.append(time.perf_counter() - began)
        best[dtype] = min(took)
    return best[torch.float32] / best[torch.bfloat16]


@cache
def adds_int8_exactly() -> bool:
    """Whether the processor adds products of 8-bit numbers in 32 bits (VNNI); else pairs in 16 bits, which overflow."""
    try:
        if torch.cpu._is_vnni_supported():
            return True
        from llvmlite.binding import get_host_cpu_features  # comes with numba

        return bool(get_host_cpu_features().get("avxvnni", False))  # of processors without AVX-512
    except (AttributeError, ImportError, RuntimeError):
        return False


def half_where_fast(kind: str) -> torch.dtype:
    """bfloat16 where devices of this type have it, else float32."""
    return torch.bfloat16 if computes_bf16(kind) else torch.float32


def in_half(kind: str, asked: bool = True) -> torch.autocast:
    """Autocast to bf16 where that is asked for and devices of this type have it; else nothing changes."""
    return torch.autocast(kind, torch.bfloat16, enabled=asked and computes_bf16(kind))


def in_full(kind: str) -> AbstractContextManager[Any]:
    """Whatever autocast is on around it stays out of this, on devices of this type."""
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
