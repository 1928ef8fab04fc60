"""Faces: what the blocks of a place's map have on them, where one colour is too few.

Shape key: N faces, n poses, h, w rows and columns of rays.
A block is FINEST units wide, and near the camera that is many pixels. Recorded surfaces are sharper, so a block that
rays were seen to end on in several colours has a face: a plane along one of the axes, so far into the block, with
TEXELS x TEXELS colours of the map's palette. A ray that meets the block is told the colour where it crosses the plane.
At a corner a block has a face for each side: a ray meets the one of those turned towards it that it crosses last.

Does not know how rays find blocks, or how faces were found (training/place_faces.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from generator.tokenizer.kept import sized_for

TEXELS = 4  # of a face along each side
STEPS = 80  # planes along an axis
DEPTH, BEFORE = 0.1, 2.0  # map units between two of them, and how far before a block the first is
ROUGH = 3 * STEPS  # from here on: no plane, only an axis to look along
FARTHEST = 3.0  # map units along the heading from where a ray asked to where it crosses the plane
INSIDE = 0.999  # of a block, at most
MOST = 3  # faces of a block
RISING, SINKING = 1, 2  # rays that see a face, by their slope along its axis; 0: all do


@dataclass(frozen=True)
class Met:
    """Where rays met blocks: the heading's slopes east, north and up of each ray, and its place `x`, `y`, `z` within
    the block, in map units; tensors that go together, (n, h, w) or less.
    """

    east: Tensor
    north: Tensor
    up: Tensor
    x: Tensor
    y: Tensor
    z: Tensor


class Faces(nn.Module):
    """Faces of some of a map's blocks, of `finest` map units, which are numbered by columns of so many `heights`.

    Kept are the numbers of those blocks in order (`at`), their `plane` (axis * STEPS + how deep, or ROUGH + axis),
    which rays see them (`facing`), and codes of the palette (`what`, 0 where nothing was seen). `starts` says where
    each column's begin.
    """

    at: Tensor
    plane: Tensor
    facing: Tensor
    what: Tensor
    starts: Tensor

    def __init__(self, columns: int, heights: int, finest: float) -> None:
        super().__init__()
        self.columns, self.heights, self.finest = columns, heights, finest
        self.register_buffer("at", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("plane", torch.zeros(0, dtype=torch.uint8))
        self.register_buffer("facing", torch.zeros(0, dtype=torch.uint8))
        self.register_buffer("what", torch.zeros(0, TEXELS**2, dtype=torch.uint8))
        self.most = 1  # faces of one block
        self.register_buffer("starts", torch.zeros(columns + 1, dtype=torch.int32), persistent=False)

    def fill(self, at: Tensor, plane: Tensor, what: Tensor, facing: Tensor | None = None) -> None:
        """Blocks of these numbers (N,), each at most MOST times, and no others have these planes (N,), codes
        (N, TEXELS * TEXELS), and rays that see them (N,).
        """
        order = at.argsort(stable=True)
        self.at, self.plane, self.what = at[order].int(), plane[order].to(torch.uint8), what[order].to(torch.uint8)
        self.facing = torch.zeros_like(self.plane) if facing is None else facing[order].to(torch.uint8)
        self.spread()

    def spread(self) -> None:
        """Find where each column's faces begin, and how many a block has at most."""
        counts = torch.bincount(self.at.long() // self.heights, minlength=self.columns)
        self.starts = nn.functional.pad(counts.cumsum(0), (1, 0)).int()
        self.most = int(self.at.unique_consecutive(return_counts=True)[1].max()) if len(self.at) else 1

    def codes(self, number: Tensor, met: Met, code: Tensor) -> Tensor:
        """What rays are told that met blocks of these numbers (n, h, w) and codes, int64: the codes where there is no
        face.
        """
        if not len(self.at):
            return code
        first, made = torch.searchsorted(self.at, number.int()), code
        farthest, chosen = met.x.new_full((), -torch.inf), torch.zeros_like(code, dtype=torch.bool)
        for k in range(self.most):
            place = (first + k).clamp(max=len(self.at) - 1)
            plane = self.plane[place]
            told = self.what[place, self.texel(plane, met)].long()
            seen = (self.at[place] == number) & (first + k == place)
            _, shift, slope = self.crossing(plane, met)
            facing = self.facing[place]
            seen &= (facing == 0) | (facing == torch.where(slope > 0, RISING, SINKING))
            seen &= (shift > farthest) | ~chosen
            farthest, chosen = torch.where(seen, shift, farthest), chosen | seen
            made = torch.where(seen, torch.where((told > 0) & (code > 0), told, code), made)
        return made

    @staticmethod
    def crossing(plane: Tensor, met: Met) -> tuple[Tensor, Tensor, Tensor]:
        """Of planes (n, h, w) the axis, how far along the heading rays cross them (-inf: not near, or there is no
        plane), and the rays' slope along the axis.
        """
        plane = plane.long()
        rough = plane >= ROUGH
        axis = torch.where(rough, plane - ROUGH, plane // STEPS)
        deep = (plane % STEPS).float() * DEPTH - BEFORE
        slope = torch.where(axis == 0, met.east, torch.where(axis == 1, met.north, met.up))
        before = torch.where(axis == 0, met.x, torch.where(axis == 1, met.y, met.z))
        shift = (deep - before) / slope
        return axis, torch.where((shift.abs() <= FARTHEST) & ~rough, shift, -torch.inf), slope

    def texel(self, plane: Tensor, met: Met) -> Tensor:
        """Which texel rays cross a block's plane (n, h, w) at, int64."""
        axis, shift, _ = self.crossing(plane, met)
        shift = torch.where(shift > -torch.inf, shift, 0.0)
        x, y, z = (
            ((at + step * shift) / self.finest).clamp(0, INSIDE) * TEXELS
            for at, step in ((met.x, met.east), (met.y, met.north), (met.z, met.up))
        )
        first, second = torch.where(axis == 0, y, x), torch.where(axis == 2, y, z)
        return second.long() * TEXELS + first.long()

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """As any module's, for however many faces there are; maps without any were kept before there were."""
        errors: list[str] = rest[-1]
        if prefix + "at" in state_dict and prefix + "facing" not in state_dict:  # blocks once had one face at most
            state_dict = {**state_dict, prefix + "facing": torch.zeros_like(state_dict[prefix + "plane"])}
        state_dict = sized_for(self, state_dict, prefix, ("at", "plane", "what", "facing"))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]
        count = len(self.at)
        fits = self.at.dim() == 1 and self.plane.shape == (count,) and self.what.shape == (count, TEXELS**2)
        fits = fits and self.facing.shape == (count,)
        if fits and count:
            fits = bool(self.at.min() >= 0 and self.at.max() < self.columns * self.heights)
            fits = fits and bool((self.at[1:] >= self.at[:-1]).all() and (self.at[MOST:] > self.at[:-MOST]).all())
            fits = fits and bool(self.plane.max() < ROUGH + 3 and self.facing.max() <= SINKING)
        if fits:
            self.spread()
        else:
            errors.append(f"The faces of {prefix}at, {prefix}plane and {prefix}what are none of this map's.")
