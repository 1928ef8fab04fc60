"""The grid of 16-unit cells a map of *Halls* is drawn on, and its finishing: wall tops, eaves, sunlight.

A cell is solid (nothing), closed (LIP units high, under the sky: a wall whose top meets the sky) or open.
Sky beside sky draws no upper wall, so a wall stops at its own height; `roof` is the height at which the
front of a roofed cell stops.
Does not know: rooms' kinds, texture pixels, files.
"""

import numpy as np

SUB = 16
SKY = 704
BIG = 9999
LIP = 2


class Canvas:
    """Arrays (ny, nx) over cells of 16 units: floor, ceil, roof, light in units.

    Ftex, ctex, wall, body as letters.
    """

    sub, origin = SUB, (0.0, 0.0)

    def __init__(self, width: int, depth: int) -> None:
        shape = (depth * 4, width * 4)
        self.shape = shape
        self.floor = np.zeros(shape, np.int16)
        self.ceil = np.zeros(shape, np.int16)
        self.roof = np.zeros(shape, np.int16)
        self.light = np.full(shape, 200, np.int16)
        self.solid = np.ones(shape, bool)
        self.sky = np.zeros(shape, bool)
        self.keep = np.zeros(shape, bool)
        self.barred = np.zeros(shape, bool)
        self.lamp = np.zeros(shape, bool)
        self.ftex = np.full(shape, "T", "<U1")
        self.ctex = np.full(shape, "C", "<U1")
        self.wall = np.full(shape, "W", "<U1")
        self.body = np.full(shape, "", "<U1")
        self.top = np.zeros(shape, np.int16)

    @property
    def closed(self) -> np.ndarray:
        return ~self.solid & (self.ceil - self.floor <= LIP)


def spread(mask: np.ndarray, by: int = 1) -> np.ndarray:
    """`mask` grown by `by` cells, diagonals included."""
    out = mask.copy()
    for _ in range(by):
        grown = out.copy()
        grown[1:] |= out[:-1]
        grown[:-1] |= out[1:]
        wide = grown.copy()
        wide[:, 1:] |= grown[:, :-1]
        wide[:, :-1] |= grown[:, 1:]
        out = wide
    return out


def grow_max(values: np.ndarray) -> np.ndarray:
    """The greatest of each cell and its eight neighbours."""
    padded = np.pad(values, 1, mode="edge")
    ny, nx = values.shape
    return np.max([padded[y : y + ny, x : x + nx] for y in range(3) for x in range(3)], axis=0)


def finish_walls(c: Canvas, low: np.ndarray) -> None:
    """Give walls beside the sky a top: `low` walls (between courts) stay open above, others close at
    `c.top`."""
    inside = np.zeros(c.shape, bool)
    inside[4:-4, 4:-4] = True
    low = low & c.solid & inside & (c.top > 0)
    c.floor[low] = c.top[low]
    c.ceil[low] = SKY
    opened = ~c.solid & c.sky
    shut = c.solid & ~low & (spread(opened) | spread(low))
    c.solid[low] = False
    c.sky[low] = True
    c.ftex[low] = "K"
    for _ in range(64):
        missing = shut & (c.top == 0)
        if not missing.any():
            break
        c.top[missing] = grow_max(np.where(c.solid, c.top, 0))[missing]
    c.solid[shut] = False
    c.sky[shut] = True
    c.floor[shut] = c.top[shut]
    c.ceil[shut] = c.top[shut]


def finish_eaves(c: Canvas) -> None:
    """Lower the sky over cells beside a roof to the roof's edge, so that fronts end there."""
    roofed = ~c.solid & ~c.sky
    edge = ~c.solid & c.sky & (c.ceil == SKY) & spread(roofed)
    height = grow_max(np.where(roofed, c.roof, 0))
    c.ceil[edge] = np.maximum(height[edge], c.floor[edge])
    # The renderer leaves holes where a closed cell is not above the floor beside it, or where a line's
    # front has no height.
    opened = ~c.solid & c.sky & ~c.closed
    needed = grow_max(np.where(opened, c.floor, -64)) + SUB
    raised = c.closed & (c.floor < needed)
    c.floor[raised] = needed[raised]
    shut = c.closed & c.sky
    c.ceil[shut | raised] = c.floor[shut | raised] + LIP


def sunlight(c: Canvas, toward: tuple[int, int], slope: float, day: int, dusk: int) -> None:
    """Lighten the open cells the sun reaches, walking `toward` the sun (dy, dx) with `slope` rise per
    unit."""
    dy, dx = toward
    height = np.where(c.solid, BIG, c.floor).astype(float)
    lid = np.where(c.solid, -BIG, np.where(c.sky, BIG, c.ceil)).astype(float)
    lit = ~c.solid
    ny, nx = c.shape
    for i in range(1, 48):
        z = c.floor + i * SUB * slope + 4
        rows = np.clip(np.arange(ny) + dy * i, 0, ny - 1)
        cols = np.clip(np.arange(nx) + dx * i, 0, nx - 1)
        there = height[np.ix_(rows, cols)]
        over = lid[np.ix_(rows, cols)]
        lit &= (z >= np.where(there == BIG, c.top[np.ix_(rows, cols)] + BIG, there)) & (z <= over)
    under = ~c.solid & ~c.sky
    c.light[~c.solid & c.sky] = dusk
    c.light[lit & c.sky] = day
    c.light[lit & under] = np.maximum(c.light[lit & under], day - 8)


def lamplight(c: Canvas) -> None:
    """Circles of light around lamps."""
    ys, xs = np.nonzero(c.lamp)
    if not len(ys):
        return
    y, x = np.mgrid[0 : c.shape[0], 0 : c.shape[1]]
    gain = np.zeros(c.shape, np.int16)
    for ly, lx in zip(ys, xs, strict=True):
        distance = np.hypot(y - ly, x - lx)
        gain = np.maximum(gain, np.where(distance < 5, 48, np.where(distance < 9, 24, 0)))
    c.light = np.minimum(c.light + gain, 255).astype(np.int16)
