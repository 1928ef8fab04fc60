"""Finds what a place's blocks have on them: recorded pixels that ended on each, first for its plane, then for colours.

Shape key: B pictures, Y, X picture size, N blocks.
A recorded picture is looked at once more through the map that was made of it: where a ray meets a block near where the
recording's ray ended, the pixel is of that block, and the very rule that views are drawn by says of which texel. Poses
and depth are exact, so nothing has to be aligned.

Does not know of play.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor

from generator.data.clips import Dataset
from generator.tokenizer.palettes import alike, few
from generator.tokenizer.place import Place
from generator.tokenizer.place_faces import BEFORE, DEPTH, MOST, RISING, ROUGH, SINKING, STEPS, TEXELS
from generator.tokenizer.place_map import COLOURS, PlaceMap
from generator.training.place_light import at_hand, left_of
from generator.training.place_pixels import Ended, Recorded

NEAR = 400.0  # map units: what was farther away says little about a texel
FLAT = 0.5  # map units that recorded points lie off a plane, at most
SIDES, AT_ONCE = 6, 20_000  # of a block, two along each axis; blocks whose planes are chosen at once
FEWEST, ALONE, ANOTHER_SIDE = 8, 0.4, 0.15  # pixels that a plane needs, more by a share of the block's, or of what its
# other planes have
MIDDLE = 1.0  # of three steps beside one another the middle one counts for so much more
ANOTHER = 0.025  # levels of -1..1 that texels are off their block's colour, for the block to have a face


class FaceFusion:
    """Sums over the blocks of a map: `lie` for all pictures, then `settle`, then `paint` for all, then `finish`.

    A block has a face in the plane that most of its pixels lie in, seen from one side, and at corners others in planes
    that many more do: `block`, `plane` and `facing` (F,), and by block which those are, `faces` (N, MOST), -1: none.
    """

    def __init__(self, place_map: PlaceMap, most: int) -> None:
        self.map, self.most, count = place_map, most, len(place_map.where)
        self.count, self.sums, self.squares = torch.zeros(count), torch.zeros(count, 3), torch.zeros(count, 3)
        self.bins = torch.zeros(count * SIDES * STEPS, dtype=torch.int32)
        self.block = self.plane = self.facing = torch.zeros(0, dtype=torch.int64)
        self.faces = torch.full((count, MOST), -1)
        self.colour, self.weight = torch.zeros(0, 3), torch.zeros(0)

    def lie(self, pixels: Ended) -> None:
        """Where the pixels of a block lie."""
        met = pixels.met
        at = torch.stack([met.x, met.y, met.z], dim=1)
        self.count.index_add_(0, pixels.block, torch.ones_like(pixels.near))
        self.sums.index_add_(0, pixels.block, at)
        self.squares.index_add_(0, pixels.block, at.square())
        sides = torch.arange(3) * 2 + (torch.stack([met.east, met.north, met.up], dim=1) <= 0)
        step = ((at + BEFORE) / DEPTH).round().long()
        number = (pixels.block[:, None] * SIDES + sides) * STEPS + step
        number = number[(step >= 0) & (step < STEPS)]
        self.bins.index_add_(0, number, torch.ones_like(number, dtype=torch.int32))

    def settle(self) -> None:
        """Choose each block's planes."""
        rough = self._usual()
        parts = [self._planes(rough, begin) for begin in range(0, len(self.count), AT_ONCE)]
        plane, facing = (
            torch.cat(part) for part in zip(*parts, strict=True)
        )  # (N, MOST), plane -1 where there is none
        there = plane >= 0
        self.block, _ = there.nonzero().unbind(1)
        self.plane, self.facing = plane[there], facing[there]
        self.faces[there] = torch.arange(len(self.block))
        self.bins = torch.zeros(0, dtype=torch.int32)
        self.colour, self.weight = torch.zeros(len(self.block) * TEXELS**2, 3), torch.zeros(len(self.block) * TEXELS**2)

    def _usual(self) -> Tensor:
        """The plane (N,) that fits all pixels of a block best, if only roughly."""
        count = self.count.clamp(min=1)[:, None]
        mean = self.sums / count
        spread, axis = (self.squares / count - mean.square()).clamp(min=0).sqrt().min(1)
        deep = mean.gather(1, axis[:, None])[:, 0]
        step = ((deep + BEFORE) / DEPTH).round().long()
        flat = (spread < FLAT) & (step >= 0) & (step < STEPS)
        return torch.where(flat, axis * STEPS + step.clamp(0, STEPS - 1), ROUGH + axis)

    def _planes(self, usual: Tensor, begin: int) -> tuple[Tensor, Tensor]:
        """Planes (n, MOST) of blocks from `begin` on, and which rays see them."""
        count, usual = self.count[begin : begin + AT_ONCE], usual[begin : begin + AT_ONCE]
        bins = self.bins[begin * SIDES * STEPS : (begin + len(count)) * SIDES * STEPS].view(-1, SIDES, STEPS).float()
        near = nnf.avg_pool1d(bins, 3, 1, 1) * 3 + MIDDLE * bins
        planes, facings, taken = torch.full((len(count), MOST), -1), torch.zeros(len(count), MOST).long(), 0 * count
        steps = torch.arange(STEPS)
        for k in range(MOST):
            most, number = near.flatten(1).max(1)
            side, step = number // STEPS, number % STEPS
            enough = most >= FEWEST + (ALONE * count if k == 0 else ANOTHER_SIDE * taken)
            enough &= (planes[:, k - 1] >= 0) | (k == 0)
            planes[enough, k] = (side // 2 * STEPS + step)[enough]
            facings[enough, k] = torch.where(side % 2 == 0, RISING, SINKING)[enough]
            taken = taken + most * enough
            apart = (steps - step[:, None]).abs() > FLAT / DEPTH
            here = torch.arange(SIDES) == side[:, None]
            near = near * (~here[..., None] | apart[:, None])
        single = planes[:, 1] < 0
        planes[:, 0] = torch.where(single & (planes[:, 0] < 0), usual, planes[:, 0])
        facings[single, 0] = 0
        return planes, facings

    def paint(self, pixels: Ended) -> None:
        """The colours of the pixels of a block, by face and texel."""
        met, chosen = pixels.met, torch.full_like(pixels.block, -1)
        least = torch.full_like(pixels.near, torch.inf)
        at = torch.stack([met.x, met.y, met.z], dim=1)
        slopes = torch.stack([met.east, met.north, met.up], dim=1)
        for k in range(MOST):
            face = self.faces[pixels.block, k]
            plane, facing = self.plane[face], self.facing[face]
            axis = torch.where(plane >= ROUGH, plane - ROUGH, plane // STEPS)[:, None]
            off = (at.gather(1, axis)[:, 0] - ((plane % STEPS).float() * DEPTH - BEFORE)).abs()
            off = torch.where(facing == 0, 0.0, off)  # of the only face are all pixels
            seen = torch.where(slopes.gather(1, axis)[:, 0] > 0, RISING, SINKING)
            better = (face >= 0) & ((facing == 0) | (facing == seen)) & (off <= FLAT) & (off < least)
            chosen, least = torch.where(better, face, chosen), torch.where(better, off, least)
        of_one = chosen >= 0
        face, pixels = chosen[of_one], pixels.some(of_one)
        texel = face * TEXELS**2 + self.map.faces.texel(self.plane[face], pixels.met)
        left = left_of(self.map, pixels)
        weight = pixels.near.square() * left.square()
        self.weight.index_add_(0, texel, weight)
        self.colour.index_add_(0, texel, at_hand(pixels.colour, left).clamp(-1, 1) * weight[:, None])

    def finish(self) -> None:
        """Give the map faces, and a palette of their colours and of what it had."""
        seen = (self.weight > 0).view(-1, TEXELS**2)
        colour = (self.colour / self.weight.clamp(min=1e-9)[:, None]).view(-1, TEXELS**2, 3)
        own = self.map.palette.float()[self.map.what.long()[self.block]]
        off = (colour - own[:, None]).square().mean(-1) * self.weight.view(-1, TEXELS**2)  # 0 where nothing was seen
        gain = off.sum(1)
        faced = torch.zeros(len(self.block), dtype=torch.bool)
        faced[gain.argsort(descending=True)[: self.most]] = True
        faced &= gain > ANOTHER**2 * self.weight.view(-1, TEXELS**2).sum(1)
        shown = seen[faced]
        where, had = self.map.where.clone(), self.map.palette.float()[self.map.what.long()]
        made, which = few(torch.cat([had, colour[faced][shown]]), COLOURS)
        self.map.paint(where.long(), which[: len(had)], made)
        palette = self.map.palette.float()[1:]
        codes = torch.zeros(shown.shape, dtype=torch.uint8)
        codes[shown] = (alike(made[which[len(had) :]], palette) + 1).to(torch.uint8)
        self.map.faces.fill(where[self.block[faced]], self.plane[faced], codes, self.facing[faced])


@torch.no_grad()
def face_place(
    place: Place,
    stretch: float,
    data: Dataset,
    count: int,
    rng: np.random.Generator,
    most: int,
) -> None:
    """Find the faces of the place's map, `most` at most, which would be missed most, from about `count` random training
    pictures, whose depth is known.
    """
    recorded = Recorded(place, stretch, data, count, rng, "faces=0")
    assert place.map is not None
    fusion = FaceFusion(place.map, most)
    recorded.twice(("planes of faces", "colours of faces"), NEAR, fusion.lie, fusion.settle, fusion.paint)
    fusion.finish()
