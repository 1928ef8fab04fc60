"""What costs nothing on a processor and stops a GPU: reading a tensor's numbers, and making tensors of plain ones.

A GPU works through what it was given while the next is prepared, and can be given a recorded graph of it, as long as
nobody waits for a number of its and nothing is copied to it: numbers stay tensors, and tensors of constants are made
once.

Does not know what is computed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Numbers = tuple[Any, ...]


def at_hand(tensor: Tensor) -> bool:
    """Whether a tensor's numbers can be read without waiting for a device."""
    return tensor.device.type == "cpu"


@cache
def constant(numbers: Numbers, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of these numbers (tuples within tuples), made once for each device and shared: not to be changed."""
    with torch.inference_mode(False):  # or training could not use it afterwards
        return torch.tensor(numbers, dtype=dtype, device=device)


@cache
def centres(count: int, device: torch.device, dtype: torch.dtype = torch.float32) -> Tensor:
    """Where the middles of so many cells lie that share -1..1, made once and shared as a `constant` is: (count,)."""
    with torch.inference_mode(False):
        return (torch.arange(count, device=device, dtype=dtype) + 0.5) / count * 2 - 1


def arrays(*tensors: Tensor) -> tuple[npt.NDArray[Any], ...]:
    """Tensors of a processor as contiguous arrays."""
    return tuple(np.ascontiguousarray(tensor.detach().numpy()) for tensor in tensors)
