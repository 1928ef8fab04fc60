"""Fuses recorded pictures into a place's map: every pixel whose distance the depth tells becomes a point of a block.

Shape key: B pictures, h, w rows and columns of the nearness grid, S samples along a ray.
A block is solid where enough rays ended in it for those that went through; its colour is the mean of the pixels that
ended there, the nearer the more. Poses are exact, so nothing has to be aligned.

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
from generator.tokenizer.camera_rays import Rays
from generator.tokenizer.parallax import Parallax
from generator.tokenizer.place_map import CELL, FINEST, PlaceMap
from generator.training.known_depth import TrueDepth
from generator.training.place_sky import SKY, SkyFusion
from generator.training.windows import to_video

REACH = 640.0  # map units: depth is less sure of what is farther
SURE = 1500.0  # map units: how far exact depth reaches; the tops of towers are seen from afar only
SHORT = 1.5 * FINEST  # how far before its end a ray surely met nothing
SAMPLES = 24  # of what a ray went through
BEHIND = (0.25 * FINEST, 1.25 * FINEST)  # map units past a surface: it is two blocks thick, few rays slip through
JUST_BEHIND = (0.25, 0.5)  # the same where depth is exact: what lies farther behind an edge is not there
LEAST, SHARE = 3, 0.3  # rays that must end in a block, and their share of all that reach it
AT_ONCE = 16  # pictures
TURN = 0.6180339887  # of the samples' places from ray to ray: they never line up


class Fusion:
    """Sums over blocks and sky while pictures are fused; blocks are marked so far behind where rays end, within reach.

    Depth is `exact` or a network's.
    """

    def __init__(self, place_map: PlaceMap, same: list[list[float]], exact: bool = False) -> None:
        self.map, self.same, self.sky = place_map, same, SkyFusion(place_map.sky)
        self.behind, self.reach = (JUST_BEHIND, SURE) if exact else (BEHIND, REACH)
        blocks, device = place_map.blocks, place_map.palette.device
        self.ended, self.passed = torch.zeros(blocks, device=device), torch.zeros(blocks, device=device)
        self.colour, self.weight = torch.zeros(blocks, 3, device=device), torch.zeros(blocks, device=device)
        self.fused = 0

    def add(self, pictures: Tensor, pose: Tensor, nearness: Tensor, edge: float, stretch: float) -> None:
        """Pictures (B, 3, Y, X) in [-1, 1] taken at pose (B, 4 or 5), nearness (B, 1, h, w) in 1 / map units."""
        height, width = nearness.shape[-2:]
        colours = nnf.adaptive_avg_pool2d(pictures, (height, width)).permute(0, 2, 3, 1)  # (B, h, w, 3)
        far = 1 / nearness[:, 0].clamp(min=1e-6)  # (B, h, w)
        rays = Rays(pose, edge, stretch, height, width, lower=self.map.lower)
        near = far < self.reach
        self.sky.add(rays, colours, far > SKY)
        shift = (torch.arange(far.numel(), device=far.device).view_as(far) + self.fused * far[0].numel()) * TURN % 1.0
        self.fused += len(far)
        surely = (far.clamp(max=self.reach) - SHORT - CELL).clamp(min=0.0)
        share = (torch.arange(SAMPLES, device=far.device) + shift[..., None]) / SAMPLES  # (B, h, w, S)
        along = CELL + surely[..., None] * share
        each = (surely / (SAMPLES * FINEST))[..., None].expand_as(along)  # blocks that a sample stands for
        for step in self.same:
            for behind in self.behind:
                number, within = self._number(rays, step, (far + behind)[..., None])
                chosen = within[..., 0] & near
                number, weight = number[..., 0][chosen], 1 / far[chosen].clamp(min=CELL)
                self.ended.index_add_(0, number, torch.ones_like(weight))
                self.weight.index_add_(0, number, weight)
                self.colour.index_add_(0, number, colours[chosen] * weight[:, None])
            number, within = self._number(rays, step, along)
            free = within & (each > 0)
            self.passed += torch.bincount(number[free], each[free], minlength=len(self.passed))

    def _number(self, rays: Rays, step: list[float], far: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks where rays are at distances (B, h, w, S), and whether the map has them, `step` from here."""
        x, y = (start + move + slope[..., None] * far for (start, slope), move in zip(rays.plan(), step, strict=True))
        return self.map.number(x, y, rays.up[..., None] * far + self.map.rise(rays.pose)[..., None])

    def finish(self) -> None:
        """Fill the map."""
        solid = (self.ended >= LEAST) & (self.ended > SHARE * (self.ended + self.passed))
        where = solid.nonzero().flatten()
        self.map.light.forget()
        self.map.fill(where, self.colour[where] / self.weight[where, None])
        self.sky.finish()


@torch.no_grad()
def map_place(parallax: Parallax, data: Dataset, count: int, rng: np.random.Generator, known: bool = False) -> None:
    """Fuse about `count` random training pictures of the place into its map, seen by the parallax's depth, or by the
    true one where it is `known`.
    """
    place = parallax.place
    assert place is not None and place.map is not None, "only a place with levels has a map"
    clips, edge = data.select("train"), math.tan(math.radians(data.meta["hfov"]) / 2)
    fusion, device = Fusion(place.map, place.same, known), parallax.log_stretch.device
    true_depth, each, (width, height) = TrueDepth(data, "levels=0", exact=True), max(1, count // len(clips)), data.size
    pictures, poses, true = [], [], []

    def fuse() -> None:
        shown, pose = to_video(np.stack(pictures)).to(device), torch.from_numpy(np.stack(poses)).float().to(device)
        if known:
            near = torch.from_numpy(np.concatenate(true))[:, None].to(device)
        else:
            seen = parallax.perceive(shown).nearness.float() / parallax.config.unit
            near = nnf.interpolate(seen, (height // 2, width // 2), mode="bilinear", align_corners=False)
        fusion.add(shown, pose, near, edge, float(parallax.stretch.detach()))
        for made in (pictures, poses, true):
            made.clear()

    for index in clips:
        clip = data.clip(index)
        for frame in rng.choice(len(clip.pose), min(each, len(clip.pose)), replace=False):
            pictures.append(clip.frames(int(frame), 1)[0])
            poses.append(clip.pose[frame, PLAN])
            if known:
                true.append(true_depth(index, clip.pose[frame : frame + 1], (width // 2, height // 2)))
            if len(pictures) == AT_ONCE:
                fuse()
    if pictures:
        fuse()
    fusion.finish()
