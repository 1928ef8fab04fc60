"""A line body's walk on a processor: each body makes all its ticks by itself, compiled.

Shape key: n bodies, T ticks, L lines, C cells a side.
What `LineBody.walk_of_tensors` does for all lines at once; here most lines are left out by a glance at where they are.
`own` is `line_body.Lines` as arrays. Where a body is within a rounding of a line it may be on the other side of it.

Does not know of keys, places or pictures.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from generator.tokenizer.body import (
    CLIMB,
    FARTHEST,
    NOWHERE,
    PARTS,
    RADIUS,
    SLIDES,
    SLOWEST,
    SPARE,
    STEEPEST,
    TOUCH,
    WEARY,
)
from generator.tokenizer.body_steps import turned
from generator.tokenizer.line_body import BARRED, BLOCK, DEEPEST, EASE, FRESH, GRAVITY, HARD, LAG, LEEWAY, TALL, WITHIN


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def behind(line, x, y):  # type: ignore[no-untyped-def]
    """Whether a position is behind a line."""
    return math.floor((y - line[1]) * (line[2] - line[0]) + (line[0] - x) * (line[3] - line[1])) > 0


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def touches(line, x, y, radius):  # type: ignore[no-untyped-def]
    """Whether a line goes through the square of that radius around a position."""
    if x + radius <= min(line[0], line[2]) or x - radius >= max(line[0], line[2]):
        return False
    if y + radius <= min(line[1], line[3]) or y - radius >= max(line[1], line[3]):
        return False
    slope = (line[2] - line[0]) * (line[3] - line[1])
    if slope == 0:
        return True
    aside = -radius if slope > 0 else radius
    return behind(line, x + aside, y + radius) != behind(line, x - aside, y - radius)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def room(own, x, y, radius, most, period, finest):  # type: ignore[no-untyped-def]
    """The highest floor, of those no higher than `most`, and the lowest ceiling that a body touches."""
    ends, bottom, top, _, floors, ceilings, window, _ = own
    last = len(floors) - 1
    x, y = window[0] + (x - window[0]) % period, window[1] + (y - window[1]) % period
    column, row = min(int((x - window[0]) / finest), last), min(int((y - window[1]) / finest), last)
    floor, ceiling = floors[row, column], ceilings[row, column]
    for k in range(len(ends)):
        if bottom[k] <= most and (bottom[k] > floor or top[k] < ceiling) and touches(ends[k], x, y, radius):
            floor, ceiling = max(floor, bottom[k]), min(ceiling, top[k])
    return floor, ceiling


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def under(own, x, y, feet, period, finest):  # type: ignore[no-untyped-def]
    """Floor and ceiling of one whose feet are so high."""
    floor, ceiling = room(own, x, y, RADIUS, feet + CLIMB, period, finest)
    return (floor if floor <= feet + CLIMB else feet), ceiling


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def fits(own, x, y, feet, radius, period, finest):  # type: ignore[no-untyped-def]
    """Whether a body of this radius could go on to a position."""
    floor, ceiling = room(own, x, y, radius, NOWHERE, period, finest)
    return ceiling - max(floor, feet) >= TALL and floor - feet <= CLIMB


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def beside(line, blocks, x, y):  # type: ignore[no-untyped-def]
    """Whether a line crosses the block of the plan that a position lies in."""
    enter, leave = 0.0, 1.0
    for axis in range(2):
        at = x if axis == 0 else y
        low = blocks[axis] + math.floor((at - blocks[axis]) / BLOCK) * BLOCK
        first, way = line[axis], line[2 + axis] - line[axis]
        if way == 0:
            if first < low or first > low + WITHIN:
                return False
        else:
            one, two = (low - first) / way, (low + WITHIN - first) / way
            enter, leave = max(enter, min(one, two)), min(leave, max(one, two))
    return enter <= leave


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def met(own, x, y, feet, east, north, period):  # type: ignore[no-untyped-def]
    """The share of a step after which a corner crosses a line that stops it, 1 if none does, and which line."""
    ends, bottom, top, single, _, _, window, blocks = own
    x, y = window[0] + (x - window[0]) % period, window[1] + (y - window[1]) % period
    ahead_x, ahead_y = (RADIUS if east > 0 else -RADIUS), (RADIUS if north > 0 else -RADIUS)
    best, which = 1.0, 0
    for k in range(len(ends)):
        line = ends[k]
        if single[k] > 0:
            if behind(line, x, y):
                continue
        elif top[k] - max(bottom[k], feet) >= TALL and bottom[k] - feet <= CLIMB:
            continue
        wide, tall = line[2] - line[0], line[3] - line[1]
        rate = east * tall - north * wide
        if rate == 0:
            continue
        for corner in range(3):
            at_x, at_y = x + (-ahead_x if corner == 1 else ahead_x), y + (-ahead_y if corner == 2 else ahead_y)
            share = ((line[0] - at_x) * tall + (at_y - line[1]) * wide) / rate
            if share < 0 or share >= best or behind(line, at_x, at_y) == behind(line, at_x + east, at_y + north):
                continue
            if beside(line, blocks, at_x, at_y) or beside(line, blocks, at_x + east, at_y + north):
                best, which = share, k
    return best, which


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def part(own, x, y, feet, east, north, period, finest):  # type: ignore[no-untyped-def]
    """Where a part of a step ends, and what is left of it."""
    if fits(own, x + east, y + north, feet, RADIUS, period, finest):
        return x + east, y + north, east, north
    left_x, left_y = east, north
    for _ in range(SLIDES):
        share, which = met(own, x, y, feet, east, north, period)
        to_x, to_y = x + east * max(share - SPARE, 0.0), y + north * max(share - SPARE, 0.0)
        if share >= 1 or not fits(own, to_x, to_y, feet, RADIUS, period, finest):
            break
        x, y, east, north = to_x, to_y, east * (1 - share), north * (1 - share)
        line = own[0][which]
        wide, tall = line[2] - line[0], line[3] - line[1]
        rate = (east * wide + north * tall) / (wide * wide + tall * tall)
        left_x, left_y = wide * rate, tall * rate
        if fits(own, x + left_x, y + left_y, feet, RADIUS, period, finest):
            return x + left_x, y + left_y, left_x, left_y
    if fits(own, x, y + north, feet, RADIUS, period, finest):
        y += north
    elif fits(own, x + east, y, feet, RADIUS, period, finest):
        x += east
    return x, y, left_x, left_y


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def go(own, x, y, feet, east, north, period, finest):  # type: ignore[no-untyped-def]
    """Where a step ends, and the speed that is left of it."""
    count = min(int(max(abs(east), abs(north)) / FARTHEST) + 1, PARTS)
    if not fits(own, x, y, feet, RADIUS - LEEWAY, period, finest):
        return x + east, y + north, east, north
    for _ in range(count):
        x, y, left_x, left_y = part(own, x, y, feet, east / count, north / count, period, finest)
        east, north = left_x * count, left_y * count
    return x, y, east, north


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def eased(sunk, mend, stature):  # type: ignore[no-untyped-def]
    """How far an eye is sunk a tick later, and by how much it recovers in the next one."""
    if mend == 0 and sunk > 0:
        mend = sunk / LAG
    sunk -= mend
    if sunk < 0:
        sunk, mend = 0.0, 0.0
    elif sunk > DEEPEST * stature:
        sunk, mend = DEEPEST * stature, (FRESH if mend <= 0 else mend)
    if mend != 0:
        mend = mend + EASE if mend + EASE != 0 else FRESH
    return sunk, mend


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def fallen(feet, fall, mend, old, floor, ceiling):  # type: ignore[no-untyped-def]
    """The feet's height, upward speed and the eye's recovery after a tick above a floor, `old` before, and below a
    ceiling.
    """
    ledge = fall == 0 and old > floor and feet == old
    feet += fall
    if feet > floor:
        fall -= 2 * GRAVITY if ledge else GRAVITY
    else:
        mend, fall, feet = (fall / LAG if fall < HARD else mend), max(fall, 0.0), floor
    if feet + TALL > ceiling:
        feet, fall = max(ceiling - TALL, floor), min(fall, 0.0)
    return feet, fall, mend


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def walk(pose, state, look, pushes, lifts, numbers, own, moves):  # type: ignore[no-untyped-def]
    """All ticks of one body, in place: pose (5,), state (9,), look (T, 2), pushes (T, 2, 2), lifts (T,), moves (T, 3);
    the names are those of `LineBody.walk_of_tensors`.
    """
    keeps, flying, stature, period, finest = numbers
    x, y, yaw, height = float(pose[0]), float(pose[1]), float(pose[2]), float(pose[4])
    east, north, rise, fall = float(state[0]), float(state[1]), float(state[2]), float(state[3])
    sunk, mend, flew, known, weary = float(state[4]), float(state[5]), state[6] > 0, float(state[7]), float(state[8])
    usual, lost = turned(yaw + look[0, 0], pushes[0, 0, 0], pushes[0, 0, 1]), max(1 - keeps, SPARE)
    east, north = usual[0] / lost * (1 - known) + known * east, usual[1] / lost * (1 - known) + known * north
    feet = height + rise - stature
    for tick in range(len(look)):
        yaw += look[tick, 0]
        sunk, mend = eased(sunk, mend, stature)
        old, _ = under(own, x, y, feet, period, finest)
        feet = old if abs(feet - old) < TOUCH else feet
        eye, flies = feet + stature - sunk, feet > old
        ahead, aside = pushes[tick, int(flies), 0], pushes[tick, int(flies), 1]
        push = turned(yaw, ahead, aside)
        kept = flying if flew else keeps
        east, north = east * kept + push[0], north * kept + push[1]
        if lifts[tick] > 0 and not flies and weary <= 0:
            fall, weary = float(lifts[tick]), float(WEARY)
        else:
            weary = max(weary - 1.0, 0.0)
        to_x, to_y, east, north = go(own, x, y, feet, east, north, period, finest)
        floor, ceiling = under(own, to_x, to_y, feet, period, finest)
        flew = feet > floor
        if feet < floor:
            sunk += floor - feet
            mend, feet = sunk / LAG, floor
        feet, fall, mend = fallen(feet, fall, mend, old, floor, ceiling)
        if ahead == 0 and aside == 0 and max(abs(east), abs(north)) < SLOWEST and not flew:
            east, north = 0.0, 0.0
        made = turned(yaw, to_x - x, to_y - y)
        moves[tick, 0], moves[tick, 1], moves[tick, 2] = made[0], made[1], eye - height
        x, y, height = to_x % period, to_y % period, eye
    pose[0], pose[1], pose[2], pose[4] = x, y, yaw % 360, height
    pose[3] = min(max(pose[3] + look[:, 1].sum(), -STEEPEST), STEEPEST)
    state[0], state[1], state[2], state[3], state[4] = east, north, feet + stature - height, fall, sunk
    state[5], state[6], state[7], state[8] = mend, (1.0 if flew else 0.0), 1.0, weary


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def walk_all(poses, states, looks, pushes, lifts, numbers, own, moves):  # type: ignore[no-untyped-def]
    """`walk` of n bodies, in place: poses (n, 5), states (n, 9), looks (n, T, 2), pushes (n, T, 2, 2), lifts (n, T) and
    moves (n, T, 3), all float32; `numbers` are both carries, the stature, the period and the size of cells.
    """
    for n in range(len(poses)):
        walk(poses[n], states[n], looks[n], pushes[n], lifts[n], numbers, own, moves[n])


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def stood_on(plan, own, period, finest):  # type: ignore[no-untyped-def]
    """The floor (n,) under one who stands at positions (n, 2); NOWHERE where nobody can."""
    made = np.full(len(plan), NOWHERE)
    for n in range(len(plan)):
        floor, ceiling = room(own, plan[n, 0], plan[n, 1], RADIUS, NOWHERE, period, finest)
        if floor < BARRED and ceiling - floor >= TALL:
            made[n] = floor
    return made
