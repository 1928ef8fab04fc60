"""Finds what a place's blocks have on them: recorded pixels that ended on each, first for its plane, then for colours.

Shape key: B pictures, Y, X picture size, N blocks.
A recorded picture is looked at once more through the map that was made of it: where a ray meets a block near where the
recording's ray ended, the pixel is of that block, and the very rule that views are drawn by says of which texel. Poses
and depth are exact, so nothing has to be aligned.

Does not know of play.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from generator.data.clips import Dataset
from generator.data.latents import PLAN
from generator.tokenizer.camera_rays import Rays
from generator.tokenizer.place import Place
from generator.tokenizer.place_faces import BEFORE, DEPTH, ROUGH, STEPS, TEXELS, Met
from generator.tokenizer.place_map import AT_ONCE, COLOURS, FINEST, PlaceMap, asked_at, few
from generator.training.known_depth import TrueDepth
from generator.training.windows import to_video

NEAR = 400.0  # map units: what was farther away says little about a texel
BESIDE = 1.5 * FINEST  # map units between where a recorded ray ended and where the map has it end, at most
FLAT = 0.5  # map units that recorded points lie off a plane, at most
ANOTHER = 0.025  # levels of -1..1 that texels are off their block's colour, for the block to have a face
MOST = 220_000  # faces: those that would be most missed
PICTURES = 8  # at once


@dataclass
class Ended:
    """Pixels that ended on blocks: which (P,), counted from 0 in order, their `colour` (P, 3), how near (P,) in 1 / map
    units, and where in the block.
    """

    block: Tensor
    colour: Tensor
    near: Tensor
    met: Met


def within(place_map: PlaceMap, rays: Rays, far: Tensor, number: Tensor) -> Met:
    """Where rays are at distances (n, h, w) in blocks of these numbers, of which they may have just left."""
    (x, east), (y, north) = ((start[..., 0] + step * far, step) for start, step in rays.plan())
    column, level = number // place_map.heights, number % place_map.heights
    half = place_map.period / 2
    parts = []
    for v, cell in ((x, column % place_map.cells), (y, column // place_map.cells)):
        parts.append(torch.remainder(v - cell * FINEST + half, place_map.period) - half)
    parts.append(rays.up * far + place_map.above(rays.pose) - level * FINEST)
    return Met(*torch.broadcast_tensors(east, north, rays.up, *parts))


def ended(place_map: PlaceMap, order: Tensor, pictures: Tensor, pose: Tensor, near: Tensor, view: tuple) -> Ended:  # type: ignore[type-arg]
    """What of pictures (B, 3, Y, X) at pose (B, 5), nearness (B, Y, X) in 1 / map units, ended on blocks, which `order`
    (blocks,) counts; `view` is edge and stretch.
    """
    edge, stretch = view
    rays = Rays(pose, edge, stretch, *pictures.shape[-2:])
    _, away = place_map.look(rays, asked_at(2 * edge / pictures.shape[-1]), whole=True)
    number, _ = place_map.met(rays, away)
    far = 1 / near.clamp(min=1e-6)
    chosen = (away > 0) & (far < NEAR) & ((away - far).abs() < BESIDE)
    met = within(place_map, rays, far, number)
    parts = (getattr(met, name)[chosen] for name in ("east", "north", "up", "x", "y", "z"))
    return Ended(order[number[chosen]], pictures.permute(0, 2, 3, 1)[chosen], near[chosen], Met(*parts))


class FaceFusion:
    """Sums over the blocks of a map: `lie` for all pictures, then `settle`, then `paint` for all, then `finish`."""

    def __init__(self, place_map: PlaceMap) -> None:
        self.map, count = place_map, len(place_map.where)
        self.order = torch.full((place_map.blocks,), -1, dtype=torch.int64)
        self.order[place_map.where.long()] = torch.arange(count)
        self.count, self.sums, self.squares = torch.zeros(count), torch.zeros(count, 3), torch.zeros(count, 3)
        self.colour, self.weight = torch.zeros(count * TEXELS**2, 3), torch.zeros(count * TEXELS**2)
        self.plane = torch.zeros(0, dtype=torch.int64)

    def lie(self, pixels: Ended) -> None:
        """Where the pixels of a block lie."""
        at = torch.stack([pixels.met.x, pixels.met.y, pixels.met.z], dim=1)
        self.count.index_add_(0, pixels.block, torch.ones_like(pixels.near))
        self.sums.index_add_(0, pixels.block, at)
        self.squares.index_add_(0, pixels.block, at.square())

    def settle(self) -> None:
        """Choose each block's plane."""
        count = self.count.clamp(min=1)[:, None]
        mean = self.sums / count
        spread, axis = (self.squares / count - mean.square()).clamp(min=0).sqrt().min(1)
        deep = mean.gather(1, axis[:, None])[:, 0]
        step = ((deep + BEFORE) / DEPTH).round().long()
        flat = (spread < FLAT) & (step >= 0) & (step < STEPS)
        self.plane = torch.where(flat, axis * STEPS + step.clamp(0, STEPS - 1), ROUGH + axis)

    def paint(self, pixels: Ended) -> None:
        """The colours of the pixels of a block, by texel."""
        texel = pixels.block * TEXELS**2 + self.map.faces.texel(self.plane[pixels.block], pixels.met)
        self.weight.index_add_(0, texel, pixels.near)
        self.colour.index_add_(0, texel, pixels.colour * pixels.near[:, None])

    def finish(self) -> None:
        """Give the map faces, and a palette of their colours and of what it had."""
        seen = (self.weight > 0).view(-1, TEXELS**2)
        colour = (self.colour / self.weight.clamp(min=1e-9)[:, None]).view(-1, TEXELS**2, 3)
        own = self.map.palette.float()[self.map.what.long()]
        off = (colour - own[:, None]).square().mean(-1) * self.weight.view(-1, TEXELS**2)  # 0 where nothing was seen
        gain = off.sum(1)
        faced = torch.zeros(len(own), dtype=torch.bool)
        faced[gain.argsort(descending=True)[:MOST]] = True
        faced &= gain > ANOTHER**2 * self.weight.view(-1, TEXELS**2).sum(1)
        shown = seen[faced]
        where, plane = self.map.where.clone(), self.plane[faced]
        made, which = few(torch.cat([own, colour[faced][shown]]), COLOURS)
        self.map.fill(where.long(), made[which[: len(own)]])
        palette = self.map.palette.float()[1:]
        codes = torch.zeros(shown.shape, dtype=torch.uint8)
        alike = [torch.cdist(part, palette).argmin(1) + 1 for part in made[which[len(own) :]].split(AT_ONCE)]
        codes[shown] = torch.cat(alike).to(torch.uint8) if alike else codes[shown]
        self.map.faces.fill(where[faced], plane, codes)


@torch.no_grad()
def face_place(place: Place, stretch: float, data: Dataset, count: int, rng: np.random.Generator) -> None:
    """Find the faces of the place's map from about `count` random training pictures, whose depth is known."""
    assert place.map is not None, "only a map has blocks"
    edge = math.tan(math.radians(data.meta["hfov"]) / 2)
    fusion, clips = FaceFusion(place.map), data.select("train")
    each = max(1, count // len(clips))
    chosen = {i: np.sort(rng.choice(len(data.clip(i)), min(each, len(data.clip(i))), replace=False)) for i in clips}
    true_depth = TrueDepth(data, "faces=0", exact=True)

    def pixels(name: str) -> Iterator[Ended]:
        for index in tqdm(clips, desc=name):
            clip = data.clip(index)
            for part in np.array_split(chosen[index], -(-len(chosen[index]) // PICTURES)):
                pictures = to_video(np.stack([clip.frames(int(frame), 1)[0] for frame in part]))
                near = torch.from_numpy(true_depth(index, clip.pose[part], data.size))
                pose = torch.from_numpy(clip.pose[part][:, PLAN]).float()
                for step in place.same:
                    there = pose.clone()
                    there[:, :2] += torch.tensor(step)
                    yield ended(place.map, fusion.order, pictures, there, near, (edge, stretch))  # type: ignore[arg-type]

    for found in pixels("planes of faces"):
        fusion.lie(found)
    fusion.settle()
    for found in pixels("colours of faces"):
        fusion.paint(found)
    fusion.finish()
