"""Moving a picture on a processor, compiled: where its pixels come from, and how two pictures are mixed.

Shape key: n views, h, w nearness grid, Y, X picture size, y, x half of it.
What reproject.py does with some sixty operations on tensors, each of which wakes every thread: within roundings the
same numbers, each view on a thread of its own.

Does not know what pictures show or how a camera was moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from generator.tokenizer.place_rays import workers

Float = npt.NDArray[np.float32]
NONE, HALF, ONE, TWO = map(np.float32, (0, 0.5, 1, 2))  # whole numbers would make it all float64
SIDEWAYS = np.float32(1e-3)  # a view behind one's back shows the border


@numba.njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def between(rows, x, y):  # type: ignore[no-untyped-def]
    """What a grid (h, w) has at a place in -1..1, where cells' middles are a grid's; its border goes on beyond it, and
    a place that is no number is its first cell.
    """
    high, wide = rows.shape
    x, y = ((x + ONE) * np.float32(wide) - ONE) * HALF, ((y + ONE) * np.float32(high) - ONE) * HALF
    x = min(x, np.float32(wide - 1)) if x > NONE else NONE
    y = min(y, np.float32(high - 1)) if y > NONE else NONE
    left, top = int(x), int(y)
    right, under = min(left + 1, wide - 1), min(top + 1, high - 1)
    x, y = x - np.float32(left), y - np.float32(top)
    upper = rows[top, left] + x * (rows[top, right] - rows[top, left])
    lower = rows[under, left] + x * (rows[under, right] - rows[under, left])
    return upper + y * (lower - upper)


@numba.njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def beside(number, count, cells):  # type: ignore[no-untyped-def]
    """Between which two of so many cells the middle of one of `count` lies that share their length, and how far from
    the first to the second.
    """
    at = max((np.float32(number) + HALF) * (np.float32(cells) / np.float32(count)) - HALF, NONE)
    first = int(at)
    return first, min(first + 1, cells - 1), at - np.float32(first)


@numba.njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def stretched(rows, number, count, row, out):  # type: ignore[no-untyped-def]
    """Fill `out` (X,) with row `number` of a grid (h, w) drawn out to `count` rows of that length; `row` (w,) is
    scratch.
    """
    high, wide = rows.shape
    top, under, down = beside(number, count, high)
    for c in range(wide):
        row[c] = rows[top, c] + down * (rows[under, c] - rows[top, c])
    for c in range(len(out)):
        left, right, on = beside(c, len(out), wide)
        out[c] = row[left] + on * (row[right] - row[left])


@numba.njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def middle(number, count):  # type: ignore[no-untyped-def]
    """Where the middle of one of `count` cells lies that share -1..1."""
    return (np.float32(number) + HALF) / np.float32(count) * TWO - ONE


@numba.njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def rays(yaw, edge, ahead, aside):  # type: ignore[no-untyped-def]
    """Fill in how far ahead of the old camera and to its right, per unit of the new heading, columns (X,) look."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    for c in range(len(ahead)):
        across = middle(c, len(ahead)) * edge
        ahead[c], aside[c] = max(cos - across * sin, SIDEWAYS), across * cos + sin


@numba.njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def moved_from(camera, look, nearness, rounds, grid):  # type: ignore[no-untyped-def]
    """Fill `grid` (Y, X, 2) with where pixels of a view lie, in -1..1, in the old picture of this nearness (h, w).

    camera: the slope at which pictures end, how much taller than wide things are drawn, and what share of its distance
    is too near. look: yaw and pitch turned by in radians, the old horizon (tan), and the way forward, right and up;
    `rounds` of finding how near what is looked at is.
    """
    edge, stretch, nearest = camera
    yaw, pitch, before, forward, right, up = look
    high, wide, rows, columns = grid.shape[0], grid.shape[1], nearness.shape[0], nearness.shape[1]
    after, tall = math.tan(math.atan(before) + pitch), np.float32(high) / np.float32(wide) * edge
    per_x, per_y = ONE / edge, stretch / tall
    near, ahead, aside = np.empty((rows, columns), np.float32), np.empty(wide, np.float32), np.empty(wide, np.float32)
    rays(yaw, edge, ahead[:columns], aside[:columns])
    for r in range(rows):
        down = middle(r, rows) * tall / stretch - after
        for c in range(columns):
            q = NONE
            for _ in range(rounds):
                deep = max(ahead[c] + q * forward, nearest)
                x, y = (aside[c] + q * right) / deep, (down - q * up) / deep + before
                q = between(nearness, x * per_x, y * per_y) * deep
            near[r, c] = q
    rays(yaw, edge, ahead, aside)
    row, nearer = np.empty(columns, np.float32), np.empty(wide, np.float32)
    for r in range(high):
        stretched(near, r, high, row, nearer)
        down = middle(r, high) * tall / stretch - after
        for c in range(wide):
            q = nearer[c]
            per = ONE / max(ahead[c] + q * forward, nearest)
            grid[r, c, 0] = (aside[c] + q * right) * per * per_x
            grid[r, c, 1] = ((down - q * up) * per + before) * per_y


@numba.njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def shown_of(grid, least, shown):  # type: ignore[no-untyped-def]
    """Fill `shown` (Y, X) with whether a view read at grid (Y, X, 2) shows what the old picture did: see
    `reproject.really_shown`; `least` is how many of its pixels a view's may come from.
    """
    high, wide = shown.shape
    alone, rows = np.empty((high, wide), np.bool_), np.empty((high, wide), np.bool_)
    half_wide, half_high = np.float32(wide / 2), np.float32(high / 2)
    for r in range(high):
        up = min(r, high - 2)
        for c in range(wide):
            left = min(c, wide - 2)
            across = (grid[r, left + 1, 0] - grid[r, left, 0]) * half_wide > least
            down = (grid[up + 1, c, 1] - grid[up, c, 1]) * half_high > least
            alone[r, c] = (abs(grid[r, c, 0]) <= 1) & (abs(grid[r, c, 1]) <= 1) & across & down
    for r in range(high):
        for c in range(wide):
            rows[r, c] = alone[max(r - 1, 0), c] & alone[r, c] & alone[min(r + 1, high - 1), c]
    for r in range(high):
        for c in range(wide):
            shown[r, c] = rows[r, max(c - 1, 0)] & rows[r, c] & rows[r, min(c + 1, wide - 1)]


@numba.njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def alike(one, other, within, soft, share):  # type: ignore[no-untyped-def]
    """Fill `share` (y, x) with how far two pictures (3, Y, X) show the same: see `reproject.agreement`."""
    high, wide = share.shape
    reach, scale = soft // 2, np.float32(0.25 / soft**2)
    row, total = np.empty(wide + 2 * reach, np.float32), np.empty(wide, np.float32)
    across = np.empty((high + 2 * reach, wide), np.float32)  # its edges go on beyond it
    share[:] = NONE
    for i in range(3):
        for r in range(high):
            for c in range(wide):
                y, x = 2 * r, 2 * c
                left = (one[i, y, x] - other[i, y, x]) + (one[i, y + 1, x] - other[i, y + 1, x])
                right = (one[i, y, x + 1] - other[i, y, x + 1]) + (one[i, y + 1, x + 1] - other[i, y + 1, x + 1])
                row[reach + c] = left + right
            row[:reach], row[reach + wide :] = row[reach], row[reach + wide - 1]
            for c in range(wide):
                across[reach + r, c] = row[c]
            for k in range(1, soft):
                for c in range(wide):
                    across[reach + r, c] += row[c + k]
        for k in range(reach):
            across[k], across[reach + high + k] = across[reach], across[reach + high - 1]
        for r in range(high):
            total[:] = NONE
            for k in range(soft):
                for c in range(wide):
                    total[c] += across[r + k, c]
            for c in range(wide):
                share[r, c] = max(share[r, c], abs(total[c]))
    for r in range(high):
        for c in range(wide):
            apart = share[r, c] * scale / within
            share[r, c] = math.exp(-apart * apart)


@numba.njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def mixed_of(one, other, inside, within, soft, out):  # type: ignore[no-untyped-def]
    """Fill `out` (3, Y, X) with the `other` picture, and with the one where both agree and it is `inside` (Y, X)."""
    high, wide = inside.shape
    share = np.empty((high // 2, wide // 2), np.float32)
    row, much = np.empty(wide // 2, np.float32), np.empty(wide, np.float32)
    alike(one, other, within, soft, share)
    for r in range(high):
        stretched(share, r, high, row, much)
        for c in range(wide):
            much[c] *= inside[r, c]
        for i in range(3):
            for c in range(wide):
                out[i, r, c] = other[i, r, c] + much[c] * (one[i, r, c] - other[i, r, c])


def each(job: Callable[[int], object], count: int, threads: int) -> None:
    """A job for each view, on so many threads."""
    if threads == 1 or count == 1:
        for n in range(count):
            job(n)
    else:
        list(workers(threads).map(job, range(count)))


def grids(
    camera: tuple[float, ...], given: tuple[Float, ...], rounds: int, size: tuple[int, ...], threads: int
) -> Float:
    """Where pixels of views lie in old pictures (n, Y, X, 2), given looks (n, 6) and nearness (n, h, w) as in
    `moved_from`.
    """
    looks, nearness = given
    made = np.empty((len(looks), *size, 2), np.float32)
    numbers: Any = tuple(map(np.float32, camera))
    each(lambda n: moved_from(numbers, looks[n], nearness[n], rounds, made[n]), len(looks), threads)
    return made


def shown(grid: Float, least: float, threads: int) -> npt.NDArray[np.bool_]:
    """Which pixels (n, Y, X) of views read at grids (n, Y, X, 2) the old pictures really showed."""
    made = np.empty(grid.shape[:3], np.bool_)
    each(lambda n: shown_of(grid[n], np.float32(least), made[n]), len(grid), threads)
    return made


def mixed(given: tuple[Float, ...], soft: int, threads: int) -> Float:
    """Pictures (n, 3, Y, X), given ones, others, whether inside (n, Y, X) and within what (n,) they agree: the others,
    and the ones as far as both agree and they are inside.
    """
    one, other, inside, within = given
    made = np.empty(other.shape, np.float32)
    each(lambda n: mixed_of(one[n], other[n], inside[n], within[n], soft, made[n]), len(made), threads)
    return made
