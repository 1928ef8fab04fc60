"""Doom maps: reads a WAD's binary map (VERTEXES, LINEDEFS, SIDEDEFS, SECTORS, THINGS) into a walk grid.

Heights and lengths are in map units. Doors count as open and are marked; lines that teleport or end the map are walls.

Does not know about engines, explorers, clips or textures.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from controls.errors import UserError
from generator.data.navigation import MAX_STEP, WalkGrid

CELL = 32
BODY_HEIGHT, BODY_RADIUS = 56, 16
DOOR_REACH = 40
IMPASSABLE = 0x0001
DOOR_SPECIALS = (1, 26, 27, 28, 31, 32, 33, 34, 117, 118)
AVOID_SPECIALS = (
    39,
    97,
    125,
    126,
    52,
    124,
)  # teleporters and exits that act when crossed
OBSTACLES = (
    2035, 2028, 30, 31, 32, 33, 35, 36, 37, 41, 42, 43, 44, 45, 46, 47, 48, 54, 55, 56, 57, 70, 85, 86
)  # fmt: skip

LINE = np.dtype([("a", "<u2"), ("b", "<u2"), ("flags", "<u2"), ("special", "<u2"), ("tag", "<u2"),
                 ("right", "<u2"), ("left", "<u2")])  # fmt: skip
SIDE = np.dtype([("offset", "<i2", 2), ("names", "S24"), ("sector", "<u2")])
SECTOR = np.dtype([("floor", "<i2"), ("ceiling", "<i2"), ("names", "S16"), ("rest", "<i2", 3)])
THING = np.dtype([("x", "<i2"), ("y", "<i2"), ("angle", "<i2"), ("type", "<u2"), ("flags", "<u2")])
VERTEX = np.dtype([("x", "<i2"), ("y", "<i2")])
NO_SIDE = 0xFFFF
SKY = b"F_SKY1"  # the name of a ceiling that is none
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DoomMap:
    """One map: lines as arrays (n,), with the sector on each side (-1 for none), and the sectors' heights
    and whether their ceilings are the sky.
    """

    ends: Floats  # (n, 4): x0, y0, x1, y1
    flags: npt.NDArray[np.int64]
    special: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]
    floor: npt.NDArray[np.int64]
    ceiling: npt.NDArray[np.int64]
    sky: npt.NDArray[np.bool_]
    obstacles: Floats  # (m, 2)


def wad_lumps(path: Path) -> list[tuple[str, int, int]]:
    """The directory of a WAD as (name, offset, size); UserError when the file is not one."""
    try:
        with path.open("rb") as file:
            magic, count, table = struct.unpack("<4sii", file.read(12))
            if magic not in (b"IWAD", b"PWAD"):
                raise UserError(f"{str(path)!r} is not a WAD file; give the path of freedoom1.wad or freedoom2.wad.")
            file.seek(table)
            rows = [struct.unpack("<ii8s", file.read(16)) for _ in range(count)]
    except (OSError, struct.error) as error:
        raise UserError(f"The WAD file {str(path)!r} cannot be read ({error}); install vizdoom again.") from error
    return [(name.rstrip(b"\0").decode("ascii", "replace"), offset, size) for offset, size, name in rows]


def map_names(path: Path) -> list[str]:
    """Names of the maps in a WAD, in file order."""
    lumps = wad_lumps(path)
    return [a[0] for a, b in pairwise(lumps) if b[0] == "THINGS"]


def read_map(path: Path, name: str) -> DoomMap:
    """Parse the map `name` of a WAD; UserError when it has none of that name."""
    lumps = wad_lumps(path)
    names = [lump[0] for lump in lumps]
    if name not in map_names(path):
        raise UserError(f"{path.name} has no map {name!r}; it has {', '.join(map_names(path))}.")
    start = names.index(name)
    data = path.read_bytes()

    def table(lump: str, kind: np.dtype[np.void]) -> npt.NDArray[np.void]:
        _, offset, size = lumps[names.index(lump, start)]
        return np.frombuffer(data, kind, size // kind.itemsize, offset)

    lines, sides, sectors = (
        table("LINEDEFS", LINE),
        table("SIDEDEFS", SIDE),
        table("SECTORS", SECTOR),
    )
    vertexes, things = table("VERTEXES", VERTEX), table("THINGS", THING)
    a, b = vertexes[lines["a"]], vertexes[lines["b"]]
    owner = np.append(sides["sector"].astype(np.int64), -1)

    def sector_of(side: npt.NDArray[np.uint16]) -> npt.NDArray[np.int64]:
        return owner[np.where(side == NO_SIDE, len(sides), side)]

    solid = things[np.isin(things["type"], OBSTACLES)]
    return DoomMap(
        ends=np.stack([a["x"], a["y"], b["x"], b["y"]], 1).astype(np.float64),
        flags=lines["flags"].astype(np.int64),
        special=lines["special"].astype(np.int64),
        right=sector_of(lines["right"]),
        left=sector_of(lines["left"]),
        floor=sectors["floor"].astype(np.int64),
        ceiling=sectors["ceiling"].astype(np.int64),
        sky=np.array([names[8:].rstrip(b"\0") == SKY for names in sectors["names"]], bool),
        obstacles=np.stack([solid["x"], solid["y"]], 1).astype(np.float64),
    )


def sector_grid(doom: DoomMap, xs: Floats, ys: Floats) -> npt.NDArray[np.int64]:
    """Sector under each grid point, int64 (len(ys), len(xs)), -1 in the void: one sweep per row of points."""
    x0, y0, x1, y1 = doom.ends.T
    grid = np.full((len(ys), len(xs)), -1, np.int64)
    for row, y in enumerate(ys + 1e-3):  # the nudge keeps rows off vertexes
        crossing = np.flatnonzero((y0 > y) != (y1 > y))
        if not len(crossing):
            continue
        at = x0[crossing] + (y - y0[crossing]) / (y1 - y0)[crossing] * (x1 - x0)[crossing]
        # a line's right side is to the east when it runs north
        east = np.where(y1[crossing] > y0[crossing], doom.right[crossing], doom.left[crossing])
        order = np.argsort(at, kind="stable")
        index = np.searchsorted(at[order], xs) - 1
        grid[row] = np.where(index >= 0, east[order][np.maximum(index, 0)], -1)
    return grid


def near_segment(ends: Floats, xs: Floats, ys: Floats, radius: float) -> tuple[slice, slice, npt.NDArray[np.bool_]]:
    """The grid window around a segment and which of its points are closer than `radius`."""
    x0, y0, x1, y1 = ends
    columns = slice(*np.searchsorted(xs, [min(x0, x1) - radius, max(x0, x1) + radius]))
    rows = slice(*np.searchsorted(ys, [min(y0, y1) - radius, max(y0, y1) + radius]))
    px, py = xs[None, columns] - x0, ys[rows, None] - y0
    dx, dy = x1 - x0, y1 - y0
    along = np.clip((px * dx + py * dy) / max(dx * dx + dy * dy, 1e-9), 0, 1)
    return rows, columns, np.hypot(px - along * dx, py - along * dy) < radius


def walk_grid(doom: DoomMap) -> WalkGrid:
    """Where a player fits on a Doom map, with floor heights and doors."""
    x = doom.ends[:, [0, 2]]
    y = doom.ends[:, [1, 3]]
    origin = (
        float(np.floor(x.min() / CELL) * CELL),
        float(np.floor(y.min() / CELL) * CELL),
    )
    xs = np.arange(origin[0] + CELL / 2, x.max() + CELL, CELL)
    ys = np.arange(origin[1] + CELL / 2, y.max() + CELL, CELL)
    two_sided = (doom.right >= 0) & (doom.left >= 0)
    is_door = np.zeros(len(doom.floor) + 1, bool)
    door_lines = two_sided & np.isin(doom.special, DOOR_SPECIALS)
    is_door[doom.left[door_lines]] = True
    closed = doom.ceiling - doom.floor < BODY_HEIGHT
    sector_open = np.append(~closed | is_door[:-1], False)
    sector = sector_grid(doom, xs, ys)
    walkable = sector_open[sector]

    fits = sector_open[doom.right] & sector_open[doom.left]
    rise = np.abs(doom.floor[doom.right] - doom.floor[doom.left])
    wall = ~two_sided | (doom.flags & IMPASSABLE > 0) | ~fits | np.isin(doom.special, AVOID_SPECIALS)
    for ends in doom.ends[wall | (rise > MAX_STEP)]:
        rows, columns, near = near_segment(ends, xs, ys, BODY_RADIUS + 2)
        walkable[rows, columns] &= ~near
    for px, py in doom.obstacles:
        rows, columns, near = near_segment(np.array([px, py, px, py]), xs, ys, 2 * BODY_RADIUS)
        walkable[rows, columns] &= ~near
    floor = np.append(doom.floor, 0)[sector].astype(np.int16)
    return WalkGrid(walkable, floor, CELL, origin, doors=is_door[sector] & walkable & (sector >= 0))
