"""Views of a place's map on a GPU: one kernel in which every ray goes on until it meets a block.

Shape key: n poses, h, w rows and columns of rays, D distances along a ray.
What `PlaceMap.view_of_tensors` finds with ten passes over every ray at every distance. A place where a position lies
within a rounding of two blocks may be told from the other one.

Does not know what poses, colours or pictures are. Needs triton, which comes with torch for CUDA.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

RAYS = 128  # that one program follows, neighbours in a row


@triton.jit  # type: ignore[untyped-decorator]
def _along(position, period, size, last):  # type: ignore[no-untyped-def]
    """Which block of this size a position along an axis lies in, wherever the place repeats."""
    within = position - tl.floor(position / period) * period
    return tl.minimum((within / size).to(tl.int32), last)


@triton.jit  # type: ignore[untyped-decorator]
def _through(code, distance, first, last, far, ray, codes, side, levels, size, period):  # type: ignore[no-untyped-def]
    """Go on through blocks of one kind, asked for at far[first:last], for rays that have met nothing yet."""
    x, y, east, north, up, above = ray
    d = tl.full([], 0, tl.int32) + first
    while (d < last) & (tl.min(code, axis=0) == 0):
        way = tl.load(far + d)
        column = _along(x + east * way, period, size, side - 1)
        row = _along(y + north * way, period, size, side - 1)
        level = tl.floor((up * way + above) / size).to(tl.int32)
        level = tl.minimum(tl.maximum(level, -1), levels) + 1
        open_ray = code == 0
        met = tl.load(codes + (row * side + column) * (levels + 2) + level, mask=open_ray, other=0).to(tl.int32)
        distance = tl.where(open_ray & (met > 0), way, distance)
        code = tl.where(open_ray, met, code)
        d += 1
    return code, distance


@triton.jit  # type: ignore[untyped-decorator]
def _march(  # type: ignore[no-untyped-def]
    start, easts, norths, ups, aboves, far, codes0, codes1, codes2, found, away,
    total, high, wide, cells, heights, period, finest, end0, end1, end2, RAYS: tl.constexpr,
):  # fmt: skip
    """Codes `found` and distances `away` (n, h, w) of the first blocks that rays meet, 0 where they meet none."""
    at = tl.program_id(0) * RAYS + tl.arange(0, RAYS)
    inside = at < total
    n, r, c = at // (high * wide), at // wide % high, at % wide
    x = tl.load(start + 2 * n, mask=inside, other=0.0)
    y = tl.load(start + 2 * n + 1, mask=inside, other=0.0)
    east = tl.load(easts + n * wide + c, mask=inside, other=0.0)
    north = tl.load(norths + n * wide + c, mask=inside, other=0.0)
    up = tl.load(ups + n * high + r, mask=inside, other=0.0)
    above = tl.load(aboves + n, mask=inside, other=0.0)
    ray = (x, y, east, north, up, above)
    code = tl.where(inside, 0, 1)
    way = tl.zeros([RAYS], tl.float32)
    code, way = _through(code, way, 0, end0, far, ray, codes0, cells, heights, finest, period)
    code, way = _through(code, way, end0, end1, far, ray, codes1, cells // 2, heights // 2, finest * 2, period)
    code, way = _through(code, way, end1, end2, far, ray, codes2, cells // 4, heights // 4, finest * 4, period)
    tl.store(found + at, code, mask=inside)
    tl.store(away + at, way, mask=inside)


def first_met(
    rays: tuple[Tensor, ...],
    asked: Sequence[Tensor],
    codes: Sequence[Tensor],
    sizes: tuple[int, int, float, float],
) -> tuple[Tensor, Tensor]:
    """The code of the first block that each ray meets, 0 for none, int64 (n, h, w), and its distance in map units.

    rays: start (n, 2) in map units, east and north (n, w) and up (n, h) per unit along the heading, above (n,) of the
    map's bottom; asked: distances (D,) for each of the three kinds of blocks, `codes` these; sizes: cells a side and
    levels of the finest, the period and the finest's width in map units.
    """
    start, east, north, up, above = (part.float().contiguous() for part in rays)
    count, wide, high = *east.shape, up.shape[1]
    found = torch.empty(count, high, wide, dtype=torch.int32, device=east.device)
    away = torch.empty(count, high, wide, device=east.device)
    ends = [sum(len(part) for part in asked[: kind + 1]) for kind in range(3)]
    _march[(triton.cdiv(found.numel(), RAYS),)](
        start, east, north, up, above, torch.cat(tuple(asked)), *codes, found, away,
        found.numel(), high, wide, *sizes, *ends, RAYS=RAYS,
    )  # fmt: skip
    return found.long(), away
