"""The endless court: two courts that take turns like the squares of a chessboard, without end as far as one can walk.

What lies behind a gate can be told from what stands before it, so that a small model can know the whole place: what
it has to draw is decided by where one is. Only the middle of the board is walked; the rings around it are there to be
seen over the walls.
Does not know: textures, sectors, how maps are numbered.
"""

import numpy as np

from generator.data.halls.architecture import block, obelisk
from generator.data.halls.canvas import LIP, SKY, SUB, Canvas

COURT = 14  # plan cells from one wall to the next: 13 of court, one of wall
SIDE, RINGS = 7, 2  # courts on a side, and how many of them at each edge are only seen
LEVEL, WALL, TOWER, GATE = 64, 160, 288, 4  # units, units, units, plan cells
PERIOD = 2.0 * COURT * 64  # map units after which all repeats; half of it along both axes does, too
LEVELS = 33  # of 16 map units from below the pools to the tops of the towers, obelisks among them
FAMILIES = (("W", "A"), ("P", "Q"))  # of each court: its walls, its landmark


def draw_endless(rng: np.random.Generator) -> tuple[Canvas, np.ndarray, tuple[int, int]]:
    """The canvas, where one may plan to walk as cells of 32 units bool (gy, gx), and a first such cell (y, x)."""
    side = SIDE * COURT + 1
    c = Canvas(side, side)
    gardens_first = bool(rng.integers(2))
    heights = (int(rng.integers(22, 30)) * SUB, int(rng.integers(14, 20)) * SUB)
    c.solid[:], c.sky[:] = False, True
    c.floor[:], c.ceil[:] = LEVEL + WALL, LEVEL + WALL + LIP  # the outermost wall, until the rest is built in it
    inside = slice(4, side * 4 - 4)
    c.floor[inside, inside], c.ceil[inside, inside] = LEVEL, SKY
    for row in range(SIDE):
        for column in range(SIDE):
            garden = (row + column) % 2 == int(gardens_first)
            (_garden if garden else _fountain)(c, row * COURT * 4 + 4, column * COURT * 4 + 4, heights[garden])
    _walls(c)
    walked = np.zeros((side * 2, side * 2), bool)
    low, high = RINGS * COURT * 2 + 2, (SIDE - RINGS) * COURT * 2
    walked[low:high, low:high] = True
    middle = SIDE // 2 * COURT * 2 + 2
    return c, walked, (middle + 5, middle + COURT)


def _middle(y: int, x: int) -> tuple[int, int]:
    half = (COURT - 1) * 2
    return y + half, x + half


def _paths(c: Canvas, y: int, x: int, family: str) -> None:
    """A court's floor with paths from gate to gate and a square of its own in the middle."""
    cy, cx = _middle(y, x)
    span = (COURT - 1) * 4
    c.wall[y : y + span, x : x + span] = family
    c.ftex[y : y + span, x : x + span] = "T"
    c.ftex[cy - 4 : cy + 4, x : x + span] = "P"
    c.ftex[y : y + span, cx - 4 : cx + 4] = "P"
    c.ftex[cy - 8 : cy + 8, cx - 8 : cx + 8] = "D"


def _fountain(c: Canvas, y: int, x: int, height: int) -> None:
    """A tall tower between four pools, each with columns at its outer corners."""
    walls, landmark = FAMILIES[0]
    _paths(c, y, x, walls)
    cy, cx = _middle(y, x)
    obelisk(c, cy, cx, height, landmark)
    for sy in (-1, 1):
        for sx in (-1, 1):
            rows, cols = (_stretch(middle, sign, 8, 20) for middle, sign in ((cy, sy), (cx, sx)))
            c.floor[rows, cols] = LEVEL - SUB
            c.ftex[rows, cols] = "W"
            for far_y, far_x in ((22, 22), (22, 8), (8, 22)):
                rows, cols = (_stretch(m, s, far - 1, far + 1) for m, s, far in ((cy, sy, far_y), (cx, sx, far_x)))
                block(c, rows, cols, 128, "O")


def _garden(c: Canvas, y: int, x: int, height: int) -> None:
    """A broad monument between four hedges, with a tree in each."""
    walls, landmark = FAMILIES[1]
    _paths(c, y, x, walls)
    cy, cx = _middle(y, x)
    block(c, slice(cy - 4, cy + 4), slice(cx - 4, cx + 4), 48, "P")
    c.floor[cy - 2 : cy + 2, cx - 2 : cx + 2] = LEVEL + height
    c.body[cy - 2 : cy + 2, cx - 2 : cx + 2] = landmark
    for sy in (-1, 1):
        for sx in (-1, 1):
            rows, cols = (_stretch(middle, sign, 10, 20) for middle, sign in ((cy, sy), (cx, sx)))
            block(c, rows, cols, 32, "H", "G")
            rows, cols = (_stretch(middle, sign, 13, 17) for middle, sign in ((cy, sy), (cx, sx)))
            c.floor[rows, cols] = LEVEL + 144


def _stretch(middle: int, sign: int, near: int, far: int) -> slice:
    """Cells from `near` to `far` on one side of the middle."""
    return slice(middle + near, middle + far) if sign > 0 else slice(middle - far, middle - near)


def _walls(c: Canvas) -> None:
    """The walls between courts, with a gate in the middle of each, and towers where walls cross."""
    side = SIDE * COURT
    half = (COURT - 1) * 2
    for number in range(1, SIDE):
        line = slice(number * COURT * 4, number * COURT * 4 + 4)
        gates = np.zeros(c.shape[0], bool)
        for court in range(SIDE):
            middle = court * COURT * 4 + 4 + half
            gates[middle - GATE * 2 : middle + GATE * 2] = True
        along = np.zeros(c.shape[0], bool)
        along[4 : side * 4] = True
        for shut, letter, floor in ((along & ~gates, "K", LEVEL + WALL), (along & gates, "P", LEVEL)):
            places = np.nonzero(shut)[0]
            for rows, cols in ((line, places), (places, line)):
                c.floor[rows, cols] = floor
                c.ftex[rows, cols] = letter
    for row in range(1, SIDE):
        for column in range(1, SIDE):
            y, x = row * COURT * 4, column * COURT * 4
            corner = (slice(y, y + 6), slice(x, x + 6))
            c.floor[corner], c.body[corner], c.ftex[corner] = LEVEL + TOWER, "B", "K"
