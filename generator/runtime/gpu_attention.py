"""Attention kernels for the GPU behind one signature: SDPA with a pinned backend, and flash-attn-4.

Shape key: A heads, Q queries, K keys, E head width. A kernel is a function of query (1, A, Q, E), key and value
(1, A, K, E) and the scale, and returns (1, A, Q, E); no mask, since a latent frame sees all that the cache holds.
A pinned backend raises where it cannot run, and is never replaced by another in silence.
flash-attn-4 never ran on hardware here: see README, Speed.

Does not know about caches or transformers.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable

import torch
import torch.nn.functional as nnf
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from controls.errors import UserError

Kernel = Callable[[Tensor, Tensor, Tensor, float], Tensor]
PINNED = {
    "sdpa-flash": SDPBackend.FLASH_ATTENTION,
    "sdpa-cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa-math": SDPBackend.MATH,
}
KERNELS = (*PINNED, "flash-attn-4")


def best(capability: tuple[int, int]) -> str:
    """The kernel for a GPU of this compute capability: on an H100 the 8B step took 67 ms with cuDNN's and 97 with flash
    (docs/benchmarks).
    """
    return "sdpa-cudnn" if capability >= (9, 0) else "sdpa-flash"


def kernel(name: str) -> Kernel:
    """The kernel of this name; UserError when there is none or its package is missing."""
    if name in PINNED:
        return pinned(PINNED[name])
    if name != "flash-attn-4":
        raise UserError(f"There is no attention kernel {name!r}; choose {', '.join(KERNELS)}.")
    return flash()


def pinned(backend: SDPBackend) -> Kernel:
    """SDPA that runs on this backend or not at all."""

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        with sdpa_kernel(backend):
            return nnf.scaled_dot_product_attention(query, key, value, scale=scale)

    return attend


def flash() -> Kernel:
    """flash-attn-4, whose tensors have the heads behind the positions; UserError when it is missing."""
    if importlib.util.find_spec("flash_attn") is None:
        raise UserError("Attention through flash-attn-4 needs its package; run: pip install -e '.[flash]'")
    function = importlib.import_module("flash_attn.cute").flash_attn_func

    def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        made = function(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), softmax_scale=scale)
        made = made[0] if isinstance(made, tuple) else made  # some versions hand the log-sum back as well
        return made.transpose(1, 2)

    return attend


def check_gpu() -> torch.device:
    """The GPU; UserError where torch sees none."""
    if not torch.cuda.is_available():
        raise UserError("This backend needs an NVIDIA GPU, and torch sees none; choose --backend auto.")
    return torch.device("cuda", torch.cuda.current_device())
