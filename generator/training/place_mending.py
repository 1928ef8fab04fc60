"""Closes the holes of a place's map where what stands there is known: blocks that too few recorded rays ended in.

Shape key: C cells a side, H levels.
Corners and edges of walls are seen by few rays, and a block that is missing there is a notch against the sky. What is
seen of something solid has air beside it; such a block gets the colour of one beside it. Blocks in the air go.

Does not know how blocks were found.
"""

from __future__ import annotations

import itertools

import numpy as np
import torch

from generator.data.clips import Dataset
from generator.tokenizer.place import Place
from generator.tokenizer.place_map import FINEST, PlaceMap
from generator.training.known_depth import known_solids

ROUNDS = 3  # blocks from one that was seen: farther into what nobody saw nobody looks
INDOORS = 16  # the same of still maps, whose walls and ceilings end all views
BESIDE = sorted(
    (way for way in itertools.product((-1, 0, 1), repeat=3) if any(way)),
    key=lambda way: (abs(way[2]), abs(way[0]) + abs(way[1])),
)  # of the same height first, then straight on


def mend_place(place: Place, data: Dataset) -> dict[str, float]:
    """Close the holes of the place's map, whose own map is known; returns how many blocks came and went."""
    place_map = place.map
    assert place_map is not None, "only a place with levels has a map"
    heights = float(place_map.eye) - place_map.below + FINEST * (np.arange(place_map.heights) + 0.5)
    solid, air = known_solids(data, place_map.period, place_map.cells, heights)
    rounds = ROUNDS if data.meta["world"] == "halls" else INDOORS
    came, went = mend(place_map, torch.from_numpy(solid), torch.from_numpy(air), rounds)
    return {"blocks_came": float(came), "blocks_went": float(went)}


def mend(place_map: PlaceMap, solid: torch.Tensor, air: torch.Tensor, rounds: int = ROUNDS) -> tuple[int, int]:
    """The same where solid and air bool (C, C, H) are known; both are False where nothing is."""
    code = place_map.dense().cpu().clone(memory_format=torch.contiguous_format)
    went = int(((code > 0) & air).sum())
    code[air] = 0
    kept = int((code > 0).sum())
    shown = solid & _beside(air)
    for _ in range(rounds):
        known, missing = code.clone(), shown & (code == 0)
        for way in BESIDE:
            there = torch.roll(known, way, (0, 1, 2))
            code = torch.where(missing & (code == 0), there, code)
    where = code.flatten().nonzero().flatten()
    place_map.keep(where.to(place_map.where.device), code.flatten()[where].to(place_map.what.device))
    return int((code > 0).sum()) - kept, went


def _beside(air: torch.Tensor) -> torch.Tensor:
    """Where there is air on one of the six sides; the place goes on around, but not up and down."""
    found = torch.zeros_like(air)
    for axis, way in itertools.product((0, 1), (-1, 1)):
        found |= air.roll(way, axis)
    found[..., :-1] |= air[..., 1:]
    found[..., 1:] |= air[..., :-1]
    return found
