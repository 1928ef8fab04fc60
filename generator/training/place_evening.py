"""Makes what is on the walls of a place's map even: texels that few rays, or slanting ones, told wrongly.

Shape key: N faces, B blocks.
At arm's length every texel is several pixels wide, and a speck that nobody sees from afar is a stain. Walls are painted
in bands, stripes and fields: around each texel some line along the wall, or upwards, or a square is of nearly one
colour, and of those windows the one that agrees best says what it is, by its vector median (Astola et al. 1990), which
keeps the edges between colours. Two faces meet in the block at a corner, which has room for one and often got none:
it is given one that goes on from beside it.

Does not know of recordings.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt
import torch

from generator.tokenizer.place_faces import ROUGH, STEPS, TEXELS
from generator.tokenizer.place_map import PlaceMap

Ints = npt.NDArray[np.int64]
LINE, SQUARE, ALONG = 4, 2, 6  # texels to each side of one: of lines, of squares, and of lines into a corner
ROUNDS = 2
WINDOWS = ((0, LINE, LINE + 1), (LINE, 0, LINE + 1), (SQUARE, SQUARE, 12))  # along, upwards, and of how many known
INTO = ((ALONG, 0, 3), (0, ALONG, 3))
ANOTHER = 0.25  # levels that colours are apart, all three together; those farther apart are just another colour
FLUSH = 5  # steps of depth between planes, at most, for one to go on in the other
REACH = 2  # blocks to each side that windows reach into
WALLS = 2  # axes that walls stand across


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def median(codes, count, apart, own):  # type: ignore[no-untyped-def]
    """Which of so many codes is least far from all of them, the own one before others; and how far in the mean."""
    best, least = codes[0], np.inf
    for i in range(count):
        total, again = 0.0, False
        for j in range(count):
            again |= j < i and codes[j] == codes[i]
            total += apart[codes[i], codes[j]]
        if not again and (total < least - 1e-9 or (total < least + 1e-9 and codes[i] == own)):
            best, least = codes[i], total
    return best, least / count


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def around(k, at, plane, what, face_at, sizes, patch):  # type: ignore[no-untyped-def]
    """Fill `patch` with the texels of the k-th face and of those that its wall has beside it; 0 where none is known."""
    cells, heights = sizes
    level, column, row = at[k] % heights, at[k] // heights % cells, at[k] // heights // cells
    axis = plane[k] // STEPS
    patch[:] = 0
    for up in range(-REACH, REACH + 1):
        if not 0 <= level + up < heights:
            continue
        for aside in range(-REACH, REACH + 1):
            there = (column, (row + aside) % cells) if axis == 0 else ((column + aside) % cells, row)
            face = face_at[axis, (there[1] * cells + there[0]) * heights + level + up]
            if face < 0 or plane[face] // STEPS != axis or abs(plane[face] - plane[k]) > FLUSH:
                continue
            for texel in range(TEXELS**2):
                y, x = texel // TEXELS, texel % TEXELS
                patch[(up + REACH) * TEXELS + y, (aside + REACH) * TEXELS + x] = what[face, texel]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def even_out(faces, chosen, windows, face_at, apart, sizes, out):  # type: ignore[no-untyped-def]
    """Fill `out` (N, TEXELS * TEXELS) with what windows say of the chosen faces (n,); returns how many texels changed.

    faces: numbers (N,) of their blocks, planes (N,) and codes (N, TEXELS * TEXELS). windows (w, 3): texels to each side
    along the wall and upwards, and how many must be known. apart (codes, codes): how far colours are apart.
    """
    at, plane, what = faces
    wide = (2 * REACH + 1) * TEXELS
    patch, codes, changed = np.zeros((wide, wide), np.int64), np.empty(wide * wide, np.int64), 0
    for k in chosen:
        around(k, at, plane, what, face_at, sizes, patch)
        for texel in range(TEXELS**2):
            y, x = REACH * TEXELS + texel // TEXELS, REACH * TEXELS + texel % TEXELS
            told, least = patch[y, x], np.inf
            for aside, up, fewest in windows:
                count = 0
                for r in range(y - up, y + up + 1):
                    for c in range(x - aside, x + aside + 1):
                        if patch[r, c] > 0:
                            codes[count] = patch[r, c]
                            count += 1
                if count >= fewest:
                    code, far = median(codes, count, apart, patch[y, x])
                    if far < least:
                        told, least = code, far
            changed += told != patch[y, x]
            out[k, texel] = told
    return changed


class Walls:
    """The faces of a map's walls, while they are made even."""

    def __init__(self, place_map: PlaceMap) -> None:
        self.map, faces = place_map, place_map.faces
        parts = (faces.at, faces.plane, faces.what, faces.facing)
        self.at, self.plane, self.what, self.facing = (part.long().cpu().numpy() for part in parts)
        palette = place_map.palette.float().cpu().numpy()
        self.apart = np.minimum(np.abs(palette[:, None] - palette).sum(-1), ANOTHER)
        self.sizes = place_map.cells, place_map.heights
        self._index()

    def _index(self) -> None:
        self.face_at = np.full((WALLS, self.map.blocks), -1, np.int64)  # by axis: corners have two
        for axis in range(WALLS):
            own = np.flatnonzero((self.plane < ROUGH) & (self.plane // STEPS == axis))
            self.face_at[axis, self.at[own]] = own

    def told(self, chosen: Ints, windows: tuple[tuple[int, int, int], ...]) -> int:
        """Let windows say what is on these faces (n,); returns how many texels that changed."""
        out, faces = self.what.copy(), (self.at, self.plane, self.what)
        changed = even_out(faces, chosen, np.array(windows), self.face_at, self.apart, self.sizes, out)
        self.what = out
        return int(changed)

    @property
    def upright(self) -> Ints:
        """Which faces walls have (n,)."""
        return np.flatnonzero((self.plane < ROUGH) & (self.plane // STEPS < WALLS))

    def corners(self) -> Ints:
        """Numbers of the blocks (n,) without a face that have air beside them both along x and along y."""
        air = self.map.dense().cpu().numpy() == 0
        along = [np.roll(air, 1, axis) | np.roll(air, -1, axis) for axis in (0, 1)]
        found = np.flatnonzero(~air & along[0] & along[1])
        return found[~np.isin(found, self.at)]

    def goes_on(self, number: int) -> int | None:
        """The plane of the wall that most faces beside the block of this number are of, if two or more are."""
        cells, heights = self.sizes
        level, column, row = number % heights, number // heights % cells, number // heights // cells
        ups = [up for up in (-1, 0, 1) if 0 <= level + up < heights]
        walls: list[Ints] = []
        for axis in range(WALLS):
            ways = [(0, aside) if axis == 0 else (aside, 0) for aside in (-2, -1, 1, 2)]
            places = [((row + y) % cells * cells + (column + x) % cells) * heights for x, y in ways]
            beside = self.face_at[axis, [place + level + up for place in places for up in ups]]
            walls.append(self.plane[beside[beside >= 0]])
        most = max(walls, key=len)
        return int(np.median(most)) if len(most) > 1 else None

    def face(self, numbers: Ints, planes: Ints) -> Ints:
        """Give blocks of these numbers (n,) faces in these planes, with nothing on them; returns which they are."""
        self.what = np.concatenate([self.what, np.zeros((len(numbers), TEXELS**2), np.int64)])
        self.at, self.plane = np.concatenate([self.at, numbers]), np.concatenate([self.plane, planes])
        self.facing = np.concatenate([self.facing, np.zeros(len(numbers), np.int64)])
        self._index()
        return np.arange(len(self.at) - len(numbers), len(self.at))

    def keep(self) -> None:
        """Give the map what was found."""
        device = self.map.where.device
        parts = (self.at, self.plane, self.what, self.facing)
        self.map.faces.fill(*(torch.from_numpy(part).to(device) for part in parts))


def even_walls(place_map: PlaceMap) -> dict[str, float]:
    """Make what is on a map's walls even, and go on with it at their corners; returns how many texels changed, and how
    many corners have faces now.
    """
    walls = Walls(place_map)
    changed = sum(walls.told(walls.upright, WINDOWS) for _ in range(ROUNDS))
    found = {number: plane for number in walls.corners().tolist() if (plane := walls.goes_on(number)) is not None}
    made = walls.face(np.array(list(found), np.int64), np.array(list(found.values()), np.int64))
    walls.told(made, INTO)
    walls.keep()
    return {"texels_evened": float(changed), "corners_closed": float(len(made))}
