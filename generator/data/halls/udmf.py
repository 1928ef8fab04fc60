"""A finished Canvas written as a UDMF map: cells merged into sectors, their borders merged into lines,
packed as a WAD.

Does not know: how the canvas was drawn, texture pixels.
"""

import struct

import numpy as np

from generator.data.halls.canvas import LIP, SUB, Canvas
from generator.data.halls.textures import UNIT, flat_name, wall_name

Sector = tuple[int, int, bool, int, str, str, str, str]


def sectors(c: Canvas) -> tuple[np.ndarray, list[Sector]]:
    """A sector number for every cell, -1 where solid, int32 (ny, nx), and the sectors' properties."""
    numbers: dict[Sector, int] = {}
    grid = np.full(c.shape, -1, np.int32)
    for y, x in zip(*np.nonzero(~c.solid), strict=True):
        key = (
            int(c.floor[y, x]),
            int(c.ceil[y, x]),
            bool(c.sky[y, x]),
            int(c.light[y, x]) // 8 * 8,
            str(c.ftex[y, x]),
            str(c.ctex[y, x]),
            str(c.wall[y, x]),
            str(c.body[y, x]),
        )
        grid[y, x] = numbers.setdefault(key, len(numbers))
    return grid, list(numbers)


class MapWriter:
    """Collects the lines of one map and the names of the textures they use."""

    def __init__(self, c: Canvas, theme: int) -> None:
        self.theme = theme
        self.grid, self.sectors = sectors(c)
        self.bodies = c.body
        self.names: set[str] = set()
        self.vertices: dict[tuple[int, int], int] = {}
        self.lines: list[str] = []
        self.sides: list[str] = []

    def write(self, start: tuple[int, int], angle: int) -> str:
        """The TEXTMAP of the map with the player's start at `start` (units), looking at `angle` degrees."""
        self._edges(False)
        self._edges(True)
        out = ['namespace = "zdoom";\n']
        out.append(
            f"thing {{ x={start[0]}; y={start[1]}; angle={angle}; type=1; skill1=true; skill2=true; skill3=true; "
            "skill4=true; skill5=true; single=true; coop=true; dm=true; }\n"
        )
        out += [f"vertex {{ x={x}; y={y}; }}\n" for x, y in self.vertices]
        out += self.lines + self.sides
        for floor, ceil, sky, light, ftex, ctex, _, _ in self.sectors:
            below = flat_name(self.theme, ftex)
            above = "F_SKY1" if sky else flat_name(self.theme, ctex)
            self.names.add(below)
            if not sky:
                self.names.add(above)
            out.append(
                f'sector {{ heightfloor={floor}; heightceiling={ceil}; texturefloor="{below}"; '
                f'textureceiling="{above}"; lightlevel={light}; }}\n'
            )
        return "".join(out)

    def _edges(self, vertical: bool) -> None:
        grid = self.grid.T if vertical else self.grid
        bodies = self.bodies.T if vertical else self.bodies
        ny, nx = grid.shape
        padded = np.pad(grid, ((1, 1), (0, 0)), constant_values=-1)
        solid = np.pad(bodies, ((1, 1), (0, 0)), constant_values="")
        for y in range(ny + 1):
            low, high = padded[y], padded[y + 1]
            start = 0
            changed = (low[1:] != low[:-1]) | (high[1:] != high[:-1])
            changed |= (solid[y][1:] != solid[y][:-1]) | (solid[y + 1][1:] != solid[y + 1][:-1])
            for x in [*(np.nonzero(changed)[0] + 1), nx]:
                a, b = int(low[start]), int(high[start])
                if a != b:
                    self._line(y, start, int(x), a, b, str(solid[y][start]), str(solid[y + 1][start]), vertical)
                start = int(x)

    def _line(
        self, y: int, x0: int, x1: int, low: int, high: int, low_body: str, high_body: str, vertical: bool
    ) -> None:
        ends = [(x0 * SUB, y * SUB), (x1 * SUB, y * SUB)]
        if vertical:
            ends = [(b, a) for a, b in ends]
            low, high, low_body, high_body = high, low, high_body, low_body
        front, back, back_body = low, high, high_body
        if front < 0:
            front, back, back_body = high, low, low_body
            ends.reverse()
        position = [e[1] if vertical else e[0] for e in ends]
        forward = position[1] > position[0]
        offset = position[0] if forward else -position[0]
        v1, v2 = (self.vertices.setdefault(e, len(self.vertices)) for e in ends)
        line = f"linedef {{ v1={v1}; v2={v2}; sidefront={len(self.sides)}; "
        if back < 0:
            self.sides.append(self._wall_side(front, back_body, offset))
            self.lines.append(line + "blocking=true; }\n")
            return
        side_a, hang_a = self._open_side(front, back, offset)
        self.sides.append(side_a)
        side_b, hang_b = self._open_side(back, front, -position[1] if forward else position[1])
        self.sides.append(side_b)
        flags = "dontpegbottom=true; " if hang_a or hang_b else ""
        self.lines.append(f"{line}sideback={len(self.sides) - 1}; twosided=true; dontpegtop=true; {flags}}}\n")

    def _name(self, family: str, height: int) -> str:
        name = wall_name(self.theme, family, -(-height // UNIT) * UNIT)
        self.names.add(name)
        return name

    def _wall_side(self, front: int, body: str, offset: int) -> str:
        """The side of a solid wall: its texture hangs from the ceiling, moved up until its base is at the floor."""
        floor, ceil, _, _, _, _, wall, _ = self.sectors[front]
        name = self._name("K" if ceil - floor <= LIP else body or wall, ceil - floor)
        up = -(ceil - floor) % UNIT
        return f'sidedef {{ sector={front}; texturemiddle="{name}"; offsetx={offset % 128}; offsety={up}; }}\n'

    def _open_side(self, front: int, back: int, offset: int) -> tuple[str, bool]:
        """The side of a two-sided line seen from `front`.

        Says whether its lower part hangs from the ceiling.
        """
        floor, ceil, sky, _, _, _, wall, _ = self.sectors[front]
        other_floor, other_ceil, other_sky, _, _, _, _, body = self.sectors[back]
        parts = [f"sector={front}; offsetx={offset % 128};"]
        hangs = False
        if ceil > floor:
            if other_floor > floor:
                hangs = not sky and other_floor >= ceil
                height = ceil - floor if hangs else other_floor - floor
                family = body or ("S" if height <= 32 else wall)
                parts.append(f'texturebottom="{self._name(family, height)}";')
            if other_ceil < ceil and not (sky and other_sky):
                parts.append(f'texturetop="{self._name(wall, ceil - floor)}";')
        return f"sidedef {{ {' '.join(parts)} }}\n", hangs


def pack_wad(lumps: list[tuple[str, bytes]]) -> bytes:
    """A PWAD of the given lumps."""
    body, directory, at = b"", b"", 12
    for name, data in lumps:
        directory += struct.pack("<ii8s", at, len(data), name.encode())
        body += data
        at += len(data)
    return struct.pack("<4sii", b"PWAD", len(lumps), at) + body + directory
