"""A body's walk on a processor: each body makes all its ticks by itself, compiled.

Shape key: n bodies, T ticks, C cells a side, L blocks of lines a side.
What `Body.walk_of_tensors` does with a hundred small operations a tick; by a wall these cost as much as a network.
Where a body stands within a rounding of two cells it may stand on the other one.

Does not know of keys, places or pictures.
"""

from __future__ import annotations

import math

import numba
import numpy as np

from generator.tokenizer.body import (
    CLIMB,
    FARTHEST,
    LINES,
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


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def stands(levels, x, y, period, finest):  # type: ignore[no-untyped-def]
    """The eye's height of one who stands at a position of the plan."""
    last = len(levels) - 1
    return levels[min(int((y % period) / finest), last), min(int((x % period) / finest), last)]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def crossed(lines, thick, place, step, ahead, k, beside, slope, highest, front, finest):  # type: ignore[no-untyped-def]
    """The share of a corner's step after which it crosses the k-th line from where it is, 1 if that does not stop it.

    `beside` is where it is along the line, `slope` its step there; `front` tells whether it comes from the line's.
    """
    if step == 0:
        return 1.0
    number = math.floor(place / finest) + (ahead > 0) + ahead * k
    away = (number * finest - place) * ahead
    share, gap = away / abs(step), (abs(step) - away if front else away)
    if not 0 <= share < 1:
        return 1.0
    blocks, side = lines.shape
    line = int(number) % side
    for end in (beside, beside + slope):
        block = math.floor(end / finest) % side // (side // blocks)
        if lines[block, line] > highest and gap >= thick[block, line]:
            return share
    return 1.0


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def met(lines, thick, x, y, east, north, highest, finest):  # type: ignore[no-untyped-def]
    """The shares of a step after which a corner crosses a line that stops it, by axis; 1 if none does."""
    ahead_x, ahead_y = (1 if east > 0 else -1), (1 if north > 0 else -1)
    along_x, along_y = 1.0, 1.0
    for corner in range(3):
        at_x = x + ahead_x * (-RADIUS if corner == 1 else RADIUS)
        at_y = y + ahead_y * (-RADIUS if corner == 2 else RADIUS)
        for k in range(LINES):
            one = crossed(lines[0], thick[0], at_x, east, ahead_x, k, at_y, north, highest, ahead_x < 0, finest)
            two = crossed(lines[1], thick[1], at_y, north, ahead_y, k, at_x, east, highest, ahead_y > 0, finest)
            along_x, along_y = min(along_x, one), min(along_y, two)
    return along_x, along_y


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def part(levels, lines, thick, x, y, east, north, highest, period, finest):  # type: ignore[no-untyped-def]
    """Where a part of a step ends, and what is left of it."""
    if stands(levels, x + east, y + north, period, finest) <= highest:
        return x + east, y + north, east, north
    left_x, left_y = east, north
    for _ in range(SLIDES):
        along_x, along_y = met(lines, thick, x, y, east, north, highest, finest)
        share = min(along_x, along_y)
        to_x, to_y = x + east * max(share - SPARE, 0.0), y + north * max(share - SPARE, 0.0)
        if share >= 1 or stands(levels, to_x, to_y, period, finest) > highest:
            break
        x, y, east, north = to_x, to_y, east * (1 - share), north * (1 - share)
        left_x, left_y = (east if along_x > share else 0.0), (north if along_y > share else 0.0)
        if stands(levels, x + left_x, y + left_y, period, finest) <= highest:
            return x + left_x, y + left_y, left_x, left_y
    if stands(levels, x, y + north, period, finest) <= highest:
        y += north
    elif stands(levels, x + east, y, period, finest) <= highest:
        x += east
    return x, y, left_x, left_y


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def slide(levels, lines, thick, x, y, east, north, highest, period, finest):  # type: ignore[no-untyped-def]
    """Where a step ends, and the speed that is left of it."""
    if stands(levels, x, y, period, finest) > highest:
        highest = 2 * NOWHERE
    count = min(int(max(abs(east), abs(north)) / FARTHEST) + 1, PARTS)
    for _ in range(count):
        x, y, left_x, left_y = part(levels, lines, thick, x, y, east / count, north / count, highest, period, finest)
        east, north = left_x * count, left_y * count
    return x, y, east, north


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def turned(yaw, ahead, aside):  # type: ignore[no-untyped-def]
    """Forward and right of a heading as east and north, and back."""
    cos, sin = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    return cos * ahead - sin * aside, -sin * ahead - cos * aside


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def walk(pose, state, look, pushes, lifts, carry, fall, levels, lines, thick, period, finest, moves):  # type: ignore[no-untyped-def]
    """All ticks of one body, in place: pose (5,), state (7,), look (T, 2), pushes (T, 2, 2), lifts (T,), moves (T, 3);
    the names are those of `Body.walk_of_tensors`.
    """
    x, y, yaw, height = float(pose[0]), float(pose[1]), float(pose[2]), float(pose[4])
    east, north, rise = float(state[0]), float(state[1]), float(state[2])
    flown, flew, known, weary = state[3], state[4], float(state[5]), state[6]
    usual = turned(yaw + look[0, 0], pushes[0, 0, 0], pushes[0, 0, 1])
    lost = max(1 - float(carry[0]), SPARE)
    east, north = usual[0] / lost * (1 - known) + known * east, usual[1] / lost * (1 - known) + known * north
    for tick in range(len(look)):
        yaw += look[tick, 0]
        floor = stands(levels, x, y, period, finest)
        floor = height if floor > height + CLIMB else floor
        flies = height + rise > floor + TOUCH
        eye = max(height + rise, floor)
        ahead, aside = pushes[tick, int(flies), 0], pushes[tick, int(flies), 1]
        push = turned(yaw, ahead, aside)
        kept = carry[1] if flew else carry[0]
        east, north = east * kept + push[0], north * kept + push[1]
        to_x, to_y, east, north = slide(levels, lines, thick, x, y, east, north, eye + CLIMB, period, finest)
        there = stands(levels, to_x, to_y, period, finest)
        there = eye if there > eye + CLIMB else there
        lifted = height + rise if flies else floor
        lift = lifts[tick] if not flies and weary <= 0 else np.float32(0)
        rise = fall[2 * int(flown)] * rise + fall[2 * int(flown) + 1] if flies else lift
        rise = max(rise, there - lifted)
        weary = np.float32(WEARY) if lift > 0 else max(weary - np.float32(1), np.float32(0))
        flown, flew = np.float32(flies), np.float32(eye > there + TOUCH)
        if ahead == 0 and aside == 0 and max(abs(east), abs(north)) < SLOWEST and not flew:
            east, north = 0.0, 0.0
        made = turned(yaw, to_x - x, to_y - y)
        moves[tick, 0], moves[tick, 1], moves[tick, 2] = made[0], made[1], lifted - height
        x, y, height = to_x % period, to_y % period, lifted
    pose[0], pose[1], pose[2], pose[4] = x, y, yaw % 360, height
    pose[3] = min(max(pose[3] + look[:, 1].sum(), -STEEPEST), STEEPEST)
    state[0], state[1], state[2], state[3], state[4], state[5], state[6] = east, north, rise, flown, flew, 1, weary


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def walk_all(poses, states, looks, pushes, lifts, carry, fall, levels, lines, thick, period, finest, moves):  # type: ignore[no-untyped-def]
    """`walk` of n bodies, in place: poses (n, 5), states (n, 7), looks (n, T, 2), pushes (n, T, 2, 2), lifts (n, T) and
    moves (n, T, 3), all float32.
    """
    for n in range(len(poses)):
        walk(
            poses[n], states[n], looks[n], pushes[n], lifts[n], carry, fall, levels, lines, thick, period, finest,
            moves[n],
        )  # fmt: skip
