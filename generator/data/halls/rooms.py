"""The furnishing of each kind of room in *Halls*.

Does not know: doors' heights beyond what the canvas keeps clear, texture pixels, files.
"""

from itertools import pairwise

import numpy as np

from generator.data.halls.architecture import LANDMARKS, block, box, dais, obelisk, pool
from generator.data.halls.canvas import SKY, Canvas
from generator.data.halls.layout import Plan, Room


def furnish(c: Canvas, plan: Plan, rng: np.random.Generator, lamps: bool) -> None:
    """Furnish every room by its kind."""
    landmark = int(rng.integers(len(LANDMARKS)))
    for room in plan.rooms:
        family = LANDMARKS[landmark % len(LANDMARKS)]
        if room.kind in ("obelisk", "plaza", "pool"):
            landmark += 1
        BUILD[room.kind](c, room, rng, family)
        if room.open:
            _corner_towers(c, room, rng, family)
            if lamps:
                _lamps(c, room)
        else:
            _windows(c, room, plan)


def _grid(room: Room, spacing: int, margin: int) -> list[tuple[int, int]]:
    """Cell corners spaced evenly in a room (in cells), symmetric about its middle."""

    def places(low: int, high: int) -> list[int]:
        count = max(1, (high - low - 2 * margin) // spacing + 1)
        start = (low + high) // 2 - (count - 1) * spacing // 2
        return [(start + i * spacing) // 2 * 2 for i in range(count)]

    return [(y, x) for y in places(room.y0 * 4, room.y1 * 4) for x in places(room.x0 * 4, room.x1 * 4)]


def _obelisk(c: Canvas, room: Room, rng: np.random.Generator, family: str) -> None:
    half = 10 if min(room.width, room.depth) >= 9 else 6
    dais(c, room, half, 2, "P")
    cy, cx = (room.y0 + room.y1) * 2, (room.x0 + room.x1) * 2
    obelisk(c, cy, cx, int(rng.integers(22, 36)) * 16, family)


def _pool(c: Canvas, room: Room, rng: np.random.Generator, family: str) -> None:
    pool(c, room, 8)
    for y, x in _grid(room, 24, 18)[::3]:
        if c.ftex[y, x] == "W":
            obelisk(c, y, x, int(rng.integers(10, 16)) * 16, family)


def _garden(c: Canvas, room: Room, rng: np.random.Generator, family: str) -> None:
    for y, x in _grid(room, 20, 12):
        if c.ftex[y, x] == "P":
            continue
        if rng.random() < 0.55:
            block(c, slice(y - 4, y + 4), slice(x - 4, x + 4), 32, "H", "G")
            if c.body[y, x] == "H" and rng.random() < 0.7:
                c.floor[y - 2 : y + 2, x - 2 : x + 2] += int(rng.integers(5, 10)) * 16
        else:
            block(c, slice(y - 1, y + 1), slice(x - 1, x + 1), 160, "O")


def _plaza(c: Canvas, room: Room, rng: np.random.Generator, family: str) -> None:
    cy, cx = (room.y0 + room.y1) * 2, (room.x0 + room.x1) * 2
    radius = min(room.width, room.depth) * 4 // 2 - 8
    c.ftex[cy - 8 : cy + 8, cx - 8 : cx + 8] = "D"
    height = int(rng.integers(11, 16)) * 16
    for i in range(12):
        angle = (i + 0.5) / 12 * 2 * np.pi
        y, x = (round(float(m + radius * f(angle) / 2)) * 2 for m, f in ((cy / 2, np.sin), (cx / 2, np.cos)))
        block(c, slice(y - 1, y + 1), slice(x - 1, x + 1), height, family if i % 3 == 0 else "O")


def _cloister(c: Canvas, room: Room, rng: np.random.Generator, family: str) -> None:
    """A roofed walk 160 units wide around a court, with an arcade of round arches."""
    b = box(room)
    inner = (slice(b[0].start + 10, b[0].stop - 10), slice(b[1].start + 10, b[1].stop - 10))
    ring = np.zeros(c.shape, bool)
    ring[b] = True
    ring[inner] = False
    top = int(c.floor[b].max()) + 192
    c.sky[ring] = False
    c.ceil[ring] = top
    c.roof[ring] = top + 32
    c.light[ring] = 184
    c.ftex[ring & (c.ftex == "T")] = "S"
    c.ctex[ring] = "K"
    edge = ring.copy()
    edge[b[0].start : b[0].stop, b[1].start : b[1].stop] = True
    edge[b[0].start : b[0].start + 8] = edge[b[0].stop - 8 : b[0].stop] = False
    edge[:, b[1].start : b[1].start + 8] = edge[:, b[1].stop - 8 : b[1].stop] = False
    edge[inner] = False
    for axis in (0, 1):
        low, high = b[axis].start + 8, b[axis].stop - 8
        bays = max(1, round((high - low - 2) / 10))
        posts = [low + round(i * (high - low - 2) / bays / 2) * 2 for i in range(bays + 1)]
        for first, second in pairwise(posts):
            span = second - first - 2
            for i in range(span):
                rise = 96 + 64 * np.sqrt(1 - ((i + 0.5) / span * 2 - 1) ** 2)
                for side in (b[1 - axis].start + 8, b[1 - axis].stop - 10):
                    line = (first + 2 + i, slice(side, side + 2))
                    line = line if axis == 0 else (line[1], line[0])
                    c.ceil[line] = room.level + round(rise / 4) * 4
                    c.wall[line] = "K"
        for post in posts:
            for side in (b[1 - axis].start + 8, b[1 - axis].stop - 10):
                rows, cols = slice(post, post + 2), slice(side, side + 2)
                rows, cols = (rows, cols) if axis == 0 else (cols, rows)
                if not c.keep[rows, cols].any():
                    c.solid[rows, cols] = True
                    c.body[rows, cols] = "O"
                    c.top[rows, cols] = top + 32
    if rng.random() < 0.5:
        pool(c, room, 16, bridges=False)
    else:
        obelisk(c, (room.y0 + room.y1) * 2, (room.x0 + room.x1) * 2, 320, family)


def _nave(c: Canvas, room: Room, rng: np.random.Generator, family: str) -> None:
    """Two rows of columns along the longer axis and a higher ceiling between them."""
    b = box(room)
    along = 1 if room.width >= room.depth else 0
    side = b[1 - along]
    third = max(4, (side.stop - side.start) // 4 // 2 * 2)
    middle = slice(side.start + third, side.stop - third)
    nave = (middle, b[1]) if along == 1 else (b[0], middle)
    c.ceil[nave] += 48
    c.roof[b] += 48
    c.top[box(room, 4)] = np.maximum(c.top[box(room, 4)], int(c.ceil[nave].max()) + 32)
    room.height += 48
    c.ctex[b] = "K"
    c.ctex[nave] = "C"
    start, stop = b[along].start + 6, b[along].stop - 6
    for place in range(start, stop - 1, 10):
        for line in (middle.start - 2, middle.stop):
            rows, cols = slice(line, line + 2), slice(place // 2 * 2, place // 2 * 2 + 2)
            rows, cols = (rows, cols) if along == 1 else (cols, rows)
            block(c, rows, cols, 0, "O")


def _oculus(c: Canvas, room: Room, rng: np.random.Generator, family: str) -> None:
    """An opening to the sky over a dais or a pool, with stepped rings of ceiling around it."""
    cy, cx = (room.y0 + room.y1) * 2, (room.x0 + room.x1) * 2
    half = max(4, min(room.width, room.depth) * 4 // 4 // 2 * 2)
    top = int(c.ceil[cy, cx])
    for ring, rise in ((half + 4, 16), (half + 2, 32)):
        c.ceil[cy - ring : cy + ring, cx - ring : cx + ring] = top + rise
        c.ctex[cy - ring : cy + ring, cx - ring : cx + ring] = "K"
    hole = (slice(cy - half, cy + half), slice(cx - half, cx + half))
    c.sky[hole] = True
    c.ceil[hole] = top + 64
    if rng.random() < 0.5:
        pool(c, room, min(room.width, room.depth) * 2 - half, bridges=False)
    else:
        dais(c, room, max(4, half - 4), 2)


def _gallery(c: Canvas, room: Room, rng: np.random.Generator, family: str) -> None:
    """Transverse ribs every 256 units along a long room."""
    b = box(room)
    along = 1 if room.width >= room.depth else 0
    side = b[1 - along]
    span = side.stop - side.start
    rise = 1 - ((np.arange(span) + 0.5) / span * 2 - 1) ** 2
    for place in range(b[along].start + 8, b[along].stop - 8, 16):
        rows = slice(place, place + 2)
        drop = np.round((16 + 48 * (1 - np.sqrt(rise))) / 4).astype(int) * 4
        if along == 1:
            c.ceil[b[0], rows] -= drop[:, None].astype(np.int16)
            c.ctex[b[0], rows] = "K"
        else:
            c.ceil[rows, b[1]] -= drop[None, :].astype(np.int16)
            c.ctex[rows, b[1]] = "K"


def _vault(c: Canvas, room: Room, rng: np.random.Generator, family: str) -> None:
    """A barrel vault: the ceiling rises in strips toward the middle of the shorter axis."""
    b = box(room)
    along = 1 if room.width >= room.depth else 0
    span = b[1 - along].stop - b[1 - along].start
    across = ((np.arange(span) // 2) * 2 + 1) / span * 2 - 1
    rise = (np.round(96 * np.sqrt(np.clip(1 - across**2, 0, 1)) / 8) * 8).astype(np.int16)
    c.ceil[b] += rise[:, None] if along == 1 else rise[None, :]
    c.roof[b] += 96
    room.height += 96
    c.top[box(room, 4)] = np.maximum(c.top[box(room, 4)], room.level + room.height + 16)
    c.ctex[b] = "K"


def _corner_towers(c: Canvas, room: Room, rng: np.random.Generator, family: str) -> None:
    if min(room.width, room.depth) < 8 or room.kind == "cloister" or rng.random() < 0.5:
        return
    b = box(room)
    height = int(rng.integers(14, 26)) * 16
    for rows in (slice(b[0].start + 2, b[0].start + 6), slice(b[0].stop - 6, b[0].stop - 2)):
        for cols in (slice(b[1].start + 2, b[1].start + 6), slice(b[1].stop - 6, b[1].stop - 2)):
            block(c, rows, cols, height, "P")


def _lamps(c: Canvas, room: Room) -> None:
    for y, x in _grid(room, 28, 6):
        rows, cols = slice(y - 1, y + 1), slice(x - 1, x + 1)
        free = c.body[y - 3 : y + 3, x - 3 : x + 3] == ""
        if free.all() and c.sky[rows, cols].all() and c.ceil[y, x] == SKY and block(c, rows, cols, 48, "L", "L"):
            c.lamp[y, x] = True


def _windows(c: Canvas, room: Room, plan: Plan) -> None:
    """Arched windows to the sky in walls on the outside of the map."""
    b = box(room)
    sill = room.level + 64
    for axis, low, outside in (
        (0, True, room.y0 == 1),
        (0, False, room.y1 == plan.depth - 1),
        (1, True, room.x0 == 1),
        (1, False, room.x1 == plan.width - 1),
    ):
        if not outside:
            continue
        along = b[1 - axis]
        edge = b[axis].start if low else b[axis].stop
        inner = slice(edge - 2, edge) if low else slice(edge, edge + 2)
        outer = slice(edge - 3, edge - 2) if low else slice(edge + 2, edge + 3)
        for start in range(along.start + 4, along.stop - 9, 14):
            for i in range(6):
                head = sill + 72 + round(40 * np.sqrt(1 - ((i + 0.5) / 3 - 1) ** 2) / 4) * 4
                for strip, ceiling in ((inner, head), (outer, sill)):
                    cell = (strip, slice(start + i, start + i + 1))
                    cell = cell if axis == 0 else (cell[1], cell[0])
                    c.solid[cell] = False
                    c.sky[cell] = True
                    c.floor[cell] = sill
                    c.ceil[cell] = ceiling
                    c.ftex[cell] = "K"
                    c.wall[cell] = "K"


BUILD = {
    "obelisk": _obelisk,
    "pool": _pool,
    "garden": _garden,
    "plaza": _plaza,
    "cloister": _cloister,
    "nave": _nave,
    "oculus": _oculus,
    "gallery": _gallery,
    "vault": _vault,
}
