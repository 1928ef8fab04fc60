"""Views of a place's map on a processor: every ray goes from distance to distance until it meets a block.

Shape key: n poses, h, w rows and columns of rays, D distances along a ray.
To the last bit what `PlaceMap` finds with tensors, several times as fast: a ray that has met something asks no
further, and one that is above everything that stands on a column of blocks need not read it.

Does not know what poses or pictures are.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numba
import numpy as np
import numpy.typing as npt

from generator.tokenizer.place_faces import BEFORE, DEPTH, FARTHEST, INSIDE, ROUGH, STEPS, TEXELS

Array = npt.NDArray[np.generic]
PARTS = 4  # of the columns, for each thread: some look at walls and are done soon, others over them
STRIDE = 8  # distances that a ray passes at once where it is above all that stands there


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def on_face(number, start, slopes, above, far, place, faces):  # type: ignore[no-untyped-def]
    """What a ray is told that is at distance `far` over column `number`: the code of the face there, 0 without one.

    As `Faces.codes`, to the last bit.
    """
    starts, numbers, planes, what = faces
    cells, heights, period, finest = place[6:]
    height = slopes[2] * far + above
    level = min(max(int(np.floor(height / finest)), 0), heights - 1)
    for k in range(starts[number], starts[number + 1]):
        if numbers[k] != number * heights + level:
            continue
        x = (start[0] + slopes[0] * far) % period - np.float32(number % cells) * finest
        y = (start[1] + slopes[1] * far) % period - np.float32(number // cells) * finest
        within = (x, y, height - np.float32(level) * finest)
        plane = int(planes[k])
        rough = plane >= ROUGH
        axis = plane - ROUGH if rough else plane // STEPS
        shift = np.float32(0.0)
        if not rough and slopes[axis] != 0:
            deep = np.float32(plane % STEPS) * np.float32(DEPTH) - np.float32(BEFORE)
            shift = (deep - within[axis]) / slopes[axis]
            shift = shift if abs(shift) <= np.float32(FARTHEST) else np.float32(0.0)
        one, two = (1 if axis == 0 else 0), (1 if axis == 2 else 2)
        first = min(max((within[one] + slopes[one] * shift) / finest, np.float32(0.0)), np.float32(INSIDE))
        second = min(max((within[two] + slopes[two] * shift) / finest, np.float32(0.0)), np.float32(INSIDE))
        return int(what[k, int(second * np.float32(TEXELS)) * TEXELS + int(first * np.float32(TEXELS))])
    return 0


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def columns_along(n, c, rays, distances, place, column, size, roof, roofs):  # type: ignore[no-untyped-def]
    """Fill, for each distance (D,) of a picture's column, where the column of blocks begins that it is over, how large
    those are and how high the highest ends, and for each stride of them how high.
    """
    start, east, north = rays[:3]
    far, kinds = distances
    tops0, tops1, tops2, cells, heights, period, finest = place[3:]
    for d in range(len(far)):
        kind = kinds[d]
        side = cells >> kind
        size[d] = finest * np.float32(1 << kind)
        x = (start[n, 0] + east[n, c] * far[d]) % period
        y = (start[n, 1] + north[n, c] * far[d]) % period
        number = min(int(y / size[d]), side - 1) * side + min(int(x / size[d]), side - 1)
        column[d] = number * ((heights >> kind) + 2) + 1
        top = tops0[number] if kind == 0 else tops1[number] if kind == 1 else tops2[number]
        roof[d] = np.float32(top) * size[d]
    for s in range(len(roofs)):
        roofs[s] = roof[s * STRIDE : (s + 1) * STRIDE].max()


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def look(first, last, rays, distances, place, colours, faces, seen, met):  # type: ignore[no-untyped-def]
    """Fill `seen`, the view float32 (n, 4, h, w), in columns [first, last) of all n * w, from left to right, and `met`
    (n, h, w), if it has that shape, with the distances at which rays met one of the finest blocks, 0 elsewhere.

    rays: start (n, 2) in map units, east and north (n, w) and up (n, h) per unit along the heading, above (n,) of the
    map's bottom; turn (n, w) and slope (n, h) are each ray's cell of the sky. distances: how far (D,), which kind (D,).
    place: codes and tops of the three kinds of blocks, cells a side and levels of the finest, whose size in map units
    the last is, and the period. colours: the palette, the sky (slopes, turns, 3), and what nearness is told in. faces:
    where each column's begin, numbers, planes and codes (place_faces.py).
    """
    start, east, north, up, above, turn, slope = rays
    far, kinds = distances
    codes0, codes1, codes2, heights = place[0], place[1], place[2], place[7]
    palette, sky, unit = colours
    starts = faces[0]
    count, wide = len(far), east.shape[1]
    column, size = np.empty(count, np.int64), np.empty(count, np.float32)
    strides = -(-count // STRIDE)
    roof, roofs = np.empty(count, np.float32), np.zeros(strides, np.float32)
    for at in range(first, last):
        n, c = at // wide, at % wide
        columns_along(n, c, rays, distances, place, column, size, roof, roofs)
        passed = 0  # strides that the row below went above, as then do those above it: rows rise from the last on
        for r in range(up.shape[1] - 1, -1, -1):
            rise, code, nearness, above_all = up[n, r], 0, np.float32(0.0), True
            for s in range(passed, strides):
                begin, end = s * STRIDE, min((s + 1) * STRIDE, count)
                first_height, last_height = rise * far[begin] + above[n], rise * far[end - 1] + above[n]
                if rise <= 0 and first_height < 0:
                    break  # below the map
                if min(first_height, last_height) >= roofs[s]:
                    passed = s + 1 if above_all else passed
                    continue
                above_all = False
                for d in range(begin, end):
                    height = rise * far[d] + above[n]
                    if height < 0 or height >= roof[d]:
                        continue
                    place_at, kind = column[d] + int(height / size[d]), kinds[d]
                    code = codes0[place_at] if kind == 0 else codes1[place_at] if kind == 1 else codes2[place_at]
                    if code > 0:
                        nearness = unit / far[d]
                        if kind == 0:
                            number = (column[d] - 1) // (heights + 2)
                            if starts[number + 1] > starts[number]:
                                slopes = (east[n, c], north[n, c], rise)
                                told = on_face(number, start[n], slopes, above[n], far[d], place, faces)
                                code = told if told > 0 else code
                            if len(met):
                                met[n, r, c] = far[d]
                        break
                if code > 0:
                    break
            for i in range(3):
                seen[n, i, r, c] = palette[code, i] if code > 0 else sky[slope[n, r], turn[n, c], i]
            seen[n, 3, r, c] = nearness


@cache
def workers(threads: int) -> ThreadPoolExecutor:
    """So many threads that look along rays."""
    return ThreadPoolExecutor(threads, "rays")


def view(
    rays: tuple[Array, ...],
    distances: tuple[Array, ...],
    place: tuple[Array | int | np.float32, ...],
    colours: tuple[Array | np.float32, ...],
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
        look(0, count * wide, rays, distances, place, colours, faces, seen, met)
        return seen, met
    ends = np.linspace(0, count * wide, PARTS * threads + 1).astype(int)
    parts = zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    list(workers(threads).map(lambda part: look(*part, rays, distances, place, colours, faces, seen, met), parts))
    return seen, met
