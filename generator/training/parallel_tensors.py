"""Sharded tensors where a stage meets them: whole ones from them, and shards of whole ones.

Imports nothing of torch.distributed unless there is something sharded: one process needs none of it.

Does not know how tensors came to be sharded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor of all processes' shards, which must all ask; one that is not sharded as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def wholes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As `whole`, for each."""
    return {name: whole(tensor) for name, tensor in tensors.items()}


def parted(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a tensor that every process has whole, sharded as `like` is."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]


T = TypeVar("T")


def part_of(batch: T, own: slice) -> T:
    """Some clips of a dataclass of tensors (B, ...), such as `data.latents.Batch`."""
    held = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}  # type: ignore[arg-type]
    return type(batch)(**{name: value if value is None else value[own] for name, value in held.items()})
