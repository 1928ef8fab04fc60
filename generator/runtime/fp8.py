"""Eight-bit floats for GPUs: linear layers through `torch._scaled_mm`, and rows of a KV cache.

Shape key: N rows, I inputs, O outputs. Every row has its own scale (e4m3, largest 448). Products need compute
capability 8.9 (Ada) or 9.0 (Hopper) or more. Checked on CPU tensors and run on an H100: docs/benchmarks.

Does not know about transformers or which rows are keys.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from controls.errors import UserError

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
LEAST = (8, 9)  # compute capability
MULTIPLE = 16  # of inputs and outputs, which the hardware asks for


def to_fp8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (..., I) as e4m3 (..., I) and a float32 scale (..., 1) so that scale * fp8 is near the rows."""
    scale = rows.float().abs().amax(-1, keepdim=True).clamp_min(1e-12) / LARGEST
    return (rows.float() / scale).to(E4M3), scale


def from_fp8(small: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `to_fp8`, in this type."""
    return (small.float() * scale).to(dtype)


class Fp8Linear(nn.Module):
    """A linear layer whose weights are e4m3 by output and whose inputs become e4m3 by row as they come."""

    small: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        small, scale = to_fp8(linear.weight.detach())
        self.register_buffer("small", small)
        self.register_buffer("scale", scale.t().contiguous())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) to (..., O) in the type of x."""
        rows, scale = to_fp8(x.reshape(-1, x.shape[-1]))
        made = torch._scaled_mm(rows, self.small.t(), scale_a=scale, scale_b=self.scale, out_dtype=torch.bfloat16)
        if self.bias is not None:
            made = made + self.bias
        return made.to(x.dtype).view(*x.shape[:-1], -1)


def fp8_linears(module: nn.Module) -> nn.Module:
    """The module with every linear layer that the hardware can multiply in fp8, in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.Linear) and not (child.in_features % MULTIPLE or child.out_features % MULTIPLE):
            setattr(module, name, Fp8Linear(child))
        else:
            fp8_linears(child)
    return module


def check_capability(capability: tuple[int, int]) -> None:
    """UserError on a GPU that does not multiply fp8."""
    if capability < LEAST:
        has, needs = (".".join(map(str, each)) for each in (capability, LEAST))
        raise UserError(f"fp8 needs compute capability {needs} or more, this GPU has {has}; choose --dtype bf16.")
