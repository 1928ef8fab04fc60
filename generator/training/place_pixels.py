"""Recorded pixels that ended on the blocks of a place's map, found by looking at the pictures once more through it.

Shape key: B pictures, Y, X picture size, P pixels.
Where a ray of the map meets a block near where the recording's ray ended, the pixel is of that block. Poses and depth
are exact, so nothing has to be aligned.

Does not know what is learned of the pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from generator.data.clips import Dataset
from generator.data.latents import PLAN
from generator.tokenizer.camera_rays import Rays
from generator.tokenizer.place import Place
from generator.tokenizer.place_faces import Met
from generator.tokenizer.place_map import FINEST, PlaceMap, asked_at
from generator.training.known_depth import TrueDepth
from generator.training.windows import to_video

BESIDE = 1.5 * FINEST  # map units between where a recorded ray ended and where the map has it end, at most
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

    def some(self, which: Tensor) -> Ended:
        """Those of the pixels that are chosen, bool (P,)."""
        parts = {part.name: getattr(self.met, part.name)[which] for part in fields(Met)}
        return Ended(self.block[which], self.colour[which], self.near[which], Met(**parts))


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


def ended(
    place_map: PlaceMap,
    order: Tensor,
    pictures: Tensor,
    pose: Tensor,
    near: Tensor,
    view: tuple[float, float],
    reach: float,
) -> Ended:
    """What of pictures (B, 3, Y, X) at pose (B, 5), nearness (B, Y, X) in 1 / map units, ended on blocks, which `order`
    (blocks,) counts, within `reach` map units; `view` is edge and stretch.
    """
    edge, stretch = view
    rays = Rays(pose, edge, stretch, *pictures.shape[-2:], lower=place_map.lower)
    _, away = place_map.look(rays, asked_at(2 * edge / pictures.shape[-1]), whole=True)
    number, _ = place_map.met(rays, away)
    far = 1 / near.clamp(min=1e-6)
    chosen = (away > 0) & (far < reach) & ((away - far).abs() < BESIDE)
    chosen &= order[number] >= 0  # some rays that graze an edge are told to be in the block beside it
    met = within(place_map, rays, far, number)
    parts = (getattr(met, name)[chosen] for name in ("east", "north", "up", "x", "y", "z"))
    return Ended(order[number[chosen]], pictures.permute(0, 2, 3, 1)[chosen], near[chosen], Met(*parts))


@dataclass
class Recorded:
    """About `count` random training pictures of a place whose depth is known; `without` is the setting that does
    without them.
    """

    place: Place
    stretch: float
    data: Dataset
    count: int
    rng: np.random.Generator
    without: str

    def __post_init__(self) -> None:
        assert self.place.map is not None, "only a map has blocks"
        clips = self.data.select("train")
        each = max(1, self.count // len(clips))
        frames = {i: int(self.data.entry(i)["frames"]) for i in clips}
        self.chosen = {i: np.sort(self.rng.choice(n, min(each, n), replace=False)) for i, n in frames.items()}
        self.edge = math.tan(math.radians(self.data.meta["hfov"]) / 2)
        self.true_depth = TrueDepth(self.data, self.without, exact=True)

    def twice(
        self,
        whats: tuple[str, str],
        reach: float,
        first: Callable[[Ended], None],
        between: Callable[[], None],
        second: Callable[[Ended], None],
    ) -> None:
        """Hand all pixels within `reach` map units to one and then to another; `whats` are said meanwhile."""
        for found in self.pixels(whats[0], reach):
            first(found)
        between()
        for found in self.pixels(whats[1], reach):
            second(found)

    def pixels(self, what: str, reach: float) -> Iterator[Ended]:
        """Their pixels on blocks within `reach` map units, some pictures at a time; `what` is said meanwhile."""
        place, view = self.place, (self.edge, self.stretch)
        assert place.map is not None
        order = torch.full((place.map.blocks,), -1, dtype=torch.int64)
        order[place.map.where.long()] = torch.arange(len(place.map.where))
        for pictures, pose, near in self.pictures(what):
            for step in place.same:
                there = pose.clone()
                there[:, :2] += torch.tensor(step)
                yield ended(place.map, order, pictures, there, near, view, reach)

    def pictures(self, what: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Themselves (B, 3, Y, X) in [-1, 1], their poses (B, 5) and nearness (B, Y, X); `what` is said meanwhile."""
        for index, frames in tqdm(self.chosen.items(), desc=what):
            clip = self.data.clip(index)
            for part in np.array_split(frames, -(-len(frames) // PICTURES)):
                pictures = to_video(np.stack([clip.frames(int(frame), 1)[0] for frame in part]))
                near = torch.from_numpy(self.true_depth(index, clip.pose[part], self.data.size))
                yield pictures, torch.from_numpy(clip.pose[part][:, PLAN]).float(), near
