"""Whether a device computes in bf16, or only pretends to; and in eight bits.

Does not know what is computed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch


@cache
def computes_bf16(kind: str) -> bool:
    """Whether devices of this type have bf16 arithmetic of their own.

    Where a processor has none (no AVX-512, as most laptops), torch imitates it: a 3 x 3 convolution was measured to
    take 10 to 100 times as long as in float32.
    """
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        return kind == "cpu" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):  # a torch without oneDNN
        return False


@cache
def adds_int8_exactly() -> bool:
    """Whether the processor adds products of 8-bit numbers in 32 bits (VNNI); else pairs in 16 bits, which overflow."""
    try:
        return bool(torch.cpu._is_vnni_supported())
    except AttributeError:
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
