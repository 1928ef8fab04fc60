"""Still maps: one map of *Freedoom* made into a place that can be learned as a whole, and its floors and ceilings.

Doors stand open, nothing moves, blinks or lies about, and no sector is dark: what is left is the map itself, the same
whenever one comes back. Whatever is written here is derived from Freedoom (modified BSD licence).

Does not know about engines, explorers, clips or networks.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from itertools import takewhile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from generator.data.doom_map import (
    BODY_HEIGHT,
    DOOR_SPECIALS,
    IMPASSABLE,
    LINE,
    NO_SIDE,
    SECTOR,
    SIDE,
    THING,
    near_segment,
    read_map,
    sector_grid,
    wad_lumps,
)

STILL = "still"
SUB = 4  # map units of a ground's cells
TAGGED_DOORS = (2, 4, 16, 29, 46, 61, 63, 75, 76, 86, 90, 103, 105, 106, 108, 109, 111, 112, 114, 115, 133, 135, 137)
BARRED, MARGIN = 32767, 8  # the floor of lines that nobody gets across; map units from a map to its blocks
LINTEL = 4  # map units that an open door stays below the ceilings beside it
START = 1  # the thing that is where the first player begins
DARKEST, BRIGHTEST, LIFTED = 168, 255, 128  # of sectors' light: half of it is added to LIFTED
PARTS = ("THINGS", "LINEDEFS", "SIDEDEFS", "VERTEXES", "SEGS", "SSECTORS", "NODES", "SECTORS", "REJECT", "BLOCKMAP")


@dataclass(frozen=True)
class Ground:
    """Cells (ny, nx) of `sub` map units from the `origin` (smallest x, y) on: heights of floor and ceil in map units,
    where there is nothing (solid), where the ceiling is the sky, and what no body gets across (barred).
    """

    floor: npt.NDArray[np.int16]
    ceil: npt.NDArray[np.int16]
    solid: npt.NDArray[np.bool_]
    sky: npt.NDArray[np.bool_]
    barred: npt.NDArray[np.bool_]
    origin: tuple[float, float]
    sub: int = SUB

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.floor.shape


def write_still(wad: Path, name: str, out: Path) -> Path:
    """Write the map `name` of a WAD, made still, as a WAD of its own; UserError when there is no such map."""
    read_map(wad, name)
    lumps, data = wad_lumps(wad), wad.read_bytes()
    start = [lump for lump, _, _ in lumps].index(name)
    own = takewhile(lambda lump: lump[0] in PARTS, lumps[start + 1 :])
    parts = {lump: data[offset : offset + size] for lump, offset, size in own}
    parts |= _made_still(parts)
    body, table = b"", struct.pack("<ii8s", 12, 0, name.encode())
    for lump, content in parts.items():
        table += struct.pack("<ii8s", 12 + len(body), len(content), lump.encode())
        body += content
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(struct.pack("<4sii", b"PWAD", 1 + len(parts), 12 + len(body)) + body + table)
    return out


def _made_still(parts: dict[str, bytes]) -> dict[str, bytes]:
    """The lumps of a map that are others once it is still."""
    lines = np.frombuffer(parts["LINEDEFS"], LINE).copy()
    sides = np.frombuffer(parts["SIDEDEFS"], SIDE)
    sectors = np.frombuffer(parts["SECTORS"], SECTOR).copy()
    things = np.frombuffer(parts["THINGS"], THING)
    owner = np.append(sides["sector"].astype(np.int64), -1)
    right, left = (owner[np.where(lines[way] == NO_SIDE, len(sides), lines[way])] for way in ("right", "left"))
    doors = np.zeros(len(sectors), bool)
    doors[left[np.isin(lines["special"], DOOR_SPECIALS) & (left >= 0)]] = True
    tags = lines["tag"][np.isin(lines["special"], TAGGED_DOORS)]
    doors |= np.isin(sectors["rest"][:, 2], tags[tags > 0])
    ceiling = sectors["ceiling"].copy()
    for number in np.flatnonzero(doors):
        beside = np.r_[left[(right == number) & (left >= 0)], right[(left == number) & (right >= 0)]]
        beside = beside[(beside != number) & ~doors[beside]]
        if len(beside):
            ceiling[number] = max(ceiling[number], sectors["ceiling"][beside].min() - LINTEL)
    sectors["ceiling"] = ceiling
    sectors["rest"][:, 0] = (LIFTED + sectors["rest"][:, 0] // 2).clip(DARKEST, BRIGHTEST)
    sectors["rest"][:, 1:] = 0
    lines["special"], lines["tag"] = 0, 0
    changed = {"THINGS": things[things["type"] == START], "LINEDEFS": lines, "SECTORS": sectors}
    return {name: rows.tobytes() for name, rows in changed.items()}


@dataclass(frozen=True)
class Linedefs:
    """The lines of a map: ends (L, 4) x, y, x, y, the higher floor and the lower ceiling beside each (L,), whether it
    has one side, with nothing behind it (L,), and where the engine's blocks of 128 map units begin (2,). No body gets
    across one whose floor is BARRED.
    """

    ends: npt.NDArray[np.int16]
    bottom: npt.NDArray[np.int16]
    top: npt.NDArray[np.int16]
    single: npt.NDArray[np.bool_]
    blocks: tuple[int, int]


@cache
def still_lines(wad: Path, name: str) -> Linedefs:
    """The lines of a map in a WAD that `write_still` wrote; UserError when it has none of that name."""
    doom = read_map(wad, name)
    single = (doom.right < 0) | (doom.left < 0)
    floor, ceiling = np.append(doom.floor, BARRED), np.append(doom.ceiling, -BARRED)
    bottom = np.maximum(floor[doom.right], floor[doom.left])
    bottom[doom.flags & IMPASSABLE > 0] = BARRED
    top = np.minimum(ceiling[doom.right], ceiling[doom.left])
    lumps = [lump for lump in wad_lumps(wad) if lump[0] == "BLOCKMAP" and lump[2] >= 4]
    if lumps:
        x, y = struct.unpack_from("<hh", wad.read_bytes(), lumps[0][1])
    else:
        x, y = (int(doom.ends[:, axis::2].min()) - MARGIN for axis in (0, 1))
    return Linedefs(doom.ends.astype(np.int16), bottom.astype(np.int16), top.astype(np.int16), single, (x, y))


@cache
def still_ground(wad: Path, name: str) -> Ground:
    """The floors and ceilings of a map in a WAD that `write_still` wrote; UserError when it has none of that name."""
    doom = read_map(wad, name)
    x, y = doom.ends[:, [0, 2]], doom.ends[:, [1, 3]]
    origin = float(np.floor(x.min() / SUB) * SUB), float(np.floor(y.min() / SUB) * SUB)
    xs, ys = np.arange(origin[0] + SUB / 2, x.max(), SUB), np.arange(origin[1] + SUB / 2, y.max(), SUB)
    sector = sector_grid(doom, xs, ys)
    barred = np.zeros(sector.shape, bool)
    for ends in doom.ends[(doom.flags & IMPASSABLE > 0) & (doom.right >= 0) & (doom.left >= 0)]:
        rows, columns, near = near_segment(ends, xs, ys, SUB)
        barred[rows, columns] |= near
    floor, ceil, sky = (np.append(part, 0)[sector] for part in (doom.floor, doom.ceiling, doom.sky))
    barred |= ceil - floor < BODY_HEIGHT
    return Ground(floor.astype(np.int16), ceil.astype(np.int16), sector < 0, sky.astype(bool), barred, origin)
