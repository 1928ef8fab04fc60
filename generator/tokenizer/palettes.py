"""Few colours that stand for many, as maps keep them: one byte each.

Shape key: N colours, P colours that stand for them.

Does not know what has the colours.
"""

from __future__ import annotations

import torch
from torch import Tensor

AT_ONCE = 16384  # colours that are compared; bounds memory


def few(colour: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """At most so many colours (P, 3) that stand for these (N, 3) in [-1, 1], and which one (N,) for each."""
    levels = ((colour.float().clamp(-1, 1) + 1) * 15.5).round().long()  # cells of 1/16
    cell = (levels[:, 0] * 32 + levels[:, 1]) * 32 + levels[:, 2]
    used, inside = cell.unique(return_inverse=True)
    count = torch.bincount(inside, minlength=len(used)).to(colour)
    mean = colour.new_zeros(len(used), 3).index_add_(0, inside, colour) / count[:, None].clamp(min=1)
    chosen = mean[count.argsort(descending=True, stable=True)[:most]]
    for _ in range(8 if len(used) > most else 0):  # of k-means
        nearest = torch.cdist(mean, chosen).argmin(1)
        weight = torch.bincount(nearest, count, minlength=len(chosen))
        total = chosen.new_zeros(chosen.shape).index_add_(0, nearest, mean * count[:, None])
        chosen = torch.where(weight[:, None] > 0, total / weight[:, None].clamp(min=1), chosen)
    nearest = torch.cdist(mean, chosen).argmin(1) if len(used) else inside
    return chosen, nearest[inside]


def alike(colour: Tensor, palette: Tensor) -> Tensor:
    """Which of the palette (P, 3) each of the colours (N, 3) is like most, (N,)."""
    parts = [torch.cdist(part, palette).argmin(1) for part in colour.split(AT_ONCE)]
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.int64, device=colour.device)
