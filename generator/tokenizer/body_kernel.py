"""A body's walk on a GPU: one kernel in which each body makes all its ticks by itself.

Shape key: n bodies, T ticks, C cells a side, L blocks of lines a side.
What `Body.walk` does with some three thousand small steps over tensors, one after the other: a GPU would wait for each.
Where a body stands within a rounding of two cells it may stand on the other one.

Does not know of keys, places or pictures. Needs triton, which comes with torch for CUDA.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from generator.tokenizer.place_kernel import _along

RADIANS = math.pi / 180


@triton.jit  # type: ignore[untyped-decorator]
def _stands(levels, x, y, sizes):  # type: ignore[no-untyped-def]
    """The eye's height of one who stands at a position of the plan."""
    side, _, period, finest = sizes
    return tl.load(levels + _along(y, period, finest, side - 1) * side + _along(x, period, finest, side - 1))


@triton.jit  # type: ignore[untyped-decorator]
def _wrapped(number, side):  # type: ignore[no-untyped-def]
    """Which cell of the place a cell of the endless plan is."""
    return (number - tl.floor(number / side) * side).to(tl.int32)


@triton.jit  # type: ignore[untyped-decorator]
def _crossed(place, step, ahead, k, beside, slope, highest, lines, thick, front, sizes):  # type: ignore[no-untyped-def]
    """The share of a corner's step after which it crosses the k-th line from where it is, 1 if that does not stop it.

    `beside` is where it is along the line, `slope` its step there; `front` tells whether it comes from the line's.
    """
    side, within, _, finest = sizes
    number = tl.floor(place / finest) + tl.where(ahead > 0, 1.0, 0.0) + ahead * k
    away = (number * finest - place) * ahead
    share, gap = away / tl.abs(step), tl.where(front, tl.abs(step) - away, away)
    line = _wrapped(number, side)
    first = _wrapped(tl.floor(beside / finest), side) // within * side + line
    last = _wrapped(tl.floor((beside + slope) / finest), side) // within * side + line
    stops = (tl.load(lines + first) > highest) & (gap >= tl.load(thick + first))
    stops = stops | (tl.load(lines + last) > highest) & (gap >= tl.load(thick + last))
    return tl.where(stops & (share >= 0) & (share < 1), share, 1.0)


@triton.jit  # type: ignore[untyped-decorator]
def _met(x, y, east, north, highest, lines, thick, sizes, RADIUS: tl.constexpr, LINES: tl.constexpr):  # type: ignore[no-untyped-def]
    """The shares of a step after which a corner crosses a line that stops it, by axis; 1 if none does."""
    side, within, _, _ = sizes
    ahead_x, ahead_y = tl.where(east > 0, 1.0, -1.0), tl.where(north > 0, 1.0, -1.0)
    along_x, along_y = ahead_x * 0.0 + 1.0, ahead_y * 0.0 + 1.0
    rows = side // within * side
    for corner in tl.static_range(3):
        corner_x = x + ahead_x * (RADIUS - 2 * RADIUS * (corner == 1))
        corner_y = y + ahead_y * (RADIUS - 2 * RADIUS * (corner == 2))
        for k in tl.static_range(LINES):
            met_x = _crossed(corner_x, east, ahead_x, k, corner_y, north, highest, lines, thick, ahead_x < 0, sizes)
            met_y = _crossed(
                corner_y, north, ahead_y, k, corner_x, east, highest, lines + rows, thick + rows, ahead_y > 0, sizes
            )
            along_x, along_y = tl.minimum(along_x, met_x), tl.minimum(along_y, met_y)
    return along_x, along_y


@triton.jit  # type: ignore[untyped-decorator]
def _part(  # type: ignore[no-untyped-def]
    x, y, east, north, highest, levels, lines, thick, sizes,
    RADIUS: tl.constexpr, LINES: tl.constexpr, SLIDES: tl.constexpr, SPARE: tl.constexpr,
):  # fmt: skip
    """Where a part of a step ends, and what is left of it."""
    stopped = _stands(levels, x + east, y + north, sizes) > highest
    left_x, left_y = east, north
    x, y = tl.where(stopped, x, x + east), tl.where(stopped, y, y + north)
    slides = stopped
    for _ in tl.static_range(SLIDES):
        along_x, along_y = _met(x, y, east, north, highest, lines, thick, sizes, RADIUS, LINES)
        share = tl.minimum(along_x, along_y)
        touch = tl.maximum(share - SPARE, 0.0)
        to_x, to_y = x + east * touch, y + north * touch
        slides = slides & (share < 1) & (_stands(levels, to_x, to_y, sizes) <= highest)
        x, y = tl.where(slides, to_x, x), tl.where(slides, to_y, y)
        east, north = tl.where(slides, east * (1 - share), east), tl.where(slides, north * (1 - share), north)
        rest_x, rest_y = tl.where(along_x > share, east, 0.0), tl.where(along_y > share, north, 0.0)
        left_x, left_y = tl.where(slides, rest_x, left_x), tl.where(slides, rest_y, left_y)
        goes_on = slides & (_stands(levels, x + rest_x, y + rest_y, sizes) <= highest)
        x, y = tl.where(goes_on, x + rest_x, x), tl.where(goes_on, y + rest_y, y)
        stopped = stopped & (goes_on == 0)
        slides = slides & stopped
    goes_on = stopped & (_stands(levels, x, y + north, sizes) <= highest)
    y = tl.where(goes_on, y + north, y)
    stopped = stopped & (goes_on == 0)
    goes_on = stopped & (_stands(levels, x + east, y, sizes) <= highest)
    x = tl.where(goes_on, x + east, x)
    return x, y, left_x, left_y


@triton.jit  # type: ignore[untyped-decorator]
def _slide(  # type: ignore[no-untyped-def]
    x, y, speed_x, speed_y, highest, levels, lines, thick, sizes, FARTHEST: tl.constexpr, PARTS: tl.constexpr,
    RADIUS: tl.constexpr, LINES: tl.constexpr, SLIDES: tl.constexpr, SPARE: tl.constexpr,
):  # fmt: skip
    """Where a step ends, part by part, and the speed that is left."""
    count = tl.floor(tl.maximum(tl.abs(speed_x), tl.abs(speed_y)) / FARTHEST) + 1
    count = tl.minimum(count, 1.0 * PARTS)
    for number in tl.static_range(PARTS):
        goes = number < count
        east, north = tl.where(goes, speed_x / count, 0.0), tl.where(goes, speed_y / count, 0.0)
        x, y, left_x, left_y = _part(
            x, y, east, north, highest, levels, lines, thick, sizes, RADIUS, LINES, SLIDES, SPARE
        )
        speed_x, speed_y = tl.where(goes, left_x * count, speed_x), tl.where(goes, left_y * count, speed_y)
    return x, y, speed_x, speed_y


@triton.jit  # type: ignore[untyped-decorator]
def _usual(yaw, pushes, stands, SPARE: tl.constexpr, RADIANS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The speed that the same push leads to in the end."""
    ahead, aside, usual = tl.load(pushes), tl.load(pushes + 1), tl.maximum(1 - stands, SPARE)
    cos, sin = tl.cos(yaw * RADIANS), tl.sin(yaw * RADIANS)
    return (cos * ahead - sin * aside) / usual, (-sin * ahead - cos * aside) / usual


@triton.jit  # type: ignore[untyped-decorator]
def _falls(rise, flown, fall):  # type: ignore[no-untyped-def]
    """How much the eye of one in the air rises next."""
    slope = tl.load(fall) + flown * (tl.load(fall + 2) - tl.load(fall))
    return slope * rise + tl.load(fall + 1) + flown * (tl.load(fall + 3) - tl.load(fall + 1))


@triton.jit  # type: ignore[untyped-decorator]
def _keep(after, speed_x, speed_y, rise, flown, flew, weary):  # type: ignore[no-untyped-def]
    """Store a state, in which the speed is known."""
    tl.store(after, speed_x)
    tl.store(after + 1, speed_y)
    tl.store(after + 2, rise)
    tl.store(after + 3, flown)
    tl.store(after + 4, flew)
    tl.store(after + 5, 1.0)
    tl.store(after + 6, weary)


@triton.jit  # type: ignore[untyped-decorator]
def _walk(  # type: ignore[no-untyped-def]
    poses, looks, pushes, lifts, states, carry, fall, levels, lines, thick, ends, moves, after,
    ticks, side, within, period, finest, CLIMB: tl.constexpr, TOUCH: tl.constexpr, SLOWEST: tl.constexpr,
    WEARY: tl.constexpr, FARTHEST: tl.constexpr, PARTS: tl.constexpr, NOWHERE: tl.constexpr, STEEPEST: tl.constexpr,
    RADIUS: tl.constexpr, LINES: tl.constexpr, SLIDES: tl.constexpr, SPARE: tl.constexpr, RADIANS: tl.constexpr,
):  # fmt: skip
    """All ticks of one body: see `Body.walk`, whose names these are."""
    body, sizes = tl.program_id(0), (side, within, period, finest)
    x, y, yaw = (tl.load(poses + body * 5), tl.load(poses + body * 5 + 1), tl.load(poses + body * 5 + 2))
    pitch, height = tl.load(poses + body * 5 + 3), tl.load(poses + body * 5 + 4)
    state = states + body * 7
    speed_x, speed_y, rise = tl.load(state), tl.load(state + 1), tl.load(state + 2)
    flown, flew, known, weary = tl.load(state + 3), tl.load(state + 4), tl.load(state + 5), tl.load(state + 6)
    stands, flies_on = tl.load(carry), tl.load(carry + 1)
    usual_x, usual_y = _usual(
        yaw + tl.load(looks + body * ticks * 2), pushes + body * ticks * 4, stands, SPARE, RADIANS
    )
    speed_x, speed_y = usual_x + known * (speed_x - usual_x), usual_y + known * (speed_y - usual_y)
    for tick in range(ticks):
        at = body * ticks + tick
        yaw += tl.load(looks + at * 2)
        pitch += tl.load(looks + at * 2 + 1)
        cos, sin = tl.cos(yaw * RADIANS), tl.sin(yaw * RADIANS)
        ground = _stands(levels, x, y, sizes)
        floor = tl.where(ground > height + CLIMB, height, ground)
        flies = height + rise > floor + TOUCH
        eye = tl.maximum(height + rise, floor)
        ahead = tl.where(flies, tl.load(pushes + at * 4 + 2), tl.load(pushes + at * 4))
        aside = tl.where(flies, tl.load(pushes + at * 4 + 3), tl.load(pushes + at * 4 + 1))
        kept = stands + flew * (flies_on - stands)
        speed_x = speed_x * kept + cos * ahead - sin * aside
        speed_y = speed_y * kept - sin * ahead - cos * aside
        highest = tl.where(ground > eye + CLIMB, 2 * NOWHERE, eye + CLIMB)
        from_x, from_y = x, y
        x, y, speed_x, speed_y = _slide(
            x, y, speed_x, speed_y, highest, levels, lines, thick, sizes, FARTHEST, PARTS, RADIUS, LINES, SLIDES, SPARE
        )
        there = _stands(levels, x, y, sizes)
        there = tl.where(there > eye + CLIMB, eye, there)
        lifted = tl.where(flies, height + rise, floor)
        lift = tl.where(flies | (weary > 0), 0.0, tl.load(lifts + at))
        rise = tl.maximum(tl.where(flies, _falls(rise, flown, fall), lift), there - lifted)
        weary = tl.where(lift > 0, 1.0 * WEARY, tl.maximum(weary - 1, 0.0))
        flown, flew = tl.where(flies, 1.0, 0.0), tl.where(eye > there + TOUCH, 1.0, 0.0)
        rests = (ahead == 0) & (aside == 0) & (tl.maximum(tl.abs(speed_x), tl.abs(speed_y)) < SLOWEST) & (flew == 0)
        speed_x, speed_y = tl.where(rests, 0.0, speed_x), tl.where(rests, 0.0, speed_y)
        tl.store(moves + at * 3, cos * (x - from_x) - sin * (y - from_y))
        tl.store(moves + at * 3 + 1, -sin * (x - from_x) - cos * (y - from_y))
        tl.store(moves + at * 3 + 2, lifted - height)
        x, y, height = x - tl.floor(x / period) * period, y - tl.floor(y / period) * period, lifted
    tl.store(ends + body * 5, x)
    tl.store(ends + body * 5 + 1, y)
    tl.store(ends + body * 5 + 2, yaw - tl.floor(yaw / 360) * 360)
    tl.store(ends + body * 5 + 3, tl.minimum(tl.maximum(pitch, -STEEPEST), STEEPEST))
    tl.store(ends + body * 5 + 4, height)
    _keep(after + body * 7, speed_x, speed_y, rise, flown, flew, weary)


def walk(
    given: tuple[Tensor, ...], body: tuple[Tensor, ...], period: float, finest: float, numbers: dict[str, float]
) -> tuple[Tensor, Tensor, Tensor]:
    """The pose (n, 5), the moves (n, T, 3) and the state (n, 7) afterwards.

    given: pose (n, 5), look (n, T, 2), pushes (n, T, 4) by whether one flies and then forward and right, lifts (n, T),
    state (n, 7); body: carry (2,), fall (4,), levels (C, C), lines and how thick they are (2, L, C); numbers: the
    constants of body.py by name.
    """
    pose, look, pushes, lifts, state = (part.float().contiguous() for part in given)
    levels, lines = body[2], body[3]
    ends, after, moves = torch.empty_like(pose), torch.empty_like(state), pose.new_empty(*look.shape[:2], 3)
    side = len(levels)
    _walk[(len(pose),)](
        pose, look, pushes, lifts, state, *(part.float().contiguous() for part in body), ends, moves, after,
        look.shape[1], side, side // lines.shape[1], period, finest, **numbers, RADIANS=RADIANS,
        num_warps=1,
    )  # fmt: skip
    return ends, moves, after
