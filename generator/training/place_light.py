"""Finds how dim the cells of a place's map are from afar, and what its blocks look like at hand, from recorded pixels.

Shape key: N blocks, M cells, K candidates, P pixels.
A block is seen from many distances. For each of some darknesses a cell may have, the colours of its blocks' pixels at
hand follow by least squares, and what is left over says which darkness it is. Then the blocks get those colours. At
last, when faces have theirs too, all pixels of a colour and a darkness say how far it is off there.

Does not know how rays find blocks, or of play.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from generator.data.clips import Dataset
from generator.tokenizer.place import Place
from generator.tokenizer.place_light import LEVELS as DARKS
from generator.tokenizer.place_light import darkness, dimmed
from generator.tokenizer.place_map import PlaceMap
from generator.training.place_pixels import Ended, Recorded

FADE = 30.0  # map units, of ViZDoom's own visibility: found like the rest, it lay between 25 and 40
DARKEST, CANDIDATES = 0.6, 16  # of full brightness, and how many from 0 to that are tried
REACH = 1200.0  # map units: what is farther is a few pixels wide
LEAST = 6.0  # pixels of a block that say anything
WIDE = 0.05  # of brightness that cells differ from one another
NOISE = 0.04  # of brightness that pixels of a block differ by, from one another
EDGE, FEW = 0.2, 5.0  # levels of -1..1 that a colour may be off at most, and pixels that say nothing yet


class LightFusion:
    """Sums over the blocks of a map: `tell` for all pixels, then `settle`, then `colour` for all, then `finish`."""

    def __init__(self, place_map: PlaceMap) -> None:
        self.map, count = place_map, len(place_map.where)
        self.tried = torch.linspace(0.0, DARKEST, CANDIDATES)
        self.count, self.squares = torch.zeros(count), torch.zeros(count)
        self.left, self.seen = torch.zeros(CANDIDATES, count), torch.zeros(CANDIDATES, count)
        self.weight, self.colours = torch.zeros(count), torch.zeros(count, 3)

    def tell(self, pixels: Ended) -> None:
        """How bright the pixels of a block are, from how far."""
        bright = (pixels.colour.mean(1) + 1) / 2
        self.count.index_add_(0, pixels.block, torch.ones_like(bright))
        self.squares.index_add_(0, pixels.block, bright.square())
        for k, dim in enumerate(self.tried):
            left = 1 - (dim - FADE * pixels.near).clamp(min=0)
            self.left[k].index_add_(0, pixels.block, left.square())
            self.seen[k].index_add_(0, pixels.block, left * bright)

    def settle(self) -> None:
        """Choose how dim each cell is: what explains its blocks best, and where they say little what most cells are."""
        over = self.squares - self.seen.square() / self.left.clamp(min=1e-9)  # (K, N) left unexplained
        over = over * (self.count >= LEAST)
        cells = self.map.light.of(self.map.where.long())
        total = torch.zeros(CANDIDATES, self.map.light.side**2 * self.map.light.levels).index_add_(1, cells, over)
        usual = self.tried[total.sum(1).argmin()]
        odd = ((self.tried - usual) / WIDE).square()[:, None]
        self.map.light.fill(self.tried[(total / NOISE**2 + odd).argmin(0)], FADE)

    def colour(self, pixels: Ended) -> None:
        """What the pixels of a block would look like at hand, the nearer the more."""
        left = left_of(self.map, pixels)
        weight = pixels.near * left.square()
        self.weight.index_add_(0, pixels.block, weight)
        self.colours.index_add_(0, pixels.block, at_hand(pixels.colour, left) * weight[:, None])

    def finish(self) -> None:
        """Give the blocks that were seen their colours at hand; others keep theirs."""
        own = self.map.palette.float()[self.map.what.long()]
        seen = self.weight > 0
        own[seen] = (self.colours[seen] / self.weight[seen, None]).clamp(-1, 1)
        self.map.fill(self.map.where.long(), own)


def left_of(place_map: PlaceMap, pixels: Ended) -> Tensor:
    """The share (P,) of their brightness that is left of pixels; 1 where the map has no light."""
    if not place_map.light.known:
        return torch.ones_like(pixels.near)
    return place_map.light.left(place_map.light.of(place_map.where.long()[pixels.block]), 1 / pixels.near)


def at_hand(colour: Tensor, left: Tensor) -> Tensor:
    """Colours (P, 3) of which that share (P,) is left, as they would be at hand; they may be too bright to show."""
    return (colour + 1) / left[:, None] - 1


@torch.no_grad()
def light_place(place: Place, stretch: float, data: Dataset, count: int, rng: np.random.Generator) -> None:
    """Find the light of the place's map, and its blocks' colours at hand, from about `count` random training pictures,
    whose depth is known.
    """
    recorded = Recorded(place, stretch, data, count, rng, "lights=0")
    assert place.map is not None
    fusion = LightFusion(place.map)
    recorded.twice(("darkness of cells", "colours at hand"), REACH, fusion.tell, fusion.settle, fusion.colour)
    fusion.finish()


class ToneFusion:
    """Sums over the colours of a map's palette and the darknesses they are seen at: `tell` for all pixels, `finish`."""

    def __init__(self, place_map: PlaceMap) -> None:
        self.map, colours = place_map, place_map.light.colours
        self.count, self.off = torch.zeros(DARKS * colours), torch.zeros(DARKS * colours, 3)

    def tell(self, pixels: Ended) -> None:
        """How far pixels are off, but those at edges, which are of two colours."""
        number = self.map.where.long()[pixels.block]
        code = self.map.faces.codes(number, pixels.met, self.map.what[pixels.block].long())
        left = left_of(self.map, pixels)
        off = pixels.colour - dimmed(self.map.palette.float()[code], left)
        same = off.abs().amax(1) < EDGE
        row = (darkness(left) * self.map.light.colours + code)[same]
        self.count.index_add_(0, row, torch.ones(len(row)))
        self.off.index_add_(0, row, off[same])

    def finish(self) -> None:
        """Give the map its tones."""
        off = self.off / (self.count + FEW)[:, None]
        self.map.light.tone(off.view(DARKS, self.map.light.colours, 3))


@torch.no_grad()
def tone_place(place: Place, stretch: float, data: Dataset, count: int, rng: np.random.Generator) -> None:
    """Find the tones of a map with light from about `count` random training pictures, whose depth is known."""
    recorded = Recorded(place, stretch, data, count, rng, "lights=0")
    assert place.map is not None and place.map.light.known
    fusion = ToneFusion(place.map)
    for pixels in recorded.pixels("tones of colours", REACH):
        fusion.tell(pixels)
    fusion.finish()
