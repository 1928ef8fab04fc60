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

from generator.data.clips import Dataset
from generator.tokenizer.palettes import alike, few
from generator.tokenizer.place import Place
from generator.tokenizer.place_faces import BEFORE, DEPTH, ROUGH, STEPS, TEXELS
from generator.tokenizer.place_map import COLOURS, PlaceMap
from generator.training.place_light import at_hand, left_of
from generator.training.place_pixels import Ended, Recorded

NEAR = 400.0  # map units: what was farther away says little about a texel
FLAT = 0.5  # map units that recorded points lie off a plane, at most
ANOTHER = 0.025  # levels of -1..1 that texels are off their block's colour, for the block to have a face


class FaceFusion:
    """Sums over the blocks of a map: `lie` for all pictures, then `settle`, then `paint` for all, then `finish`."""

    def __init__(self, place_map: PlaceMap, most: int) -> None:
        self.map, self.most, count = place_map, most, len(place_map.where)
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
        left = left_of(self.map, pixels)
        weight = pixels.near.square() * left.square()
        self.weight.index_add_(0, texel, weight)
        self.colour.index_add_(0, texel, at_hand(pixels.colour, left).clamp(-1, 1) * weight[:, None])

    def finish(self) -> None:
        """Give the map faces, and a palette of their colours and of what it had."""
        seen = (self.weight > 0).view(-1, TEXELS**2)
        colour = (self.colour / self.weight.clamp(min=1e-9)[:, None]).view(-1, TEXELS**2, 3)
        own = self.map.palette.float()[self.map.what.long()]
        off = (colour - own[:, None]).square().mean(-1) * self.weight.view(-1, TEXELS**2)  # 0 where nothing was seen
        gain = off.sum(1)
        faced = torch.zeros(len(own), dtype=torch.bool)
        faced[gain.argsort(descending=True)[: self.most]] = True
        faced &= gain > ANOTHER**2 * self.weight.view(-1, TEXELS**2).sum(1)
        shown = seen[faced]
        where, plane = self.map.where.clone(), self.plane[faced]
        made, which = few(torch.cat([own, colour[faced][shown]]), COLOURS)
        self.map.fill(where.long(), made[which[: len(own)]])
        palette = self.map.palette.float()[1:]
        codes = torch.zeros(shown.shape, dtype=torch.uint8)
        codes[shown] = (alike(made[which[len(own) :]], palette) + 1).to(torch.uint8)
        self.map.faces.fill(where[faced], plane, codes)


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
