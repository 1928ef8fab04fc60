"""A place's map: what stands where, as coloured blocks that recorded pictures were fused into, and coarse views of it.

Shape key: n poses, L levels of height, N x N cells of the plan, h, w rows and columns of rays, R rays.
A pose is x, y in map units, yaw and pitch in degrees; the eye's height is that of the recordings. A block is CELL units
wide and high. Where a ray meets no block it sees the sky, which depends on its direction only.
What a network has not seen for a while it can be shown again: a coarse view from where it stands, from which it paints
the picture. Ours, after world models with a spatial memory of fused points (Wu et al. 2025, Video World Models with
Long-term Spatial Memory); here the memory is made once, of the recordings (training/place_map.py).

Does not know networks, latents, or how a pose was found.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

CELL = 16.0  # map units
BELOW = 65.0  # map units from the lowest level's bottom to the eye
FIRST, NEAR_STEP, GROWTH, FAR = 10.0, 8.0, 0.03, 1600.0  # where rays are asked, in map units along the heading
TURNS, SLOPES, LOWEST, HIGHEST = 180, 24, -0.1, 1.1  # cells of the sky: around, and up by slope
VIEW = 4  # rays per latent cell along each side
CHANNELS = 4 * VIEW * VIEW  # of a view: three colours and nearness of each ray of a latent cell
UNIT = 64.0  # nearness is told in 1 / so many map units


class PlaceMap(nn.Module):
    """Blocks and sky of a place of this period; empty until it is filled (`solid`, `colour` and `sky` are buffers)."""

    solid: Tensor
    colour: Tensor
    sky: Tensor

    def __init__(self, period: float, levels: int) -> None:
        super().__init__()
        cells = math.ceil(period / CELL)
        self.period, self.levels = period, levels
        self.register_buffer("solid", torch.zeros(levels, cells, cells))
        self.register_buffer("colour", torch.zeros(levels, cells, cells, 3))
        self.register_buffer("sky", torch.zeros(SLOPES, TURNS, 3))

    def blocks(self, x: Tensor, y: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the blocks that points lie in, and whether (bool) they are at a height that the map has.

        x, y in map units and `up` above the eye, of one shape.
        """
        cells = self.solid.shape[-1]
        column, row = ((torch.remainder(v, self.period) / CELL).long().clamp_(max=cells - 1) for v in (x, y))
        level = ((up + BELOW) / CELL).floor().long()
        return (level.clamp(0, self.levels - 1) * cells + row) * cells + column, (level >= 0) & (level < self.levels)

    def sky_cells(self, azimuth: Tensor, up: Tensor) -> Tensor:
        """Numbers of the sky's cells in directions: azimuth in degrees, `up` as a slope."""
        turn = (torch.remainder(azimuth, 360.0) / 360.0 * TURNS).long().clamp_(max=TURNS - 1)
        slope = ((up - LOWEST) / (HIGHEST - LOWEST) * SLOPES).long().clamp_(0, SLOPES - 1)
        return slope * TURNS + turn

    def view(self, pose: Tensor, edge: float, stretch: float, height: int, width: int) -> Tensor:
        """What a camera at pose (n, 4), whose picture ends at slope `edge`, sees: (n, 4, height, width), colours in
        [-1, 1] and nearness in 1 / UNIT map units.
        """
        pose = pose.float()
        rays = Rays(pose, edge, stretch, height, width)
        far = distances(pose.device)  # (D,)
        x, y, up = (start[..., None] + step[..., None] * far for start, step in rays.lines())
        number, within = self.blocks(x, y, up)
        met = (self.solid.flatten()[number] > 0.5) & within
        first = met.to(torch.uint8).argmax(-1, keepdim=True)
        hit = met.gather(-1, first)[..., 0]
        seen = self.colour.flatten(0, 2)[number.gather(-1, first)[..., 0]].float()
        above = self.sky.flatten(0, 1)[self.sky_cells(rays.azimuth, rays.up)].float()
        colours = torch.where(hit[..., None], seen, above)
        nearness = torch.where(hit, UNIT / far[first[..., 0]], 0.0)
        return torch.cat([colours, nearness[..., None]], dim=-1).unflatten(1, (height, width)).permute(0, 3, 1, 2)


class Rays:
    """The rays of cameras at poses (n, 4) through a grid of h x w, R = h * w of each: slopes per unit of heading."""

    def __init__(self, pose: Tensor, edge: float, stretch: float, height: int, width: int) -> None:
        across = ((torch.arange(width, device=pose.device) + 0.5) / width * 2 - 1) * edge
        down = ((torch.arange(height, device=pose.device) + 0.5) / height * 2 - 1) * edge * (height / width) / stretch
        yaw, pitch = torch.deg2rad(pose[:, 2:4]).unbind(-1)
        right = across.repeat(height)[None]
        self.pose = pose
        self.up = pitch.tan()[:, None] - down.repeat_interleave(width)[None]
        self.east = yaw.cos()[:, None] - right * yaw.sin()[:, None]
        self.north = -yaw.sin()[:, None] - right * yaw.cos()[:, None]
        self.azimuth = pose[:, 2:3] + torch.rad2deg(right.atan())

    def lines(self) -> list[tuple[Tensor, Tensor]]:
        """Start (n, 1) and step (n, R) per unit of heading, of x, y and what is above the eye."""
        zero = torch.zeros_like(self.pose[:, :1])
        return [(self.pose[:, :1], self.east), (self.pose[:, 1:2], self.north), (zero, self.up)]


def distances(device: torch.device) -> Tensor:
    """Where along a heading rays are asked (D,): closely at first, then in growing steps."""
    found = [FIRST]
    while found[-1] < FAR:
        found.append(found[-1] + max(NEAR_STEP, GROWTH * found[-1]))
    return torch.tensor(found, device=device)
