"""A place's map: what stands where, as coloured blocks that recorded pictures were fused into, and views of it.

Shape key: n poses, N blocks, L levels of height, h, w rows and columns of rays, D distances along a ray.
A pose is x, y in map units, yaw and pitch in degrees, and the eye's height in map units; without the last the eye is
where that of the recordings mostly was. The finest blocks are FINEST units wide and high, and each coarser kind is
twice that, the mean of what is in it: a ray asks for blocks about as large as it is wide there. Where it meets none it
sees the sky, which depends on its direction only. Views at a picture's own size may ask for what blocks have on their
faces (place_faces.py); some are dim from afar (place_light.py).
What a network has not seen for a while it can be shown again: views from where it stands, from which it paints the
picture. Ours, after world models with a spatial memory of fused points (Wu et al. 2025, Video World Models with
Long-term Spatial Memory); here the memory is made once, of the recordings (training/place_map.py).

Does not know networks, latents, or how a pose was found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from controls.errors import UserError
from generator.tokenizer import devices
from generator.tokenizer.camera_rays import Rays, finer
from generator.tokenizer.devices import arrays, constant
from generator.tokenizer.palettes import alike, few
from generator.tokenizer.place_faces import Faces, Met
from generator.tokenizer.place_light import Light
from generator.tokenizer.place_sky import Sky

CELL = 16.0  # map units: of the ground, and of what `levels` counts
FINEST, KINDS = 4.0, 3  # map units of the finest blocks, and how many kinds, each twice as wide as the one before
BELOW = 65.0  # map units from the lowest level's bottom to the recordings' eye, of worlds that do not say
FIRST, GROWTH, FAR = 10.0, 0.01, 1600.0  # where rays are asked, in map units along the heading
CLOSEST = 0.4  # map units between two such places, at least: what is near has steps of that height
USUAL = 2 * 1.2 / 256  # map units that rays are apart per unit of heading; those nearer together ask more often
WIDEST = 0.7  # of a block, at most: a ray that runs aslant along the heading would slip through what is one block thick
COARSE = 1.5  # blocks at most so many times as wide as a ray, once those are wider than the finest
FULL = 2  # of the eight blocks in a coarser one that make it solid
BODY, REACH = (-14.0, -6.0, 2.0, 10.0), 130.0  # map units above the eye at which blocks stop a body, and how far ahead
BESIDE = 3  # of the finest blocks to each side that a body has to itself: engines keep 16 map units, recordings show 12
BAND = 16  # rows that are looked along at once, as far as any of them stays within the map's heights
RAYS = 2**18  # that a GPU looks along at once instead, if these are more: it would wait for many small steps
COLOURS = 255  # of blocks
VIEW = 4  # rays per latent cell along each side
CHANNELS = 4 * VIEW * VIEW  # of a view: three colours and nearness of each ray of a latent cell
PROCESSOR = torch.device("cpu")
UNIT = 64.0  # nearness is told in 1 / so many map units


class PlaceMap(nn.Module):
    """Blocks and sky of a place of this period, seen `lower` than pixels' middles, whose lowest level begins so far
    `below` the recordings' eye; empty until it is filled.

    Kept are the numbers of the finest blocks (`where`), which of the colours of the `palette` they have (`what`, from
    1), and how high the recordings' `eye` mostly was; `codes` are the blocks of each kind, dense, 0 where there is
    nothing, and `tops` how many levels of each column of them are not empty above. Behind all is the `sky`.
    """

    where: Tensor
    what: Tensor
    palette: Tensor
    eye: Tensor

    def __init__(self, period: float, levels: int, lower: float = 0.0, below: float = BELOW) -> None:
        super().__init__()
        coarsest = 2 ** (KINDS - 1)
        self.period, self.levels, self.lower, self.below = period, levels, lower, below
        self.cells = math.ceil(period / (coarsest * FINEST)) * coarsest
        self.heights = math.ceil(levels * CELL / (coarsest * FINEST)) * coarsest
        self.register_buffer("where", torch.zeros(0, dtype=torch.int32))
        self.register_buffer("what", torch.zeros(0, dtype=torch.uint8))
        self.register_buffer("palette", torch.zeros(COLOURS + 1, 3))
        self.register_buffer("eye", torch.zeros(()))
        for kind in range(KINDS):
            self.register_buffer(f"codes{kind}", torch.zeros(0, dtype=torch.uint8), persistent=False)
            self.register_buffer(f"tops{kind}", torch.zeros(0, dtype=torch.int32), persistent=False)
        self.faces = Faces(self.cells**2, self.heights, FINEST)
        self.light = Light(self.cells, self.heights, int(CELL / FINEST), COLOURS + 1)
        self.sky = Sky()
        self._plain = (Faces(self.cells**2, self.heights, FINEST),)  # none, for views that want none
        self.spread()

    @property
    def blocks(self) -> int:
        """How many of the finest blocks there could be."""
        return self.cells**2 * self.heights

    def dense(self) -> Tensor:
        """Codes of the finest blocks (cells, cells, heights) by row, column and level, 0 where there is none."""
        codes: Tensor = self._buffers["codes0"]  # type: ignore[assignment]
        return codes.view(self.cells, self.cells, self.heights + 2)[..., 1:-1]

    def number(self, x: Tensor, y: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers of the finest blocks that points lie in, and whether (bool) they are at a height that the map has.

        x, y in map units and `up` above the recordings' eye, of one shape.
        """
        column, row = (self._along(v, FINEST) for v in (x, y))
        level = ((up + self.below) / FINEST).floor().long()
        number = (row * self.cells + column) * self.heights + level.clamp(0, self.heights - 1)
        return number, (level >= 0) & (level < self.heights)

    def _along(self, plan: Tensor, size: float) -> Tensor:
        """Which block of this size along an axis positions on it lie in, wherever the place repeats."""
        last = int(self.cells * FINEST / size) - 1
        return (torch.remainder(plan, self.period) / size).long().clamp_(0, last)

    def fill(self, where: Tensor, colour: Tensor) -> None:
        """Blocks stand at these numbers (N,) and nowhere else, in colours (N, 3) in [-1, 1], or in few like them, which
        have no tones yet.
        """
        made, what = few(colour, COLOURS)
        self.paint(where, what, made)

    def paint(self, where: Tensor, what: Tensor, made: Tensor) -> None:
        """Blocks stand at these numbers (N,) and nowhere else, in which (N,) of these colours (P, 3), not all of which
        they need have, and which have no tones yet.
        """
        self.light.tones = self.light.tones[:0]
        palette = torch.zeros_like(self.palette)
        if len(made):
            palette[1:] = made[0]  # what is left over
            palette[1 : 1 + len(made)] = made
        self.palette.copy_(palette)
        self.keep(where, what + 1)

    def keep(self, where: Tensor, what: Tensor) -> None:
        """Blocks stand at these numbers (N,) and nowhere else, in these colours (N,) of the palette, counted from 1."""
        order = where.argsort()
        self.where, self.what = where[order].int(), what[order].to(torch.uint8)
        self.spread()

    def spread(self) -> None:
        """Make the dense blocks of what is kept."""
        palette, number, what = self.palette.float(), self.where.long(), self.what
        colour = palette[what.long()]
        for kind in range(KINDS):
            side, levels = self.cells // 2**kind, self.heights // 2**kind
            if kind:
                number, colour = coarser(number, colour, 2 * side, 2 * levels)
                what = (alike(colour, palette[1:]) + 1).to(torch.uint8)
            code = torch.zeros(side**2 * (levels + 2), dtype=torch.uint8, device=number.device)
            code[padded(number, levels)] = what
            setattr(self, f"codes{kind}", code)
            setattr(self, f"tops{kind}", tops_of(code, levels))

    def view(
        self,
        pose: Tensor,
        edge: float,
        stretch: float | Tensor,
        height: int,
        width: int,
        fine: bool = False,
        samples: int = 1,
    ) -> Tensor:
        """What a camera at pose (n, 4 or 5), whose picture ends at slope `edge`, sees: (n, 4, height, width), colours
        in [-1, 1] and nearness in 1 / UNIT map units, each the mean of so many `samples` (`camera_rays.SAMPLES`); with
        `fine` what is on the faces of blocks, too. UserError when the pose is not finite and that can be seen without
        waiting; elsewhere it is taken for any.
        """
        rays = Rays(pose.detach(), edge, stretch, height, width, samples, self.lower)
        asked = asked_at(2 * edge / (width * finer(samples)), self.palette.device)
        if devices.at_hand(self.palette):
            seen = self.look(rays, asked, fine)[0]
        elif self.palette.device.type == "cuda" and find_spec("triton"):
            seen = self.view_of_kernel(rays, asked, fine)
        else:
            seen = self.view_of_tensors(rays, asked, fine)
        return seen if samples == 1 else seen.unflatten(0, (-1, samples)).mean(1)

    def view_of_tensors(self, rays: Rays, asked: Sequence[Tensor], fine: bool = False) -> Tensor:
        """As `view`, with every ray asking at all distances (one tensor for each kind of blocks), on any device."""
        pose, height = rays.pose, rays.up.shape[1]
        asked = [far.to(pose.device) for far in asked]
        plans = [self._plan(rays, kind, far) for kind, far in enumerate(asked)]
        rise = self.rise(pose)
        rows = BAND if devices.at_hand(pose) else max(BAND, RAYS // (len(pose) * rays.east.shape[-1]))
        bands = [self._band(rays.up[:, k : k + rows], rise, asked, plans) for k in range(0, height, rows)]
        code, away = (torch.cat(parts, dim=1) for parts in zip(*bands, strict=True))
        return self._coloured(rays, code, away, asked[0] if fine else None)

    def view_of_kernel(self, rays: Rays, asked: Sequence[Tensor], fine: bool = False) -> Tensor:
        """As `view`, on a GPU (place_kernel.py)."""
        from generator.tokenizer.place_kernel import first_met  # triton is there for GPUs only

        above = self.above(rays.pose).flatten()
        parts = (rays.pose[:, :2], rays.east[:, 0], rays.north[:, 0], rays.up[..., 0], above)
        codes: list[Tensor] = [getattr(self, f"codes{kind}") for kind in range(KINDS)]
        code, away = first_met(parts, asked, codes, (self.cells, self.heights, self.period, FINEST))
        return self._coloured(rays, code, away, asked[0] if fine else None)

    def _coloured(self, rays: Rays, code: Tensor, away: Tensor, finest: Tensor | None) -> Tensor:
        """The view (n, 4, h, w) of rays that meet blocks of these codes (n, h, w), 0 for none, so far away; with what
        those have on them that were asked for at the distances `finest`.
        """
        near = (UNIT / away).masked_fill(code == 0, 0.0)
        if finest is not None or self.light.known:
            number, met = self.met(rays, away)
        if finest is not None and len(finest):
            code = torch.where(away <= finest[-1], self.faces.codes(number, met, code), code)
        above = self.sky.seen(rays.azimuth, rays.up)
        colours = self.palette[code].float()
        if self.light.known:
            colours = self.light.shaded(colours, code, self.light.left(self.light.of(number), away))
        colours = torch.where(code[..., None] > 0, colours, above)
        return torch.cat([colours, near[..., None]], dim=-1).permute(0, 3, 1, 2)

    def met(self, rays: Rays, away: Tensor) -> tuple[Tensor, Met]:
        """Numbers of the finest blocks that rays are in at distances (n, h, w), and where in them."""
        (x, east), (y, north) = ((start[..., 0] + step * away, step) for start, step in rays.plan())
        above = rays.up * away + self.above(rays.pose)
        column, row = (self._along(v, FINEST) for v in (x, y))
        level = (above / FINEST).floor().long().clamp(0, self.heights - 1)
        within = (torch.remainder(v, self.period) - part * FINEST for v, part in ((x, column), (y, row)))
        met = Met(east, north, rays.up, *within, above - level * FINEST)
        return (row * self.cells + column) * self.heights + level, met

    def look(
        self, rays: Rays, asked: Sequence[Tensor], fine: bool = False, whole: bool = False
    ) -> tuple[Tensor, Tensor]:
        """The same on a processor (place_rays.py); of `whole` ones also the distances at which rays met one of the
        finest blocks (n, h, w), 0 where they did not.
        """
        if not bool(rays.pose.isfinite().all()):
            raise UserError(f"The pose is no longer finite ({rays.pose.tolist()}); begin anew.")
        from generator.tokenizer import place_rays  # brings a compiler along, which a menu need not wait for

        turn, slope = self.sky.turn(rays.azimuth)[:, 0], self.sky.slope(rays.up)[..., 0]
        above = self.above(rays.pose).flatten()
        parts = (rays.pose[:, :2], rays.east[:, 0], rays.north[:, 0], rays.up[..., 0], above, turn, slope)
        counts = torch.tensor([len(far) for far in asked])
        kinds = torch.arange(KINDS).repeat_interleave(counts)
        blocks: list[Tensor] = [getattr(self, f"{name}{kind}") for name in ("codes", "tops") for kind in range(KINDS)]
        sizes = (self.cells, self.heights, np.float32(self.period), np.float32(FINEST))
        faces = self.faces if fine else self._plain[0]
        seen, met = place_rays.view(
            arrays(*parts),
            arrays(torch.cat(tuple(asked)), kinds, counts.cumsum(0)),
            (*arrays(*blocks), *sizes),
            (*arrays(self.palette.float(), self.sky.codes, self.sky.palette.float()), np.float32(UNIT)),
            (*arrays(self.light.dim, self.light.fade, self.light.tones), self.light.side, self.light.levels),
            arrays(faces.starts, faces.at, faces.plane, faces.facing, faces.what),
            torch.get_num_threads(),
            whole,
        )
        return torch.from_numpy(seen), torch.from_numpy(met)

    def above(self, pose: Tensor) -> Tensor:
        """How far above the map's lowest level an eye at pose (n, 4 or 5) is, map units (n, 1, 1)."""
        return self.below + self.rise(pose)

    def rise(self, pose: Tensor) -> Tensor:
        """How much higher than the recordings' mostly was an eye at pose (n, 4 or 5) is, map units (n, 1, 1)."""
        if pose.shape[1] < 5:
            return torch.zeros(len(pose), 1, 1, device=pose.device)
        return (pose[:, 4].float() - self.eye.float())[:, None, None]

    def clearance(self, plan: Tensor, azimuth: Tensor) -> Tensor:
        """How far from plan positions (n, 2) something stands in the way of a body, map units (n, D) in directions of
        azimuth (n, D) in degrees; infinite beyond REACH.
        """
        far = torch.arange(1.5 * FINEST, REACH, FINEST, device=plan.device)
        way = torch.deg2rad(azimuth.float())[..., None]
        x, y = plan[:, 0, None, None].float() + way.cos() * far, plan[:, 1, None, None].float() - way.sin() * far
        up = constant(BODY, plan.device).expand(*x.shape, -1)
        number, _ = self.number(*(v[..., None].expand_as(up) for v in (x, y)), up)
        codes: Tensor = self._buffers["codes0"]  # type: ignore[assignment]
        solid = (codes[padded(number, self.heights)] > 0).any(-1)
        return far[solid.to(torch.uint8).argmax(-1)].masked_fill(~solid.any(-1), math.inf)

    def crowded(self, plan: Tensor, rise: Tensor) -> Tensor:
        """The share (...) of what a body takes up at plan positions (..., 2), with an eye `rise` (...) map units above
        the recordings', where blocks stand; 0 where recorded walks were.
        """
        beside = constant(tuple(FINEST * k for k in range(-BESIDE, BESIDE + 1)), plan.device)
        x = plan[..., 0, None, None, None].float() + beside[:, None, None]
        y = plan[..., 1, None, None, None].float() + beside[:, None]
        up = rise[..., None, None, None].float() + constant(BODY, plan.device)
        number, within = self.number(*torch.broadcast_tensors(x, y, up))
        codes: Tensor = self._buffers["codes0"]  # type: ignore[assignment]
        return ((codes[padded(number, self.heights)] > 0) & within).float().mean((-3, -2, -1))

    def _plan(self, rays: Rays, kind: int, far: Tensor) -> Tensor:
        """Where the columns of blocks of a kind begin that rays (n, 1, w) are over at distances (D,): (n, 1, w, D)."""
        size, levels = FINEST * 2**kind, self.heights // 2**kind
        column, row = (self._along(start + step[..., None] * far, size) for start, step in rays.plan())
        return ((row * (self.cells // 2**kind) + column) * (levels + 2)).int()

    def _band(self, up: Tensor, rise: Tensor, asked: list[Tensor], plans: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Of rows that rise by `up` (n, rows, 1) from an eye `rise` (n, 1, 1) above the usual: the code of the first
        block that each ray meets, 0 for none, int64 (n, rows, w), and its distance along the heading.
        """
        above, met, far = self.below + rise, [], []
        if devices.at_hand(up):  # elsewhere asking for less is not worth waiting for the answer
            leaves = self._leaves(up.detach(), above.detach())
            asked = [distances[: int((distances <= leaves).sum())] for distances in asked]
        for kind, (within, plan) in enumerate(zip(asked, plans, strict=True)):
            size, levels = FINEST * 2**kind, self.heights // 2**kind
            level = ((up[..., None] * within + above[..., None]) / size).floor().int().clamp_(-1, levels) + 1
            number = plan[..., : len(within)] + level
            codes: Tensor = getattr(self, f"codes{kind}")
            met.append(codes.index_select(0, number.flatten()).view(number.shape))
            far.append(within)
        code, distance = torch.cat(met, dim=-1), torch.cat(far)
        if not len(distance):
            nothing = torch.zeros(code.shape[:-1], device=up.device)
            return nothing.long(), nothing
        first = (code > 0).view(torch.uint8).argmax(-1, keepdim=True)
        return code.gather(-1, first)[..., 0].long(), distance[first[..., 0]]

    def _leaves(self, up: Tensor, above: Tensor) -> float:
        """How far along the heading the last of rays has left the map's heights, that rise by `up` from so far `above`
        its lowest level.
        """
        low, high = float(up.min()), float(up.max())
        least, most = float(above.min()), float(above.max())
        return most / -high if high < 0 else (self.heights * FINEST - least) / low if low > 0 else FAR

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """As any module's, for however many blocks there are; maps once kept the sky's colours themselves."""
        errors: list[str] = rest[-1]
        if prefix + "sky" in state_dict:
            self.sky.fill(state_dict[prefix + "sky"].to(self.palette))
            state_dict = {name: value for name, value in state_dict.items() if name != prefix + "sky"}
        for name in ("where", "what"):
            if prefix + name in state_dict:
                own: Tensor = getattr(self, name)
                setattr(self, name, own.new_zeros(state_dict[prefix + name].shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # type: ignore[arg-type]
        fits = self.where.shape == self.what.shape and self.where.dim() == 1
        if fits and len(self.where):
            fits = bool(self.where.min() >= 0 and self.where.max() < self.blocks and self.what.min() > 0)
        if fits:
            self.spread()
        else:
            errors.append(f"The blocks of {prefix}where and {prefix}what are none of a map of {self.blocks} blocks.")


def padded(number: Tensor, levels: int) -> Tensor:
    """Where blocks of these numbers stand among dense codes, whose columns have an empty level below and above their
    `levels`, for rays that have left the map.
    """
    return number + 2 * (number // levels) + 1


def tops_of(code: Tensor, levels: int) -> Tensor:
    """How many levels of each column of dense codes are at or below its highest block, int32."""
    solid = code.view(-1, levels + 2)[:, 1:-1] > 0
    highest = levels - solid.flip(1).to(torch.uint8).argmax(1)
    return torch.where(solid.any(1), highest, 0).int()


def coarser(number: Tensor, colour: Tensor, side: int, levels: int) -> tuple[Tensor, Tensor]:
    """Blocks twice as wide as these (N,), in a map of so many cells a side and levels, and their mean colours."""
    column, level = number // levels, number % levels
    inside = (column // side // 2 * (side // 2) + column % side // 2) * (levels // 2) + level // 2
    count = torch.bincount(inside, minlength=(side // 2) ** 2 * (levels // 2))
    total = colour.new_zeros(len(count), 3).index_add_(0, inside, colour)
    full = (count >= FULL).nonzero().flatten()
    return full, total[full] / count[full, None]


@cache
def asked_at(wide: float, device: torch.device = PROCESSOR) -> tuple[Tensor, ...]:
    """Where along a heading rays that are `wide` per map unit of it ask for blocks of each kind (D,)."""
    found: list[list[float]] = [[] for _ in range(KINDS)]
    share, far = min(1.0, wide / USUAL), FIRST
    while far < FAR:
        kind = int(math.log2(max(1.0, COARSE * wide * far / FINEST)))
        kind = min(kind, KINDS - 1)
        found[kind].append(far)
        far += min(share * max(CLOSEST, GROWTH * far), WIDEST * FINEST * 2**kind)
    return tuple(constant(tuple(part), device) for part in found)
