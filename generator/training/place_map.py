"""Fuses recorded pictures into a place's map: every pixel whose distance the depth tells becomes a point of a block.

Shape key: B pictures, h, w rows and columns of the nearness grid, R = h * w rays, S samples along a ray.
A block is solid where enough rays ended in it for those that went through; its colour is the mean of the pixels that
ended there. Poses are exact, so nothing has to be aligned.

Does not know of play.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from generator.data.clips import Dataset
from generator.data.latents import PLAN
from generator.tokenizer.parallax import Parallax
from generator.tokenizer.place_map import CELL, PlaceMap, Rays
from generator.training.windows import to_video

REACH = 640.0  # map units: depth is less sure of what is farther
SKY = 1800.0  # map units from which on all is sky
SHORT = 1.5 * CELL  # how far before its end a ray surely met nothing
STEP = 0.75 * CELL  # between the samples of what a ray went through
LEAST, SHARE = 3, 0.3  # rays that must end in a block, and their share of all that reach it
LEVEL = 2.0  # map units: pictures from another height, within a jump say, are left out
AT_ONCE = 16  # pictures


class Fusion:
    """Sums over blocks and sky while pictures are fused."""

    def __init__(self, place_map: PlaceMap, same: list[list[float]]) -> None:
        self.map, self.same = place_map, same
        blocks, sky = place_map.solid.numel(), place_map.sky.shape[0] * place_map.sky.shape[1]
        device = place_map.solid.device
        self.ended, self.passed = torch.zeros(blocks, device=device), torch.zeros(blocks, device=device)
        self.colour = torch.zeros(blocks, 3, device=device)
        self.skies, self.sky = torch.zeros(sky, device=device), torch.zeros(sky, 3, device=device)

    def add(self, pictures: Tensor, pose: Tensor, nearness: Tensor, edge: float, stretch: float) -> None:
        """Pictures (B, 3, Y, X) in [-1, 1] taken at pose (B, 4), nearness (B, 1, h, w) in 1 / map units."""
        height, width = nearness.shape[-2:]
        colours = nnf.adaptive_avg_pool2d(pictures, (height, width)).flatten(2).transpose(1, 2)  # (B, R, 3)
        far = 1 / nearness.flatten(1).clamp(min=1e-6)  # (B, R)
        rays = Rays(pose, edge, stretch, height, width)
        near, sky = far < REACH, far > SKY
        cells = self.map.sky_cells(rays.azimuth, rays.up)[sky]
        self.sky.index_add_(0, cells, colours[sky])
        self.skies.index_add_(0, cells, torch.ones_like(far[sky]))
        along = torch.arange(CELL, REACH, STEP, device=far.device).expand(*far.shape, -1)  # (B, R, S)
        (x, east), (y, north), (_, up) = rays.lines()
        for step in self.same:
            ends = far + 0.25 * CELL  # just behind the surface
            number, within = self.map.blocks(x + step[0] + east * ends, y + step[1] + north * ends, up * ends)
            chosen = within & near
            self.ended.index_add_(0, number[chosen], torch.ones_like(far[chosen]))
            self.colour.index_add_(0, number[chosen], colours[chosen])
            number, within = self.map.blocks(
                x[..., None] + step[0] + east[..., None] * along,
                y[..., None] + step[1] + north[..., None] * along,
                up[..., None] * along,
            )
            free = number[within & (along < far[..., None] - SHORT)]
            self.passed += torch.bincount(free, minlength=len(self.passed)).to(self.passed)

    def finish(self) -> None:
        """Fill the map."""
        shape = self.map.solid.shape
        solid = (self.ended >= LEAST) & (self.ended > SHARE * (self.ended + self.passed * STEP / CELL))
        self.map.solid.copy_(solid.float().view(shape))
        self.map.colour.copy_((self.colour / self.ended.clamp(min=1)[:, None]).view(*shape, 3))
        mean = self.sky.sum(0) / self.skies.sum().clamp(min=1)
        sky = torch.where(self.skies[:, None] > 0, self.sky / self.skies.clamp(min=1)[:, None], mean)
        self.map.sky.copy_(sky.view_as(self.map.sky))


@torch.no_grad()
def map_place(parallax: Parallax, data: Dataset, count: int, rng: np.random.Generator) -> None:
    """Fuse about `count` random training pictures of the place into its map, seen by the parallax's depth."""
    place = parallax.place
    assert place is not None and place.map is not None, "only a place with levels has a map"
    clips, edge = data.select("train"), math.tan(math.radians(data.meta["hfov"]) / 2)
    fusion, device = Fusion(place.map, place.same), parallax.log_stretch.device
    each = max(1, count // len(clips))
    pictures, poses = [], []

    def fuse() -> None:
        shown, pose = to_video(np.stack(pictures)).to(device), torch.from_numpy(np.stack(poses)).float().to(device)
        nearness = parallax.perceive(shown).nearness.float() / parallax.config.unit
        fusion.add(shown, pose, nearness, edge, float(parallax.stretch.detach()))
        pictures.clear()
        poses.clear()

    for index in clips:
        clip = data.clip(index)
        level = np.nonzero(np.abs(clip.pose[:, 2] - np.median(clip.pose[:, 2])) < LEVEL)[0]
        for frame in rng.choice(level, min(each, len(level)), replace=False):
            pictures.append(clip.frames(int(frame), 1)[0])
            poses.append(clip.pose[frame, PLAN])
            if len(pictures) == AT_ONCE:
                fuse()
    if pictures:
        fuse()
    fusion.finish()
