"""Views of a place's map on a processor: every ray goes from distance to distance until it meets a block.

Shape key: n poses, h, w rows and columns of rays, D distances along a ray.
To the last bit what `PlaceMap` finds with tensors, many times as fast: a ray that has met something asks no further,
one that is above everything that stands on a column of blocks need not read it, and neither need one that is still in
the gap in which the ray below it passed.

Does not know what poses or pictures are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numba
import numpy as np
import numpy.typing as npt

from generator.tokenizer.place_faces import BEFORE, DEPTH, FARTHEST, INSIDE, RISING, ROUGH, SINKING, STEPS, TEXELS
from generator.tokenizer.place_light import LEVELS, STEP, TONE

Array = npt.NDArray[np.generic]
PARTS = 4  # of the columns, for each thread: some look at walls and are done soon, others over them
STRIDE, LEAP = 8, 8  # distances that a ray passes at once where it is above all that stands there, and strides of them


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def wrapped(value, period):  # type: ignore[no-untyped-def]
    """value % period to the last bit, without a division where it lies within two periods: sums have no rounding there
    that `%` has not.
    """
    if value < -period or value >= period + period + period:
        return value % period
    value = value + period if value < 0 else value
    value = value - (period + period) if value >= period + period else value
    return value - period if value >= period else value


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def face_of(number, level, heights, starts, numbers):  # type: ignore[no-untyped-def]
    """Which face the block of this level in column `number` has; -1 where it has none."""
    for k in range(starts[number], starts[number + 1]):
        if numbers[k] == number * heights + level:
            return k
    return -1


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def crossing(plane, within, slopes):  # type: ignore[no-untyped-def]
    """How far along the heading a ray that is `within` a block crosses its plane; -inf: not near, or there is none."""
    if plane >= ROUGH or slopes[plane // STEPS] == 0:
        return np.float32(-np.inf)
    axis = plane // STEPS
    deep = np.float32(plane % STEPS) * np.float32(DEPTH) - np.float32(BEFORE)
    shift = (deep - within[axis]) / slopes[axis]
    return shift if abs(shift) <= np.float32(FARTHEST) else np.float32(-np.inf)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def on_faces(face, faces, start, slopes, far, cell, period, finest):  # type: ignore[no-untyped-def]
    """The code that a ray is told that is at distance `far` in the block `cell` (along x, along y, upwards), of which
    `face` is the first face; 0 where it sees none, or nothing is known of it.

    `start` and `slopes` are of the same three. As `Faces.codes`, to the last bit.
    """
    numbers, planes, facings, what = faces[1:]
    per = np.float32(1) / finest
    x = wrapped(start[0] + slopes[0] * far, period) - np.float32(cell[0]) * finest
    y = wrapped(start[1] + slopes[1] * far, period) - np.float32(cell[1]) * finest
    within = (x, y, slopes[2] * far + start[2] - np.float32(cell[2]) * finest)
    chosen, farthest, number = -1, np.float32(-np.inf), numbers[face]
    while face < len(numbers) and numbers[face] == number:
        plane, facing = int(planes[face]), int(facings[face])
        axis = plane - ROUGH if plane >= ROUGH else plane // STEPS
        if facing == 0 or facing == (RISING if slopes[axis] > 0 else SINKING):
            shift = crossing(plane, within, slopes)
            if chosen < 0 or shift > farthest:
                chosen, farthest = face, shift
        face += 1
    if chosen < 0:
        return 0
    plane = int(planes[chosen])
    axis = plane - ROUGH if plane >= ROUGH else plane // STEPS
    shift = farthest if farthest > np.float32(-np.inf) else np.float32(0.0)
    one, two = (1 if axis == 0 else 0), (1 if axis == 2 else 2)
    first = min(max((within[one] + slopes[one] * shift) * per, np.float32(0.0)), np.float32(INSIDE))
    second = min(max((within[two] + slopes[two] * shift) * per, np.float32(0.0)), np.float32(INSIDE))
    return int(what[chosen, int(second * np.float32(TEXELS)) * TEXELS + int(first * np.float32(TEXELS))])


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def cells_along(far, start, step, period, size, side, cell):  # type: ignore[no-untyped-def]
    """Fill which blocks of this size along an axis a ray is over at each distance: cell (D,), below `side`.

    As `wrapped`, several at a time where all of a ray allows it. Sizes are powers of two: products are quotients.
    """
    per, double = np.float32(1) / size, period + period
    ends = start + step * far[0], start + step * far[-1]
    if min(ends[0], ends[1]) < -period or max(ends[0], ends[1]) >= double + period:
        for d in range(len(far)):
            cell[d] = min(np.int32(wrapped(start + step * far[d], period) * per), side - 1)
        return
    for d in range(len(far)):
        x = start + step * far[d]
        x = x + period if x < 0 else x
        x = x - double if x >= double else x
        x = x - period if x >= period else x
        cell[d] = min(np.int32(x * per), side - 1)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def columns_along(n, c, rays, distances, place, along, cells_of):  # type: ignore[no-untyped-def]
    """Fill `along`, for each distance (D,) of a picture's column, with where the column of blocks begins that it is
    over and how high the highest of those ends, and for each stride of them how high; and cells_of (2, D), which it is.
    """
    start, east, north = rays[:3]
    far, ends = distances[0], distances[2]
    column, roof, roofs = along
    tops0, tops1, tops2, cells, heights, period, finest = place[3:]
    begin = 0
    for kind in range(3):
        end = ends[kind]
        if end > begin:
            side, size, levels = np.int32(cells >> kind), finest * np.float32(1 << kind), (heights >> kind) + 2
            cells_along(far[begin:end], start[n, 0], east[n, c], period, size, side, cells_of[0, begin:])
            cells_along(far[begin:end], start[n, 1], north[n, c], period, size, side, cells_of[1, begin:])
            tops = tops0 if kind == 0 else tops1 if kind == 1 else tops2
            for d in range(begin, end):
                number = cells_of[1, d] * side + cells_of[0, d]
                column[d] = number * levels + 1
                roof[d] = np.float32(tops[number]) * size
        begin = end
    for s in range(len(roofs)):
        highest = roof[s * STRIDE]
        for d in range(s * STRIDE + 1, min((s + 1) * STRIDE, len(far))):
            highest = max(highest, roof[d])
        roofs[s] = highest


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def gap_ends(codes, column, level, size, roof):  # type: ignore[no-untyped-def]
    """At what height the first block begins above an empty level of a column whose highest ends at `roof`; infinite
    where there is none.
    """
    level += 1
    while level * size < roof:
        if codes[column + level] > 0:
            return np.float32(level * size)
        level += 1
    return np.float32(np.inf)


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def least_of(values, begin, end):  # type: ignore[no-untyped-def]
    """The least of some values."""
    least = values[begin]
    for k in range(begin + 1, end):
        least = min(least, values[k])
    return least


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def between(rise, above, far, begin, end):  # type: ignore[no-untyped-def]
    """How low and how high a ray gets from one distance to before another."""
    first, last = rise * far[begin] + above, rise * far[end - 1] + above
    return min(first, last), max(first, last)


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def meet(rises, above, distances, place, along, gaps, found):  # type: ignore[no-untyped-def]
    """Fill `found`, of the rows (h,) of a picture's column that rise by `rises` from `above` the map's bottom, the
    last least: the code of the first block that a ray meets (0: none), at which distance, and its level.

    `along` is what `columns_along` filled; `gaps` is scratch: of each distance, each stride and each LEAP of strides,
    up to what height nothing stands from where the row below passed. A whole column at once: arrays cost time to give.
    """
    far, kinds = distances[:2]
    codes0, codes1, codes2, finest = place[0], place[1], place[2], place[9]
    (column, roof, roofs), (free, frees, leaps) = along, gaps
    free[:], frees[:], leaps[:] = 0, 0, 0
    passed, strides, count = 0, len(roofs), len(far)  # strides that the row below went above
    same, kind, low, top = -1, -1, np.float32(0), np.float32(0)  # where nothing stands in a column
    sure, until = np.float32(0), 0  # up to what height nothing stands in all others, until where that met something
    for r in range(len(rises) - 1, -1, -1):
        rise, code, above_all, s, lowest = rises[r], 0, True, passed, np.float32(np.inf)
        if until > passed and between(rise, above, far, passed * STRIDE, until * STRIDE)[1] < sure:
            above_all, s, lowest = False, until, sure
        while s < strides:
            begin, end = s * STRIDE, min((s + 1) * STRIDE, count)
            # rows above one that met something far away are in the same gaps for most of the way
            leap, after = s // LEAP, min((s + LEAP) * STRIDE, count)
            if s % LEAP == 0 and between(rise, above, far, begin, after)[1] < leaps[leap]:
                above_all, lowest, s = False, min(lowest, leaps[leap]), s + LEAP
                continue
            least, most = between(rise, above, far, begin, end)
            if rise <= 0 and rise * far[begin] + above < 0:
                break  # below the map
            s += 1
            if least >= roofs[s - 1]:
                passed, lowest = (s, lowest) if above_all else (passed, np.float32(0))
                continue
            above_all = False
            if most < frees[s - 1]:
                lowest = min(lowest, frees[s - 1])
                continue
            for d in range(begin, end):
                height = rise * far[d] + above
                if height < free[d]:  # or below the map
                    continue
                if height >= roof[d]:
                    free[d] = np.inf
                elif column[d] == same and kinds[d] == kind and low <= height < top:
                    free[d] = top  # as at the distance before: most are over the same column
                else:
                    size = finest * np.float32(1 << kinds[d])
                    level = int(height / size)
                    codes = codes0 if kinds[d] == 0 else codes1 if kinds[d] == 1 else codes2
                    code = codes[column[d] + level]
                    if code > 0:
                        found[1, r], found[2, r], sure, until = d, level, lowest, s - 1
                        break
                    same, kind, low = column[d], kinds[d], level * size
                    top = free[d] = gap_ends(codes, column[d], level, size, roof[d])
            if code > 0:
                break
            frees[s - 1] = least_of(free, begin, end)
            lowest = min(lowest, frees[s - 1])
            leaps[leap] = least_of(frees, leap * LEAP, min((leap + 1) * LEAP, strides))
        found[0, r] = code


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def look(first, last, rays, distances, place, colours, light, faces, seen, met):  # type: ignore[no-untyped-def]
    """Fill `seen`, the view float32 (n, 4, h, w), in columns [first, last) of all n * w, from left to right, and `met`
    (n, h, w), if it has that shape, with the distances at which rays met one of the finest blocks, 0 elsewhere.

    rays: start (n, 2) in map units, east and north (n, w) and up (n, h) per unit along the heading, above (n,) of the
    map's bottom; turn (n, w) and slope (n, h) are each ray's cell of the sky. distances: how far (D,), which kind (D,)
    of blocks is asked for there, and where each of the three kinds ends (3,).
    place: codes and tops of the three kinds of blocks, cells a side and levels of the finest, the period and how wide
    the finest are in map units. colours: the palette, the sky's codes (slopes, turns) and its palette, and what
    nearness is told in. light: how dim cells are, how fast they fade, tones, how many cells there are a side and
    upwards (place_light.py). faces: where each column's begin, numbers, planes, which rays see them, and codes
    (place_faces.py).
    """
    start, east, north, up, above, turn, slope = rays
    far, kinds = distances[:2]
    cells, heights, period, finest = place[6:]
    palette, sky, of_sky, unit = colours
    dim, fade, tones, side, levels = light
    starts, numbers = faces[:2]
    count, wide, high, strides = len(far), east.shape[1], up.shape[1], -(-len(far) // STRIDE)
    cells_of, found = np.empty((2, count), np.int32), np.zeros((3, high), np.int32)
    along = np.empty(count, np.int32), np.empty(count, np.float32), np.zeros(strides, np.float32)
    gaps = np.empty(count, np.float32), np.empty(strides, np.float32), np.empty(-(-strides // LEAP), np.float32)
    for at in range(first, last):
        n, c = at // wide, at % wide
        columns_along(n, c, rays, distances, place, along, cells_of)
        meet(up[n], above[n], distances, place, along, gaps, found)
        last_number, last_level, face = -1, -1, -1
        x, y, eye, ahead, aside = start[n, 0], start[n, 1], above[n], east[n, c], north[n, c]
        for r in range(high):
            code, d, level = found[0, r], found[1, r], found[2, r]
            if code > 0 and kinds[d] == 0:
                number = cells_of[1, d] * cells + cells_of[0, d]
                if number != last_number or level != last_level:  # it often is what the row above met
                    last_number, last_level = number, level
                    face = face_of(number, level, heights, starts, numbers)
                if face >= 0:
                    cell, slopes = (cells_of[0, d], cells_of[1, d], level), (ahead, aside, up[n, r])
                    told = on_faces(face, faces, (x, y, eye), slopes, far[d], cell, period, finest)
                    code = told if told > 0 else code
                if len(met):
                    met[n, r, c] = far[d]
            left = np.float32(1.0)
            if code > 0 and len(dim):
                shift = 2 - kinds[d]  # a cell is as wide as the coarsest blocks
                cell = ((cells_of[1, d] >> shift) * side + (cells_of[0, d] >> shift)) * levels + (level >> shift)
                left -= max(np.float32(dim[cell]) * np.float32(STEP) - fade[0] / far[d], np.float32(0.0))
            dark = min(int((np.float32(1) - left) * np.float32(LEVELS)), LEVELS - 1) if len(tones) else 0
            for i in range(3):
                if code > 0:
                    colour = palette[code, i]
                    colour = (colour + np.float32(1)) * left - np.float32(1) if len(dim) else colour
                    seen[n, i, r, c] = (
                        colour + np.float32(tones[dark, code, i]) * np.float32(TONE) if len(tones) else colour
                    )
                else:
                    seen[n, i, r, c] = of_sky[sky[slope[n, r], turn[n, c]], i]
            seen[n, 3, r, c] = unit / far[d] if code > 0 else np.float32(0.0)


@cache
def workers(threads: int) -> ThreadPoolExecutor:
    """So many threads that look along rays."""
    return ThreadPoolExecutor(threads, "rays")


def view(
    rays: tuple[Array, ...],
    distances: tuple[Array, ...],
    place: tuple[Array | int | np.float32, ...],
    colours: tuple[Array | np.float32, ...],
    light: tuple[Array | int, ...],
    faces: tuple[Array, ...],
    threads: int,
    whole: bool = False,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The view (n, 4, h, w) that `look` fills, by so many threads, and of `whole` ones where rays met the finest blocks
    (n, h, w); arrays as there, contiguous.
    """
    count, wide, high = *rays[1].shape, rays[3].shape[1]
    seen = np.empty((count, 4, high, wide), np.float32)
    met = np.zeros((count, high, wide) if whole else (0, 0, 0), np.float32)
    if threads == 1 or seen.size < 1 << 15:
        look(0, count * wide, rays, distances, place, colours, light, faces, seen, met)
        return seen, met
    ends = np.linspace(0, count * wide, PARTS * threads + 1).astype(int)
    parts = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    list(
        workers(threads).map(lambda part: look(*part, rays, distances, place, colours, light, faces, seen, met), parts)
    )
    return seen, met
