"""Finds the colours of a place's sky in recorded pixels that have nothing but sky around them.

Shape key: B pictures, h, w rows and columns of rays, S, T slopes and turns of the sky's cells.
A pixel beside a roof is of both, and would smear the roof along the sky. Cells that no picture shows get the mean of
the smallest square of cells around them that has any.

Does not know how pictures were chosen.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from generator.data.clips import Dataset
from generator.tokenizer.camera_rays import Rays
from generator.tokenizer.place import Place
from generator.tokenizer.place_sky import Sky
from generator.training.place_pixels import Recorded

SKY = 1800.0  # map units from which on all is sky


class SkyFusion:
    """Sums over the cells of a sky while pictures are looked at: `add`, then `finish`."""

    def __init__(self, sky: Sky) -> None:
        self.sky, shape, device = sky, sky.codes.shape, sky.codes.device
        self.count, self.total = torch.zeros(shape, device=device), torch.zeros(*shape, 3, device=device)

    def add(self, rays: Rays, colours: Tensor, sky: Tensor) -> None:
        """Colours (B, h, w, 3) of the pixels that rays go through, and which of them show the `sky` (B, h, w)."""
        beside = nnf.max_pool2d((~sky)[:, None].float(), 3, 1, 1)[:, 0] > 0
        cells = self.sky.cells(rays.azimuth, rays.up)[~beside]
        self.count.view(-1).index_add_(0, cells, torch.ones_like(cells, dtype=torch.float32))
        self.total.view(-1, 3).index_add_(0, cells, colours[~beside])

    def finish(self) -> None:
        """Fill the sky, if any was seen."""
        if self.count.any():
            self.sky.fill(spread_out(self.count, self.total))


def spread_out(count: Tensor, total: Tensor) -> Tensor:
    """Mean colours (S, T, 3) of cells of which there are `count` (S, T) and a sum `total` (S, T, 3), of all S, T."""
    mean, seen = total / count.clamp(min=1)[..., None], (count > 0)[..., None]
    if bool(seen.all()) or min(count.shape) == 1:
        return torch.where(seen, mean, total.sum((0, 1)) / count.sum())
    pooled = torch.cat([count[..., None], total], dim=-1).permute(2, 0, 1)[None]
    pooled = nnf.avg_pool2d(pooled, 2, ceil_mode=True)[0].permute(1, 2, 0) * 4
    wider = spread_out(pooled[..., 0], pooled[..., 1:])
    wider = wider.repeat_interleave(2, 0).repeat_interleave(2, 1)[: count.shape[0], : count.shape[1]]
    return torch.where(seen, mean, wider)


@torch.no_grad()
def sky_place(place: Place, stretch: float, data: Dataset, count: int, rng: np.random.Generator) -> None:
    """Find the sky of the place's map from about `count` random training pictures, whose depth is known."""
    recorded = Recorded(place, stretch, data, count, rng, "skies=0")
    assert place.map is not None
    fusion = SkyFusion(place.map.sky)
    for pictures, pose, near in recorded.pictures("sky"):
        rays = Rays(pose, recorded.edge, stretch, *pictures.shape[-2:], lower=place.map.lower)
        fusion.add(rays, pictures.permute(0, 2, 3, 1), near < 1 / SKY)
    fusion.finish()
